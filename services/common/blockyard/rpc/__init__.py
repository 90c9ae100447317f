"""What every service and client shares to speak gRPC: addresses, errors on the wire, servers, channels, telemetry.

Must not know a service of ours or its messages: names travel as strings, `_pb2` modules are not imported here
(those of gRPC's own services are). Read `server` first; `interceptors` is the order in which a call is taken.
"""
