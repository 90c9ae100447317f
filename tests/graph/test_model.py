"""The request path against a byte array: storms of concurrent requests over every kind of stack."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.node.graph.node import Node
from blockyard.node.graph.surgery import insert_overlay
from blockyard.node.interface.flags import DetectZeroes
from tests.support.graphs import GraphGround, content
from tests.support.linear import Mix, Register, Storm

EXAMPLES = int(os.environ.get("BLOCKYARD_FUZZ_EXAMPLES", "6"))
SIZE = 60_000
SIZE_QCOW2 = 61_440
SEEDS = range(EXAMPLES)

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(max(120, EXAMPLES * 10))]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


def pattern(length: int, seed: int) -> bytes:
    return bytes((index * 7 + seed) % 251 for index in range(length))


async def storm(ground: GraphGround, node: Node, seed: int, mix: Mix, below: bytes = b"", rounds: int = 4) -> Storm:
    user = ground.use(node)
    register = Register(user.size, await content(user), below)
    storm = Storm(user, register, seed, mix)
    await storm.run(rounds)
    assert not node.tracker.requests and not node.tracker.serialising
    return storm


@pytest.mark.parametrize("seed", SEEDS)
async def test_raw_on_memory(ground: GraphGround, seed: int):
    node = await ground.raw("raw", await ground.memory("memory", SIZE))
    await storm(ground, node, seed, Mix(cancel=0.1))


@pytest.mark.parametrize("seed", SEEDS)
async def test_raw_on_a_file_while_it_changes_its_size(ground: GraphGround, seed: int):
    node = await ground.raw("raw", ground.file("raw.img", SIZE))
    await storm(ground, node, seed, Mix(cancel=0.1, resize=1))


@pytest.mark.parametrize("seed", SEEDS)
async def test_raw_on_a_strict_disk_with_4096_byte_sectors(ground: GraphGround, seed: int):
    disk = await ground.strict(
        size=61440, alignment=4096, max_transfer=8192, zero_alignment=8192, max_zeroes=16384,
        discard_alignment=8192, seed=seed,
    )  # fmt: skip
    await storm(ground, await ground.raw("raw", disk), seed, Mix(cancel=0.1))


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_strict_disk_alone_that_cannot_zero(ground: GraphGround, seed: int):
    disk = await ground.strict(size=SIZE, alignment=1, max_transfer=3000, can_zero=False, seed=seed)
    await storm(ground, disk, seed, Mix(cancel=0.1))


@pytest.mark.parametrize("seed", SEEDS)
async def test_copy_on_write_over_a_strict_disk(ground: GraphGround, seed: int):
    disk = await ground.strict(alignment=512, max_transfer=8192, seed=seed)
    node = await ground.toycow(disk, size=SIZE, seed=seed)
    await storm(ground, node, seed, Mix(compressed=0.15))


@pytest.mark.parametrize("seed", SEEDS)
async def test_copy_on_write_with_cancelled_requests_and_snapshots(ground: GraphGround, seed: int):
    node = await ground.toycow(await ground.strict(seed=seed), size=SIZE, seed=seed)
    user = ground.use(node)
    storm = Storm(user, Register(SIZE, bytes(SIZE)), seed, Mix(cancel=0.25))
    storm.between = node.driver.share  # type: ignore[attr-defined]
    await storm.run()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mode", [DetectZeroes.ON, DetectZeroes.UNMAP])
async def test_nodes_that_look_for_zeroes(ground: GraphGround, seed: int, mode: DetectZeroes):
    disk = await ground.strict(size=61440, alignment=4096, zero_alignment=8192, seed=seed, detect_zeroes=mode)
    await storm(ground, disk, seed, Mix(cancel=0.1, zeroes=0.5))
    below = await ground.strict(alignment=512, seed=seed, detect_zeroes=mode)
    node = await ground.toycow(below, size=SIZE, seed=seed, detect_zeroes=mode)
    await storm(ground, node, seed, Mix(cancel=0.1, zeroes=0.5))


@pytest.mark.parametrize("seed", SEEDS)
async def test_copy_on_write_that_insists_on_aligned_requests(ground: GraphGround, seed: int):
    disk = await ground.strict(alignment=512, seed=seed)
    node = await ground.toycow(disk, size=61440, alignment=512, cluster=8192, seed=seed)
    await storm(ground, node, seed, Mix())


@pytest.mark.parametrize("seed", SEEDS)
async def test_copy_on_write_over_a_short_backing_file(ground: GraphGround, seed: int):
    base = await ground.strict(size=32_700, seed=seed)
    below = pattern(32_700, seed)
    await ground.use(base, "fill").write(0, below)
    node = await ground.toycow(await ground.strict(seed=seed), base, size=SIZE, seed=seed)
    await storm(ground, node, seed, Mix(), below=below)


@pytest.mark.parametrize("seed", SEEDS)
async def test_copy_on_write_while_it_changes_its_size(ground: GraphGround, seed: int):
    node = await ground.toycow(await ground.strict(seed=seed), size=SIZE, seed=seed)
    await storm(ground, node, seed, Mix(resize=2, discard=0))


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_chain_that_grows_under_load_keeps_what_it_froze(ground: GraphGround, seed: int):
    top = await ground.toycow(await ground.strict(seed=seed), size=SIZE, seed=seed)
    user = ground.use(top)
    storm = Storm(user, Register(SIZE, bytes(SIZE)), seed, Mix(discard=0))
    frozen: list[tuple[Node, bytes]] = []
    for depth in range(3):
        await storm.run(rounds=1)
        frozen.append((user.node, await content(user)))
        overlay = await ground.toycow(await ground.strict(seed=seed), size=SIZE, seed=seed + depth)
        await insert_overlay(ground.graph, user.node, overlay)
        assert user.node is overlay
    await storm.run(rounds=1)
    for node, expected in frozen:
        assert await content(ground.use(node, "look", writable=False)) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cluster_size", [512, 4096, 65536])
async def test_qcow2_on_a_file(ground: GraphGround, seed: int, cluster_size: int):
    node = await ground.qcow2("disk", "disk.qcow2", SIZE_QCOW2, cluster_size=cluster_size)
    await storm(ground, node, seed, Mix(cancel=0.1, compressed=0.1))


@pytest.mark.parametrize("seed", SEEDS)
async def test_qcow2_over_a_short_backing_file_that_its_header_names(ground: GraphGround, seed: int):
    below = pattern(32_700, seed)
    (ground.root / "base.raw").write_bytes(below)
    node = await ground.qcow2(
        "top", "top.qcow2", SIZE_QCOW2, cluster_size=4096, backing_file="base.raw", backing_fmt="raw"
    )
    assert node.backing is not None
    await storm(ground, node, seed, Mix(), below=below)


@pytest.mark.parametrize("seed", SEEDS)
async def test_qcow2_while_it_changes_its_size(ground: GraphGround, seed: int):
    node = await ground.qcow2("disk", "disk.qcow2", SIZE_QCOW2, cluster_size=4096)
    await storm(ground, node, seed, Mix(resize=1, discard=0))
