"""A tiny OTLP collector: takes spans over gRPC and adds up where the time went.

The time of a layer is its own: what its children took is taken off. Bounded: a span is kept only until the sums are
made, and no more than `MAX_SPANS` are.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

MAX_SPANS: Final = 300_000
JOB_ID: Final = "blockyard.job.id"


@dataclass(frozen=True)
class Layer:
    """One kind of span."""

    name: str
    count: int
    own_ns: int
    """Time in the layer itself."""


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Spans by service, as they came."""

    endpoint: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    dropped: int = 0

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            service = next(
                (each.value.string_value for each in resource.resource.attributes if each.key == "service.name"), ""
            )
            for scope in resource.scope_spans:
                room = MAX_SPANS - len(self.spans)
                self.spans += [(service, span) for span in scope.spans[:room]]
                self.dropped += max(0, len(scope.spans) - room)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def environment(self) -> dict[str, str]:
        """What a service needs to send its spans here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }

    def layers(self, prefix: str = "blk.") -> list[Layer]:
        """The request path's layers by their own time, the most expensive first."""
        below: dict[bytes, int] = defaultdict(int)
        for _, span in self.spans:
            below[span.parent_span_id] += _took_ns(span)
        counts: dict[str, int] = defaultdict(int)
        sums: dict[str, int] = defaultdict(int)
        for _, span in self.spans:
            if span.name.startswith(prefix):
                counts[span.name] += 1
                # Children at once may together take longer than their parent.
                sums[span.name] += max(0, _took_ns(span) - below[span.span_id])
        found = [Layer(name, counts[name], sums[name]) for name in sums]
        return sorted(found, key=lambda layer: -layer.own_ns)

    def phases(self) -> dict[str, list[tuple[str, int]]]:
        """Job -> its phases in order, with nanoseconds."""
        found: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
        for service, span in self.spans:
            job = next((each.value.string_value for each in span.attributes if each.key == JOB_ID), "")
            if job and service == "blockyard-jobs" and not span.name.startswith("job "):
                found[job].append((span.start_time_unix_nano, span.name, _took_ns(span)))
        return {job: [(name, took) for _, name, took in sorted(spans)] for job, spans in found.items()}

    def traces(self) -> int:
        """How many traces were seen."""
        return len({span.trace_id for _, span in self.spans})


def _took_ns(span: Span) -> int:
    return span.end_time_unix_nano - span.start_time_unix_nano


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a free port of the loopback interface."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 << 20)])
    port = server.add_insecure_port("127.0.0.1:0")
    collector = Collector(endpoint=f"http://127.0.0.1:{port}")
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0.5)
