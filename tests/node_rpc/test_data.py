"""Bytes over the API: read, write, zero, discard, flush, block status."""

import asyncio
import random

import grpc
import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    NodeNotFound,
    NodeReadOnly,
    OperationUnsupported,
    RangeOutside,
)
from blockyard.client.definitions import NO_NODE, file, memory, null, qcow2, raw
from blockyard.rpc.status import from_rpc_error
from blockyard.v1 import data_pb2 as data
from blockyard.v1 import types_pb2
from blockyard.v1.data_pb2_grpc import DataServiceStub
from tests.support import peers
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse, Raising

KIB, MIB = 1 << 10, 1 << 20


async def image(house: NodeHouse, size: int = 4 * MIB) -> None:
    """Node "a": qcow2 in a file."""
    await house.client.images.create("a.qcow2", size, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))


async def error_of(call) -> BlockError:
    """What a stream fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async for _ in call:
            pass
    return from_rpc_error(failed.value)


async def written(house: NodeHouse, *requests: data.WriteRequest) -> int:
    return (await Raising(house.data).Write(iter(requests))).written_bytes


# --- read and write --------------------------------------------------------------------------------------


async def test_what_was_written_at_any_place_is_read_back(house: NodeHouse):
    await image(house)
    numbers, model = random.Random(1), bytearray(4 * MIB)
    for _ in range(40):
        offset = numbers.randrange(4 * MIB)
        content = numbers.randbytes(numbers.randrange(1, min(300 * KIB, 4 * MIB - offset) + 1))
        assert await house.client.data.write("a", offset, content) == len(content)
        model[offset : offset + len(content)] = content
    assert await house.client.data.read("a") == bytes(model)


async def test_chunks_come_in_order_and_no_larger_than_asked(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    await house.client.data.write("m", 0, bytes(range(256)) * 4096)
    request = data.ReadRequest(node_name="m", offset_bytes=5, length_bytes=100_000, chunk_bytes=4096)
    position = 5
    async for response in house.data.Read(request):
        assert response.offset_bytes == position
        assert 0 < len(response.data) <= 4096
        assert response.data[0] == position % 256
        position += len(response.data)
    assert position == 100_005


async def test_a_sparse_read_sends_zeroes_as_lengths(house: NodeHouse):
    await image(house)
    await house.client.data.write("a", MIB, b"x" * 65536)
    await house.client.data.write("a", 2 * MIB, bytes(65536))  # stored zeroes are zeroes too
    pieces = [piece async for piece in house.data.Read(data.ReadRequest(node_name="a", sparse=True))]
    assert sum(len(piece.data) + piece.zero_length_bytes for piece in pieces) == 4 * MIB
    assert sum(len(piece.data) for piece in pieces) == 65536
    assert [piece.offset_bytes for piece in pieces] == sorted(piece.offset_bytes for piece in pieces)


async def test_a_terabyte_of_nothing_is_read_at_once(house: NodeHouse):
    await image(house, 1 << 40)
    pieces = [piece async for piece in house.data.Read(data.ReadRequest(node_name="a", sparse=True))]
    assert sum(piece.zero_length_bytes for piece in pieces) == 1 << 40
    assert len(pieces) < 10_000


@pytest.mark.parametrize(
    ("offset", "length"),
    [(-1, 1), (0, -1), (-(2**63), 10), (0, 5000), (4096, 1), (5000, 0), (2**63 - 1, 1), (1, 2**63 - 1), (4000, 97)],
)
async def test_a_range_outside_the_node_is_refused(house: NodeHouse, offset: int, length: int):
    await house.client.nodes.open(memory(4096, node_name="m"))
    where = {"node_name": "m", "offset_bytes": offset, "length_bytes": length}
    assert isinstance(await error_of(house.data.Read(data.ReadRequest(**where))), RangeOutside)
    assert isinstance(await error_of(house.data.BlockStatus(data.BlockStatusRequest(**where))), RangeOutside)
    if length:
        for method in ("WriteZeroes", "Discard"):
            with pytest.raises(RangeOutside):
                await getattr(Raising(house.data), method)(getattr(data, f"{method}Request")(**where))
    assert house.users("m") == []


@pytest.mark.parametrize("offset", [-1, 4096, 4095, 2**63 - 1, -(2**63)])
async def test_a_write_outside_the_node_is_refused(house: NodeHouse, offset: int):
    await house.client.nodes.open(memory(4096, node_name="m"))
    for content in ({"data": b"xx"}, {"zero_length_bytes": 2}):
        with pytest.raises(RangeOutside):
            await written(house, data.WriteRequest(node_name="m", offset_bytes=offset, **content))
    with pytest.raises(RangeOutside):
        await written(house, data.WriteRequest(node_name="m", zero_length_bytes=-1))
    assert await house.client.data.read("m") == bytes(4096)
    assert house.users("m") == []


async def test_an_empty_range_at_the_end_is_nothing(house: NodeHouse):
    await house.client.nodes.open(memory(4096, node_name="m"))
    assert [piece async for piece in house.data.Read(data.ReadRequest(node_name="m", offset_bytes=4096))] == []
    assert await written(house, data.WriteRequest(node_name="m", offset_bytes=4096, data=b"")) == 0


async def test_an_empty_node_is_read_as_nothing(house: NodeHouse):
    await house.client.nodes.open(memory(0, node_name="m"))
    assert await house.client.data.read("m") == b""
    (status,) = [each async for each in house.data.BlockStatus(data.BlockStatusRequest(node_name="m"))]
    assert not status.extents


async def test_chunks_have_their_bounds(house: NodeHouse):
    await house.client.nodes.open(memory(4096, node_name="m"))
    for chunk in (-1, 4095, MIB + 1):
        request = data.ReadRequest(node_name="m", chunk_bytes=chunk)
        assert isinstance(await error_of(house.data.Read(request)), InvalidArgument)
    with pytest.raises(InvalidArgument):
        await written(house, data.WriteRequest(node_name="m", data=bytes(MIB + 1)))


async def test_pieces_are_written_in_any_order_and_zeroes_travel_as_lengths(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    await house.client.data.write("m", 0, b"\xff" * MIB)
    count = await written(
        house,
        data.WriteRequest(node_name="m", offset_bytes=8192, data=b"later"),
        data.WriteRequest(offset_bytes=0, zero_length_bytes=4096),
        data.WriteRequest(offset_bytes=4096, data=b"earlier"),
    )
    assert count == 5 + 4096 + 7
    content = await house.client.data.read("m", 0, 8197)
    assert (content[:4096], content[4096:4103], content[8192:]) == (bytes(4096), b"earlier", b"later")


async def test_a_write_needs_a_node_that_can_be_written(house: NodeHouse):
    await house.client.nodes.open(memory(4096, node_name="locked", read_only=True))
    with pytest.raises(InvalidArgument):
        await written(house)
    with pytest.raises(NodeNotFound):
        await written(house, data.WriteRequest(node_name="nobody", data=b"x"))
    with pytest.raises(NodeNotFound):
        await written(house, data.WriteRequest(data=b"x"))
    with pytest.raises(NodeReadOnly):
        await written(house, data.WriteRequest(node_name="locked", data=b"x"))
    for call in (house.client.data.write_zeroes("locked", 0, 1), house.client.data.discard("locked", 0, 1)):
        with pytest.raises(NodeReadOnly):
            await call


async def test_a_durable_write_leaves_nothing_to_flush(house: NodeHouse):
    await image(house)
    await house.client.data.write("a", 0, b"x" * 4096, fua=True)
    assert not await house.client.data.flush("a"), "nothing to do"
    await house.client.data.write("a", 0, b"y" * 4096)
    assert await house.client.data.flush("a")
    assert not await house.client.data.flush("a")


@pytest.mark.peer("qemu-io")
async def test_a_flush_to_the_os_shows_others_the_metadata_and_leaves_the_disk_to_do(house: NodeHouse):
    await image(house)
    await house.client.data.write("a", 0, b"y" * 4096)
    below = (await house.client.nodes.get("a")).children[0].node_name

    def seen_by_others() -> bool:
        look = ("qemu-io", "-U", "-r", "-f", "qcow2", "-c", "read -P 0x79 0 4096", house.folder / "a.qcow2")
        return "verification failed" not in peers.run(*look, check=False).stdout

    async def flushes() -> int:
        stats = (await house.client.nodes.get(below)).stats
        return sum(item.operations for item in stats.operations if item.type == types_pb2.REQUEST_TYPE_FLUSH)

    assert not seen_by_others()
    assert await house.client.data.flush("a", level="os")
    assert seen_by_others()
    before = await flushes()  # what the order of metadata asked for
    assert await house.client.data.flush("a"), "the disk has it only now"
    assert await flushes() == before + 1


async def test_a_compressed_write_takes_less_room(house: NodeHouse):
    await image(house)
    await house.client.data.write("a", 0, b"blockyard " * 6554, compressed=True)
    status = [extent async for extent in house.client.data.block_status("a")]
    await house.client.data.write("a", 0, (b"blockyard " * 6554)[:65536], compressed=True)
    status = [extent async for extent in house.client.data.block_status("a", 0, 65536)]
    assert status[0].compressed and status[0].host_offset_bytes == -1
    assert await house.client.data.read("a", 0, 20) == b"blockyard blockyard "


# --- zeroes, discards, status ----------------------------------------------------------------------------


async def test_zeroes_read_as_zeroes_and_no_fallback_refuses_what_must_be_written(house: NodeHouse):
    await image(house)
    await house.client.data.write("a", 0, b"x" * 200_000)
    await house.client.data.write_zeroes("a", 1000, 150_000)
    assert await house.client.data.read("a", 999, 150_002) == b"x" + bytes(150_000) + b"x"
    with pytest.raises(OperationUnsupported):
        await house.client.data.write_zeroes("a", 1000, 1000, no_fallback=True)
    await house.client.data.write_zeroes("a", 0, 65536, no_fallback=True, may_unmap=True, fua=True)


async def test_a_discard_gives_room_back(house: NodeHouse):
    await image(house)
    await house.client.data.write("a", 0, b"x" * MIB)
    await house.client.data.discard("a", 0, MIB)
    status = [extent async for extent in house.client.data.block_status("a", 0, MIB)]
    assert not any(extent.data for extent in status)


async def test_block_status_tells_layers_and_where_data_lies(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="base"))
    await house.client.data.write("base", 0, b"x" * 65536)
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), backing="base", node_name="a"))
    await house.client.data.write("a", 65536, b"y" * 65536)
    below, own, rest = [extent async for extent in house.client.data.block_status("a")]
    assert (below.node_name, below.depth, below.data, below.zero) == ("base", 1, True, False)
    assert (own.node_name, own.depth, own.offset_bytes, own.length_bytes) == ("a", 0, 65536, 65536)
    assert own.host_offset_bytes > 0
    assert rest.zero
    above = [extent async for extent in house.client.data.block_status("a", base_node_name="base")]
    assert [extent.allocated for extent in above] == [False, True, False]
    await house.client.nodes.open(memory(MIB, node_name="stranger"))
    request = data.BlockStatusRequest(node_name="a", base_node_name="stranger")
    assert isinstance(await error_of(house.data.BlockStatus(request)), InvalidArgument)


async def test_block_status_comes_in_messages_of_bounded_length(house: NodeHouse):
    await house.client.nodes.open(memory(4 * MIB, node_name="m"))
    for offset in range(0, 4 * MIB, 128 * KIB):
        await house.client.data.write("m", offset, b"x")
    messages = [
        each async for each in house.data.BlockStatus(data.BlockStatusRequest(node_name="m", max_results=7))
    ]
    assert all(len(message.extents) <= 7 for message in messages)
    extents = [extent for message in messages for extent in message.extents]
    assert sum(extent.length_bytes for extent in extents) == 4 * MIB
    assert len(extents) == 64
    for count in (-1, 10_001):
        request = data.BlockStatusRequest(node_name="m", max_results=count)
        assert isinstance(await error_of(house.data.BlockStatus(request)), InvalidArgument)


# --- clients that go away or are slow --------------------------------------------------------------------


async def test_a_client_that_vanishes_mid_write_leaves_nothing_held(still: NodeHouse, clock: VirtualClock):
    await still.client.nodes.open(null(MIB, latency_ns=10**9, node_name="slow"))
    channel = grpc.aio.insecure_channel(still.client.address)
    call = DataServiceStub(channel).Write()
    await call.write(data.WriteRequest(node_name="slow", data=b"x" * 4096))
    await eventually(lambda: still.graph.get("slow").tracker.requests)
    await channel.close()
    await eventually(lambda: not still.graph.get("slow").tracker.requests)
    await eventually(lambda: not still.users("slow"))
    assert await still.client.nodes.close("slow", validate_only=True) == ()


async def test_an_idle_upload_that_is_cut_holds_nothing(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    call = house.data.Write()
    await call.write(data.WriteRequest(node_name="m", data=b"kept"))
    await eventually(lambda: house.graph.get("m").write_generation)
    call.cancel()
    await eventually(lambda: not house.users("m"))
    assert await house.client.data.read("m", 0, 4) == b"kept"


async def test_a_reader_that_stops_reading_holds_bounded_memory_and_lets_go(house: NodeHouse):
    await house.client.nodes.open(memory(256 * MIB, node_name="m"))
    for offset in range(0, 256 * MIB, 64 * MIB):
        await house.client.data.write("m", offset, b"x" * MIB)
    call = house.data.Read(data.ReadRequest(node_name="m"))
    await call.read()
    account = house.graph.get("m").account.operations[1]
    seen = -1
    while account.transferred_bytes != seen:  # until the flow control stops it
        seen = account.transferred_bytes
        for _ in range(50):
            await asyncio.sleep(0.001)
    assert seen < 64 * MIB
    call.cancel()
    await eventually(lambda: not house.users("m"))


async def test_a_node_read_by_a_stream_is_not_closed_under_it(house: NodeHouse):
    house.raw_file("a.raw", 32 * MIB)
    await house.client.nodes.open(raw(file("a.raw"), node_name="a"))
    call = house.data.Read(data.ReadRequest(node_name="a"))
    await call.read()
    with pytest.raises(BlockError) as refused:
        await house.client.nodes.close("a")
    assert refused.value.reason == "NODE_IN_USE"
    call.cancel()


async def test_many_clients_write_their_own_parts_at_once(house: NodeHouse):
    await house.client.images.create("a.qcow2", 16 * MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), backing=NO_NODE, node_name="a"))
    parts = [random.Random(seed).randbytes(700_001) for seed in range(12)]
    await asyncio.gather(*(house.client.data.write("a", at * 700_001, part) for at, part in enumerate(parts)))
    whole = await house.client.data.read("a", 0, 12 * 700_001)
    assert whole == b"".join(parts)


async def test_ranges_of_any_alignment_go_through_direct_io(house: NodeHouse):
    house.raw_file("a.raw", MIB)
    try:
        await house.client.nodes.open(raw(file("a.raw", direct=True), node_name="a", direct=True))
    except InvalidArgument as refused:
        pytest.skip(str(refused))
    state = await house.client.nodes.get("a")
    below = await house.client.nodes.get(state.children[0].node_name)
    assert below.limits.request_alignment_bytes >= 512 and state.cache.direct
    await house.client.data.write("a", 1000, b"x" * 5001)
    await house.client.data.write("a", MIB - 3, b"end")
    assert await house.client.data.read("a", 999, 5003) == b"\0" + b"x" * 5001 + b"\0"
    assert await house.client.data.read("a", MIB - 4, 4) == b"\0end"
    async with house.client.data.session("a") as session:
        await session.write(7, b"seven")
        assert await session.read(6, 7) == b"\0seven\0"


# --- zeroes that are found -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["on", "unmap"])
async def test_a_node_that_looks_for_zeroes_stores_none_and_says_so(house: NodeHouse, mode: str):
    await house.client.images.create("z.qcow2", MIB, format="qcow2")
    state = await house.client.nodes.open(qcow2(file("z.qcow2"), node_name="z", detect_zeroes=mode))
    assert state.detect_zeroes == types_pb2.DetectZeroes.Value(f"DETECT_ZEROES_{mode.upper()}")
    assert f'"detect-zeroes": "{mode}"' in state.full_open_options
    await house.client.data.write("z", 0, bytes(256 * KIB))
    async with house.client.data.session("z") as session:
        await session.write(512 * KIB, bytes(64 * KIB))
    assert not any([extent.data async for extent in house.client.data.block_status("z")])
