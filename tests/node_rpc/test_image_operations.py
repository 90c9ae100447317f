"""Rebase, compare and check of open images over the API, with progress and with streams that are dropped."""

import asyncio
import random
from pathlib import Path

import pytest

from blockyard.base.errors import (
    FileNotFound,
    GraphCycle,
    InvalidArgument,
    NodeNotFound,
    NodeReadOnly,
    OperationUnsupported,
    PathDenied,
)
from blockyard.client.definitions import NO_NODE, file, memory, qcow2, raw
from blockyard.v1 import node_pb2 as node
from tests.support import peers
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse

MIB = 1 << 20
Difference = node.CompareNodesResponse.Result


async def two_bases_and_a_top(house: NodeHouse) -> bytes:
    """Nodes "top" over "old", and "new"; what "top" shows."""
    numbers = random.Random(3)
    content = bytearray(numbers.randbytes(2 * MIB))
    house.raw_file("old.raw", bytes(content))
    for at in range(0, 2 * MIB, 256 * 1024):
        content[at : at + 5000] = numbers.randbytes(5000)
    house.raw_file("new.raw", bytes(content))
    await house.client.images.create(
        "top.qcow2", format="qcow2", backing_file="old.raw", backing_format="raw", cluster_size_bytes=4096
    )
    await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
    await house.client.nodes.open(raw(file("new.raw", read_only=True), node_name="new", read_only=True))
    await house.client.data.write("top", MIB, b"t" * 9000)
    return bytes(await house.client.data.read("top"))


@pytest.mark.peer("qemu-img")
async def test_a_rebased_image_shows_the_same_and_says_its_new_chain(house: NodeHouse):
    before = await two_bases_and_a_top(house)
    seen: list[node.OperationProgress] = []
    done = await house.client.operations.rebase("top", "new", progress=seen.append)
    assert (done.node.backing_file, done.node.backing_format) == ("new.raw", "raw")
    assert done.copied_bytes == 7 * 8192 + 8192 or done.copied_bytes > 0
    assert "copying" in {each.phase for each in seen}
    assert await house.client.data.read("top") == before
    (house.folder / "old.raw").unlink()
    await house.client.nodes.close("top")
    peers.run("qemu-img", "check", house.folder / "top.qcow2")
    peers.run("qemu-img", "convert", "-U", "-O", "raw", house.folder / "top.qcow2", house.folder / "flat.raw")
    assert (house.folder / "flat.raw").read_bytes() == before


async def test_a_rebase_to_nothing_and_back_is_what_it_was(house: NodeHouse):
    before = await two_bases_and_a_top(house)
    alone = await house.client.operations.rebase("top")
    assert alone.node.backing_file == "" and await house.client.data.read("top") == before
    again = await house.client.operations.rebase("top", "new")
    assert again.node.backing_file == "new.raw" and again.copied_bytes == 0
    assert await house.client.data.read("top") == before


async def test_an_unsafe_rebase_takes_the_names_that_are_given(house: NodeHouse):
    await two_bases_and_a_top(house)
    done = await house.client.operations.rebase("top", "new", backing_file="./new.raw", unsafe=True)
    assert (done.node.backing_file, done.copied_bytes) == ("./new.raw", 0)
    assert await house.client.data.read("top", 0, 5000) == (house.folder / "new.raw").read_bytes()[:5000]


async def test_a_rebase_whose_stream_is_dropped_leaves_nothing_held(house: NodeHouse):
    before = await two_bases_and_a_top(house)
    call = asyncio.create_task(house.client.operations.rebase("top"))
    await eventually(lambda: "call/RebaseImage" in house.users("top") or call.done())
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await eventually(lambda: "call/RebaseImage" not in house.users("top"))
    assert await house.client.data.read("top") == before
    await house.client.operations.rebase("top", "new")
    assert await house.client.data.read("top") == before


async def test_what_cannot_be_rebased_is_refused(house: NodeHouse):
    await two_bases_and_a_top(house)
    rebase = house.client.operations.rebase
    with pytest.raises(NodeNotFound):
        await rebase("top", "nobody")
    with pytest.raises(GraphCycle):
        await rebase("top", "top")
    with pytest.raises(OperationUnsupported):
        await rebase("new", "top")
    with pytest.raises(InvalidArgument):
        await rebase("top", backing_file="x.raw")


# --- compare ---------------------------------------------------------------------------------------------


async def test_two_nodes_are_compared(house: NodeHouse):
    await two_bases_and_a_top(house)
    compare = house.client.operations.compare
    same = await compare("top", "top")
    assert (same.identical, same.offset_bytes, same.compared_bytes) == (True, -1, 0)
    other = await compare("new", "top")
    assert (other.identical, other.difference, other.offset_bytes) == (False, Difference.DIFFERENCE_CONTENT, 0)
    await house.client.nodes.open(memory(MIB, node_name="small"))
    sizes = await compare("small", "new", strict=True)
    assert sizes.difference == Difference.DIFFERENCE_SIZE
    assert (sizes.first_size_bytes, sizes.second_size_bytes) == (MIB, 2 * MIB)
    assert (await compare("new", "top", offset=6000, length=4096)).identical
    with pytest.raises(NodeNotFound):
        await compare("new", "nobody")


# --- check -----------------------------------------------------------------------------------------------


