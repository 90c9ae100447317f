"""Traces across calls, at no cost where nobody looks."""

import itertools
import json
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from blockyard.base.errors import BlockError, NodeInUse
from blockyard.rpc import otel_metrics, trace_context
from blockyard.rpc.address import Address
from blockyard.rpc.channel import open_channel
from blockyard.rpc.otel import SdkTracing
from blockyard.rpc.server import Service, serving
from blockyard.rpc.telemetry import Telemetry, asked, trace_of
from blockyard.rpc.trace_context import TraceContext
from tests.support.echo import NAME, Echo, Stub, add_echo, text
from tests.support.eventually import eventually

CALLER = TraceContext("ab" * 16, "cd" * 8, True)


class Watched:
    """A client and a server with telemetry of their own that writes to one list."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.server = self._telemetry("server")
        self.client = self._telemetry("client")
        self.echo = Echo()

    def _telemetry(self, name: str) -> Telemetry:
        resource = Resource({"service.name": name})
        return Telemetry(name, tracing=SdkTracing(resource, [SimpleSpanProcessor(self.exporter)], {}))

    def spans(self):
        return {
            (span.resource.attributes["service.name"], span.name): span
            for span in self.exporter.get_finished_spans()
        }


@pytest.fixture
async def watched(tmp_path: Path):
    both = Watched()
    address = Address.parse(f"unix:{tmp_path}/b.sock")
    async with (
        serving([address], [Service(NAME, add_echo, both.echo)], telemetry=both.server),
        open_channel(address, telemetry=both.client) as channel,
    ):
        both.stub = Stub(channel)
        yield both


async def test_one_trace_goes_through_client_server_and_request_path(watched) -> None:
    active: ContextVar = ContextVar("active", default=None)
    watched.server.bind_request_path(active)

    def observe() -> None:
        with active.get()("read qcow2", {"offset": 0}), active.get()("pread", {"offset": 4096}):
            pass

    watched.echo.observe = observe
    with watched.client.span("mirror"):
        await watched.stub.unary(text("x"))
    spans = watched.spans()
    chain = [("client", "mirror"), ("client", f"{NAME}/Unary"), ("server", f"{NAME}/Unary")]
    chain += [("server", "read qcow2"), ("server", "pread")]
    for parent, child in itertools.pairwise(chain):
        assert spans[child].parent.span_id == spans[parent].context.span_id, child
    assert len({span.context.trace_id for span in spans.values()}) == 1
    assert spans[chain[1]].kind is SpanKind.CLIENT and spans[chain[2]].kind is SpanKind.SERVER
    assert spans[chain[2]].attributes["rpc.response.status_code"] == "OK"


async def test_an_unsampled_caller_gets_no_span_and_no_starter(watched) -> None:
    active: ContextVar = ContextVar("active", default=None)
    watched.server.bind_request_path(active)
    seen = []
    watched.echo.observe = lambda: seen.append(active.get())
    with trace_of(CALLER._replace(sampled=False)):
        await watched.stub.unary(text("x"))
    assert seen == [None] and watched.spans() == {}


async def test_a_watch_begins_no_trace_but_belongs_to_one_that_is_there(watched) -> None:
    assert [reply.value async for reply in watched.stub.watch(text("a"))] == ["a"]
    assert watched.spans() == {}
    with watched.client.span("asked for"):
        assert [reply.value async for reply in watched.stub.watch(text("a"))] == ["a"]
    await eventually(lambda: ("server", f"{NAME}/WatchReplies") in watched.spans())


@pytest.mark.parametrize("way", ["finished", "cancelled", "broken off"])
async def test_the_spans_of_a_stream_end_with_it_however_it_ends(watched, way) -> None:
    call = watched.stub.both()
    await call.write(text("a"))
    await call.read()
    if way == "finished":
        await call.done_writing()
        await call.read()
    elif way == "cancelled":
        call.cancel()
    else:
        await call.write(text("block error"))
        with pytest.raises(NodeInUse):
            await call.read()
    await eventually(lambda: len(watched.spans()) == 2)
    codes = {key[0]: span.attributes["rpc.response.status_code"] for key, span in watched.spans().items()}
    expected = {"finished": "OK", "cancelled": "CANCELLED", "broken off": "FAILED_PRECONDITION"}[way]
    assert codes == {"client": expected, "server": expected}


@pytest.mark.parametrize(("word", "failed"), [("block error", False), ("bug", True)])
async def test_only_the_servers_own_failures_fail_its_span(watched, word, failed) -> None:
    with pytest.raises(BlockError) as caught:
        await watched.stub.unary(text(word))
    spans = watched.spans()
    assert (spans["server", f"{NAME}/Unary"].status.status_code is StatusCode.ERROR) == failed
    assert spans["client", f"{NAME}/Unary"].status.status_code is StatusCode.ERROR
    assert caught.value.trace_id == f"{spans['server', f'{NAME}/Unary'].context.trace_id:032x}"


async def test_a_segment_is_a_trace_of_its_own_with_a_link(watched) -> None:
    with watched.client.span("caller"):
        creator = watched.client.current()
        with watched.client.span("job segment", root=True, links=[creator], start_ns=1_000):
            pass
    caller, segment = (watched.spans()["client", name] for name in ("caller", "job segment"))
    assert segment.parent is None and segment.context.trace_id != caller.context.trace_id
    assert segment.links[0].context.span_id == caller.context.span_id and segment.start_time == 1_000


async def test_without_telemetry_a_trace_still_passes_through(served) -> None:
    seen = []
    served.echo.observe = lambda: seen.append(trace_context.running.get())
    with trace_of(CALLER):
        await served.stub.unary(text("x"))
    await served.stub.unary(text("x"))
    assert seen == [CALLER, None]


async def test_calls_are_counted_by_method_and_code(served) -> None:
    await served.stub.unary(text("x"))
    with pytest.raises(NodeInUse):
        await served.stub.unary(text("block error"))
    accounts = served.running.services[0].telemetry.served
    assert {key: series.count for key, series in accounts.ended.items()} == {
        (f"{NAME}/Unary", "OK"): 1,
        (f"{NAME}/Unary", "FAILED_PRECONDITION"): 1,
    }
    assert served.channel.telemetry.made.ended[f"{NAME}/Unary", "OK"].count == 1


async def test_own_histograms_reach_the_exporter_with_their_buckets() -> None:
    exported: list[MetricsData] = []

    class Collecting(MetricExporter):
        def export(self, metrics_data, timeout_millis=0, **more):
            exported.append(metrics_data)
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis=0):
            return True

        def shutdown(self, timeout_millis=0, **more):
            pass

    telemetry = Telemetry("node")
    telemetry.served.add("p.S/M", "OK", 2_000_000)
    metrics = otel_metrics.SdkMetrics(Resource({}), [Collecting()])
    metrics.observe_histogram("rpc.server.call.duration", "", lambda: otel_metrics.calls(telemetry.served))
    metrics.stop()
    (point,) = [
        point
        for data in exported
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "rpc.server.call.duration"
        for point in metric.data.data_points
    ]
    assert (point.count, point.sum, sum(point.bucket_counts)) == (1, 0.002, 1)
    assert point.explicit_bounds[point.bucket_counts.index(1)] == 0.0025


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_telemetry_is_on_only_when_the_environment_asks(environment, expected) -> None:
    assert asked(environment) == expected


def test_nothing_of_opentelemetry_is_imported_when_nobody_asks() -> None:
    program = (
        "import sys\nimport blockyard.rpc.server, blockyard.rpc.channel\n"
        "from blockyard.rpc.telemetry import Telemetry\n"
        "Telemetry.start('x', environment={}); print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_spans_can_be_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spans"
    environment = {"OTEL_TRACES_EXPORTER": "file", "BLOCKYARD_TRACE_FILE": str(path)}
    telemetry = Telemetry.start("node", environment=environment)
    with telemetry.span("outer"), telemetry.span("inner", {"driver": "qcow2"}):
        pass
    telemetry.stop()
    inner, outer = (json.loads(line) for line in path.read_text().splitlines())
    assert (inner["parent_id"], inner["service"]) == (outer["span_id"], "node")
    assert inner["attributes"] == {"driver": "qcow2"}


def test_an_exporter_that_cannot_be_made_is_left_out_and_logged(caplog) -> None:
    telemetry = Telemetry.start("node", environment={"OTEL_TRACES_EXPORTER": "file,carrier-pigeon"})
    telemetry.stop()
    assert {record.exporter for record in caplog.records} == {"file", "carrier-pigeon"}


@pytest.mark.parametrize(
    "header",
    [
        *("", "00", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 32 + "-" + "0" * 16 + "-01"),
        *("ff-" + "1" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 32 + "-" + "1" * 16 + "-01-more"),
        *("00-" + "A" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 31 + "-" + "1" * 16 + "-01"),
    ],
)
def test_a_malformed_traceparent_is_no_context(header) -> None:
    assert trace_context.parse(header) is None


def test_a_later_version_of_traceparent_is_read_as_far_as_it_is_known() -> None:
    assert trace_context.parse(f"01-{'1' * 32}-{'2' * 16}-01-more") == TraceContext("1" * 32, "2" * 16, True)


@given(st.text(max_size=80))
def test_no_header_breaks_the_parser(header) -> None:
    context = trace_context.parse(header)
    assert context is None or trace_context.parse(context.header()) == context
