"""The live graph of nodes and the one path of every request."""
