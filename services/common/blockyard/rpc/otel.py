"""OpenTelemetry's SDK, set up for one service. Imported only when the environment asks for it (`telemetry`).

Traces: a tracer provider of the service's own, never the global one. Sampling as OTEL_TRACES_SAMPLER says; without
it a caller's decision is followed, and traces that begin here are kept as `DataSparingSampler` says. Exporters:
`otlp` (grpc or http/protobuf, by OTEL_EXPORTER_OTLP_PROTOCOL), `console`, and `file`, which appends one JSON object
per span to BLOCKYARD_TRACE_FILE so that traces can be read without a collector.

Metrics: see `otel_metrics`.
"""

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from blockyard.base.errors import BlockError, InvalidArgument
from blockyard.rpc import conventions, trace_context
from blockyard.rpc.telemetry import SERVER_FAILURES, Attributes, Histograms, Numbers
from blockyard.rpc.trace_context import TraceContext

if TYPE_CHECKING:
    from blockyard.rpc.otel_metrics import SdkMetrics
    from blockyard.rpc.telemetry import Telemetry

ROOT_DATA_RATIO: Final = 0.01
"""Of data calls that begin a trace; a span costs 20 to 31 us, such a call 100."""
MAX_LINKS: Final = 128
"""Links of one span (the SDK's own default limit)."""
STOP_MILLISECONDS: Final = 3000
"""How long a stop waits for what is left to be sent."""

_log = logging.getLogger(__name__)


class DataSparingSampler(Sampler):
    """Keeps every trace that begins here, but few of calls that move data, and none of watches.

    A watch lives as long as its client: its span would come when nobody asks any more.
    """

    def __init__(self) -> None:
        self._sparing = TraceIdRatioBased(ROOT_DATA_RATIO)

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, *args: Any, **more: Any
    ) -> SamplingResult:
        service, _, method = name.rpartition("/")
        watches = service and method.startswith("Watch")
        chosen = ALWAYS_OFF if watches else self._sparing if service.endswith("DataService") else ALWAYS_ON
        return chosen.should_sample(parent_context, trace_id, name, *args, **more)

    def get_description(self) -> str:
        return f"DataSparingSampler{{{ROOT_DATA_RATIO}}}"


def start(telemetry: "Telemetry", environment: Mapping[str, str]) -> "SdkTracing":
    """Build what the environment asks for. An exporter that cannot be made is logged and left out."""
    resource = Resource.create(
        {
            "service.name": telemetry.service_name,
            "service.namespace": "blockyard",
            "service.instance.id": telemetry.instance_id,
        }
    )
    processors = [BatchSpanProcessor(exporter) for exporter in _span_exporters(environment)]
    tracing = SdkTracing(resource, processors, environment)
    from blockyard.rpc import otel_metrics

    tracing.metrics = otel_metrics.start(telemetry, resource, environment)
    return tracing


class SdkTracing:
    """`telemetry.Tracing` over the SDK."""

    def __init__(
        self, resource: Resource, processors: Iterable[SpanProcessor], environment: Mapping[str, str]
    ) -> None:
        sampler = None if environment.get("OTEL_TRACES_SAMPLER") else ParentBased(DataSparingSampler())
        self._provider = TracerProvider(resource=resource, sampler=sampler, shutdown_on_exit=False)
        for processor in processors:
            self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(conventions.SCOPE, schema_url=conventions.SCHEMA_URL)
        self.metrics: SdkMetrics | None = None

    def server_call(self, method: str, parent: TraceContext | None) -> tuple["SdkCall", TraceContext, bool]:
        span = self._tracer.start_span(
            method,
            context=_remote(parent),
            kind=SpanKind.SERVER,
            attributes={conventions.SYSTEM: "grpc", conventions.METHOD: method},
        )
        # The task belongs to this call alone, so the token is dropped: nothing to restore, nothing to leak.
        otel_context.attach(trace.set_span_in_context(span))
        return SdkCall(span, served=True), _context_of(span.get_span_context()), span.is_recording()

    def client_call(self, method: str) -> tuple["SdkCall", TraceContext]:
        span = self._tracer.start_span(
            method,
            context=_present(),
            kind=SpanKind.CLIENT,
            attributes={conventions.SYSTEM: "grpc", conventions.METHOD: method},
        )
        return SdkCall(span, served=False), _context_of(span.get_span_context())

    @contextmanager
    def span(
        self, name: str, attributes: Attributes, links: Iterable[TraceContext], root: bool, start_ns: int | None
    ) -> Iterator[object]:
        span = self._tracer.start_span(
            name,
            context=otel_context.Context() if root else _present(),
            attributes=dict(attributes),
            links=[Link(_span_context(link)) for link in tuple(links)[:MAX_LINKS]],
            start_time=start_ns,
        )
        token = otel_context.attach(trace.set_span_in_context(span))
        remembered = trace_context.running.set(_context_of(span.get_span_context()))
        try:
            yield span
        except BaseException as error:
            _fail(span, error.reason if isinstance(error, BlockError) else type(error).__name__, str(error))
            raise
        finally:
            trace_context.running.reset(remembered)
            otel_context.detach(token)
            span.end()

    def current(self) -> TraceContext | None:
        context = trace.get_current_span().get_span_context()
        return _context_of(context) if context.is_valid else None

    def observe(self, name: str, unit: str, description: str, grows: bool, rows: Numbers) -> None:
        if self.metrics:
            self.metrics.observe(name, unit, description, grows, rows)

    def observe_histogram(self, name: str, description: str, rows: Histograms) -> None:
        if self.metrics:
            self.metrics.observe_histogram(name, description, rows)

    def stop(self) -> None:
        self._provider.force_flush(STOP_MILLISECONDS)
        self._provider.shutdown()
        if self.metrics:
            self.metrics.stop()


