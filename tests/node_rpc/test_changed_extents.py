"""Where points in time hold data and where two differ, compared byte by byte with what they read."""

import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    NodeInUse,
    NodeNotFound,
    OperationUnsupported,
    RangeOutside,
    ResourceBusy,
    ResourceNotFound,
)
from blockyard.base.ranges import ByteRange
from blockyard.client.definitions import NO_NODE, file, memory, qcow2, raw
from blockyard.node.graph import comparing, surgery
from blockyard.node.graph.comparing import Point
from blockyard.rpc.status import from_rpc_error
from blockyard.v1 import control_pb2 as control
from blockyard.v1 import control_pb2_grpc
from tests.support.node_calls import NodeHouse

KIB, MIB = 1 << 10, 1 << 20
SIZE = 5 * MIB + 512
Extents = list[control.SnapshotExtent]


async def image(house: NodeHouse, name: str, size: int = SIZE, cluster: int = 4 * KIB, **options: str) -> None:
    """An image, open as a node of its name (its backing file, if it has one, as a node of that file's name)."""
    await house.client.images.create(name, size, format="qcow2", cluster_size_bytes=cluster, **options)
    backing = options.get("backing_file", NO_NODE)
    await house.client.nodes.open(qcow2(file(name), backing=backing, node_name=name))


async def content(house: NodeHouse, point: str) -> bytes:
    node, _, snapshot = point.partition("@")
    if not snapshot:
        return await house.client.data.read(node, 0, (await house.client.nodes.get(node)).size_bytes)
    await house.client.snapshots.open(node, snapshot, "looked-at")
    try:
        return await content(house, "looked-at")
    finally:
        await house.client.nodes.close("looked-at")


async def shake(house: NodeHouse, node: str, seed: int, steps: int = 25) -> None:
    """Writes, zeroes and discards of any shape, each write of other bytes than there were."""
    numbers = random.Random(seed)
    size = (await house.client.nodes.get(node)).size_bytes
    for _ in range(steps):
        length = min(size, numbers.choice((512, 4 * KIB, 40 * KIB, 300 * KIB)))
        offset = numbers.randrange(0, size - length + 1, 512)
        what = numbers.choice(("write", "write", "write", "zero", "discard"))
        if what == "write":
            await house.client.data.write(node, offset, numbers.randbytes(length))
        elif what == "zero":
            await house.client.data.write_zeroes(node, offset, length)
        else:
            await house.client.data.discard(node, offset, length)


def streams(house: NodeHouse) -> control_pb2_grpc.SnapshotServiceStub:
    """The bare stub."""
    return control_pb2_grpc.SnapshotServiceStub(house.channel)  # type: ignore[no-untyped-call]


async def gathered(extents: AsyncIterator[control.SnapshotExtent]) -> Extents:
    found = [extent async for extent in extents]
    assert all(extent.length_bytes > 0 for extent in found)
    for one, two in pairwise(found):
        end = one.offset_bytes + one.length_bytes
        assert end < two.offset_bytes or (end == two.offset_bytes and one.zero != two.zero)
    return found


def applied(base: bytes, target: bytes, extents: Extents) -> bytes:
    """The base with what was told of the target."""
    made = bytearray(base[: len(target)].ljust(len(target), b"\0"))
    for extent in extents:
        start, end = extent.offset_bytes, extent.offset_bytes + extent.length_bytes
        made[start:end] = bytes(end - start) if extent.zero else target[start:end]
    return bytes(made)


async def assert_sufficient(house: NodeHouse, base: str, target: str) -> Extents:
    """What is told, once it is seen that it is enough to make the target of the base."""
    found = await gathered(house.client.snapshots.changed(base, target))
    before, after = await content(house, base), await content(house, target)
    assert applied(before, after, found) == after
    return found


async def assert_allocated(house: NodeHouse, point: str) -> None:
    node, _, snapshot = point.partition("@")
    found = await gathered(house.client.snapshots.allocated(node, snapshot))
    there = await content(house, point)
    assert not any(extent.zero for extent in found)
    assert applied(bytes(len(there)), there, found) == there


@pytest.mark.parametrize("cluster", (512, 4 * KIB, 64 * KIB))
async def test_snapshots_of_an_image_and_the_disk_differ_where_their_bytes_do(cluster: int, house: NodeHouse):
    await image(house, "disk", cluster=cluster)
    points = []
    for number in range(4):
        await shake(house, "disk", cluster + number)
        await house.client.snapshots.create("disk", f"s{number}")
        points.append(f"disk@s{number}")
    await house.client.snapshots.delete("disk", "s1")
    points.remove("disk@s1")
    await shake(house, "disk", 99)
    for base in (*points, "disk"):
        await assert_allocated(house, base)
        for target in (*points, "disk"):
            found = await assert_sufficient(house, base, target)
            assert bool(found) == (base != target)


