"""The jobs service's view of the node: a port of plain values, and its gRPC adapter."""
