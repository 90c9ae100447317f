"""Calls of the library that no other test makes, on a real daemon: each reaches its method and is understood."""

import asyncio

import pytest

from blockyard.base.errors import BlockError, InternalError
from blockyard.client import Client
from blockyard.client.definitions import memory, raw
from blockyard.v1 import job_pb2, node_pb2

REFUSED = {
    "reopen": lambda client: client.nodes.reopen([memory(1, node_name="absent")]),
    "insert_overlay": lambda client: client.nodes.insert_overlay("absent", "absent too"),
    "insert_filter": lambda client: client.nodes.insert_filter("absent", memory(1)),
    "remove_filter": lambda client: client.nodes.remove_filter("absent"),
    "replace": lambda client: client.nodes.replace("absent", "absent too"),
    "change_backing_file": lambda client: client.nodes.change_backing_file("absent", "b", "raw"),
    "transaction": lambda client: client.nodes.transaction(
        [node_pb2.TransactionAction(close=node_pb2.CloseNodeRequest(node_name="absent"))]
    ),
    "in_flight": lambda client: client.nodes.in_flight("absent"),
    "record": lambda client: client.bitmaps.record("absent", "b", True),
    "merge": lambda client: client.bitmaps.merge(("absent", "b"), [("absent", "c")]),
    "change": lambda client: client.jobs.change("absent", copy_mode="write-blocking"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_call_about_nothing_is_refused_with_a_reason(client: Client, name: str):
    with pytest.raises(BlockError) as refused:
        await REFUSED[name](client)
    assert not isinstance(refused.value, InternalError)
    assert refused.value.hint


async def test_requests_in_flight_sources_and_tables_are_told(client: Client):
    assert await client.nodes.in_flight() == ()
    assert len(await client.stats.sources()) == 1
    rows = await client.jobs.state_machine()
    assert {row.state for row in rows} >= {job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_READY}
    assert "max_nodes" in await client.server.limits()


async def test_bitmaps_stop_recording_and_are_merged(client: Client):
    await client.nodes.open(memory(1 << 20, node_name="merged"))
    for name in ("a", "b"):
        await client.bitmaps.add("merged", name, granularity_bytes=4096)
    await client.bitmaps.record("merged", "b", False)
    await client.data.write("merged", 8192, b"x")
    assert [tuple(extent) async for extent in client.bitmaps.extents("merged", "b")] == []
    await client.bitmaps.merge(("merged", "b"), [("merged", "a")])
    assert [tuple(extent) async for extent in client.bitmaps.extents("merged", "b")] == [(8192, 4096)]
    await client.nodes.close("merged")


async def test_a_window_of_a_node_reads_its_part(client: Client):
    await client.nodes.open(memory(1 << 20, node_name="whole"))
    await client.nodes.open(raw("whole", offset=4096, size=8192, node_name="window"))
    await client.data.write("whole", 4096, b"inside")
    assert (await client.data.read("window"))[:6] == b"inside"
    assert [node.node_name for node in await client.nodes.list(explicit_only=True)] == ["whole", "window"]
    await client.nodes.close("window")
    await client.nodes.close("whole")


async def test_a_watch_is_cancelled_without_a_trace(client: Client):
    watch = client.nodes.watch()
    waiting = asyncio.ensure_future(_drain(watch))
    await client.nodes.list()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await client.server.info()).version


async def _drain(events) -> None:
    async for _ in events:
        pass


async def test_statistics_are_watched(client: Client):
    await client.nodes.open(memory(1 << 20, node_name="watched"))
    await client.data.write("watched", 0, b"x" * 4096)
    async for message in client.stats.watch(["watched"], interval_s=0.1):
        if any(account.node_name == "watched" for account in message.stats):
            break
    await client.nodes.close("watched")
