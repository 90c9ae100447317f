"""Executors: where the work of nodes that blocks is done, and how nodes move between them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest

from blockyard.base.errors import (
    InvalidArgument,
    IoError,
    LimitReached,
    NodeInUse,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.base.units import KIB
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.executors import EXECUTORS_MAX, THREADS_MAX
from blockyard.node.graph.graph import NodeReport
from blockyard.node.graph.node import Node
from blockyard.node.interface.driver import ChildSlot, DriverContext
from blockyard.node.interface.flags import COMPRESSED, Role
from tests.support.graphs import GraphGround, content
from tests.support.strict import StrictDriver, StrictOptions


@dataclass(frozen=True, slots=True)
class PlacedOptions:
    """Options of the test driver `placed`."""

    journal: list[str]
    fails: bool = False


class Placed(StrictDriver):
    """A driver that tells when its executor changes, and in which thread it works."""

    name = "placed"
    Options = PlacedOptions  # type: ignore[assignment]
    # Both only read, so that a disk may be below twice.
    children = (ChildSlot("file", Role.BACKING, required=False), ChildSlot("backing", Role.BACKING, required=False))

    @classmethod
    async def open(cls, options: PlacedOptions, context: DriverContext) -> Self:  # type: ignore[override]
        made = cls(StrictOptions(size=64 * KIB, inline=1))
        made.context, made.placed = context, options  # type: ignore[attr-defined]
        return made

    async def detach_executor(self) -> None:
        await asyncio.sleep(0)
        if self.placed.fails:  # type: ignore[attr-defined]
            raise IoError("placed", "detach", 5, "as the test asked")
        self.placed.journal.append(f"-{self.context.node_name}")  # type: ignore[attr-defined]

    def attach_executor(self) -> None:
        self.placed.journal.append(f"+{self.context.node_name}")  # type: ignore[attr-defined]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def placed(ground: GraphGround, name: str, journal: list[str], fails: bool = False, **children: Node) -> Node:
    return await ground.adopt(Placed, PlacedOptions(journal, fails), children, name)


async def thread_of(node: Node) -> str:
    thread = await node.driver.context.pool.run(threading.current_thread)  # type: ignore[attr-defined]
    return str(thread.name).rpartition("-")[0]


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def places(ground: GraphGround) -> dict[str, str]:
    return {name: node.executor for name, node in ground.graph.nodes.items()}


# --- executors -------------------------------------------------------------------------------------------


async def test_main_is_always_there_and_stays(ground: GraphGround):
    executors = ground.graph.executors
    assert executors.names() == ["main"] and executors.pool("") is executors.pool("main")
    with pytest.raises(InvalidArgument):
        await executors.delete("main")
    with pytest.raises(ResourceExists):
        executors.create("main")


@pytest.mark.parametrize("threads", [0, -1, THREADS_MAX + 1])
async def test_threads_are_bounded(ground: GraphGround, threads: int):
    with pytest.raises(InvalidArgument):
        ground.graph.executors.create("x", threads)


async def test_executors_are_bounded(ground: GraphGround):
    for number in range(EXECUTORS_MAX - 1):
        ground.graph.executors.create(f"x{number}")
    with pytest.raises(LimitReached):
        ground.graph.executors.create("more")


async def test_an_executor_with_nodes_is_not_deleted_and_the_nodes_are_named(ground: GraphGround):
    ground.graph.executors.create("x")
    await ground.memory("a", 512, executor="x")
    with pytest.raises(ResourceBusy, match="node/a"):
        await ground.graph.executors.delete("x")
    await ground.graph.close("a")
    await ground.graph.executors.delete("x")
    assert ground.graph.executors.names() == ["main"]
    with pytest.raises(ResourceNotFound):
        await ground.graph.executors.delete("x")


async def test_work_that_outlives_its_node_ends_on_main_when_the_executor_goes(ground: GraphGround):
    ground.graph.executors.create("x")
    node = await placed(ground, "a", [])
    await ground.graph.executors.move(node, "x")
    share = ground.graph.executors.share("a")
    await ground.graph.close("a")
    await ground.graph.executors.delete("x")
    assert (await share.run(threading.current_thread)).name.startswith("pool")


# --- where nodes are -------------------------------------------------------------------------------------


async def test_children_that_are_defined_inside_inherit_and_those_that_are_open_stay(ground: GraphGround):
    for name in "xy":
        ground.graph.executors.create(name)
    await ground.memory("base", 64 * KIB, executor="y")
    await ground.qcow2("image", "a.qcow2", 64 * KIB)
    await ground.graph.close("image")
    file = NodeDefinition("file", "below", {"filename": "a.qcow2"})
    await ground.graph.open(
        NodeDefinition("qcow2", "top", children={"file": file, "backing": "base"}, executor="x")
    )
    assert places(ground) == {"base": "y", "below": "x", "top": "x"}


async def test_a_node_over_an_open_file_goes_where_that_is(ground: GraphGround):
    ground.graph.executors.create("x")
    disk = await ground.memory("disk", KIB, executor="x")
    await ground.raw("raw", disk)
    await ground.graph.open(NodeDefinition("raw", "told", children={"file": "disk"}, executor="main"))
    assert places(ground) == {"disk": "x", "raw": "x", "told": "main"}


async def test_a_backing_file_that_a_header_names_is_opened_on_the_same_executor(ground: GraphGround):
    ground.graph.executors.create("x")
    (ground.root / "base.raw").write_bytes(bytes(64 * KIB))
    await ground.qcow2("image", "top.qcow2", 64 * KIB, backing_file="base.raw", backing_fmt="raw")
    await ground.graph.close("image")
    definition = NodeDefinition(
        "qcow2", "top", children={"file": NodeDefinition("file", options={"filename": "top.qcow2"})}
    )
    await ground.graph.open(replace(definition, executor="x"))
    assert set(places(ground).values()) == {"x"} and len(places(ground)) == 4


async def test_an_unknown_executor_is_refused_and_nothing_stays_open(ground: GraphGround):
    with pytest.raises(ResourceNotFound, match="nowhere"):
        await ground.memory("a", 512, executor="nowhere")
    assert not ground.graph.nodes and not ground.graph.claimed


# --- moving ----------------------------------------------------------------------------------------------


async def test_parents_detach_before_their_children_and_children_attach_first(ground: GraphGround):
    ground.graph.executors.create("x")
    journal: list[str] = []
    disk = await placed(ground, "disk", journal)
    base = await placed(ground, "base", journal, file=disk)
    top = await placed(ground, "top", journal, file=disk, backing=base)
    await ground.graph.executors.move(top, "x")
    assert journal == ["-top", "-base", "-disk", "+disk", "+base", "+top"]
    assert set(places(ground).values()) == {"x"}
    assert {await thread_of(node) for node in (disk, base, top)} == {"executor-x"}


async def test_what_is_above_stays_where_it_is(ground: GraphGround):
    ground.graph.executors.create("x")
    disk = await placed(ground, "disk", [])
    await placed(ground, "top", [], file=disk)
    await ground.graph.executors.move(disk, "x")
    assert places(ground) == {"disk": "x", "top": "main"}
    assert disk.definition.executor == "x"


async def test_a_move_waits_for_requests_and_for_work_in_threads_and_holds_new_ones(ground: GraphGround):
    ground.graph.executors.create("x")
    node = await placed(ground, "a", [])
    user, disk = ground.use(node), node.driver
    disk.hold = asyncio.Event()  # type: ignore[attr-defined]
    gate = threading.Event()
    request = asyncio.ensure_future(user.write(0, b"inside"))
    working = asyncio.ensure_future(disk.context.pool.run(gate.wait))  # type: ignore[attr-defined]
    await turns()
    moving = asyncio.ensure_future(ground.graph.executors.move(node, "x"))
    await turns()
    later = asyncio.ensure_future(content(user, 0, 6))
    disk.hold.set()  # type: ignore[attr-defined]
    disk.hold = None  # type: ignore[attr-defined]
    await request
    await turns()
    assert not moving.done() and not later.done() and node.executor == "main"
    gate.set()
    await moving
    assert await working and await later == b"inside" and await thread_of(node) == "executor-x"


async def test_a_move_that_fails_leaves_every_node_where_it_was(ground: GraphGround):
    ground.graph.executors.create("x")
    journal: list[str] = []
    disk = await placed(ground, "disk", journal, fails=True)
    top = await placed(ground, "top", journal, file=disk)
    with pytest.raises(IoError):
        await ground.graph.executors.move(top, "x")
    assert set(places(ground).values()) == {"main"} and not top.quiesced and not disk.quiesced
    assert journal == ["-top", "+disk", "+top"]
    assert await thread_of(top) == "pool"


async def test_a_cancelled_move_leaves_every_node_where_it_was(ground: GraphGround):
    ground.graph.executors.create("x")
    node = await placed(ground, "a", [])
    gate = threading.Event()
    working = asyncio.ensure_future(node.driver.context.pool.run(gate.wait))  # type: ignore[attr-defined]
    await turns()
    moving = asyncio.ensure_future(ground.graph.executors.move(node, "x"))
    await turns()
    moving.cancel()
    await turns()
    assert moving.cancelled() and not node.quiesced and node.executor == "main"
    gate.set()
    await working
    await ground.graph.executors.move(node, "x")
    assert node.executor == "x"


async def test_two_moves_of_one_node_do_not_mix(ground: GraphGround):
    for name in "xy":
        ground.graph.executors.create(name)
    node = await placed(ground, "a", [])
    gate = threading.Event()
    working = asyncio.ensure_future(node.driver.context.pool.run(gate.wait))  # type: ignore[attr-defined]
    await turns()
    moving = asyncio.ensure_future(ground.graph.executors.move(node, "x"))
    await turns()
    with pytest.raises(NodeInUse):
        await ground.graph.executors.move(node, "y")
    gate.set()
    await working
    await moving
    assert node.executor == "x"


async def test_watchers_are_told_of_every_node_that_moved(ground: GraphGround):
    ground.graph.executors.create("x")
    disk = await ground.memory("disk", KIB)
    top = await ground.raw("top", disk)
    changes = ground.graph.hub.watch(ground.graph.hub.revision, list)
    await ground.graph.executors.move(top, "x")
    seen = []
    async for change in changes:
        if isinstance(change.resource, NodeReport):
            seen.append((change.resource.kind, change.name, change.resource.details))
        if len(seen) == 2:
            break
    assert seen == [("executor-changed", name, {"from": "main", "to": "x"}) for name in ("disk", "top")]


async def test_whoever_works_for_a_node_moves_with_it(ground: GraphGround):
    ground.graph.executors.create("x")
    node = await ground.memory("a", KIB)
    share = ground.graph.executors.share("a", user="job/m1")
    await ground.graph.executors.move(node, "x")
    assert (await share.run(threading.current_thread)).name.startswith("executor-x")


async def test_a_full_executor_does_not_delay_nodes_on_another(ground: GraphGround):
    ground.graph.executors.create("slow", 1)
    slow, quick = await placed(ground, "slow", []), await placed(ground, "quick", [])
    await ground.graph.executors.move(slow, "slow")
    gate = threading.Event()
    stuck = [asyncio.ensure_future(slow.driver.context.pool.run(gate.wait)) for _ in range(50)]  # type: ignore[attr-defined]
    await turns()
    assert await thread_of(quick) == "pool" and not any(task.done() for task in stuck)
    pool = ground.graph.executors.pool("slow")
    assert (pool.running, pool.queued) == (1, 49)
    gate.set()
    await asyncio.gather(*stuck)


@pytest.mark.fuzz
async def test_requests_in_a_storm_of_moves_lose_nothing(ground: GraphGround):
    ground.graph.executors.create("x")
    node = await ground.qcow2("disk", "a.qcow2", 256 * KIB, cluster_size=4096)
    user, expected = ground.use(node), bytearray(256 * KIB)

    async def write(start: int) -> None:
        for number in range(start, 250, 5):
            offset = number * 1000
            data = bytes([number % 255 + 1]) * 1000
            await user.write(offset, data, COMPRESSED if number % 3 else 0)  # compressing is work for threads
            expected[offset : offset + 1000] = data
            await asyncio.sleep(0)

    running = asyncio.gather(*(write(start) for start in range(5)))
    moves = 0
    while not running.done():
        await ground.graph.executors.move(node, "main" if moves % 2 else "x")
        moves += 1
        await turns(3)
    await running
    assert await content(user) == expected and moves > 2