async def test_what_was_not_written_is_not_told(house: NodeHouse):
    await image(house, "disk", 256 * MIB, 64 * KIB)
    for at in range(0, 256 * MIB, 16 * MIB):
        await house.client.data.write("disk", at, b"x" * 64 * KIB)
    await house.client.snapshots.create("disk", "one")
    assert await gathered(house.client.snapshots.changed("disk@one", "disk")) == []
    await house.client.data.write("disk", 32 * MIB + 512, b"y")
    await house.client.data.write_zeroes("disk", 100 * MIB, 64 * KIB)
    assert await gathered(house.client.snapshots.changed("disk@one", "disk")) == [
        control.SnapshotExtent(offset_bytes=32 * MIB, length_bytes=64 * KIB)
    ]
    await house.client.data.write_zeroes("disk", 48 * MIB, 64 * KIB)
    assert (await gathered(house.client.snapshots.changed("disk@one", "disk")))[1:] == [
        control.SnapshotExtent(offset_bytes=48 * MIB, length_bytes=64 * KIB, zero=True)
    ]


async def test_compressed_clusters_that_were_not_rewritten_are_equal(house: NodeHouse):
    await image(house, "disk")
    await house.client.data.write("disk", 0, b"a" * 64 * KIB, compressed=True)
    await house.client.snapshots.create("disk", "one")
    await house.client.data.write("disk", 4 * KIB, b"b" * 4 * KIB, compressed=True)
    found = await assert_sufficient(house, "disk@one", "disk")
    assert [(each.offset_bytes, each.length_bytes) for each in found] == [(4 * KIB, 4 * KIB)]


async def test_snapshots_of_other_sizes_are_compared_as_if_continued_with_zeroes(house: NodeHouse):
    await image(house, "disk", MIB)
    await shake(house, "disk", 1)
    await house.client.snapshots.create("disk", "small")
    await house.client.nodes.resize("disk", 4 * MIB)
    await shake(house, "disk", 2)
    await house.client.snapshots.create("disk", "large")
    for base, target in (("disk@small", "disk@large"), ("disk@large", "disk@small"), ("disk@small", "disk")):
        await assert_sufficient(house, base, target)


@pytest.fixture
async def chain(house: NodeHouse) -> NodeHouse:
    """base (raw) <- low, larger <- middle, smaller <- top, larger; side over low. Each has its own data."""
    house.raw_file("base", random.Random(5).randbytes(600 * KIB) + bytes(MIB))
    await house.client.nodes.open(raw(file("base"), node_name="base", read_only=True))
    await image(house, "low", 3 * MIB, backing_file="base", backing_format="raw")
    await shake(house, "low", 1)
    await image(house, "middle", 2 * MIB, backing_file="low", backing_format="qcow2")
    await shake(house, "middle", 2, 8)
    await image(house, "top", 4 * MIB, backing_file="middle", backing_format="qcow2")
    await shake(house, "top", 3, 8)
    await image(house, "side", 3 * MIB, backing_file="low", backing_format="qcow2")
    await shake(house, "side", 4, 8)
    return house


async def test_layers_of_a_chain_differ_where_their_bytes_do(chain: NodeHouse):
    names = ("base", "low", "middle", "top", "side")
    for base in names:
        await assert_allocated(chain, base)
        for target in names:
            found = await assert_sufficient(chain, base, target)
            assert bool(found) == (base != target)


async def test_snapshots_inside_layers_are_points_as_well(chain: NodeHouse):
    await chain.client.snapshots.create("top", "one")
    await shake(chain, "top", 9)
    await chain.client.snapshots.create("top", "two")
    await shake(chain, "top", 10, 4)
    points = ("low", "middle", "side", "top@one", "top@two", "top")
    for base in points:
        await assert_allocated(chain, base)
        for target in points:
            await assert_sufficient(chain, base, target)
    assert len(await gathered(chain.client.snapshots.changed("middle", "top@one"))) > 0


async def test_a_snapshot_that_is_open_as_a_node_is_the_same_point(house: NodeHouse):
    await image(house, "disk")
    await shake(house, "disk", 1)
    await house.client.snapshots.create("disk", "one")
    await shake(house, "disk", 2, 6)
    await house.client.snapshots.open("disk", "one", "old")
    by_node = await gathered(house.client.snapshots.changed("old", "disk"))
    assert by_node == await assert_sufficient(house, "disk@one", "disk")
    assert await gathered(house.client.snapshots.changed("old", "disk@1")) == []


async def test_a_stream_that_broke_off_goes_on_where_it_was(house: NodeHouse):
    await image(house, "disk")
    await shake(house, "disk", 1)
    await house.client.snapshots.create("disk", "one")
    await shake(house, "disk", 2, 60)
    whole = await gathered(house.client.snapshots.changed("disk@one", "disk"))
    request = control.StreamChangedExtentsRequest(
        base=control.PointInTime(node_name="disk", snapshot="one"),
        target=control.PointInTime(node_name="disk"),
        max_results=3,
    )
    found: Extents = []
    while request.offset_bytes < SIZE:
        stream = streams(house).StreamChangedExtents(request)
        async for reply in stream:
            assert len(reply.extents) <= 3
            assert reply.size_bytes == SIZE
            assert reply.next_offset_bytes > request.offset_bytes
            found += reply.extents
            request.offset_bytes = reply.next_offset_bytes
            break
        stream.cancel()
    assert found == whole


