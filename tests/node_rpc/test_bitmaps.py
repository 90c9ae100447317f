"""Dirty bitmaps over the API."""

import asyncio
import subprocess
from pathlib import Path

import grpc
import pytest

from blockyard.base.errors import (
    InvalidArgument,
    LimitReached,
    NodeNotFound,
    RangeOutside,
    RequestIdReused,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.client.definitions import NO_NODE, file, memory, qcow2
from blockyard.rpc.status import from_rpc_error
from blockyard.v1 import bitmap_pb2 as bitmap
from blockyard.v1 import bitmap_pb2_grpc
from tests.bench.qsd import storage_daemon
from tests.support.node_calls import NodeHouse

KIB, MIB = 1 << 10, 1 << 20


def wanted(name: str = "b", **fields: object) -> bitmap.CreateBitmapRequest:
    return bitmap.CreateBitmapRequest(node_name="m", name=name, **fields)


async def extents(house: NodeHouse, name: str = "b", **fields: int) -> list[tuple[int, int]]:
    request = bitmap.StreamDirtyExtentsRequest(node_name="m", name=name, **fields)
    found = []
    async for response in bitmap_pb2_grpc.BitmapServiceStub(house.channel).StreamDirtyExtents(request):
        assert response.size_bytes == MIB
        assert len(response.extents) <= (fields.get("max_results") or 1000)
        found += [(extent.offset_bytes, extent.length_bytes) for extent in response.extents]
    return found


@pytest.fixture
async def memory_house(house: NodeHouse) -> NodeHouse:
    await house.client.nodes.open(memory(MIB, node_name="m"))
    return house


async def test_a_bitmap_records_what_is_written_after_it(memory_house: NodeHouse):
    house = memory_house
    await house.client.data.write("m", 0, b"before")
    made = await house.bitmaps.CreateBitmap(wanted(granularity_bytes=4096))
    assert (made.granularity_bytes, made.dirty_bytes, made.recording) == (4096, 0, True)
    await house.client.data.write("m", 10_000, b"x")
    await house.client.data.write_zeroes("m", 65536, 8192)
    await house.client.data.discard("m", 524288, 4096)
    assert await extents(house) == [(8192, 4096), (65536, 8192), (524288, 4096)]
    assert (await house.client.bitmaps.get("m", "b")).dirty_bytes == 16384


async def test_the_default_granularity_follows_the_cluster_size(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    assert (await house.bitmaps.CreateBitmap(wanted())).granularity_bytes == 65536
    for cluster, granularity in ((512, 4096), (32768, 32768), (2 * MIB, 65536)):
        name = f"c{cluster}"
        await house.client.images.create(name, MIB, format="qcow2", cluster_size_bytes=cluster)
        await house.client.nodes.open(qcow2(file(name), backing=NO_NODE, node_name=name))
        made = await house.bitmaps.CreateBitmap(bitmap.CreateBitmapRequest(node_name=name, name="b"))
        assert made.granularity_bytes == granularity


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"granularity_bytes": 1000}, InvalidArgument),
        ({"granularity_bytes": 256}, InvalidArgument),
        ({"granularity_bytes": 128 * MIB}, InvalidArgument),
        ({"granularity_bytes": -1}, InvalidArgument),
        ({"name": ""}, InvalidArgument),
        ({"name": "x" * 1024}, InvalidArgument),
        ({"name": "a\0b"}, InvalidArgument),
    ],
)
async def test_what_cannot_be_a_bitmap_is_refused(memory_house: NodeHouse, fields, error):
    with pytest.raises(error):
        await memory_house.bitmaps.CreateBitmap(wanted(**fields))
    assert await memory_house.client.bitmaps.list() == ()


async def test_a_bitmap_of_too_many_bits_is_refused(house: NodeHouse):
    await house.client.nodes.open(memory(2**62, node_name="m"))
    with pytest.raises(InvalidArgument):
        await house.bitmaps.CreateBitmap(wanted(granularity_bytes=512))


