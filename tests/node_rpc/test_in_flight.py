"""ListInFlight over the wire and as the command draws it."""

import asyncio
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource

from blockyard.base.clock import VirtualClock
from blockyard.cli import inflight
from blockyard.cli.tree import ASCII
from blockyard.client.definitions import null, raw
from blockyard.rpc.otel import SdkTracing
from blockyard.rpc.telemetry import Telemetry
from blockyard.v1 import data_pb2, node_pb2
from blockyard.v1 import types_pb2 as types
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


async def slow(house: NodeHouse) -> None:
    """raw over a disk that answers when the clock moves."""
    await house.client.nodes.open(null(MIB, node_name="disk", latency_ns=10**9))
    await house.client.nodes.open(raw("disk", node_name="top"))


async def in_flight(house: NodeHouse, count: int) -> list[types.TrackedRequest]:
    while len(found := await house.client.nodes.in_flight()) != count:
        await asyncio.sleep(0)
    return list(found)


async def test_a_call_shows_in_every_layer_with_its_name_and_age(still: NodeHouse, clock: VirtualClock):
    await slow(still)
    writing = asyncio.ensure_future(still.client.data.write("top", 4096, bytes(512)))
    above, below = await in_flight(still, 2)
    assert (above.node_name, below.node_name) == ("top", "disk")
    assert above.owner == below.owner == "call/Write"
    assert below.parent_request_id == above.request_id and not above.parent_request_id
    assert (above.range.offset_bytes, above.range.length_bytes) == (4096, 512)
    await clock.advance(0.5)
    assert (await in_flight(still, 2))[0].age.ToNanoseconds() >= 5 * 10**8
    only = await still.client.nodes.in_flight("disk")
    assert [item.request_id for item in only] == [below.request_id]
    await clock.advance(1)
    await writing
    assert not await still.client.nodes.in_flight()


async def test_a_request_at_a_drained_node_shows_as_held(still: NodeHouse, clock: VirtualClock):
    await slow(still)
    drain = await still.nodes.DrainNode(node_pb2.DrainNodeRequest(node_name="top"))
    writing = asyncio.ensure_future(still.client.data.write("top", 0, bytes(512)))
    (held,) = await in_flight(still, 1)
    assert held.wait_reason == types.WAIT_REASON_DRAINED and held.owner == "call/Write"
    assert (await still.client.nodes.get("top")).in_flight == 0
    await still.nodes.UndrainNode(node_pb2.UndrainNodeRequest(drain_id=drain.drain_id))
    await in_flight(still, 2)
    await clock.advance(2)
    await writing


@pytest.fixture
def cli(still: NodeHouse, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(still.client.address, capfdbinary)


async def test_the_command_draws_them(still: NodeHouse, clock: VirtualClock, cli: Cli):
    assert (await cli("node", "inflight")).out == "no requests are in flight\n"
    await slow(still)
    writing = asyncio.ensure_future(still.client.data.write("top", 4096, bytes(512)))
    above, below = await in_flight(still, 2)
    drawn = (await cli("node", "inflight")).out.splitlines()
    assert drawn[0] == f"#{above.request_id} write 512 B at 0x1000  top  call/Write  0 s"
    assert drawn[1].endswith(f"#{below.request_id} write 512 B at 0x1000  disk  call/Write  0 s")
    lines = (await cli("node", "inflight", "disk", "-o", "jsonl")).lines
    assert [line["request_id"] for line in lines] == [str(below.request_id)]
    await clock.advance(2)
    await writing


async def test_a_sampled_call_names_its_trace(tmp_path: Path, clock: VirtualClock):
    telemetry = Telemetry("node", tracing=SdkTracing(Resource({"service.name": "node"}), [], {}))
    async with node_house(tmp_path, clock=clock, telemetry=telemetry) as house:
        await slow(house)
        sampled = (("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01"),)
        call = house.data.Read(data_pb2.ReadRequest(node_name="top", length_bytes=512), metadata=sampled)
        assert {item.trace_id for item in await in_flight(house, 2)} == {"ab" * 16}
        await clock.advance(2)
        await call.read()
        call.cancel()


def request(number: int, node: str = "a", **fields: object) -> types.TrackedRequest:
    return types.TrackedRequest(request_id=number, node_name=node, type=types.REQUEST_TYPE_WRITE, **fields)  # type: ignore[arg-type]


def test_the_picture_puts_who_waits_below_whom_it_waits_for():
    overlap = types.WAIT_REASON_OVERLAP
    requests = [
        request(1, serialising=True),
        request(2, "b", parent_request_id=1),
        request(3, waiting_for=1, wait_reason=overlap),
        request(4, waiting_for=3, wait_reason=overlap, trace_id="ab" * 16),
        request(5, "b", parent_request_id=9, wait_reason=types.WAIT_REASON_THROTTLED),
    ]
    assert inflight.drawn(requests, ASCII).splitlines() == [
        "#1 write  a  0 s  serialising",
        "|- #2 write  b  0 s",
        "`- waits: #3 write  a  0 s  overlap",
        f"   `- waits: #4 write  a  0 s  overlap  trace {'ab' * 16}",
        "#5 write  b  0 s  throttled",
    ]


def test_a_circle_would_show():
    requests = [request(1, waiting_for=2), request(2, waiting_for=1)]
    assert inflight.drawn(requests, ASCII).splitlines() == [
        "in a circle: #1 write  a  0 s",
        "`- waits: #2 write  a  0 s",
        "   `- waits: #1 (drawn above)",
    ]
