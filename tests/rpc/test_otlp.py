"""Export over OTLP to a collector of the tests: what leaves the process is what a collector expects."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from blockyard.rpc import conventions
from blockyard.rpc.measures import HistogramRow, NumberRow
from blockyard.rpc.telemetry import Telemetry


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps what it is sent; one method serves both services, told apart by the request."""

    def __init__(self) -> None:
        self.spans = []
        self.metrics = {}
        self.resources = []

    async def Export(self, request, context):  # noqa: N802
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                self.resources.append({each.key: each.value.string_value for each in resource.resource.attributes})
                self.spans += [(scope, span) for scope in resource.scope_spans for span in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics.update({metric.name: metric for metric in scope.metrics})
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
async def collector(monkeypatch) -> AsyncIterator[Collector]:
    found = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield found
    await server.stop(0)


async def test_spans_arrive_with_their_service_and_schema(collector) -> None:
    telemetry = Telemetry.start("blockyard-node", "instance")
    with telemetry.span("mirror", {"blockyard.job.id": "m1"}):
        pass
    await asyncio.to_thread(telemetry.stop)
    ((scope, span),) = collector.spans
    assert (span.name, scope.schema_url) == ("mirror", conventions.SCHEMA_URL)
    resource = collector.resources[0]
    assert (resource["service.name"], resource["service.instance.id"]) == ("blockyard-node", "instance")


async def test_figures_kept_elsewhere_arrive_as_counters_gauges_and_histograms(collector) -> None:
    telemetry = Telemetry.start("blockyard-stats")
    labels = {"blockyard.node.name": "top"}
    telemetry.observe("blockyard.io.bytes", "By", "", grows=True, rows=lambda: [NumberRow(labels, 4096)])
    telemetry.observe("blockyard.io.in_flight", "1", "", grows=False, rows=lambda: [NumberRow(labels, 3)])
    rows = [HistogramRow(labels, (1_000_000, 2_000_000), (5, 2, 1), 9_000_000)]
    telemetry.observe_histogram("blockyard.io.duration", "", lambda: rows)
    telemetry.served.add("blockyard.v1.NodeService/GetNode", "OK", 300_000)
    await asyncio.to_thread(telemetry.stop)
    assert collector.metrics["blockyard.io.bytes"].sum.is_monotonic
    assert collector.metrics["blockyard.io.in_flight"].gauge.data_points[0].as_int == 3
    (point,) = collector.metrics["blockyard.io.duration"].histogram.data_points
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == ([5, 2, 1], [0.001, 0.002])
    assert (point.count, point.sum) == (8, 0.009)
    assert conventions.SERVER_DURATION in collector.metrics


async def test_a_collector_that_does_not_answer_fails_nothing(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    telemetry = Telemetry.start("blockyard-node")
    with telemetry.span("mirror"):
        pass
    await asyncio.to_thread(telemetry.stop)