class SdkCall:
    """`telemetry.CallSpan` over the SDK."""

    __slots__ = ("_served", "_span")

    def __init__(self, span: Span, served: bool) -> None:
        self._span = span
        self._served = served

    def end(self, code: str, error: str = "") -> None:
        if self._span.is_recording():
            self._span.set_attribute(conventions.STATUS_CODE, code)
            if code in SERVER_FAILURES if self._served else code != "OK":
                _fail(self._span, code, error)
        self._span.end()


def _fail(span: Span, kind: str, description: str) -> None:
    span.set_attribute(conventions.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, description))


def _present() -> otel_context.Context:
    """The SDK's current context, or the one that a call without a span came with."""
    present = otel_context.get_current()
    if trace.get_current_span(present).get_span_context().is_valid:
        return present
    return _remote(trace_context.running.get())


def _remote(parent: TraceContext | None) -> otel_context.Context:
    if parent is None:
        return otel_context.Context()
    return trace.set_span_in_context(NonRecordingSpan(_span_context(parent)), otel_context.Context())


def _span_context(context: TraceContext) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([context.state]) if context.state else TraceState(),
    )


def _context_of(context: SpanContext) -> TraceContext:
    return TraceContext(
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        context.trace_flags.sampled,
        context.trace_state.to_header() if context.trace_state else "",
    )


def _span_exporters(environment: Mapping[str, str]) -> Iterator[SpanExporter]:
    names = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    for name in names.split(","):
        make = SPAN_EXPORTERS.get(name.strip())
        if make is None:
            _log.warning("unknown exporter in OTEL_TRACES_EXPORTER is left out", extra={"exporter": name})
            continue
        try:
            exporter = make(environment)
        except (ImportError, OSError, ValueError) as error:
            _log.warning("a span exporter could not be made", extra={"exporter": name, "error": error})
            continue
        if exporter is not None:
            yield exporter


def otlp_protocol(environment: Mapping[str, str], signal: str) -> str:
    """`grpc` unless the environment says otherwise."""
    general = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    return environment.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", general).strip().lower()


def otlp_timeout(environment: Mapping[str, str]) -> int | None:
    """Seconds; None leaves it to the environment. The SDK's own default of 10 s would hold up every stop."""
    named = any(name.startswith("OTEL_EXPORTER_OTLP") and name.endswith("_TIMEOUT") for name in environment)
    return None if named else STOP_MILLISECONDS // 1000


def http_exporter(module: str, name: str) -> Any:
    """A class of the HTTP exporter's package, which is no dependency of ours. Raises InvalidArgument without it."""
    try:
        return getattr(importlib.import_module(f"opentelemetry.exporter.otlp.proto.http.{module}"), name)
    except ModuleNotFoundError as missing:
        raise InvalidArgument(
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc, or the package opentelemetry-exporter-otlp-proto-http installed",
            "http/protobuf without it",
        ) from missing


def _otlp(environment: Mapping[str, str]) -> SpanExporter:
    if otlp_protocol(environment, "TRACES") == "http/protobuf":
        exporter: SpanExporter = http_exporter("trace_exporter", "OTLPSpanExporter")(
            timeout=otlp_timeout(environment)
        )
        return exporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter(timeout=otlp_timeout(environment))


def _console(environment: Mapping[str, str]) -> SpanExporter:
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    return ConsoleSpanExporter()


def _file(environment: Mapping[str, str]) -> SpanExporter:
    from blockyard.rpc.span_file import SpanFile

    return SpanFile(environment.get("BLOCKYARD_TRACE_FILE", ""))


SPAN_EXPORTERS: Final[dict[str, Callable[[Mapping[str, str]], SpanExporter | None]]] = {
    "otlp": _otlp,
    "console": _console,
    "file": _file,
    "none": lambda environment: None,
}