async def test_names_are_given_once_and_found_again(memory_house: NodeHouse):
    house = memory_house
    await house.bitmaps.CreateBitmap(wanted(request_id="one"))
    await house.bitmaps.CreateBitmap(wanted(request_id="one"))
    with pytest.raises(RequestIdReused):
        await house.bitmaps.CreateBitmap(wanted("c", request_id="one"))
    with pytest.raises(ResourceExists):
        await house.bitmaps.CreateBitmap(wanted())
    with pytest.raises(ResourceNotFound):
        await house.client.bitmaps.get("m", "nothing")
    with pytest.raises(NodeNotFound):
        await house.client.bitmaps.get("nobody", "b")


async def test_bitmaps_are_listed_by_node_and_name(memory_house: NodeHouse):
    house = memory_house
    await house.client.nodes.open(memory(MIB, node_name="a"))
    for node_name, name in (("m", "y"), ("m", "x"), ("a", "z")):
        await house.bitmaps.CreateBitmap(bitmap.CreateBitmapRequest(node_name=node_name, name=name))
    assert [(each.node_name, each.name) for each in await house.client.bitmaps.list()] == [
        ("a", "z"),
        ("m", "x"),
        ("m", "y"),
    ]
    assert [each.name for each in await house.client.bitmaps.list("m")] == ["x", "y"]
    assert [each.name for each in (await house.client.nodes.get("m")).dirty_bitmaps] == ["y", "x"]


async def test_a_node_has_a_bounded_number_of_bitmaps(memory_house: NodeHouse):
    for number in range(256):
        await memory_house.bitmaps.CreateBitmap(wanted(f"b{number}"))
    with pytest.raises(LimitReached):
        await memory_house.bitmaps.CreateBitmap(wanted("more"))


async def test_recording_can_be_stopped_and_taken_up(memory_house: NodeHouse):
    house = memory_house
    assert not (await house.bitmaps.CreateBitmap(wanted(disabled=True))).recording
    await house.client.data.write("m", 0, b"x")
    assert await extents(house) == []
    assert (await house.client.bitmaps.record("m", "b", True)).recording
    await house.client.data.write("m", 65536, b"x")
    await house.client.bitmaps.record("m", "b", False)
    await house.client.data.write("m", 131072, b"x")
    assert await extents(house) == [(65536, 65536)]


async def test_a_cleared_bitmap_is_clean_and_goes_on(memory_house: NodeHouse):
    house = memory_house
    await house.bitmaps.CreateBitmap(wanted())
    await house.client.data.write("m", 0, b"x")
    assert (await house.client.bitmaps.clear("m", "b")).dirty_bytes == 0
    await house.client.data.write("m", MIB - 1, b"x")
    assert await extents(house) == [(MIB - 65536, 65536)]


async def test_bitmaps_are_merged_across_granularities_and_nodes(memory_house: NodeHouse):
    house = memory_house
    await house.client.nodes.open(memory(MIB, node_name="other"))
    await house.bitmaps.CreateBitmap(wanted(granularity_bytes=4096))
    await house.bitmaps.CreateBitmap(bitmap.CreateBitmapRequest(node_name="other", name="o"))
    await house.client.data.write("m", 0, b"x")
    await house.client.data.write("other", 200_000, b"x")
    await house.client.bitmaps.merge(("m", "b"), [("other", "o")])
    assert await extents(house) == [(0, 4096), (196608, 65536)]
    with pytest.raises(ResourceNotFound):
        await house.client.bitmaps.merge(("m", "b"), [("m", "nothing")])


async def test_a_busy_bitmap_is_left_alone(memory_house: NodeHouse):
    house = memory_house
    await house.bitmaps.CreateBitmap(wanted())
    house.graph.get("m").bitmaps["b"].freeze("job/backup1")
    told = await house.client.bitmaps.get("m", "b")
    assert (told.busy, told.owner) == (True, "job/backup1")
    for call in (
        house.client.bitmaps.clear("m", "b"),
        house.client.bitmaps.remove("m", "b"),
        house.client.bitmaps.record("m", "b", False),
        house.client.bitmaps.merge(("m", "b"), []),
    ):
        with pytest.raises(ResourceBusy) as refused:
            await call
        assert refused.value.owner == "job/backup1"


