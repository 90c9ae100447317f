"""The port through which the request path says what it does, when someone looks.

`active` holds a span starter only while a sampled request runs; otherwise it is None and nothing is allocated.
The OpenTelemetry side lives in `blockyard.rpc.telemetry`.
"""

from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Protocol


class SpanStarter(Protocol):
    """Starts a child span of the present one. Its `trace_id`, 32 hex digits, says of which trace, if it knows."""

    def __call__(self, name: str, attributes: dict[str, str | int]) -> AbstractContextManager[object]: ...


active: ContextVar[SpanStarter | None] = ContextVar("blockyard_span_starter", default=None)
