"""Opening is all or nothing, closing is refused while someone uses the node."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BackingDenied,
    BackingFormatUnknown,
    BackingLoop,
    BackingMissing,
    BlockError,
    ChainTooDeep,
    DriverUnknown,
    FileNotFound,
    FormatMismatch,
    GraphCycle,
    InvalidArgument,
    LimitReached,
    MissingOption,
    NodeExists,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    PathDenied,
    UnknownOption,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.graph import Graph
from tests.support.contract import descriptors
from tests.support.graphs import GraphGround, content


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


def file(name: str) -> NodeDefinition:
    return NodeDefinition("file", options={"filename": name})


def image(ground: GraphGround, name: str, *options: str, size: str = "1M") -> None:
    """An image of qemu-img's: the judge of what a header means."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, name, size]
    subprocess.run(command, cwd=ground.root, check=True)


def qcow2(name: str, node_name: str = "top", **children: NodeDefinition | str | None) -> NodeDefinition:
    return NodeDefinition("qcow2", node_name, children={"file": file(name), **children})


FAILURES: dict[str, tuple[type[BlockError], NodeDefinition]] = {
    "an unknown driver": (DriverUnknown, NodeDefinition("qcow9", "top")),
    "an unknown option": (UnknownOption, NodeDefinition("raw", "top", {"ofset": 1}, {"file": file("good")})),
    "a missing option": (MissingOption, NodeDefinition("file", "top")),
    "an option of the wrong kind": (
        InvalidArgument,
        NodeDefinition("raw", "top", {"offset": "1"}, {"file": file("good")}),
    ),
    "an option the driver refuses": (
        InvalidArgument,
        NodeDefinition("raw", "top", {"offset": 1 << 40}, {"file": file("good")}),
    ),
    "an unknown child": (UnknownOption, NodeDefinition("raw", "top", children={"fil": file("good")})),
    "a missing child": (MissingOption, NodeDefinition("raw", "top")),
    "a child that does not exist": (NodeNotFound, NodeDefinition("raw", "top", children={"file": "nobody"})),
    "itself as a child": (GraphCycle, NodeDefinition("raw", "top", children={"file": "top"})),
    "a taken name": (NodeExists, NodeDefinition("memory", "taken")),
    "a taken name below": (
        NodeExists,
        NodeDefinition("raw", "top", children={"file": NodeDefinition("memory", "taken")}),
    ),
    "one name twice": (
        NodeExists,
        NodeDefinition("raw", "top", children={"file": NodeDefinition("memory", "top")}),
    ),
    "a name that may not be": (InvalidArgument, NodeDefinition("memory", "1 2")),
    "a missing file": (FileNotFound, qcow2("nowhere.qcow2")),
    "a path out of the root": (PathDenied, qcow2("../etc/passwd")),
    "a file of another format": (FormatMismatch, qcow2("good")),
    "a second child that fails": (
        FileNotFound,
        qcow2("top.qcow2", backing=NodeDefinition("file", "b", {"filename": "x"})),
    ),
    "a missing backing file": (BackingMissing, qcow2("orphan.qcow2")),
    "a missing backing file further down": (BackingMissing, qcow2("grandchild.qcow2")),
    "a backing file without a format": (BackingFormatUnknown, qcow2("unknown.qcow2")),
    "an image that is its own backing file": (BackingLoop, qcow2("self.qcow2")),
    "two images that back each other": (BackingLoop, qcow2("ping.qcow2")),
    "a backing file out of the root": (BackingMissing, qcow2("outside.qcow2")),
}


