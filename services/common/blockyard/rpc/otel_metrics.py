"""Metrics over OpenTelemetry without an SDK instrument on any hot path.

Counters and gauges are observable instruments: read when the reader asks. The SDK has no observable histogram, so
histograms kept in arrays of our own join the export: `WithOwnHistograms` wraps the exporter and adds them, with
their exact buckets, to what the reader collected.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
)
from opentelemetry.sdk.resources import Resource

from blockyard.rpc import conventions
from blockyard.rpc.measures import CallAccounts, HistogramRow
from blockyard.rpc.otel import STOP_MILLISECONDS, http_exporter, otlp_protocol, otlp_timeout
from blockyard.rpc.telemetry import Histograms, Numbers

if TYPE_CHECKING:
    from blockyard.rpc.telemetry import Telemetry

SECONDS: Final = 1e9
"""Nanoseconds of one; durations are exported in seconds."""

HistogramSource = Callable[[], Iterable[Metric]]
_log = logging.getLogger(__name__)


class WithOwnHistograms(MetricExporter):
    """Adds histograms from `sources` to everything that goes through `exporter`."""

    def __init__(self, exporter: MetricExporter, sources: list[HistogramSource]) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._sources = sources

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **more: Any) -> MetricExportResult:
        own = [metric for source in self._sources for metric in source()]
        joined = MetricsData([self._joined(each, own) for each in metrics_data.resource_metrics])
        return self._exporter.export(joined, timeout_millis=timeout_millis, **more)

    def _joined(self, told: ResourceMetrics, own: list[Metric]) -> ResourceMetrics:
        # Into the scope that is there: exporters keep one entry per resource and scope and would drop a second.
        scopes = [
            replace(scope, metrics=[*scope.metrics, *own]) if scope.scope.name == conventions.SCOPE else scope
            for scope in told.scope_metrics
        ]
        return replace(told, scope_metrics=scopes)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **more: Any) -> None:
        self._exporter.shutdown(timeout_millis=timeout_millis, **more)


class SdkMetrics:
    """The meter of one service and its own histograms."""

    def __init__(self, resource: Resource, exporters: Iterable[MetricExporter]) -> None:
        self.histograms: list[HistogramSource] = []
        readers: list[MetricReader] = [
            PeriodicExportingMetricReader(WithOwnHistograms(exporter, self.histograms)) for exporter in exporters
        ]
        self._provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        # A reader with nothing of the SDK's to tell exports nothing, and our histograms would wait for ever.
        began = time.monotonic()
        self._began_ns = time.time_ns()
        self._meter = self._provider.get_meter(conventions.SCOPE, schema_url=conventions.SCHEMA_URL)
        self._meter.create_observable_gauge(
            "process.uptime", [lambda options: [Observation(time.monotonic() - began)]], unit="s"
        )

    def observe(self, name: str, unit: str, description: str, grows: bool, rows: Numbers) -> None:
        """`Telemetry.observe`."""
        make = self._meter.create_observable_counter if grows else self._meter.create_observable_gauge
        make(name, [lambda options: [Observation(row.value, row.attributes) for row in rows()]], unit, description)

    def observe_histogram(self, name: str, description: str, rows: Histograms) -> None:
        """`Telemetry.observe_histogram`."""

        def metrics() -> list[Metric]:
            points = [point(row, self._began_ns) for row in rows()]
            return [histogram(name, description, points)] if points else []

        self.histograms.append(metrics)

    def stop(self) -> None:
        self._provider.shutdown(timeout_millis=STOP_MILLISECONDS)


def start(telemetry: "Telemetry", resource: Resource, environment: Mapping[str, str]) -> SdkMetrics | None:
    """None if no metrics are to be exported."""
    exporters = list(_exporters(environment))
    if not exporters:
        return None
    metrics = SdkMetrics(resource, exporters)
    metrics.observe_histogram(conventions.SERVER_DURATION, "Calls served", lambda: calls(telemetry.served))
    metrics.observe_histogram(conventions.CLIENT_DURATION, "Calls made", lambda: calls(telemetry.made))
    return metrics


def histogram(name: str, description: str, points: list[HistogramDataPoint]) -> Metric:
    """A cumulative histogram in seconds."""
    return Metric(name, description, "s", Histogram(points, AggregationTemporality.CUMULATIVE))


def point(row: HistogramRow, began_ns: int) -> HistogramDataPoint:
    """One series of a histogram kept in nanoseconds. Least and greatest values are not kept: 0."""
    buckets = list(row.counts)
    return HistogramDataPoint(
        attributes=dict(row.attributes),
        start_time_unix_nano=began_ns,
        time_unix_nano=time.time_ns(),
        count=sum(buckets),
        sum=row.total_ns / SECONDS,
        bucket_counts=buckets,
        explicit_bounds=[bound / SECONDS for bound in row.bounds_ns],
        min=0.0,
        max=0.0,
    )


def calls(accounts: CallAccounts) -> Iterable[HistogramRow]:
    """The durations of all calls that ended, by method and code."""
    for (method, code), series in list(accounts.ended.items()):
        attributes = {conventions.SYSTEM: "grpc", conventions.METHOD: method, conventions.STATUS_CODE: code}
        yield HistogramRow(attributes, series.bounds, series.counts, series.total_ns)


def _exporters(environment: Mapping[str, str]) -> Iterable[MetricExporter]:
    endpoint = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environment.get(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
    )
    named = environment.get("OTEL_METRICS_EXPORTER", "").strip().lower() or ("otlp" if endpoint else "none")
    for name in (part.strip() for part in named.split(",")):
        if name == "console":
            yield ConsoleMetricExporter()
        elif name == "otlp" and otlp_protocol(environment, "METRICS") == "http/protobuf":
            yield http_exporter("metric_exporter", "OTLPMetricExporter")(timeout=otlp_timeout(environment))
        elif name == "otlp":
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

            yield GrpcExporter(timeout=otlp_timeout(environment))
        elif name != "none":
            _log.warning("unknown exporter in OTEL_METRICS_EXPORTER is left out", extra={"exporter": name})
