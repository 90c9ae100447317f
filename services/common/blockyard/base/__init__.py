"""Words that every service shares: errors, units, ranges, time.

Nothing here may import grpc, protobuf, asyncio transports or another package of ours.
"""
