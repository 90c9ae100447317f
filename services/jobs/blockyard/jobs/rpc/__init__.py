"""The jobs service on the wire. Besides node/remote.py the only place that names a `_pb2` module."""
