"""The pipelined I/O session: batches, credits, ends of all kinds."""

import asyncio
import random

import grpc
import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    LimitReached,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    RangeOutside,
)
from blockyard.client.definitions import file, memory, null, qcow2
from blockyard.rpc.status import from_rpc_error
from blockyard.v1 import data_pb2 as data
from blockyard.v1.data_pb2 import IoRequest
from blockyard.v1.data_pb2_grpc import DataServiceStub
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse

KIB, MIB = 1 << 10, 1 << 20
READ, WRITE = IoRequest.OPERATION_READ, IoRequest.OPERATION_WRITE


async def opened(house: NodeHouse, name: str, wish: int = 0):
    """A session and what it granted."""
    call = house.data.IoSession()
    opening = data.IoSessionOpen(node_name=name, client_name="test", max_in_flight=wish)
    await call.write(data.IoSessionRequest(open=opening))
    return call, (await call.read()).opened


async def submit(call, *requests: IoRequest) -> None:
    await call.write(data.IoSessionRequest(batch=data.IoBatch(requests=requests)))


async def end_of(call) -> BlockError:
    """The error that ends a session."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        while await call.read() is not grpc.aio.EOF:
            pass
    return from_rpc_error(failed.value)


def reads(count: int, length: int = 512) -> list[IoRequest]:
    return [IoRequest(id=number, operation=READ, length_bytes=length) for number in range(count)]


async def test_requests_of_all_kinds_are_served(house: NodeHouse):
    await house.client.images.create("a.qcow2", 4 * MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    numbers, model = random.Random(7), bytearray(4 * MIB)
    async with house.client.data.session("a") as session:
        assert session.size_bytes == 4 * MIB
        for _ in range(60):
            offset = numbers.randrange(3 * MIB)
            content = numbers.randbytes(numbers.randrange(1, 200 * KIB))
            await session.write(offset, content, fua=numbers.random() < 0.1)
            model[offset : offset + len(content)] = content
        await session.write_zeroes(10_000, 300_000)
        model[10_000:310_000] = bytes(300_000)
        await session.discard(3 * MIB, MIB)
        await session.flush()
        assert await session.read(0, 3 * MIB) == bytes(model[: 3 * MIB])


async def test_the_results_of_one_message_come_in_one_message(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call, _ = await opened(house, "m")
    await submit(call, *reads(32))
    response = await call.read()
    assert [result.id for result in response.results] == list(range(32))
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_large_batch_is_answered_in_messages_of_bounded_size(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call, granted = await opened(house, "m")
    count = granted.max_bytes_in_flight // (MIB // 2)
    await submit(call, *reads(count, MIB // 2))
    done = 0
    while done < count:
        response = await call.read()
        assert response.ByteSize() <= 2 * MIB
        done += len(response.results)
    call.cancel()


async def test_what_is_granted_has_its_bounds(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    for wish, found in ((0, 64), (-5, 64), (3, 3), (10**6, 256)):
        call, granted = await opened(house, "m", wish)
        assert granted.max_in_flight == found
        assert granted.size_bytes == MIB
        call.cancel()


async def test_more_requests_than_granted_end_the_session(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(null(MIB, latency_ns=10**9, node_name="slow"))
    call, granted = await opened(still, "slow", 4)
    await submit(call, *reads(granted.max_in_flight))
    await submit(call, *reads(1))
    error = await end_of(call)
    assert isinstance(error, LimitReached) and error.limit == 4
    await eventually(lambda: not still.users("slow"))
    assert not still.graph.get("slow").tracker.requests


async def test_more_bytes_than_granted_end_the_session(still: NodeHouse):
    await still.client.nodes.open(null(MIB, latency_ns=10**9, node_name="slow"))
    call, granted = await opened(still, "slow")
    await submit(call, *reads(granted.max_bytes_in_flight // MIB, MIB))
    await submit(call, IoRequest(id=99, operation=WRITE, data=b"x"))
    assert isinstance(await end_of(call), LimitReached)
    await eventually(lambda: not still.users("slow"))


async def test_credits_come_back_with_results(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call, _ = await opened(house, "m", 8)
    for _ in range(50):
        await submit(call, *reads(8, MIB))
        done = 0
        while done < 8:
            done += len((await call.read()).results)
    call.cancel()


async def test_a_session_with_slow_requests_answers_in_any_order(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(null(MIB, latency_ns=10**9, node_name="slow"))
    call, _ = await opened(still, "slow")
    await submit(call, *reads(4), IoRequest(id=77, operation=READ, offset_bytes=-1, length_bytes=4))
    first = await call.read()
    assert [(result.id, result.reason) for result in first.results] == [(77, "RANGE_OUTSIDE")]
    await clock.advance(1)
    found = []
    while len(found) < 4:
        found += [result.id for result in (await call.read()).results]
    assert sorted(found) == [0, 1, 2, 3]
    call.cancel()


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (IoRequest(operation=READ, offset_bytes=MIB, length_bytes=1), "RANGE_OUTSIDE"),
        (IoRequest(operation=READ, offset_bytes=2**63 - 1, length_bytes=4096), "RANGE_OUTSIDE"),
        (IoRequest(operation=READ, length_bytes=MIB + 1), "INVALID_ARGUMENT"),
        (IoRequest(operation=READ, length_bytes=-1), "INVALID_ARGUMENT"),
        (IoRequest(operation=WRITE, offset_bytes=-1, data=b"x"), "RANGE_OUTSIDE"),
        (IoRequest(operation=WRITE, data=bytes(MIB + 1)), "INVALID_ARGUMENT"),
        (IoRequest(operation=IoRequest.OPERATION_WRITE_ZEROES, length_bytes=2**62), "RANGE_OUTSIDE"),
        (IoRequest(operation=IoRequest.OPERATION_DISCARD, length_bytes=-2), "RANGE_OUTSIDE"),
        (IoRequest(operation=IoRequest.OPERATION_UNSPECIFIED), "INVALID_ARGUMENT"),
        (IoRequest(operation=99), "INVALID_ARGUMENT"),
    ],
)
async def test_a_request_that_cannot_be_fails_alone(house: NodeHouse, request_, reason):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call, _ = await opened(house, "m")
    request_.id = 5
    await submit(call, request_)
    (result,) = (await call.read()).results
    assert (result.id, result.reason) == (5, reason) and result.code and result.error_message
    await submit(call, IoRequest(id=6, operation=READ, length_bytes=3))
    (result,) = (await call.read()).results
    assert (result.id, result.code, result.data) == (6, 0, bytes(3))
    call.cancel()


async def test_an_empty_read_and_write_are_done(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call, _ = await opened(house, "m")
    await submit(call, IoRequest(id=1, operation=READ), IoRequest(id=2, operation=WRITE))
    found = {}
    while len(found) < 2:
        found |= {result.id: result.code for result in (await call.read()).results}
    assert found == {1: 0, 2: 0}
    call.cancel()


async def test_a_read_only_node_can_be_read_in_a_session(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m", read_only=True))
    async with house.client.data.session("m") as session:
        assert await session.read(0, 3) == bytes(3)
        with pytest.raises(NodeReadOnly):
            await session.write(0, b"x")


async def test_a_session_begins_with_its_opening(house: NodeHouse):
    call = house.data.IoSession()
    await submit(call, *reads(1))
    assert isinstance(await end_of(call), InvalidArgument)
    call = house.data.IoSession()
    await call.done_writing()
    assert isinstance(await end_of(call), InvalidArgument)
    call = house.data.IoSession()
    await call.write(data.IoSessionRequest(open=data.IoSessionOpen(node_name="nobody")))
    assert isinstance(await end_of(call), NodeNotFound)
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call, _ = await opened(house, "m")
    await call.write(data.IoSessionRequest(open=data.IoSessionOpen(node_name="m")))
    assert isinstance(await end_of(call), InvalidArgument)
    await eventually(lambda: not house.users("m"))


async def test_a_session_holds_its_node_and_lets_it_go(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call, _ = await opened(house, "m")
    with pytest.raises(NodeInUse) as refused:
        await house.client.nodes.close("m")
    assert refused.value.owners == "session/test"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    await house.client.nodes.close("m")


async def test_the_end_of_the_stream_waits_for_what_is_in_flight(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(null(MIB, latency_ns=10**9, node_name="slow"))
    call, _ = await opened(still, "slow")
    await submit(call, *reads(3))
    await eventually(lambda: len(still.graph.get("slow").tracker.requests) == 3)
    await call.done_writing()
    reading = asyncio.create_task(call.read())
    await clock.advance(1)
    found = [result.id for result in (await reading).results]
    while (response := await call.read()) is not grpc.aio.EOF:
        found += [result.id for result in response.results]
    assert sorted(found) == [0, 1, 2]


async def test_a_client_that_vanishes_leaves_no_request_and_no_user(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(null(MIB, latency_ns=10**9, node_name="slow"))
    channel = grpc.aio.insecure_channel(still.client.address)
    call = DataServiceStub(channel).IoSession()
    await call.write(data.IoSessionRequest(open=data.IoSessionOpen(node_name="slow")))
    await call.read()
    writes = [
        IoRequest(id=number, operation=WRITE, offset_bytes=512 * number, data=bytes(512)) for number in range(9)
    ]
    await submit(call, *writes)
    node = still.graph.get("slow")
    await eventually(lambda: len(node.tracker.requests) == 9)
    await channel.close()
    await eventually(lambda: not node.tracker.requests and not node.parents)


async def test_a_client_that_vanishes_mid_write_leaves_a_sound_image(house: NodeHouse):
    await house.client.images.create("a.qcow2", 64 * MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    for round_ in range(5):
        call, _ = await opened(house, "a")
        writes = [
            IoRequest(id=number, operation=WRITE, offset_bytes=(round_ * 8 + number) * MIB, data=b"x" * 300_000)
            for number in range(8)
        ]
        await submit(call, *writes)
        call.cancel()
        await eventually(lambda: not house.users("a"))
    await house.client.nodes.close("a")
    report = await house.client.images.check("a.qcow2", "qcow2")
    assert (report.corruptions, report.check_errors) == (0, 0)


async def test_a_client_that_does_not_read_its_results_is_not_read_either(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call, granted = await opened(house, "m")
    account = house.graph.get("m").account.operations[1]

    async def flood() -> None:
        while True:  # as a client that counts no credits but sends one batch at a time
            await submit(call, *reads(16, MIB))

    flooding = asyncio.create_task(flood())
    seen = -1
    while account.transferred_bytes != seen:
        seen = account.transferred_bytes
        for _ in range(50):
            await asyncio.sleep(0.001)
    assert seen <= granted.max_bytes_in_flight + 64 * MIB
    flooding.cancel()
    call.cancel()
    await eventually(lambda: not house.users("m"))


async def test_an_error_in_a_session_is_the_services_own_class(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    async with house.client.data.session("m") as session:
        with pytest.raises(RangeOutside):
            await session.read(MIB, 1)


async def test_a_session_follows_its_node_when_users_move(house: NodeHouse):
    for name in ("a", "b"):
        await house.client.nodes.open(memory(MIB, node_name=name))
    async with house.client.data.session("a") as session:
        await session.write(0, b"old")
        await house.client.nodes.replace("a", "b")
        await session.write(0, b"new")
    assert await house.client.data.read("a", 0, 3) == b"old"
    assert await house.client.data.read("b", 0, 3) == b"new"
