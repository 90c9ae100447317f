"""The node's gRPC face: translates and delegates, about fifteen lines a method."""
