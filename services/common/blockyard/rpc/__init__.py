"""What every service needs to speak gRPC: server, interceptors, status mapping, addresses, telemetry."""
