"""Ways in for guests: the NBD server. Knows the graph only through its users' edges."""