def make_images(ground: GraphGround) -> None:
    (ground.root / "good").write_bytes(bytes(MIB))
    image(ground, "top.qcow2")
    image(ground, "orphan.qcow2", "-u", "-b", "nowhere.qcow2", "-F", "qcow2")
    image(ground, "grandchild.qcow2", "-u", "-b", "orphan.qcow2", "-F", "qcow2")
    image(ground, "self.qcow2")
    rebase = ["qemu-img", "rebase", "-u", "-b", "self.qcow2", "-F", "qcow2", "self.qcow2"]
    subprocess.run(rebase, cwd=ground.root, check=True)
    image(ground, "ping.qcow2", "-u", "-b", "pong.qcow2", "-F", "qcow2")
    image(ground, "pong.qcow2", "-u", "-b", "ping.qcow2", "-F", "qcow2")
    image(ground, "outside.qcow2", "-u", "-b", "/etc/passwd", "-F", "raw")
    image(ground, "unknown.qcow2", "-u", "-b", "good", "-F", "raw")
    # Take the header extension of the backing format away, as old tools never wrote it.
    data = bytearray((ground.root / "unknown.qcow2").read_bytes())
    at = data.index(bytes.fromhex("e2792aca"))
    data[at : at + 4] = b"\0\0\0\1"
    (ground.root / "unknown.qcow2").write_bytes(data)


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize("case", FAILURES)
async def test_nothing_stays_open_after_a_step_failed(ground: GraphGround, case: str):
    make_images(ground)
    taken = await ground.memory("taken", MIB)
    before = descriptors()
    error, definition = FAILURES[case]
    with pytest.raises(error):
        await ground.graph.open(definition)
    await ground.pool.run(int)  # what closes in the pool has closed
    assert descriptors() == before
    assert list(ground.graph.nodes) == ["taken"] and not ground.graph.claimed
    assert not taken.parents


@pytest.mark.peer("qemu-img")
async def test_a_closed_gate_refuses_backing_files_that_headers_name(tmp_path: Path):
    ground = GraphGround(tmp_path, follow_backing=False)
    make_images(ground)
    image(ground, "over.qcow2", "-u", "-b", "good", "-F", "raw")
    with pytest.raises(BackingDenied):
        await ground.graph.open(qcow2("over.qcow2"))
    assert (await ground.graph.open(qcow2("over.qcow2", backing=None))).backing is None
    assert await ground.leave() == []


@pytest.mark.peer("qemu-img")
async def test_a_chain_as_long_as_allowed_opens_and_one_more_does_not(tmp_path: Path):
    ground = GraphGround(tmp_path, max_chain_depth=5)
    image(ground, "0.qcow2")
    for index in range(1, 7):
        image(ground, f"{index}.qcow2", "-u", "-b", f"{index - 1}.qcow2", "-F", "qcow2")
    await ground.graph.open(qcow2("5.qcow2"))
    await ground.graph.close("top")
    with pytest.raises(ChainTooDeep):
        await ground.graph.open(qcow2("6.qcow2"))
    assert not ground.graph.nodes
    assert await ground.leave() == []


@pytest.mark.peer("qemu-img")
async def test_the_longest_chain_of_the_default_bound_can_be_read_and_written(ground: GraphGround):
    depth = ground.graph.environment.max_chain_depth
    await ground.qcow2("base", "0.qcow2", MIB, cluster_size=4096)
    user = ground.use(ground.graph.get("base"))
    await user.write(0, b"deep" * 1024)
    ground.graph.release(user)
    await ground.graph.close("base")
    for index in range(1, depth + 1):
        image(ground, f"{index}.qcow2", "-u", "-b", f"{index - 1}.qcow2", "-F", "qcow2", "-o", "cluster_size=4k")
    node = await ground.graph.open(qcow2(f"{depth}.qcow2"))
    user = ground.use(node)
    assert await content(user, 0, 4096) == b"deep" * 1024
    (extent,) = await user.block_status(0, 4096)
    assert extent.depth == depth and extent.data
    await user.write(1000, b"top")
    assert (await content(user, 996, 10))[4:7] == b"top"


async def test_an_implicit_child_goes_with_its_last_parent_and_a_named_one_stays(ground: GraphGround):
    ground.file("a.img", MIB)
    await ground.graph.open(NodeDefinition("raw", "implicit", children={"file": file("a.img")}))
    assert len(ground.graph.nodes) == 2
    assert len(await ground.graph.close("implicit")) == 2
    named = NodeDefinition("file", "named", {"filename": "a.img"})
    await ground.graph.open(NodeDefinition("raw", "top", children={"file": named}))
    assert await ground.graph.close("top") == ["top"]
    assert list(ground.graph.nodes) == ["named"]


async def test_validation_opens_everything_and_leaves_nothing(ground: GraphGround):
    ground.file("a.img", MIB)
    before = descriptors()
    named = NodeDefinition("file", "named", {"filename": "a.img"})
    revision = ground.graph.hub.revision
    await ground.graph.open(NodeDefinition("raw", "top", children={"file": named}), validate_only=True)
    assert not ground.graph.nodes and not ground.graph.claimed and descriptors() == before
    assert ground.graph.hub.revision == revision


