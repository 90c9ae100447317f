"""The stats service: accounts for every request of every node.

`collect` listens to node services, `model` keeps what they say, `rpc` answers questions, `export` feeds
OpenTelemetry and Prometheus. Read `model` first.
"""
