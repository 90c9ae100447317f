"""All three services in one process, over the same sockets as three containers."""
