"""Spans and measures, paid for only by those who look.

Theory. Without an OTEL_* variable that asks for it no part of OpenTelemetry is imported: a call then only passes
its trace context on. With one, `otel` builds a tracer for this service alone (no global provider, so that several
services in one process keep their names), and only calls that are sampled make spans.

How a request path below the services gets its spans: it owns a `ContextVar` that holds a span starter while a
sampled call runs and None otherwise. The service's rpc layer hands that variable over once:

    telemetry.bind_request_path(tracing.active)

and the server's interceptors set it in the call's own task. Nothing here imports the service.

Rules.
1. A context token never lives across a `yield`: spans are current inside one coroutine, or in a task of their own.
2. Failing exporters never fail calls; what they drop is theirs to count.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Final, Protocol

from blockyard.base.errors import Code
from blockyard.rpc import trace_context
from blockyard.rpc.measures import CallAccounts, HistogramRow, NumberRow
from blockyard.rpc.trace_context import TraceContext

Numbers = Callable[[], Iterable[NumberRow]]
Histograms = Callable[[], Iterable[HistogramRow]]
Attributes = Mapping[str, str | int | float | bool]
SpanStarter = Callable[[str, dict[str, str | int]], AbstractContextManager[object]]
"""Starts a child of the present span."""

ASKING: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
    "OTEL_METRICS_EXPORTER",
)
"""Variables of the OpenTelemetry specification that ask for an export when they are set to anything but `none`."""


class CallSpan(Protocol):
    """The span of one call, served or made."""

    def end(self, code: str, error: str = "") -> None: ...


class Tracing(Protocol):
    """What `otel` gives when telemetry is on."""

    def server_call(self, method: str, parent: TraceContext | None) -> tuple[CallSpan, TraceContext, bool]:
        """Begin a span, make it the task's own; its context; whether it records."""
        ...

    def client_call(self, method: str) -> tuple[CallSpan, TraceContext]: ...

    def span(
        self, name: str, attributes: Attributes, links: Iterable[TraceContext], root: bool, start_ns: int | None
    ) -> AbstractContextManager[object]: ...

    def current(self) -> TraceContext | None: ...

    def observe(self, name: str, unit: str, description: str, grows: bool, rows: Numbers) -> None: ...

    def observe_histogram(self, name: str, description: str, rows: Histograms) -> None: ...

    def stop(self) -> None: ...


class BoundStarter:
    """Starts spans in the trace of one call, whose id can be told."""

    __slots__ = ("_telemetry", "trace_id")

    def __init__(self, telemetry: "Telemetry", trace_id: str) -> None:
        self._telemetry = telemetry
        self.trace_id = trace_id

    def __call__(self, name: str, attributes: dict[str, str | int]) -> AbstractContextManager[object]:
        return self._telemetry.span(name, attributes)


class Telemetry:
    """The telemetry of one service. `Telemetry.start` decides by the environment what it costs."""

    def __init__(self, service_name: str, instance_id: str = "", tracing: Tracing | None = None) -> None:
        self.service_name = service_name
        self.instance_id = instance_id or uuid.uuid4().hex
        self.served = CallAccounts()
        self.made = CallAccounts()
        self.tracing = tracing
        self.request_paths: list[ContextVar[Any]] = []

    @classmethod
    def start(
        cls, service_name: str, instance_id: str = "", environment: Mapping[str, str] = os.environ
    ) -> "Telemetry":
        """Telemetry as OTEL_* variables ask for it; without them only counts and trace ids."""
        telemetry = cls(service_name, instance_id)
        if asked(environment):
            from blockyard.rpc.otel import start

            telemetry.tracing = start(telemetry, environment)
        return telemetry

    @property
    def enabled(self) -> bool:
        return self.tracing is not None

    def stop(self) -> None:
        """Send what is left. Blocks up to a few seconds: call it from a thread, or at the very end."""
        if self.tracing:
            self.tracing.stop()

    def bind_request_path(self, variable: ContextVar[Any]) -> None:
        """Set `variable` to a span starter in the task of every sampled call. See the module docstring."""
        self.request_paths.append(variable)

    def span_starter(self, trace_id: str = "") -> SpanStarter:
        """For code below the services that starts child spans of one trace without knowing telemetry."""
        return BoundStarter(self, trace_id)

    def span(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        links: Iterable[TraceContext] = (),
        root: bool = False,
        start_ns: int | None = None,
    ) -> AbstractContextManager[object]:
        """A span around a piece of work, current inside it. Use it in a coroutine, never around a `yield`.

        `root` begins a trace of its own, linked to `links`: so does each segment of a long job. `start_ns` (since
        the Unix epoch) backdates it, for summaries.
        """
        if self.tracing is None:
            return nullcontext()
        return self.tracing.span(name, attributes or {}, links, root, start_ns)

    def current(self) -> TraceContext | None:
        """Where we are in which trace: stored with a job, so that its own traces can link back."""
        return (self.tracing.current() if self.tracing else None) or trace_context.running.get()

    def observe(self, name: str, unit: str, description: str, *, grows: bool, rows: Numbers) -> None:
        """Export figures that are kept elsewhere: a counter if it `grows`, else a gauge.

        `rows` is called from the exporter's thread: it must only read what nobody changes.
        """
        if self.tracing:
            self.tracing.observe(name, unit, description, grows, rows)

    def observe_histogram(self, name: str, description: str, rows: Histograms) -> None:
        """Export histograms of durations that are kept elsewhere; `rows` as in `observe`."""
        if self.tracing:
            self.tracing.observe_histogram(name, description, rows)


def asked(environment: Mapping[str, str]) -> bool:
    """Whether OTEL_* variables ask for telemetry at all."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    values = (environment.get(name, "").strip().lower() for name in ASKING)
    return any(value not in ("", "none") for value in values)


SERVER_FAILURES: Final = frozenset(
    {"UNKNOWN", Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
"""Codes that make a server's span a failed one (RPC conventions, "Status"); for a client all but OK do."""


@contextmanager
def trace_of(context: TraceContext | None) -> Iterator[None]:
    """Run a piece of work inside a trace that was stored or made elsewhere. Never around a `yield`."""
    token = trace_context.running.set(context)
    try:
        yield
    finally:
        trace_context.running.reset(token)
