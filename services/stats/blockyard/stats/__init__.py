"""The stats service: accounts for every request of every node."""
