"""The watchdog over the wire: events, health of a node by its name, and that nobody else's health is touched."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import InvalidArgument
from blockyard.client.definitions import null
from blockyard.v1 import node_pb2
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20
Status = health_pb2.HealthCheckResponse


async def health(house: NodeHouse, name: str) -> str:
    stub = health_pb2_grpc.HealthStub(house.channel)
    return str(Status.ServingStatus.Name((await stub.Check(health_pb2.HealthCheckRequest(service=name))).status))


async def events(house: NodeHouse) -> AsyncIterator[node_pb2.NodeEvent]:
    request = node_pb2.WatchNodesRequest(start_revision=house.graph.hub.revision)
    async for response in house.watch.WatchNodes(request):
        if response.HasField("event"):
            yield response.event


async def write_into_slow(house: NodeHouse, seconds: float) -> "asyncio.Task[object]":
    """A write to the node `slow`, in flight."""
    await house.client.nodes.open(null(MIB, node_name="slow", latency_ns=int(seconds * 1e9)))
    await house.client.nodes.open(null(MIB, node_name="well"))
    task = asyncio.ensure_future(house.client.data.write("slow", 4096, bytes(512)))
    while not await house.client.nodes.in_flight("slow"):
        await asyncio.sleep(0)
    return task


async def test_a_node_with_an_old_request_is_stalled_until_that_ends(still: NodeHouse, clock: VirtualClock):
    seen = events(still)
    next_event = asyncio.ensure_future(anext(seen))
    await asyncio.sleep(0)
    task = await write_into_slow(still, 50)
    await clock.advance(29)
    assert await health(still, "node/slow") == "SERVING"
    await clock.advance(10)
    stalled = await next_event
    assert (stalled.kind, stalled.node_name) == ("stalled", "slow")
    details = dict(stalled.details)
    (request,) = await still.client.nodes.in_flight("slow")
    assert details["request_id"] == str(request.request_id) and details["owner"] == "call/Write"
    assert details["type"] == "write" and float(details["age_seconds"]) > 30
    assert (details["offset_bytes"], details["length_bytes"]) == ("4096", "512")
    assert await health(still, "node/slow") == "NOT_SERVING"
    assert [await health(still, name) for name in ("", "node/well", "blockyard.v1.NodeService")] == ["SERVING"] * 3
    await clock.advance(12)
    await task
    await clock.advance(8)
    unstalled = await anext(seen)
    assert (unstalled.kind, unstalled.node_name) == ("unstalled", "slow")
    assert await health(still, "node/slow") == "SERVING"


async def test_a_stall_is_told_once(still: NodeHouse, clock: VirtualClock):
    first = still.graph.hub.revision
    task = await write_into_slow(still, 59)
    await clock.advance(55)
    kinds = []
    async for response in still.watch.WatchNodes(node_pb2.WatchNodesRequest(start_revision=first)):
        kinds += [response.event.kind] if response.HasField("event") else []
        if response.revision == still.graph.hub.revision:
            break
    assert kinds == ["stalled"]
    await clock.advance(10)
    await task


async def test_a_request_that_a_drain_holds_stalls_its_node(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(null(MIB, node_name="a"))
    await still.nodes.DrainNode(node_pb2.DrainNodeRequest(node_name="a", lease=Duration(seconds=60)))
    task = asyncio.ensure_future(still.client.data.write("a", 0, bytes(512)))
    while not await still.client.nodes.in_flight("a"):
        await asyncio.sleep(0)
    await clock.advance(45)
    assert await health(still, "node/a") == "NOT_SERVING"
    await clock.advance(30)
    await task
    assert await health(still, "node/a") == "SERVING"


@pytest.mark.parametrize("name", ["node/nobody", "node/", "disk", "x" * 5000])
async def test_a_name_that_nobody_knows_is_not_found(house: NodeHouse, name: str):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await health(house, name)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_sees_a_node_come_stall_recover_and_go(still: NodeHouse, clock: VirtualClock):
    call = health_pb2_grpc.HealthStub(still.channel).Watch(health_pb2.HealthCheckRequest(service="node/slow"))
    assert (await call.read()).status == Status.SERVICE_UNKNOWN
    task = await write_into_slow(still, 50)
    assert (await call.read()).status == Status.SERVING
    await clock.advance(40)
    assert (await call.read()).status == Status.NOT_SERVING
    await clock.advance(20)
    await task
    assert (await call.read()).status == Status.SERVING
    closing = asyncio.ensure_future(still.client.nodes.close("slow"))
    while not closing.done():
        await clock.advance(10)
        await asyncio.sleep(0)
    assert (await call.read()).status == Status.SERVICE_UNKNOWN
    call.cancel()


async def test_a_limit_of_zero_switches_it_off(tmp_path: Path, clock: VirtualClock):
    async with node_house(tmp_path, clock=clock, stall_seconds=0) as house:
        task = await write_into_slow(house, 59)
        await clock.advance(55)
        assert await health(house, "node/slow") == "SERVING"
        await clock.advance(10)
        await task
        moving = asyncio.ensure_future(house.client.nodes.close("slow"))
        while not moving.done():
            await clock.advance(60)
            await asyncio.sleep(0)


async def test_a_negative_limit_ends_the_start(tmp_path: Path):
    with pytest.raises(InvalidArgument):
        async with node_house(tmp_path, stall_seconds=-1):
            pass
