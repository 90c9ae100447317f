"""Bounds that both sides of a connection must agree on."""

from typing import Final

from blockyard.base.units import MIB

MAX_MESSAGE: Final = 16 * MIB
"""Bytes of one message, both ways; chunks are at most 1 MiB, the rest is for long listings."""
