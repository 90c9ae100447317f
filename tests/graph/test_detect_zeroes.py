"""Zeroes that a guest writes, on nodes that look for them: what becomes of them, with qemu-io as the judge."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import InvalidArgument
from blockyard.base.units import KIB, MIB
from blockyard.node.core.accounting import WRITE, WRITE_ZEROES
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.graph.reading import is_zero
from blockyard.node.interface.flags import DetectZeroes, DiscardMode
from tests.support import peers
from tests.support.graphs import GraphGround, content

ON, UNMAP = DetectZeroes.ON, DetectZeroes.UNMAP


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def qcow2(ground: GraphGround, name: str, **settings: Any) -> Node:
    file = NodeDefinition("file", options={"filename": name})
    return await ground.graph.open(NodeDefinition("qcow2", "disk", children={"file": file}, **settings))


@pytest.mark.parametrize("length", [0, 1, 511, 4096, MIB, MIB + 1, 3 * MIB])
def test_one_byte_anywhere_makes_a_buffer_no_longer_zero(length: int):
    buffer = bytearray(length)
    assert is_zero(buffer) and is_zero(memoryview(buffer)) and is_zero(bytes(buffer))
    for at in {0, length // 2, length - 1} if length else ():
        buffer[at] = 1
        assert not is_zero(memoryview(buffer))
        buffer[at] = 0


async def test_off_writes_zeroes_as_they_come(ground: GraphGround):
    node = await ground.qcow2("disk", "disk.qcow2", MIB)
    user = ground.use(node)
    await user.write(0, bytes(64 * KIB))
    assert (await user.block_status(0, 64 * KIB))[0].data


@pytest.mark.parametrize("mode", [ON, UNMAP])
async def test_a_write_of_zeroes_allocates_nothing_and_counts_as_a_write(ground: GraphGround, mode: DetectZeroes):
    await ground.qcow2("made", "disk.qcow2", MIB)
    await ground.graph.close("made")
    node = await qcow2(ground, "disk.qcow2", detect_zeroes=mode)
    user = ground.use(node)
    for offset, length in ((0, 64 * KIB), (100_000, 4096), (300_000, 200_000)):
        assert not user.write_now(offset, bytes(length))
        await user.write(offset, bytes(length))
    assert not any(extent.data for extent in await user.block_status(0, MIB))
    assert node.account.operations[WRITE].operations == 3
    assert not node.account.operations[WRITE_ZEROES].operations


async def test_a_write_with_one_other_byte_goes_its_usual_way_inline(ground: GraphGround):
    node = await ground.graph.open(NodeDefinition("memory", "m", {"size": MIB}, detect_zeroes=ON))
    user = ground.use(node)
    assert user.write_now(0, bytes(4095) + b"x")
    assert await content(user, 0, 4096) == bytes(4095) + b"x"


@pytest.mark.parametrize(("mode", "kept"), [(ON, True), (UNMAP, False)])
async def test_only_unmap_gives_the_space_of_old_data_back(ground: GraphGround, mode: DetectZeroes, kept: bool):
    (ground.root / "disk.raw").write_bytes(b"x" * MIB)
    file = NodeDefinition("file", "disk", {"filename": "disk.raw"}, detect_zeroes=mode)
    user = ground.use(await ground.graph.open(file))
    await user.write(0, bytes(MIB))
    await user.flush()
    assert await content(user) == bytes(MIB)
    allocated = (ground.root / "disk.raw").stat().st_blocks * 512
    assert (allocated >= MIB) is kept


async def test_the_file_below_a_raw_node_looks_for_itself(ground: GraphGround):
    file = NodeDefinition("file", "file", ground.file("a.raw", MIB).options, detect_zeroes=UNMAP)
    await ground.graph.open(file)
    user = ground.use(await ground.raw("raw", ground.graph.get("file")))
    await user.write(0, b"x" * 128 * KIB)
    await user.write(0, bytes(64 * KIB))
    assert (await user.block_status(0, 64 * KIB))[0].zero
    assert await content(user, 0, 128 * KIB) == bytes(64 * KIB) + b"x" * 64 * KIB


async def test_the_padded_request_counts_not_the_guest_s(ground: GraphGround):
    """As in QEMU the request is aligned first: zeroes among other bytes are data, zeroes among zeroes are not."""
    node = await ground.strict(size=64 * KIB, alignment=4096, inline=0, zero_alignment=4096, detect_zeroes=ON)
    user = ground.use(node)
    await user.write(0, b"x" * 8192)
    await user.write(100, bytes(50))
    await user.write(20_000, bytes(50))
    assert await content(user, 0, 8192) == b"x" * 100 + bytes(50) + b"x" * (8192 - 150)
    assert node.driver.zeroed == [(16384, 4096)]  # type: ignore[attr-defined]


async def test_unmap_needs_a_node_that_discards(ground: GraphGround):
    definition = NodeDefinition("memory", "m", {"size": MIB}, discard=DiscardMode.IGNORE, detect_zeroes=UNMAP)
    with pytest.raises(InvalidArgument) as refusal:
        await ground.graph.open(definition)
    assert refusal.value.name == "detect_zeroes"
    assert not ground.graph.nodes


async def test_a_node_that_ignores_discards_keeps_the_space_of_zeroes_too(ground: GraphGround):
    (ground.root / "a.raw").write_bytes(b"x" * MIB)
    file = NodeDefinition("file", "file", {"filename": "a.raw"}, discard=DiscardMode.IGNORE)
    user = ground.use(await ground.graph.open(file))
    await user.zero(0, MIB, 4)
    assert (ground.root / "a.raw").stat().st_blocks * 512 >= MIB
    assert await content(user) == bytes(MIB)


def data_of(path: Path) -> set[int]:
    """The 64 KiB clusters that hold data of the image itself, as qemu-img tells."""
    rows = json.loads(peers.run("qemu-img", "map", "--output=json", "-f", "qcow2", path).stdout)
    return {
        at
        for row in rows
        if row["data"] and row["depth"] == 0
        for at in range(row["start"] // 65536, -(-(row["start"] + row["length"]) // 65536))
    }


@pytest.mark.peer("qemu-img")
@pytest.mark.peer("qemu-io")
@pytest.mark.parametrize("mode", [ON, UNMAP])
@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_the_same_writes_allocate_the_same_clusters_as_qemu(
    ground: GraphGround, mode: DetectZeroes, backed: bool, seed: int
):
    options = []
    if backed:
        base = ground.root / "base.raw"
        base.write_bytes(b"".join(bytes(65536) if at % 3 else b"b" * 65536 for at in range(32)))
        options = ["-b", "base.raw", "-F", "raw"]
    for name in ("ours.qcow2", "theirs.qcow2"):
        peers.run("qemu-img", "create", "-q", "-f", "qcow2", *options, ground.root / name, "2M")
    numbers, writes = random.Random(seed), []
    for _ in range(30):
        length = numbers.choice((512, 4096, 65536, 131072, 200704))
        offset = numbers.randrange(0, 2 * MIB - length, 512 if numbers.random() < 0.5 else 65536)
        writes.append((offset, length, 0 if numbers.random() < 0.7 else 0x61))
    node = await qcow2(ground, "ours.qcow2", detect_zeroes=mode)
    user = ground.use(node)
    for offset, length, value in writes:
        data = bytes([value]) * length
        if not user.write_now(offset, data):
            await user.write(offset, data)
    ground.graph.release(user)
    await ground.graph.close("disk")
    commands = [part for at, n, value in writes for part in ("-c", f"write -q -P {value} {at} {n}")]
    image = f"driver=qcow2,file.filename={ground.root}/theirs.qcow2,discard=unmap,detect-zeroes={mode.value}"
    peers.run("qemu-io", "--image-opts", *commands, image)
    peers.run("qemu-img", "check", "-q", ground.root / "ours.qcow2")
    peers.run("qemu-img", "compare", "-q", ground.root / "ours.qcow2", ground.root / "theirs.qcow2")
    assert data_of(ground.root / "ours.qcow2") == data_of(ground.root / "theirs.qcow2")
