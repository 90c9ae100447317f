"""W3C trace context: read, written, and remembered for the call that runs.

Works without OpenTelemetry, so that a trace that a client began reaches every service and every log line even
where nothing is exported. Must not start spans (`telemetry`).
"""

import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
MAX_TRACESTATE: Final = 512
"""Bytes that are passed on; the recommendation's own figure (W3C Trace Context, 3.3.1.5)."""

_HEX: Final = frozenset("0123456789abcdef")


class TraceContext(NamedTuple):
    """Where in which trace we are."""

    trace_id: str
    """32 lower-case hex digits."""
    span_id: str
    """16 lower-case hex digits."""
    sampled: bool
    state: str = ""
    """What vendors added, passed on untouched."""

    def header(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


running: ContextVar[TraceContext | None] = ContextVar("blockyard_trace_context", default=None)
"""The context that the running call came with, or was given. Each call has its own task, so it is never reset."""


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """None for anything malformed, as the recommendation asks: a bad header starts a new trace."""
    parts = traceparent.split("-")
    if len(parts) < 4 or (parts[0] == "00" and len(parts) != 4) or parts[0] == "ff":
        return None
    version, trace_id, span_id, flags = parts[:4]
    if [len(part) for part in parts[:4]] != [2, 32, 16, 2] or not _HEX.issuperset(version + trace_id + span_id):
        return None
    if not _HEX.issuperset(flags) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    state = tracestate if len(tracestate) <= MAX_TRACESTATE else ""
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1), state)


def from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> TraceContext | None:
    """The context that came with a call."""
    traceparent, tracestate = "", ""
    for key, value in metadata or ():
        if key == TRACEPARENT and isinstance(value, str):
            traceparent = value
        elif key == TRACESTATE and isinstance(value, str):
            tracestate = value
    return parse(traceparent, tracestate) if traceparent else None


def to_metadata(context: TraceContext) -> tuple[tuple[str, str], ...]:
    """The context as it goes with a call."""
    parent = (TRACEPARENT, context.header())
    return (parent, (TRACESTATE, context.state)) if context.state else (parent,)


def new_trace_id() -> str:
    return secrets.token_hex(16)
