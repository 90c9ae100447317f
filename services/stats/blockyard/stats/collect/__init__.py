"""Listening to node services: one subscription each, taken up again whenever it ends.

`remote` is the only place that knows the wire's messages; `source` owns the reconnecting.
"""
