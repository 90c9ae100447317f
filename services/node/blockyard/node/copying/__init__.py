"""Copy sessions: the mechanism under the jobs. They copy between nodes on orders, and change the graph at the end.

Above `graph`, below `rpc`. Policy (when, how fast, what on errors) is the jobs service's; nothing here decides it.
"""