async def test_a_part_is_told_alone(house: NodeHouse):
    await image(house, "disk")
    await house.client.data.write("disk", 0, b"x" * 64 * KIB)
    part = house.client.snapshots.allocated("disk", offset=5 * KIB, length=10 * KIB)
    assert [(each.offset_bytes, each.length_bytes) for each in await gathered(part)] == [(5 * KIB, 10 * KIB)]


async def test_a_snapshot_is_not_deleted_under_a_stream(house: NodeHouse):
    await image(house, "disk")
    await shake(house, "disk", 1)
    await house.client.snapshots.create("disk", "one")
    request = control.StreamAllocatedExtentsRequest(
        point=control.PointInTime(node_name="disk", snapshot="one"), max_results=1
    )
    stream = streams(house).StreamAllocatedExtents(request)
    await stream.read()
    with pytest.raises((ResourceBusy, NodeInUse)):
        await house.client.snapshots.delete("disk", "one")
    stream.cancel()


@pytest.mark.parametrize(
    ("base", "target", "error"),
    (
        ("none", "disk", NodeNotFound),
        ("disk", "none", NodeNotFound),
        ("disk@none", "disk", ResourceNotFound),
        ("m@one", "disk", OperationUnsupported),
        ("m", "disk", InvalidArgument),
    ),
)
async def test_points_that_cannot_be_are_refused(base: str, target: str, error: type[BlockError], house: NodeHouse):
    await image(house, "disk")
    await house.client.nodes.open(memory(MIB, node_name="m"))
    with pytest.raises(error):
        await gathered(house.client.snapshots.changed(base, target))


@pytest.mark.parametrize(
    ("fields", "error"),
    (
        ({"offset_bytes": -1}, InvalidArgument),
        ({"length_bytes": -1}, InvalidArgument),
        ({"offset_bytes": SIZE, "length_bytes": 1}, RangeOutside),
        ({"offset_bytes": SIZE + 1}, RangeOutside),
        ({"max_results": -1}, InvalidArgument),
        ({"max_results": 10_001}, InvalidArgument),
    ),
)
async def test_ranges_that_cannot_be_are_refused(fields: dict[str, int], error: type[BlockError], house: NodeHouse):
    await image(house, "disk")
    request = control.StreamAllocatedExtentsRequest(point=control.PointInTime(node_name="disk"), **fields)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await streams(house).StreamAllocatedExtents(request).read()
    assert isinstance(from_rpc_error(raised.value, ""), error)


async def test_the_end_of_a_disk_is_an_empty_answer(house: NodeHouse, tmp_path: Path):
    await image(house, "disk")
    assert await gathered(house.client.snapshots.allocated("disk", offset=SIZE)) == []


async def test_a_chain_that_changes_under_a_stream_is_looked_at_anew(house: NodeHouse):
    await image(house, "low")
    await shake(house, "low", 1)
    await image(house, "middle", backing_file="low", backing_format="qcow2")
    await image(house, "top", backing_file="middle", backing_format="qcow2")
    await shake(house, "top", 2, 40)
    batches = comparing.changed(house.graph, Point("low"), Point("top"), ByteRange(0, 0), 1)
    found = [*(await anext(batches)).extents]
    top, low = house.graph.get("top"), house.graph.get("low")
    await surgery.set_backing(house.graph, top, low, None, header=False)
    found += (await anext(batches)).extents
    await house.client.nodes.close("middle")
    async for batch in batches:
        found += batch.extents
    whole = await gathered(house.client.snapshots.changed("low", "top"))
    assert [(each.offset, each.length, each.zero) for each in found] == [
        (each.offset_bytes, each.length_bytes, each.zero) for each in whole
    ]


async def test_a_layer_that_left_the_chain_is_closed_when_the_stream_ends(house: NodeHouse):
    """Images that only a chain holds live as long as somebody reads it."""
    await house.client.images.create("low", SIZE, format="qcow2")
    await house.client.images.create("top", SIZE, format="qcow2", backing_file="low", backing_format="qcow2")
    await house.client.nodes.open(qcow2(file("top"), backing=qcow2(file("low"), backing=NO_NODE), node_name="top"))
    below = {node.node_name for node in await house.client.nodes.list()} - {"top"}
    batches = comparing.allocated(house.graph, Point("top"), ByteRange(0, 0), 1)
    await anext(batches)
    await surgery.set_backing(house.graph, house.graph.get("top"), None, None, header=False)
    await batches.aclose()
    assert len({node.node_name for node in await house.client.nodes.list()} & below) < len(below)
