"""Copy on read: what is stored, when, down to which layer, and that guests' writes never lose."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import InvalidArgument, NodeInUse, NodeReadOnly, NoSpace
from blockyard.base.units import KIB, MIB
from blockyard.node.core.accounting import COPY
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.facts import copy_on_read_users
from blockyard.node.graph.node import Node
from blockyard.node.graph.surgery import replace_node
from tests.graph.test_detect_zeroes import data_of
from tests.support import peers
from tests.support.graphs import GraphGround, content
from tests.support.linear import Mix, Register, Storm

UNIT = 64 * KIB


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


def pattern(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


async def chain(ground: GraphGround, size: int = MIB, below: bytes = b"") -> tuple[Node, bytes]:
    """top (qcow2, empty) on base (raw file)."""
    below = below or pattern(1, size)
    (ground.root / "base.raw").write_bytes(below)
    made = await ground.qcow2("made", "top.qcow2", size, backing_file="base.raw", backing_fmt="raw")
    await ground.graph.close(made.name)
    file = NodeDefinition("file", "file", {"filename": "base.raw"}, read_only=True)
    base = NodeDefinition("raw", "base", children={"file": file}, read_only=True)
    top = NodeDefinition("file", options={"filename": "top.qcow2"})
    return await ground.graph.open(NodeDefinition("qcow2", "top", children={"file": top, "backing": base})), below


async def reading(ground: GraphGround, node: Node, **options: Any) -> Node:
    return await ground.graph.open(NodeDefinition("copy-on-read", "cor", options, {"file": node.name}))


async def held(ground: GraphGround, node: Node) -> list[int]:
    """The units that the layer itself has."""
    user = ground.use(node, "look", writable=False)
    extents = await user.block_status(0, user.size, base=node.backing.node if node.backing else None)
    ground.graph.release(user)
    return [at for extent in extents if extent.allocated
            for at in range(extent.offset // UNIT, -(-(extent.offset + extent.length) // UNIT))]  # fmt: skip


async def test_what_is_read_is_stored_in_whole_clusters_and_read_inline_the_next_time(ground: GraphGround):
    top, below = await chain(ground)
    user = ground.use(await reading(ground, top), writable=False)
    into = memoryview(bytearray(100))
    assert not user.read_now(UNIT + 10, into)
    await user.read(UNIT + 10, into)
    assert into == below[UNIT + 10 : UNIT + 110]
    assert await held(ground, top) == [1]
    assert user.read_now(UNIT + 500, into) and into == below[UNIT + 500 : UNIT + 600]
    copied = top.account.operations[COPY]
    assert (copied.operations, copied.transferred_bytes) == (1, UNIT)


async def test_the_base_is_never_asked_again(ground: GraphGround):
    top, below = await chain(ground)
    user = ground.use(await reading(ground, top), writable=False)
    assert await content(user) == below
    (ground.root / "base.raw").write_bytes(bytes(MIB))
    assert await content(user) == below


async def test_a_guest_s_write_during_the_copy_wins(ground: GraphGround):
    disk = await ground.strict(inline=0)
    base = await ground.memory("base", 64 * KIB)
    await ground.use(base, "fill").write(0, b"b" * 64 * KIB)
    top = await ground.toycow(disk, base, size=64 * KIB)
    user = ground.use(await reading(ground, top))
    for at in range(0, 64 * KIB, 4096):
        await asyncio.gather(content(user, at, 4096), user.write(at + 100, b"g" * 50), content(user, at, 200))
    seen = await content(user)
    assert seen == (b"b" * 100 + b"g" * 50 + b"b" * (4096 - 150)) * 16


@pytest.mark.parametrize("seed", range(4))
async def test_a_storm_through_the_filter_shows_what_it_would_show_without(ground: GraphGround, seed: int):
    base = await ground.strict(size=32_700, seed=seed)
    below = pattern(seed, 32_700)
    await ground.use(base, "fill").write(0, below)
    top = await ground.toycow(await ground.strict(seed=seed), base, size=60_000, seed=seed)
    user = ground.use(await reading(ground, top))
    await Storm(user, Register(60_000, below.ljust(60_000, b"\0"), below), seed, Mix(cancel=0.2, discard=0)).run()
    assert not top.tracker.requests and not top.populating


async def test_zeroes_below_are_stored_as_zeroes_and_past_a_short_base_too(ground: GraphGround):
    top, below = await chain(ground, below=pattern(1, UNIT) + bytes(UNIT) + pattern(2, UNIT // 2))
    user = ground.use(await reading(ground, top), writable=False)
    for at in range(0, MIB, UNIT):  # as in QEMU, a read of zeroes and data is stored as data
        assert await content(user, at, UNIT) == below[at : at + UNIT].ljust(UNIT, b"\0")
    extents = await user.block_status(0, MIB)
    assert [(each.depth, each.zero) for each in extents] == [(0, False), (0, True), (0, False), (0, True)]


async def test_a_copy_that_finds_no_room_fails_the_read(ground: GraphGround):
    base = await ground.memory("base", 64 * KIB)
    await ground.use(base, "fill").write(0, b"b" * 64 * KIB)
    top = await ground.toycow(await ground.strict(), base, size=64 * KIB)
    top.driver.fails_to_allocate = NoSpace("top", "write")  # type: ignore[attr-defined]
    user = ground.use(await reading(ground, top), writable=False)
    with pytest.raises(NoSpace):
        await content(user)
    top.driver.fails_to_allocate = None  # type: ignore[attr-defined]
    assert await content(user) == b"b" * 64 * KIB


async def test_nothing_is_copied_into_a_layer_that_cannot_be_written(ground: GraphGround):
    top, below = await chain(ground)
    await ground.graph.close("top")
    for name, read_only in (("top", True),):
        file = NodeDefinition("file", options={"filename": "top.qcow2"}, read_only=True)
        top = await ground.graph.open(
            NodeDefinition("qcow2", name, children={"file": file, "backing": "base"}, read_only=read_only)
        )
    with pytest.raises(NodeReadOnly):
        await reading(ground, top)
    user = ground.use(top, writable=False)
    with pytest.raises(NodeReadOnly):
        await user.populate(0, 4096)
    assert await content(user) == below
    assert "cor" not in ground.graph.nodes


async def test_users_of_copy_on_read_are_counted(ground: GraphGround):
    top, _ = await chain(ground)
    assert copy_on_read_users(top) == 0
    cor = await reading(ground, top)
    assert (copy_on_read_users(top), copy_on_read_users(cor)) == (1, 0)
    await ground.graph.close("cor")
    assert copy_on_read_users(top) == 0


# --- bottom ----------------------------------------------------------------------------------------------


async def three(ground: GraphGround) -> list[Node]:
    """top on middle (one unit) on base (full)."""
    base = await ground.memory("base", 256 * KIB)
    await ground.use(base, "fill").write(0, b"b" * 256 * KIB)
    middle = await ground.toycow(await ground.strict(), base, "middle", size=256 * KIB, cluster=UNIT)
    user = ground.use(middle, "fill")
    await user.write(UNIT + 100, b"m" * 100)
    ground.graph.release(user)
    top = await ground.toycow(await ground.strict(), middle, "top", size=256 * KIB, cluster=UNIT)
    return [top, middle, base]


@pytest.mark.parametrize(
    ("bottom", "copied"), [("", [0, 1, 2, 3]), ("base", [0, 1, 2, 3]), ("middle", [1]), ("top", [])]
)
async def test_only_layers_down_to_the_bottom_are_copied_from(ground: GraphGround, bottom: str, copied: list[int]):
    top, *_ = await three(ground)
    user = ground.use(await reading(ground, top, bottom=bottom), writable=False)
    expected = b"b" * UNIT + b"b" * 100 + b"m" * 100 + b"b" * (3 * UNIT - 200)
    assert await content(user) == expected
    assert await held(ground, top) == copied
    assert await content(user) == expected


async def test_the_chain_down_to_the_bottom_stays_as_it_is_while_the_filter_is_open(ground: GraphGround):
    top, middle, base = await three(ground)
    await reading(ground, top, bottom="middle")
    other = await ground.memory("other", 256 * KIB)
    for node in (top, middle):
        with pytest.raises(NodeInUse):
            await replace_node(ground.graph, node, other)
    with pytest.raises(NodeInUse):
        await ground.graph.open(NodeDefinition("copy-on-read", "more", {"bottom": "base"}, {"file": "top"}))
    await ground.graph.close("cor")
    assert not any(edge.frozen_reason for node in (top, middle, base) for edge in node.parents)


@pytest.mark.parametrize("bottom", ["other", "nobody", "limit"])
async def test_a_bottom_that_is_none_is_refused(ground: GraphGround, bottom: str):
    top, middle, _ = await three(ground)
    await ground.memory("other", 256 * KIB)
    limit = NodeDefinition("mirror-top", "limit", children={"file": "top", "target": "top"})
    await ground.graph.open(limit)
    with pytest.raises(InvalidArgument) as refusal:
        await ground.graph.open(NodeDefinition("copy-on-read", "cor", {"bottom": bottom}, {"file": "limit"}))
    assert refusal.value.name == "bottom"
    assert "cor" not in ground.graph.nodes
    assert not any(edge.frozen_reason for node in (top, middle) for edge in node.parents)


# --- beside QEMU -----------------------------------------------------------------------------------------


@pytest.mark.peer("qemu-img")
@pytest.mark.peer("qemu-io")
@pytest.mark.parametrize("seed", range(3))
async def test_the_same_reads_allocate_the_same_clusters_as_qemu_io(ground: GraphGround, seed: int):
    numbers = random.Random(seed)
    below = b"".join(bytes(UNIT) if numbers.random() < 0.3 else pattern(at, UNIT) for at in range(30))
    top, _ = await chain(ground, 2 * MIB, below)
    peers.run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", ground.root / "t.qcow2", "2M"
    )
    user = ground.use(await reading(ground, top))
    commands = []
    for _ in range(12):
        length = numbers.choice((512, 4096, 100 * KIB, 200 * KIB))
        offset = numbers.randrange(0, 2 * MIB - length, 512)
        commands += ["-c", f"read -q {offset} {length}"]
        await content(user, offset, length)
    ground.graph.release(user)
    for name in ("cor", "top"):
        await ground.graph.close(name)
    peers.run("qemu-io", "-C", "-f", "qcow2", *commands, ground.root / "t.qcow2")
    peers.run("qemu-img", "check", "-q", ground.root / "top.qcow2")
    peers.run("qemu-img", "compare", "-q", ground.root / "top.qcow2", ground.root / "t.qcow2")
    assert data_of(ground.root / "top.qcow2") == data_of(ground.root / "t.qcow2")
