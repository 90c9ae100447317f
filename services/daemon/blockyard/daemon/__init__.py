"""The embedded default: node, jobs and stats in one process on one address.

Nothing here does a service's work: it starts the three as they are started apart, over private sockets, and offers
all their services together.
"""
