"""How much of a long stream a trace shows: its first pieces.

A span for every chunk of a terabyte helps nobody, and a session that was sampled once would pay for it as long as
it lives (a span costs 20 to 30 us, a 4 KiB read 5).
"""

from typing import Final

from blockyard.node.interface import tracing

TRACED_PIECES: Final = 64
"""Chunks of a stream, or requests of a session, that make spans if the call is sampled."""


def spare_after(pieces: int) -> None:
    """Let the rest of the call run without spans once `pieces` have been served. For the call's own task."""
    if pieces >= TRACED_PIECES and tracing.active.get() is not None:
        tracing.active.set(None)
