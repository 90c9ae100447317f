"""Copying by orders: how much is in flight, how fast, how far, and over which stream."""
