"""Batches of a session: adjacent writes become one, and each has its own end. And what was refused is told."""

import random

import pytest

from blockyard.base.errors import BlockError, NodeReadOnly, RangeOutside
from blockyard.client.definitions import file, memory, qcow2
from blockyard.v1 import data_pb2 as data
from blockyard.v1 import types_pb2 as types
from blockyard.v1.data_pb2 import IoRequest
from tests.support.node_calls import NodeHouse

KIB, MIB = 1 << 10, 1 << 20


def write(number: int, offset: int, content: bytes, **flags: bool) -> IoRequest:
    return IoRequest(id=number, operation=IoRequest.OPERATION_WRITE, offset_bytes=offset, data=content, **flags)


async def submitted(house: NodeHouse, node: str, *requests: IoRequest) -> dict[int, data.IoResult]:
    """The results of one batch."""
    call = house.data.IoSession()
    await call.write(data.IoSessionRequest(open=data.IoSessionOpen(node_name=node, max_in_flight=256)))
    await call.read()
    await call.write(data.IoSessionRequest(batch=data.IoBatch(requests=requests)))
    await call.done_writing()
    results = {}
    while len(results) < len(requests):
        results |= {each.id: each for each in (await call.read()).results}
    call.cancel()
    return results


async def counted(house: NodeHouse, node: str, kind: int) -> types.OperationStats:
    stats = (await house.client.nodes.get(node)).stats
    return next((each for each in stats.operations if each.type == kind), types.OperationStats())


async def test_adjacent_writes_of_a_batch_are_one_and_each_is_answered(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    results = await submitted(house, "m", *(write(at, at * 4096, bytes([at]) * 4096) for at in range(32)))
    assert sorted(results) == list(range(32)) and not any(each.code for each in results.values())
    assert await house.client.data.read("m", 0, 128 * KIB) == b"".join(bytes([at]) * 4096 for at in range(32))
    done = await counted(house, "m", types.REQUEST_TYPE_WRITE)
    assert (done.operations, done.merged_operations, done.transferred_bytes) == (1, 31, 128 * KIB)


async def test_what_is_not_adjacent_plain_or_small_stays_by_itself(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    requests = [
        write(1, 0, b"a" * 512),
        write(2, 512, b"b" * 512, fua=True),
        write(3, 1024, b"c" * 512),
        write(4, 4096, b"d" * 512),
        write(5, 4608, b"e" * 64 * KIB),
        IoRequest(id=6, operation=IoRequest.OPERATION_READ, offset_bytes=4608 + 64 * KIB, length_bytes=512),
    ]
    results = await submitted(house, "m", *requests)
    assert len(results) == 6 and not any(each.code for each in results.values())
    assert not (await counted(house, "m", types.REQUEST_TYPE_WRITE)).merged_operations


async def test_of_adjacent_writes_only_the_wrong_one_fails(house: NodeHouse):
    await house.client.nodes.open(memory(8192, node_name="m"))
    results = await submitted(
        house, "m", write(1, 0, b"a" * 4096), write(2, 4096, b"b" * 4096), write(3, 8192, b"c")
    )
    assert [results[each].reason for each in (1, 2, 3)] == ["", "", "RANGE_OUTSIDE"]
    assert await house.client.data.read("m") == b"a" * 4096 + b"b" * 4096
    assert (await counted(house, "m", types.REQUEST_TYPE_WRITE)).invalid_operations == 1


@pytest.mark.parametrize("seed", range(3))
async def test_random_batches_leave_the_bytes_of_one_request_after_another(house: NodeHouse, seed: int):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    numbers, model, offset = random.Random(seed), bytearray(MIB), 0
    for _ in range(8):
        requests = []
        for number in range(40):
            content = numbers.randbytes(numbers.choice((512, 4096, 40_000)))
            offset = offset if numbers.random() < 0.7 else numbers.randrange(0, 300 * KIB, 512)
            offset = min(offset, MIB - len(content))
            busy = [each for each in requests if each.offset_bytes < offset + len(content)
                    and offset < each.offset_bytes + len(each.data)]  # fmt: skip
            if busy:  # requests in flight together may take effect in any order
                continue
            requests.append(write(number, offset, content, fua=numbers.random() < 0.1))
            model[offset : offset + len(content)] = content
            offset += len(content)
        await submitted(house, "a", *requests)
    assert await house.client.data.read("a") == model


async def test_zeroes_among_adjacent_writes_are_still_found(house: NodeHouse):
    await house.client.images.create("a.qcow2", MIB, format="qcow2", cluster_size_bytes=4096)
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a", detect_zeroes="on"))
    await submitted(house, "a", write(1, 0, b"x" * 4096), write(2, 4096, bytes(4096)), write(3, 8192, b"y" * 4096))
    extents = [each async for each in house.client.data.block_status("a", 0, 12288)]
    assert [each.data for each in extents] == [True, False, True]


async def test_refused_requests_count_as_invalid_of_their_kind(house: NodeHouse):
    await house.client.nodes.open(memory(8192, node_name="m"))
    client, outside = house.client.data, (8192, 1)
    calls = {
        types.REQUEST_TYPE_READ: lambda: client.read("m", *outside),
        types.REQUEST_TYPE_WRITE: lambda: client.write("m", 8192, b"x"),
        types.REQUEST_TYPE_WRITE_ZEROES: lambda: client.write_zeroes("m", *outside),
        types.REQUEST_TYPE_DISCARD: lambda: client.discard("m", *outside),
    }
    for kind, call in calls.items():
        with pytest.raises(RangeOutside):
            await call()
        done = await counted(house, "m", kind)
        assert (done.invalid_operations, done.operations, done.failed_operations) == (1, 0, 0), kind


async def test_writes_to_a_read_only_node_count_as_invalid(house: NodeHouse):
    house.raw_file("a.raw", MIB)
    await house.client.nodes.open(file("a.raw", node_name="r", read_only=True))
    client = house.client.data
    for kind, call in (
        (types.REQUEST_TYPE_WRITE, lambda: client.write("r", 0, b"x")),
        (types.REQUEST_TYPE_WRITE_ZEROES, lambda: client.write_zeroes("r", 0, 1)),
        (types.REQUEST_TYPE_DISCARD, lambda: client.discard("r", 0, 1)),
    ):
        with pytest.raises(NodeReadOnly):
            await call()
        assert (await counted(house, "r", kind)).invalid_operations == 1
    async with client.session("r") as session:
        with pytest.raises(BlockError):
            await session.write(0, b"x")
    assert (await counted(house, "r", types.REQUEST_TYPE_WRITE)).invalid_operations == 2
