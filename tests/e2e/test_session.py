"""The pipelined session and watches on a real daemon."""

import asyncio
import random

import pytest

from blockyard.base.errors import NodeNotFound, NodeReadOnly, RangeOutside
from blockyard.client import Client
from blockyard.client.definitions import memory, null
from blockyard.v1 import types_pb2

SIZE = 8 << 20


@pytest.fixture
async def disk(client: Client):
    await client.nodes.open(memory(SIZE, node_name="session-disk"))
    yield "session-disk"
    await client.nodes.close("session-disk")


async def test_many_requests_at_once_leave_the_disk_as_a_byte_array_says(client: Client, disk: str):
    chance, model = random.Random(5), bytearray(SIZE)
    async with client.data.session(disk, max_in_flight=256) as session:
        for _ in range(20):
            work = []
            for slot in random.Random(6).sample(range(128), 40):
                offset, data = slot * 65536 + chance.randrange(1000), chance.randbytes(chance.randrange(1, 60000))
                model[offset : offset + len(data)] = data
                work.append(session.write(offset, data))
            await asyncio.gather(*work)
        await session.flush()
        pieces = await asyncio.gather(*(session.read(offset, 1 << 20) for offset in range(0, SIZE, 1 << 20)))
        assert b"".join(pieces) == model
        assert await session.read(0, SIZE) == model
    assert await client.data.read(disk) == model


async def test_a_large_write_and_its_zeroes_are_whole(client: Client, disk: str):
    data = random.Random(7).randbytes(5_000_003)
    async with client.data.session(disk) as session:
        await session.write(1234, data)
        await session.write_zeroes(4096, 8192)
        await session.discard(0, 512)
        assert await session.read(1234 + 4_000_000, 1000) == data[4_000_000:4_001_000]
        assert await session.read(4096, 8192) == bytes(8192)


async def test_a_failing_request_fails_alone(client: Client, disk: str):
    async with client.data.session(disk) as session:
        bad, good = await asyncio.gather(
            session.read(SIZE - 1, 10), session.read(SIZE - 10, 10), return_exceptions=True
        )
        assert isinstance(bad, RangeOutside)
        assert len(good) == 10


async def test_a_read_only_node_refuses_writes_of_a_session(client: Client):
    await client.nodes.open(null(1 << 20, node_name="ro", read_only=True))
    async with client.data.session("ro") as session:
        with pytest.raises(NodeReadOnly):
            await session.write(0, b"x")
        assert await session.read(0, 4) == bytes(4)
    await client.nodes.close("ro")


async def test_a_session_on_nothing_says_so(client: Client):
    with pytest.raises(NodeNotFound):
        async with client.data.session("absent"):
            pass


async def test_a_watch_of_nodes_begins_with_what_is_and_tells_what_changes(client: Client):
    await client.nodes.open(memory(4096, node_name="w0"))
    events = client.nodes.watch()
    first = await anext(events)
    while not (first.change == types_pb2.CHANGE_TYPE_INITIAL and first.node.node_name == "w0"):
        first = await anext(events)
    await client.nodes.open(memory(4096, node_name="w1"))
    seen = []
    while "w1" not in [event.node.node_name for event in seen if event.change == types_pb2.CHANGE_TYPE_ADDED]:
        seen.append(await anext(events))
    await events.aclose()
    await client.nodes.close("w0")
    await client.nodes.close("w1")
