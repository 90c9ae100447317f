"""Edges moved between open nodes, at rest and under load."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BlockError,
    FileReadOnly,
    GraphCycle,
    InvalidArgument,
    NodeInUse,
    NodeReadOnly,
    OperationUnsupported,
)
from blockyard.base.units import MIB
from blockyard.node.graph import modes, surgery
from blockyard.node.graph.chain import below_filters, descends, layers
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.interface.driver import BackingReference, DriverContext, FilterDriver
from tests.support import peers
from tests.support.graphs import GraphGround, content
from tests.support.linear import Mix, Register, Storm

SIZE = 60_000


@dataclass(frozen=True, slots=True)
class NoOptions:
    """Options of the test driver `pass`."""


class PassDriver(FilterDriver):
    """A filter that changes nothing."""

    name = "pass"
    Options = NoOptions

    def __init__(self, context: DriverContext) -> None:
        self.file = context.children["file"]

    @classmethod
    async def open(cls, options: NoOptions, context: DriverContext) -> "PassDriver":
        return cls(context)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def cow(ground: GraphGround, backing: Node | None = None, size: int = SIZE, seed: int = 1) -> Node:
    return await ground.toycow(await ground.strict(seed=seed), backing, size=size, seed=seed)


async def pass_filter(ground: GraphGround, below: Node, name: str = "") -> Node:
    return await ground.adopt(PassDriver, NoOptions(), {"file": below}, name)


# --- overlays ------------------------------------------------------------------------------------------


async def test_an_overlay_takes_the_users_and_freezes_what_is_below(ground: GraphGround):
    base, overlay = await cow(ground), await cow(ground)
    user = ground.use(base)
    await user.write(0, b"before")
    await surgery.insert_overlay(ground.graph, base, overlay)
    assert user.node is overlay and overlay.backing is not None and overlay.backing.node is base
    await user.write(0, b"after!")
    assert await content(user, 0, 6) == b"after!"
    assert await content(ground.use(base, "look", writable=False), 0, 6) == b"before"
    with pytest.raises(NodeReadOnly):
        ground.use(base, "writer")


async def test_an_overlay_is_refused_when_it_cannot_be_one(ground: GraphGround):
    base = await cow(ground)
    ground.use(base)
    used, small, backed = await cow(ground), await cow(ground, size=100), await cow(ground, await cow(ground))
    ground.use(used)
    refusals: list[tuple[type[BlockError], Node]] = [
        (NodeInUse, used),
        (InvalidArgument, small),
        (NodeInUse, backed),
        (OperationUnsupported, await ground.strict(size=SIZE)),
        (NodeInUse, base),
    ]
    for error, overlay in refusals:
        with pytest.raises(error):
            await surgery.insert_overlay(ground.graph, base, overlay)
    assert not base.read_only and len(base.parents) == 1


# --- replacing -----------------------------------------------------------------------------------------


async def test_a_replacement_takes_all_users_at_once(ground: GraphGround):
    old, new = await ground.strict(size=SIZE), await ground.strict(size=SIZE)
    users = [ground.use(old, f"user{index}") for index in range(3)]
    above = await ground.raw("above", old)
    await surgery.replace_node(ground.graph, old, new)
    assert not old.parents and {edge.node for edge in users} == {new}
    assert above.children["file"].node is new
    await ground.graph.close(old.name)


@pytest.mark.parametrize(
    ("case", "error"), [("itself", GraphCycle), ("smaller", InvalidArgument), ("frozen", NodeInUse)]
)
async def test_a_replacement_that_cannot_be_changes_nothing(
    ground: GraphGround, case: str, error: type[BlockError]
):
    old, new = await ground.strict(size=SIZE), await ground.strict(size=SIZE - (case == "smaller"))
    user = ground.use(old)
    if case == "frozen":
        user.frozen_reason = "a job reads here"
    with pytest.raises(error):
        await surgery.replace_node(ground.graph, old, old if case == "itself" else new)
    assert user.node is old


async def test_a_node_may_be_replaced_by_one_that_stands_on_it(ground: GraphGround):
    base = await cow(ground)
    user = ground.use(base)
    overlay = await cow(ground, base)
    await surgery.replace_node(ground.graph, base, overlay)
    assert user.node is overlay and overlay.backing is not None and overlay.backing.node is base


# --- filters -------------------------------------------------------------------------------------------


async def test_a_filter_comes_and_goes_under_its_users(ground: GraphGround):
    node = await ground.strict(size=SIZE)
    user = ground.use(node)
    filter_node = await pass_filter(ground, node)
    await surgery.insert_filter(ground.graph, node, filter_node)
    assert user.node is filter_node and below_filters(filter_node) is node
    await user.write(0, b"through")
    assert await surgery.remove_filter(ground.graph, filter_node) is node
    assert user.node is node and not filter_node.parents
    assert await content(user, 0, 7) == b"through"
    await ground.graph.close(filter_node.name)


async def test_what_is_no_filter_of_the_node_is_refused(ground: GraphGround):
    node, other = await ground.strict(size=SIZE), await ground.strict(size=SIZE)
    for wrong in (other, await pass_filter(ground, other)):
        with pytest.raises(InvalidArgument):
            await surgery.insert_filter(ground.graph, node, wrong)
    with pytest.raises(InvalidArgument):
        await surgery.remove_filter(ground.graph, node)


# --- walks ---------------------------------------------------------------------------------------------


async def test_walks_skip_filters_and_end(ground: GraphGround):
    base = await cow(ground)
    middle = await cow(ground, await pass_filter(ground, base))
    top = await cow(ground, await pass_filter(ground, middle))
    assert list(layers(await pass_filter(ground, top))) == [top, middle, base]
    assert descends(top, base) and not descends(base, top)


async def test_block_status_names_the_layer_below_filters(ground: GraphGround):
    base = await cow(ground)
    await ground.use(base).write(4096, b"x" * 4096)
    top = await cow(ground, await pass_filter(ground, base))
    extents = await ground.use(top).block_status(0, 12288)
    assert [(item.length, item.data, item.depth) for item in extents] == [
        (4096, False, 1),
        (4096, True, 1),
        (4096, False, 1),
    ]
    assert extents[1].node_name == base.name


# --- backing links -------------------------------------------------------------------------------------


async def test_a_backing_link_changes_while_it_is_read(ground: GraphGround):
    first, second = await ground.strict(size=SIZE), await ground.strict(size=SIZE)
    await ground.use(first).write(0, b"1" * SIZE)
    await ground.use(second).write(0, b"2" * SIZE)
    top = await cow(ground, first)
    user = ground.use(top)
    stop = False
    seen = set()

    async def reads() -> None:
        while not stop:
            seen.add(bytes(await content(user, 0, 4096)))

    reading = asyncio.ensure_future(reads())
    for backing in (second, first, None, second):
        await surgery.set_backing(ground.graph, top, backing, None, header=False)
        for _ in range(20):
            await asyncio.sleep(0)
    stop = True
    await reading
    assert seen == {b"1" * 4096, b"2" * 4096, bytes(4096)}
    assert not first.parents[1:] and len(second.parents) == 2


async def test_a_backing_link_to_what_stands_above_is_refused(ground: GraphGround):
    base = await cow(ground)
    top = await cow(ground, base)
    with pytest.raises(GraphCycle):
        await surgery.set_backing(ground.graph, base, top, None, header=False)
    assert not top.parents


async def test_a_driver_without_a_header_reference_keeps_its_backing(ground: GraphGround):
    first, second = await ground.strict(size=SIZE), await ground.strict(size=SIZE)
    top = await cow(ground, first)
    with pytest.raises(OperationUnsupported):
        await surgery.set_backing(ground.graph, top, second, BackingReference("b", "raw"), header=True)
    assert top.backing is not None and top.backing.node is first and not second.parents


@pytest.mark.peer("qemu-img")
async def test_a_new_backing_reference_is_in_the_header(ground: GraphGround):
    (ground.root / "base.raw").write_bytes(bytes(MIB))
    await ground.qcow2("top", "top.qcow2", MIB)
    base = await ground.graph.open(NodeDefinition("file", "base", {"filename": "base.raw"}, read_only=True))
    raw = await ground.raw("raw", base)
    top = ground.graph.get("top")
    reference = BackingReference("base.raw", "raw")
    await surgery.set_backing(ground.graph, top, raw, reference, header=True)
    assert (top.backing_filename, top.backing_format) == ("base.raw", "raw")
    assert top.backing is not None and top.backing.node is raw
    info = peers.run("qemu-img", "info", "-U", ground.root / "top.qcow2").stdout
    assert "backing file: base.raw" in info and "backing file format: raw" in info


# --- reopening -----------------------------------------------------------------------------------------


async def test_a_read_only_node_is_opened_again_for_writing_and_back(ground: GraphGround):
    ground.file("a.img", MIB)
    file = NodeDefinition("file", options={"filename": "a.img"})
    node = await ground.graph.open(NodeDefinition("raw", "top", children={"file": file}, read_only=True))
    await modes.set_writable(ground.graph, node, True)
    user = ground.use(node)
    await user.write(0, b"x")
    with pytest.raises(NodeReadOnly):
        await modes.set_writable(ground.graph, node, False)
    await user.write(0, b"y")
    ground.graph.release(user)
    await modes.set_writable(ground.graph, node, False)
    with pytest.raises(NodeReadOnly):
        ground.use(node)
    assert await content(ground.use(node, writable=False), 0, 1) == b"y"


async def test_a_reopening_that_fails_leaves_the_node_as_it_was(ground: GraphGround):
    ground.file("a.img", MIB)
    file = NodeDefinition("file", options={"filename": "a.img"})
    node = await ground.graph.open(NodeDefinition("raw", "top", children={"file": file}, read_only=True))
    other = await ground.graph.open(NodeDefinition("file", "other", {"filename": "a.img"}, read_only=True))
    user = ground.use(node, writable=False)
    with pytest.raises(BlockError) as refusal:
        await modes.set_writable(ground.graph, node, True)
    assert not isinstance(refusal.value, FileReadOnly)
    assert node.read_only and await content(user, 0, 1) == b"\0"
    await ground.graph.close(other.name)
    await modes.set_writable(ground.graph, node, True)


# --- under load ----------------------------------------------------------------------------------------


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
async def test_filters_come_and_go_in_a_storm(ground: GraphGround, seed: int):
    node = await cow(ground, seed=seed)

    async def step() -> None:
        filter_node = await pass_filter(ground, node)
        await surgery.insert_filter(ground.graph, node, filter_node)
        await asyncio.sleep(0)
        await surgery.remove_filter(ground.graph, filter_node)
        await ground.graph.close(filter_node.name)

    await changed_in_a_storm(ground, node, seed, step)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
async def test_overlays_grow_in_a_storm(ground: GraphGround, seed: int):
    node = await cow(ground, seed=seed)
    top = node

    async def step() -> None:
        nonlocal top
        overlay = await cow(ground, seed=seed)
        await surgery.insert_overlay(ground.graph, top, overlay)
        top = overlay

    await changed_in_a_storm(ground, node, seed, step, Mix(discard=0), most=12)


async def changed_in_a_storm(
    ground: GraphGround,
    node: Node,
    seed: int,
    step: Callable[[], Awaitable[None]],
    mix: Mix | None = None,
    most: int = 1000,
) -> None:
    storm = Storm(ground.use(node), Register(SIZE, bytes(SIZE)), seed, mix or Mix(cancel=0.1))
    running = asyncio.ensure_future(storm.run())
    steps = 0
    while not running.done():
        if steps < most:
            await step()
            steps += 1
        for _ in range(storm.numbers.randrange(1, 30)):
            await asyncio.sleep(0)
    await running
    assert steps > 3
