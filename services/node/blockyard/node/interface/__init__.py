"""What a driver is: the bases it derives from, the child it sees, the answers it gives.

Nothing here knows a concrete driver, the graph, gRPC or a file.
"""
