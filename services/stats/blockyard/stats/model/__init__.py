"""Accounts, windows, rates and percentiles: pure, so that every figure can be checked on paper.

Must not know gRPC, time (it is told), or where figures go.
"""
