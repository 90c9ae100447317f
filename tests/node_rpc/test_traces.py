"""One trace shows a call, its way through the graph, and every driver on it; and no more than helps."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from blockyard.base.errors import NodeExists
from blockyard.client.definitions import file, memory, qcow2
from blockyard.node.rpc.traced import TRACED_PIECES
from blockyard.rpc.otel import SdkTracing
from blockyard.rpc.telemetry import Telemetry
from blockyard.v1 import data_pb2 as data
from tests.support import peers
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20
SAMPLED = (("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01"),)
UNSAMPLED = (("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-00"),)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced(tmp_path: Path, exporter: InMemorySpanExporter) -> AsyncIterator[NodeHouse]:
    tracing = SdkTracing(Resource({"service.name": "node"}), [SimpleSpanProcessor(exporter)], {})
    async with node_house(tmp_path, telemetry=Telemetry("node", tracing=tracing)) as house:
        await house.client.images.create("a.qcow2", 64 * MIB, format="qcow2")
        await house.client.nodes.open(qcow2(file("a.qcow2", node_name="below"), node_name="a"))
        await house.client.data.write("a", 0, b"x" * MIB)
        await house.client.data.flush("a")
        exporter.clear()
        yield house


def paths(exporter: InMemorySpanExporter) -> set[str]:
    """Every span as the names from the call down."""
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}

    def path(span) -> str:
        above = spans.get(span.parent.span_id) if span.parent else None
        return f"{path(above)} > {span.name}" if above else span.name

    return {path(span) for span in spans.values()}


async def test_a_read_is_one_trace_down_to_the_file(traced: NodeHouse, exporter: InMemorySpanExporter):
    call = traced.data.Read(data.ReadRequest(node_name="a", length_bytes=4096), metadata=SAMPLED)
    assert [response.data async for response in call] == [b"x" * 4096]
    await eventually(lambda: "blockyard.v1.DataService/Read" in paths(exporter))
    assert "blockyard.v1.DataService/Read > blk.read qcow2 > blk.read file" in paths(exporter)
    assert {span.context.trace_id for span in exporter.get_finished_spans()} == {int("ab" * 16, 16)}
    read = next(span for span in exporter.get_finished_spans() if span.name == "blk.read qcow2")
    assert dict(read.attributes) == {
        "blockyard.node.name": "a",
        "blockyard.offset": 0,
        "blockyard.length": 4096,
    }


async def test_a_session_is_traced_too(traced: NodeHouse, exporter: InMemorySpanExporter):
    call = traced.data.IoSession(metadata=SAMPLED)
    await call.write(data.IoSessionRequest(open=data.IoSessionOpen(node_name="a")))
    await call.read()
    write = data.IoRequest(id=1, operation=data.IoRequest.OPERATION_WRITE, data=b"y" * 512)
    await call.write(data.IoSessionRequest(batch=data.IoBatch(requests=[write])))
    await call.read()
    await call.done_writing()
    await eventually(lambda: "blockyard.v1.DataService/IoSession" in paths(exporter))
    assert "blockyard.v1.DataService/IoSession > blk.write qcow2 > blk.write file" in paths(exporter)


async def test_a_long_stream_makes_a_bounded_number_of_spans(traced: NodeHouse, exporter: InMemorySpanExporter):
    request = data.ReadRequest(node_name="a", chunk_bytes=4096, length_bytes=MIB)
    async for _ in traced.data.Read(request, metadata=SAMPLED):
        pass
    await eventually(lambda: "blockyard.v1.DataService/Read" in paths(exporter))
    reads = [span for span in exporter.get_finished_spans() if span.name == "blk.read qcow2"]
    assert len(reads) == TRACED_PIECES


async def test_an_unsampled_call_makes_no_spans(traced: NodeHouse, exporter: InMemorySpanExporter):
    async for _ in traced.data.Read(data.ReadRequest(node_name="a"), metadata=UNSAMPLED):
        pass
    assert exporter.get_finished_spans() == ()


@pytest.mark.peer("qemu-io")
async def test_what_guests_do_is_no_part_of_the_call_that_made_their_export(
    traced: NodeHouse, exporter: InMemorySpanExporter
):
    made = await traced.client.exports.add_nbd("a", "disk", addresses=[f"unix:{traced.folder.parent}/nbd.sock"])
    await eventually(lambda: "blockyard.v1.ExportService/CreateExport" in paths(exporter))
    exporter.clear()
    await asyncio.to_thread(peers.run, "qemu-io", "-r", "-f", "raw", "-c", "read 0 64k", made.uris[0])
    assert exporter.get_finished_spans() == ()


async def test_an_error_is_in_its_calls_span(traced: NodeHouse, exporter: InMemorySpanExporter):
    with pytest.raises(NodeExists):
        await traced.client.nodes.open(memory(512, node_name="a"))
    await eventually(lambda: "blockyard.v1.NodeService/OpenNode" in paths(exporter))
    (span,) = [span for span in exporter.get_finished_spans() if span.name.endswith("OpenNode")]
    assert span.attributes["rpc.response.status_code"] == "ALREADY_EXISTS"