async def damaged(house: NodeHouse) -> Path:
    """Node "a" with a leaked cluster and data below it, open."""
    await house.client.images.create("a.qcow2", 4 * MIB, format="qcow2")
    path = house.folder / "a.qcow2"
    with path.open("r+b") as image:  # count one cluster more than is used
        image.seek(2 * 65536 + 2 * 8)
        image.write((1).to_bytes(2, "big"))
        image.truncate(9 * 65536)
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a", backing=NO_NODE))
    return path


@pytest.mark.peer("qemu-img")
async def test_an_open_image_is_checked_and_its_leaks_are_used_again(house: NodeHouse):
    path = await damaged(house)
    seen: list[node.OperationProgress] = []
    await house.client.data.write("a", 0, b"x" * 200_000)
    report = await house.client.operations.check("a", progress=seen.append)
    assert (report.corruptions, report.leaks, report.allocated_clusters) == (0, 1, 4)
    assert {"references"} <= {each.phase for each in seen}
    fixed = await house.client.operations.check("a", repair="leaks")
    assert (fixed.leaks, fixed.leaks_fixed) == (0, 1)
    await house.client.data.write("a", MIB, b"y" * 300_000)
    await house.client.nodes.close("a")
    peers.run("qemu-img", "check", path)


@pytest.mark.peer("qemu-img")
async def test_refcounts_that_are_too_low_are_repaired_under_a_guest(house: NodeHouse):
    path = await damaged(house)
    await house.client.data.write("a", 0, b"x" * 200_000)
    await house.client.nodes.close("a")
    with path.open("r+b") as image:
        image.seek(2 * 65536 + 2 * 5)  # the second cluster of data
        image.write((0).to_bytes(2, "big"))
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a", backing=NO_NODE))
    assert (await house.client.operations.check("a")).corruptions > 0
    report = await house.client.operations.check("a", repair="all")
    assert report.corruptions == 0 and report.corruptions_fixed > 0
    assert await house.client.data.read("a", 0, 200_000) == b"x" * 200_000
    await house.client.data.write("a", MIB, b"y" * 300_000)
    assert await house.client.data.read("a", 0, 200_000) == b"x" * 200_000
    await house.client.nodes.close("a")
    peers.run("qemu-img", "check", path)


async def test_a_check_needs_a_driver_that_can_and_a_repair_a_node_for_writing(house: NodeHouse):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2", read_only=True), node_name="a", read_only=True))
    await house.client.nodes.open(raw(memory(MIB), node_name="plain"))
    assert (await house.client.operations.check("a")).total_clusters == 16
    with pytest.raises(NodeReadOnly):
        await house.client.operations.check("a", repair="all")
    with pytest.raises(OperationUnsupported):
        await house.client.operations.check("plain")


# --- checksum and scrub ----------------------------------------------------------------------------------


async def test_a_disk_is_summed_up_and_what_changed_is_found(house: NodeHouse):
    content = random.Random(1).randbytes(MIB) + bytes(MIB)
    house.raw_file("a.raw", content)
    await house.client.nodes.open(raw(file("a.raw"), node_name="a"))
    seen: list[node.OperationProgress] = []
    summed = await house.client.operations.checksum("a", filename="a.sums", progress=seen.append)
    assert (summed.size_bytes, summed.chunk_bytes, summed.zero_chunks) == (2 * MIB, 65_536, 16)
    assert len(summed.checksum) == 64 and summed.file_bytes == (house.folder / "a.sums").stat().st_size
    assert "hashing" in {each.phase for each in seen}
    assert (await house.client.operations.scrub("a", "a.sums")).intact
    await house.client.data.write("a", 70_000, b"x")
    found = await house.client.operations.scrub("a", "a.sums")
    assert not found.intact and found.expected_checksum == summed.checksum != found.checksum
    (extent,) = found.extents
    assert (extent.offset_bytes, extent.length_bytes) == (65_536, 65_536)
    assert extent.damage == node.ScrubImageResponse.Extent.DAMAGE_CHANGED and extent.node_name == "a"
    with pytest.raises(InvalidArgument):
        await house.client.operations.scrub("a", "")
    with pytest.raises(FileNotFound):
        await house.client.operations.scrub("a", "no.sums")
    with pytest.raises(PathDenied):
        await house.client.operations.checksum("a", filename="../out.sums")


async def test_a_snapshot_is_summed_up_over_the_api(house: NodeHouse):
    await house.client.images.create("a.qcow2", 4 * MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    await house.client.data.write("a", 0, b"x" * MIB)
    before = await house.client.operations.checksum("a")
    await house.client.snapshots.create("a", "one")
    await house.client.data.write("a", 0, b"y" * MIB)
    assert (await house.client.operations.checksum("a", snapshot="one")).checksum == before.checksum
    assert (await house.client.operations.checksum("a")).checksum != before.checksum


# --- compact ---------------------------------------------------------------------------------------------


@pytest.mark.peer("qemu-img")
async def test_an_image_is_compacted_over_the_api(house: NodeHouse):
    await house.client.images.create("a.qcow2", 8 * MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    for at in range(0, 8 * MIB, MIB):
        await house.client.data.write("a", at, bytes([at >> 20]) * MIB)
    await house.client.data.discard("a", MIB, 5 * MIB)
    seen: list[node.OperationProgress] = []
    found = await house.client.operations.compact("a", progress=seen.append)
    assert found.after_bytes < 4 * MIB < found.before_bytes and found.moved_bytes > 0
    assert (house.folder / "a.qcow2").stat().st_size == found.after_bytes
    assert await house.client.data.read("a", 7 * MIB, MIB) == b"\7" * MIB
    await house.client.nodes.close("a")
    peers.run("qemu-img", "check", house.folder / "a.qcow2")