async def test_a_deleted_bitmap_is_gone(memory_house: NodeHouse):
    house = memory_house
    await house.bitmaps.CreateBitmap(wanted())
    await house.client.bitmaps.remove("m", "b")
    with pytest.raises(ResourceNotFound):
        await house.client.bitmaps.remove("m", "b")
    await house.client.bitmaps.remove("m", "b", allow_missing=True)
    await house.client.data.write("m", 0, b"x")


async def test_extents_are_streamed_in_bounded_messages_and_resumed(memory_house: NodeHouse):
    house = memory_house
    await house.bitmaps.CreateBitmap(wanted(granularity_bytes=512))
    for offset in range(0, MIB, 8192):
        await house.client.data.write("m", offset, b"x")
    whole = await extents(house, max_results=10)
    assert whole == [(offset, 512) for offset in range(0, MIB, 8192)]
    middle = whole[60][0] + whole[60][1]
    assert await extents(house, offset_bytes=middle) == whole[61:]
    assert await extents(house, offset_bytes=100, length_bytes=100) == [(100, 100)]


async def test_extents_of_what_is_not_there_are_refused(memory_house: NodeHouse):
    house = memory_house
    await house.bitmaps.CreateBitmap(wanted())
    for fields, error in (
        ({"offset_bytes": -1}, RangeOutside),
        ({"offset_bytes": MIB + 1}, RangeOutside),
        ({"length_bytes": 2**63 - 1, "offset_bytes": 5}, RangeOutside),
        ({"max_results": 10_001}, InvalidArgument),
        ({"name": "nothing"}, ResourceNotFound),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await extents(house, **fields)
        assert isinstance(from_rpc_error(refused.value), error)


async def test_a_bitmap_follows_its_nodes_size(memory_house: NodeHouse):
    house = memory_house
    await house.bitmaps.CreateBitmap(wanted())
    await house.client.nodes.resize("m", 2 * MIB)
    await house.client.data.write("m", 2 * MIB - 1, b"x")
    assert (await house.client.bitmaps.get("m", "b")).dirty_bytes == 65536


@pytest.mark.peer("qemu-storage-daemon")
async def test_a_bitmap_hashes_as_it_does_in_qemu(memory_house: NodeHouse, tmp_path: Path):
    house = memory_house
    with storage_daemon(tmp_path) as qmp:
        (tmp_path / "disk").write_bytes(bytes(MIB))
        qmp("blockdev-add", driver="file", node_name="n", filename=str(tmp_path / "disk"))
        for name, granularity in (("fine", 512), ("coarse", 65536)):
            await house.bitmaps.CreateBitmap(wanted(name, granularity_bytes=granularity))
            qmp("block-dirty-bitmap-add", node="n", name=name, granularity=granularity)
        with pytest.raises(RuntimeError, match="already"):  # it answers, so what follows is not vacuous
            qmp("block-dirty-bitmap-add", node="n", name="fine")
        for name in ("fine", "coarse"):
            theirs = qmp("x-debug-block-dirty-bitmap-sha256", node="n", name=name)["sha256"]
            assert await house.client.bitmaps.sha256("m", name) == theirs
        address = {"type": "unix", "path": str(tmp_path / "nbd")}
        qmp("nbd-server-start", addr={"type": "unix", "data": {"path": address["path"]}})
        qmp("block-export-add", type="nbd", id="n", name="n", node_name="n", writable=True)
        writes = ["write 1000448 512", "write 0 4096", "write 300032 100352"]
        commands = [part for each in writes for part in ("-c", each)]
        qemu_io = ["qemu-io", "-f", "raw", f"nbd+unix:///n?socket={address['path']}", *commands]
        await asyncio.to_thread(subprocess.run, qemu_io, check=True, capture_output=True, timeout=20)
        for each in writes:
            _, offset, length = each.split()
            await house.client.data.write("m", int(offset), b"x" * int(length))
        for name in ("fine", "coarse"):
            theirs = qmp("x-debug-block-dirty-bitmap-sha256", node="n", name=name)["sha256"]
            assert await house.client.bitmaps.sha256("m", name) == theirs
