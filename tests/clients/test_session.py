"""The pipelined session: ids, credits, batches, failures."""

import asyncio
import random

import pytest

from blockyard.base.errors import (
    CallCancelled,
    InvalidArgument,
    NodeNotFound,
    NodeReadOnly,
    PeerUnavailable,
    RangeOutside,
    RemoteError,
)
from blockyard.client import Client
from blockyard.client.session import failure_of
from blockyard.v1 import data_pb2
from tests.support.fake_services import FakeServices


async def test_a_session_reads_what_it_wrote(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    async with client.data.session("disk") as session:
        assert session.size_bytes == 1 << 20
        await session.write(4096, b"hello")
        await session.flush()
        assert await session.read(4095, 7) == b"\0hello\0"
        await session.write_zeroes(4097, 2)
        await session.discard(0, 512)
        assert await session.read(4096, 5) == b"h\0\0lo"


async def test_results_in_any_order_find_their_requests(client: Client, fakes: FakeServices):
    node = fakes.graph.add("disk", 1 << 20)
    node.content[:] = random.Random(1).randbytes(1 << 20)
    fakes.data.hold, fakes.data.credits = 8, 32
    offsets = [random.Random(number).randrange((1 << 20) - 512) for number in range(300)]
    async with client.data.session("disk") as session:
        results = await asyncio.gather(*(session.read(offset, 512) for offset in offsets))
    assert results == [bytes(node.content[offset : offset + 512]) for offset in offsets]
    assert fakes.data.sessions[0].repeated_ids == []


async def test_requests_in_flight_never_exceed_the_credits(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    fakes.data.credits, fakes.data.hold = 5, 5
    async with client.data.session("disk", max_in_flight=64) as session:
        await asyncio.gather(*(session.write(number * 512, b"x" * 512) for number in range(200)))
        assert session.in_flight == 0
    assert fakes.data.sessions[0].most_requests == 5


async def test_bytes_in_flight_never_exceed_their_credit_in_either_direction(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    fakes.data.credits, fakes.data.credit_bytes, fakes.data.hold = 64, 100_000, 64
    async with client.data.session("disk") as session:
        work = [session.read(0, 30_000) for _ in range(40)]
        work += [session.write(0, b"x" * 30_000) for _ in range(40)]
        await asyncio.gather(*work)
    assert 60_000 <= fakes.data.sessions[0].most_bytes <= 100_000


async def test_a_request_larger_than_the_credit_is_cut_and_joined(client: Client, fakes: FakeServices):
    node = fakes.graph.add("disk", 4 << 20)
    fakes.data.credit_bytes = 1 << 18
    content = random.Random(2).randbytes(3_000_001)
    async with client.data.session("disk") as session:
        await session.write(17, content)
        assert await session.read(17, len(content)) == content
    assert node.content[17 : 17 + len(content)] == content


async def test_what_is_submitted_in_one_turn_travels_as_one_message(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    fakes.data.credits = 64
    async with client.data.session("disk") as session:
        await asyncio.gather(*(session.write(number * 16, b"x" * 16) for number in range(50)))
    assert fakes.data.sessions[0].batches == [50]


async def test_a_failing_request_fails_alone_with_its_own_class(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    async with client.data.session("disk") as session:
        good, bad = await asyncio.gather(session.read(0, 10), session.read(4090, 10), return_exceptions=True)
        assert good == bytes(10)
        assert isinstance(bad, RangeOutside)
        assert "4096 bytes" in str(bad)
        assert await session.read(0, 1) == b"\0"


async def test_a_failing_piece_of_a_large_request_fails_it(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 4096, read_only=True)
    async with client.data.session("disk") as session:
        with pytest.raises(NodeReadOnly):
            await session.write(0, bytes(3 << 20))


async def test_a_cancelled_caller_leaves_its_credit_taken_until_the_result(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    fakes.data.credits = 1
    async with client.data.session("disk") as session:
        given_up = asyncio.ensure_future(session.read(0, 1))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await session.read(1, 1) == b"\0"
    assert fakes.data.sessions[0].most_requests == 1


async def test_a_cancelled_caller_in_the_line_is_never_sent(client: Client, fakes: FakeServices):
    node = fakes.graph.add("disk", 4096)
    fakes.data.credits = 1
    async with client.data.session("disk") as session:
        first = asyncio.ensure_future(session.write(0, b"a"))
        second = asyncio.ensure_future(session.write(0, b"b"))
        await asyncio.sleep(0)
        second.cancel()
        await first
        await session.read(0, 1)
    assert node.content[:1] == b"a"


async def test_leaving_a_session_waits_for_what_was_submitted(client: Client, fakes: FakeServices):
    node = fakes.graph.add("disk", 4096)
    async with client.data.session("disk") as session:
        written = asyncio.ensure_future(session.write(0, b"late"))
        await asyncio.sleep(0)
    await written
    assert node.content[:4] == b"late"


async def test_after_its_end_a_session_refuses(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    async with client.data.session("disk") as session:
        pass
    with pytest.raises(CallCancelled, match="closed"):
        await session.read(0, 1)


async def test_a_session_on_nothing_says_so(client: Client):
    with pytest.raises(NodeNotFound, match="absent"):
        async with client.data.session("absent"):
            pass


async def test_when_the_session_dies_everyone_is_told_and_none_hangs(client: Client, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    fakes.data.credits, fakes.data.session_dies_after = 2, 4
    async with client.data.session("disk") as session:
        results = await asyncio.gather(*(session.read(0, 1) for _ in range(20)), return_exceptions=True)
        assert results[0] == b"\0"
        assert isinstance(results[-1], InvalidArgument)
        with pytest.raises(InvalidArgument):
            await session.read(0, 1)


async def test_a_service_that_vanishes_ends_the_session_as_unavailable(tmp_path):
    from tests.support.fake_services import fake_services

    async with fake_services(tmp_path) as fakes, Client.connect(fakes.address) as client:
        fakes.graph.add("disk", 4096)
        async with client.data.session("disk") as session:
            await session.read(0, 1)
            fakes.data.sessions[0]._ended = True
            fakes.data.sessions[0]._came.set()
            with pytest.raises(PeerUnavailable, match="ended the session"):
                while True:
                    await session.read(0, 1)


def test_an_unknown_reason_keeps_the_services_words():
    error = failure_of(data_pb2.IoResult(id=1, code=13, reason="FROM_THE_FUTURE", error_message="it was odd"))
    assert isinstance(error, RemoteError)
    assert "it was odd" in str(error)