async def test_closing_a_used_node_is_refused_and_says_by_whom(ground: GraphGround):
    memory = await ground.memory("below", MIB)
    raw = await ground.raw("above", memory)
    user = ground.use(raw, "me")
    for name, holder in (("below", "node/above"), ("above", "session/me")):
        with pytest.raises(NodeInUse) as refusal:
            await ground.graph.close(name)
        assert holder in str(refusal.value)
    ground.graph.release(user)
    await ground.graph.close("above")
    await ground.graph.close("below")


async def test_closing_a_node_that_is_being_built_upon_is_refused(ground: GraphGround):
    memory = await ground.memory("below", MIB)
    ground.file("slow.img", 0)
    opening = asyncio.ensure_future(
        ground.graph.open(NodeDefinition("qcow2", "top", children={"file": file("slow.img"), "backing": "below"}))
    )
    while not memory.parents and not opening.done():
        await asyncio.sleep(0)
    if memory.parents:
        with pytest.raises(NodeInUse, match="being opened"):
            await ground.graph.close("below")
    with pytest.raises(BlockError):
        await opening
    await ground.graph.close("below")


async def test_of_two_openings_under_one_name_one_is_refused(ground: GraphGround):
    ground.file("a.img", MIB)
    ground.file("b.img", MIB)
    answers = await asyncio.gather(
        *(ground.graph.open(NodeDefinition("file", "disk", {"filename": name})) for name in ("a.img", "b.img")),
        return_exceptions=True,
    )
    assert [type(answer).__name__ for answer in answers] == ["Node", "NodeExists"]


async def test_a_cancelled_opening_leaves_nothing(ground: GraphGround):
    ground.file("a.img", MIB)
    before = descriptors()
    for turns in range(12):
        task = asyncio.ensure_future(
            ground.graph.open(NodeDefinition("raw", "top", children={"file": file("a.img")}))
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await ground.graph.close("top")
        await ground.pool.run(int)
        assert not ground.graph.nodes and not ground.graph.claimed
        assert descriptors() == before


async def test_there_are_no_more_nodes_than_allowed(tmp_path: Path):
    ground = GraphGround(tmp_path, max_nodes=3)
    await ground.raw("a", await ground.memory("b", KIB))
    with pytest.raises(LimitReached):
        await ground.graph.open(NodeDefinition("raw", "c", children={"file": NodeDefinition("memory")}))
    assert list(ground.graph.nodes) == ["b", "a"]
    assert await ground.leave() == []


async def test_a_read_only_node_takes_no_writer(ground: GraphGround):
    node = await ground.graph.open(NodeDefinition("memory", "r", {"size": KIB}, read_only=True))
    with pytest.raises(NodeReadOnly):
        ground.use(node)
    reader = ground.use(node, writable=False)
    for call in (reader.write(0, b"x"), reader.zero(0, 1), reader.discard(0, 1), reader.truncate(0)):
        with pytest.raises(NodeReadOnly):
            await call


async def test_closing_flushes_what_was_written(ground: GraphGround):
    disk = await ground.strict("disk", size=KIB)
    user = ground.use(disk)
    await user.write(0, b"x")
    ground.graph.release(user)
    await ground.graph.close("disk")
    assert disk.driver.flushes == 1 and disk.driver.is_closed  # type: ignore[attr-defined]


async def test_a_node_whose_flush_fails_is_closed_all_the_same_with_what_is_below(ground: GraphGround):
    disk = await ground.strict("disk", size=KIB)
    disk.implicit = True
    raw = await ground.raw("top", disk)
    user = ground.use(raw)
    await user.write(0, b"x")
    ground.graph.release(user)
    disk.driver.failures = {"flush": 2}  # type: ignore[attr-defined]
    with pytest.raises(BlockError):
        await ground.graph.close("top")
    assert disk.driver.is_closed and not ground.graph.nodes  # type: ignore[attr-defined]


async def test_closing_all_goes_from_the_top_down_whoever_is_there(ground: GraphGround):
    disk = await ground.strict("disk", size=64 * KIB)
    cow = await ground.toycow(disk, size=64 * KIB)
    user = ground.use(cow)
    ground.use(disk, "another", writable=False)
    await user.write(0, b"x")
    graph: Graph = ground.graph
    assert await graph.close_all() == []
    assert not graph.nodes and disk.driver.is_closed  # type: ignore[attr-defined]
