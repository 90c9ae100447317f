"""Watching nodes and accounts over the API."""

import asyncio

import grpc
import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import InvalidArgument, RevisionTooOld
from blockyard.client.definitions import memory, null
from blockyard.rpc.status import from_rpc_error
from blockyard.v1 import node_pb2 as node
from blockyard.v1 import types_pb2 as types
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse

MIB = 1 << 20


async def changes(call, count: int) -> list[tuple[int, str]]:
    """The next changes: kind and node."""
    return [(change.change, change.node.node_name) for change in [await call.read() for _ in range(count)]]


async def test_a_watch_begins_with_what_is_there_and_goes_on_with_what_happens(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    call = house.watch.WatchNodes(node.WatchNodesRequest())
    assert await changes(call, 2) == [(types.CHANGE_TYPE_INITIAL, "a"), (types.CHANGE_TYPE_BOOKMARK, "")]
    await house.client.nodes.open(memory(MIB, node_name="b"))
    await house.client.nodes.resize("b", 2 * MIB)
    await house.client.nodes.close("a")
    found = []
    while (types.CHANGE_TYPE_REMOVED, "a") not in found:
        found += await changes(call, 1)
    assert found[0] == (types.CHANGE_TYPE_ADDED, "b")
    assert (types.CHANGE_TYPE_MODIFIED, "b") in found
    call.cancel()


async def test_a_watch_resumes_after_a_revision_and_misses_nothing(house: NodeHouse):
    call = house.watch.WatchNodes(node.WatchNodesRequest())
    bookmark = await call.read()
    call.cancel()
    await house.client.nodes.open(memory(MIB, node_name="a"))
    await house.client.nodes.close("a")
    await house.client.nodes.open(memory(MIB, node_name="b"))
    again = house.watch.WatchNodes(node.WatchNodesRequest(start_revision=bookmark.revision))
    assert await changes(again, 2) == [(types.CHANGE_TYPE_REMOVED, "a"), (types.CHANGE_TYPE_ADDED, "b")]
    again.cancel()


async def test_a_forgotten_revision_is_refused(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    for revision in (1, 2**60):
        call = house.watch.WatchNodes(node.WatchNodesRequest(start_revision=revision))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert isinstance(from_rpc_error(refused.value), RevisionTooOld)


async def test_only_the_nodes_asked_for_are_told_of(house: NodeHouse):
    call = house.watch.WatchNodes(node.WatchNodesRequest(node_names=["b"]))
    await call.read()
    for name in ("a", "b", "c"):
        await house.client.nodes.open(memory(MIB, node_name=name))
    assert await changes(call, 1) == [(types.CHANGE_TYPE_ADDED, "b")]
    call.cancel()


async def test_a_silent_watch_gets_bookmarks(still: NodeHouse, clock: VirtualClock):
    call = still.watch.WatchNodes(node.WatchNodesRequest())
    first = await call.read()
    await clock.advance(16)
    beat = await call.read()
    assert beat.change == types.CHANGE_TYPE_BOOKMARK
    assert beat.revision == first.revision == still.graph.hub.revision
    call.cancel()


async def test_events_of_nodes_are_told_with_their_details(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    call = house.watch.WatchNodes(node.WatchNodesRequest())
    await changes(call, 2)
    house.graph.report("a", "corrupted", {"offset": "512"})
    event = (await call.read()).event
    assert (event.kind, event.node_name, dict(event.details)) == ("corrupted", "a", {"offset": "512"})
    call.cancel()


async def test_a_slow_reader_gets_the_latest_state_and_every_removal(house: NodeHouse):
    call = house.watch.WatchNodes(node.WatchNodesRequest())
    await call.read()
    await house.client.nodes.open(memory(MIB, node_name="a"))
    for _ in range(5000):
        house.graph.changed(house.graph.get("a"))
    await house.graph.close("a")
    found = await changes(call, 1)
    while found[-1] != (types.CHANGE_TYPE_REMOVED, "a"):
        found += await changes(call, 1)
    assert len(found) < 10
    call.cancel()


async def test_a_dropped_watch_is_forgotten(house: NodeHouse):
    call = house.watch.WatchNodes(node.WatchNodesRequest())
    await call.read()
    assert len(house.graph.hub._watchers) == 1
    call.cancel()
    await eventually(lambda: not house.graph.hub._watchers)


# --- accounts --------------------------------------------------------------------------------------------


def watching(seconds: float) -> node.WatchAccountingRequest:
    request = node.WatchAccountingRequest()
    request.interval.FromNanoseconds(round(seconds * 1e9))
    return request


async def test_accounts_are_cumulative_and_come_at_the_interval(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(memory(MIB, node_name="a"))
    call = still.watch.WatchAccounting(watching(2))
    first = await call.read()
    assert [stats.node_name for stats in first.stats] == ["a"] and not first.stats[0].operations
    await still.client.data.write("a", 0, b"x" * 512)
    await still.client.data.read("a", 0, 1024)
    await clock.advance(2)
    second = await call.read()
    operations = {each.type: each for each in second.stats[0].operations}
    assert operations[types.REQUEST_TYPE_READ].transferred_bytes == 1024
    write = operations[types.REQUEST_TYPE_WRITE]
    assert (write.operations, sum(write.latency.counts)) == (1, 1)
    assert len(write.latency.counts) == len(write.latency.bounds_ns) + 1
    assert second.sample_time.ToNanoseconds() - first.sample_time.ToNanoseconds() == 2 * 10**9
    assert second.stats[0].epoch == first.stats[0].epoch
    assert second.instance_id == (await still.client.server.info()).instance_id
    call.cancel()


async def test_a_reopened_node_has_another_epoch(house: NodeHouse):
    epochs = set()
    for _ in range(2):
        await house.client.nodes.open(memory(MIB, node_name="a"))
        epochs.add((await house.client.nodes.get("a")).stats.epoch)
        await house.client.nodes.close("a")
    assert len(epochs) == 2


async def test_an_interval_has_its_bounds(house: NodeHouse):
    for seconds in (0, 0.05, 3601, -1):
        call = house.watch.WatchAccounting(watching(seconds))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert isinstance(from_rpc_error(refused.value), InvalidArgument)


async def test_requests_in_flight_are_listed_with_who_waits_for_whom(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(null(MIB, latency_ns=10**9, node_name="slow"))
    first = asyncio.create_task(still.client.data.write_zeroes("slow", 0, 4096))
    await eventually(lambda: len(still.graph.get("slow").tracker.requests) == 1)
    second = asyncio.create_task(still.client.data.write_zeroes("slow", 512, 4096))
    await eventually(lambda: len(still.graph.get("slow").tracker.requests) == 2)
    await eventually(lambda: still.graph.get("slow").tracker.waits)
    running, waiting = await still.client.nodes.in_flight("slow")
    assert (running.type, running.serialising) == (types.REQUEST_TYPE_WRITE_ZEROES, True)
    assert waiting.waiting_for == running.request_id
    assert list(running.blocking) == [waiting.request_id]
    assert (waiting.range.offset_bytes, waiting.range.length_bytes) == (512, 4096)
    assert len(await still.client.nodes.in_flight()) == 2
    state = await still.client.nodes.get("slow")
    assert (state.in_flight, state.serialising_in_flight, len(state.tracked_requests)) == (2, 2, 2)
    while not second.done():
        await clock.advance(1)
    await first
