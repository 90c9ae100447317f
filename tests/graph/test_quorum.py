"""Quorum and blkverify in the graph: storms with a bad child, children that come and go under load, what is in the
files afterwards, and QEMU's quorum over the same files."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import (
    BlockError,
    CopiesDiffer,
    GraphCycle,
    InvalidArgument,
    IoError,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    OperationUnsupported,
    PermissionConflict,
    QuorumFailed,
    ResourceNotFound,
)
from blockyard.node.graph import children, surgery
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.graph import NodeReport
from blockyard.node.graph.node import Node
from blockyard.node.graph.reopening import Reopen
from blockyard.node.graph.transaction import run
from tests.support.eventually import eventually
from tests.support.gated import Gates
from tests.support.graphs import GraphGround, content
from tests.support.linear import Mix, Register, Storm

SIZE = 60_416
EXAMPLES = int(os.environ.get("BLOCKYARD_FUZZ_EXAMPLES", "4"))
SEEDS = range(EXAMPLES)


class Quorums(GraphGround):
    """Quorums over files of random bytes, which are all the same."""

    def __init__(self, root: Path, **settings: Any) -> None:
        super().__init__(root, **settings)
        self.gates = Gates()
        self.data = random.Random(1).randbytes(SIZE)

    def copy(self, at: int, driver: str = "gated", data: bytes | None = None) -> NodeDefinition:
        """A raw node without a name over a fresh file `copyN`."""
        self.path(at).write_bytes(self.data if data is None else data)
        file = NodeDefinition(driver, options={"filename": f"copy{at}"})
        return NodeDefinition("raw", children={"file": file})

    def path(self, at: int) -> Path:
        return self.root / f"copy{at}"

    async def quorum(self, count: int = 3, threshold: int = 2, driver: str = "gated", **options: Any) -> Node:
        copies = {f"children.{at}": self.copy(at, driver) for at in range(count)}
        return await self.graph.open(
            NodeDefinition("quorum", "q", {"vote_threshold": threshold, **options}, copies)
        )

    def print_of(self, *copies: int) -> set[str]:
        """What the files hold, as prints: a failed compare of long bytes takes pytest minutes to explain."""
        return {printed(self.path(at).read_bytes()) for at in copies}

    def corrupt(self, at: int, numbers: random.Random, times: int = 5) -> None:
        """Behind everybody's back."""
        with self.path(at).open("r+b") as file:
            for _ in range(times):
                start = numbers.randrange(SIZE)
                file.seek(start)
                file.write(numbers.randbytes(min(numbers.randrange(1, 5000), SIZE - start)))

    def events(self) -> list[tuple[str, str]]:
        return [
            (change.resource.kind, change.resource.details.get("child", ""))
            for change in self.graph.hub._history
            if isinstance(change.resource, NodeReport)
        ]


def printed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Quorums]:
    ground = Quorums(tmp_path)
    with ground.gates.registered():
        yield ground
        for gate in ground.gates.gates:
            gate.open()
        assert await ground.leave() == []


# --- storms ----------------------------------------------------------------------------------------------


@pytest.mark.fuzz
@pytest.mark.parametrize("driver", ["gated", "file"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_copies_are_alike_whatever_overlaps_and_is_cancelled(ground: Quorums, seed: int, driver: str):
    node = await ground.quorum(3, 3, driver)
    user = ground.use(node)
    await Storm(user, Register(SIZE, ground.data), seed, Mix(cancel=0.2, resize=1)).run()
    await user.flush()
    assert ground.print_of(0, 1, 2) == {printed(await content(user))}
    assert ground.events() == []


@pytest.mark.fuzz
@pytest.mark.parametrize("rewrite", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_guest_never_sees_what_happens_to_a_minority(ground: Quorums, seed: int, rewrite: bool):
    node = await ground.quorum(5, 3, rewrite_corrupted=rewrite)
    user = ground.use(node)
    storm = Storm(user, Register(SIZE, ground.data), seed, Mix(cancel=0.1))
    numbers = random.Random(seed)
    bad = numbers.sample(range(5), 2)

    def harm() -> None:
        for at in bad:
            ground.corrupt(at, numbers)
        for gate in list(ground.gates.gates):
            ground.gates.heal(gate)
        operation = numbers.choice(["read", "write", "zero", "flush"])
        error = IoError("child", operation, 5, "as told")
        ground.gates.fail(f"copy{bad[0]}", operation, error, at=numbers.randrange(SIZE))

    storm.between = harm
    await storm.run()
    assert any(kind == "quorum-report-bad" for kind, _ in ground.events())
    assert {child for kind, child in ground.events() if kind == "quorum-report-bad"} <= {
        f"children.{at}" for at in bad
    }
    assert all(kind != "quorum-failure" for kind, _ in ground.events())
    assert ground.print_of(*(at for at in range(5) if at not in bad)) == {printed(await content(user))}


async def test_reading_everything_heals_a_corrupted_child(ground: Quorums):
    node = await ground.quorum(3, 2, rewrite_corrupted=True)
    user = ground.use(node, writable=False)
    ground.corrupt(1, random.Random(7))
    assert ground.path(1).read_bytes() != ground.data
    assert printed(await content(user)) == printed(ground.data)
    assert ground.print_of(0, 1, 2) == {printed(ground.data)}


async def test_a_read_beside_a_write_is_no_lost_vote(ground: Quorums):
    node = await ground.quorum(2, 2)
    user = ground.use(node)
    gate = ground.gates.hold("copy1", "write")
    writing = asyncio.create_task(user.write(4096, b"x" * 4096))
    await gate.reached.wait()
    await eventually(lambda: ground.path(0).read_bytes()[4096:8192] == b"x" * 4096)
    reading = asyncio.create_task(content(user, 4096, 4096))
    elsewhere = await content(user, 0, 4096)
    assert elsewhere == ground.data[:4096]
    assert not reading.done()
    gate.open()
    await writing
    assert await reading == b"x" * 4096
    assert ground.events() == []


async def test_a_slow_child_does_not_hold_up_a_fifo_read(ground: Quorums):
    node = await ground.quorum(3, 1, read_pattern="fifo")
    user = ground.use(node, writable=False)
    ground.gates.hold("copy1", "read")
    assert await content(user, 0, 4096) == ground.data[:4096]


async def test_a_format_on_a_quorum_grows_it(ground: Quorums):
    for at in range(3):
        ground.path(at).write_bytes(b"")
    copies: dict[str, NodeDefinition | str | None] = {
        f"children.{at}": NodeDefinition("gated", options={"filename": f"copy{at}"}) for at in range(3)
    }
    node = await ground.graph.open(NodeDefinition("quorum", "q", {"vote_threshold": 2}, copies))
    top = await ground.toycow(node, size=SIZE)
    user = ground.use(top)
    await Storm(user, Register(SIZE, bytes(SIZE)), 3, Mix(cancel=0.1)).run()
    assert len(ground.print_of(0, 1, 2)) == 1


async def test_inline_reads_are_compared_and_accounted(ground: Quorums):
    node = await ground.quorum(3, 2, driver="file")
    top = await ground.raw("top", node)
    user = ground.use(top)
    into = memoryview(bytearray(4096))
    await user.read(0, into)
    assert user.read_now(0, into)
    assert bytes(into) == ground.data[:4096]
    ground.corrupt(2, random.Random(3), times=40)
    for offset in range(0, SIZE - 4096, 4096):
        if not user.read_now(offset, into):
            await user.read(offset, into)
        assert bytes(into) == ground.data[offset : offset + 4096]
    assert {child for _, child in ground.events()} == {"children.2"}


# --- what the graph knows of it --------------------------------------------------------------------------


async def test_nobody_else_writes_a_child_and_anybody_may_read_it(ground: Quorums):
    for name in ("a", "b"):
        await ground.memory(name, SIZE)
    await ground.graph.open(
        NodeDefinition("quorum", "q", {"vote_threshold": 1}, {"children.0": "a", "children.1": "b"})
    )
    ground.graph.release(ground.use(ground.graph.get("a"), writable=False))
    with pytest.raises(PermissionConflict):
        ground.use(ground.graph.get("a"))


async def test_a_writer_needs_children_that_can_be_written(ground: Quorums):
    await ground.memory("a", SIZE)
    await ground.memory("fixed", SIZE, read_only=True)
    both: dict[str, NodeDefinition | str | None] = {"children.0": "a", "children.1": "fixed"}
    node = await ground.graph.open(NodeDefinition("quorum", "q", {"vote_threshold": 1}, both))
    ground.graph.release(ground.use(node, writable=False))
    with pytest.raises(NodeReadOnly) as refusal:
        ground.use(node)
    assert refusal.value.node_name == "fixed"


async def test_a_read_only_quorum_is_opened_for_writing_with_its_children(ground: Quorums):
    copies = {f"children.{at}": ground.copy(at, "file") for at in range(2)}
    definition = NodeDefinition("quorum", "q", {"vote_threshold": 2}, copies, read_only=True)
    node = await ground.graph.open(definition)
    with pytest.raises(NodeReadOnly):
        ground.use(node)
    await run(ground.graph, [Reopen([replace(definition, read_only=False)])])
    user = ground.use(node)
    await user.write(0, b"now")
    await user.flush()
    assert {ground.path(at).read_bytes()[:3] for at in range(2)} == {b"now"}


async def test_the_specification_opens_the_same_quorum_again(ground: Quorums):
    node = await ground.quorum(3, 2, driver="file", rewrite_corrupted=True)
    found = node.definition.as_dict()
    assert [child["file"]["filename"] for child in found["children"]] == ["copy0", "copy1", "copy2"]
    assert found["vote-threshold"] == 2 and found["rewrite-corrupted"] is True


async def test_a_child_may_be_under_a_filter_that_comes_and_goes(ground: Quorums):
    node = await ground.quorum(2, 2, driver="file")
    user = ground.use(node)
    below = node.children["children.1"].node
    filter_node = await ground.graph.open(
        NodeDefinition("mirror-top", "f", children={"file": below.name, "target": NodeDefinition("memory")})
    )
    await surgery.insert_filter(ground.graph, below, filter_node)
    await user.write(0, b"through")
    assert await content(user, 0, 7) == b"through"
    await surgery.remove_filter(ground.graph, filter_node)
    await ground.graph.close("f")
    assert {ground.path(at).read_bytes()[:7] for at in range(2)} == {b"through"}


async def test_what_takes_a_childs_place_must_be_as_long_and_no_child_already(ground: Quorums):
    for name, size in (("a", SIZE), ("b", SIZE), ("c", SIZE), ("long", 2 * SIZE)):
        await ground.memory(name, size)
    both: dict[str, NodeDefinition | str | None] = {"children.0": "a", "children.1": "b"}
    node = await ground.graph.open(NodeDefinition("quorum", "q", {"vote_threshold": 1}, both))
    for target, error in (("b", NodeInUse), ("long", InvalidArgument)):
        with pytest.raises(error):
            await surgery.replace_node(ground.graph, ground.graph.get("a"), ground.graph.get(target))
        assert [edge.node.name for edge in node.children.values()] == ["a", "b"]
    await surgery.replace_node(ground.graph, ground.graph.get("a"), ground.graph.get("c"))
    user = ground.use(node)
    await user.write(0, b"there")
    assert await content(ground.use(ground.graph.get("c"), "look", writable=False), 0, 5) == b"there"


# --- children that come and go ---------------------------------------------------------------------------


async def test_a_child_that_was_added_with_its_definition_is_closed_with_its_removal(ground: Quorums):
    node = await ground.quorum(2, 2)
    user = ground.use(node)
    assert await children.add_child(ground.graph, node, ground.copy(2)) == "children.2"
    added = node.children["children.2"].node
    assert added.implicit and added.name in ground.graph.nodes
    await user.write(0, b"for all")
    assert {ground.path(at).read_bytes()[:7] for at in range(3)} == {b"for all"}
    assert list(node.definition.children) == ["children.0", "children.1", "children.2"]
    await children.remove_child(ground.graph, node, "children.0")
    await children.add_child(ground.graph, node, ground.copy(3))
    assert list(node.children) == ["children.1", "children.2", "children.3"]
    await children.remove_child(ground.graph, node, "children.2")
    assert added.name not in ground.graph.nodes
    assert len(ground.graph.nodes) == 5, "the quorum, and two raw nodes with their files"


async def test_a_child_by_name_stays_open_when_it_is_removed(ground: Quorums):
    node = await ground.quorum(2, 1)
    extra = await ground.memory("extra", SIZE)
    name = await children.add_child(ground.graph, node, "extra")
    assert [edge.holder for edge in extra.parents] == ["node/q"]
    await children.remove_child(ground.graph, node, name)
    assert ground.graph.get("extra") is extra and not extra.parents


async def test_a_check_only_changes_nothing_and_leaves_nothing_open(ground: Quorums):
    node = await ground.quorum(2, 1)
    before, definition = set(ground.graph.nodes), node.definition
    assert await children.add_child(ground.graph, node, ground.copy(2), validate_only=True) == "children.2"
    await children.remove_child(ground.graph, node, "children.0", validate_only=True)
    assert (set(ground.graph.nodes), list(node.children)) == (before, ["children.0", "children.1"])
    assert node.definition is definition
    with pytest.raises(InvalidArgument):
        await children.add_child(ground.graph, node, ground.copy(2, data=b"x" * 512), validate_only=True)
    assert await children.add_child(ground.graph, node, ground.copy(2)) == "children.2"


async def refused(ground: Quorums, node: Node, child: NodeDefinition | str | None) -> type[BlockError]:
    before = set(ground.graph.nodes)
    with pytest.raises(BlockError) as refusal:
        await children.add_child(ground.graph, node, child)
    assert set(ground.graph.nodes) == before and not ground.graph.claimed
    return type(refusal.value)


async def test_children_that_cannot_be_are_refused_and_nothing_stays_behind(ground: Quorums):
    node = await ground.quorum(2, 2)
    user = ground.use(node)
    await ground.memory("small", SIZE - 512)
    await ground.memory("fixed", SIZE, read_only=True)
    ground.use(await ground.memory("written", SIZE))
    above = await ground.raw("above", node)
    assert await refused(ground, node, "small") is InvalidArgument
    assert await refused(ground, node, "fixed") is NodeReadOnly
    assert await refused(ground, node, "written") is PermissionConflict
    assert await refused(ground, node, "above") is GraphCycle
    assert await refused(ground, node, "q") is GraphCycle
    assert await refused(ground, node, "nobody") is NodeNotFound
    assert await refused(ground, node, None) is InvalidArgument
    assert await refused(ground, node, ground.copy(2, data=b"")) is InvalidArgument
    assert await refused(ground, node, node.children["children.0"].node.name) is NodeInUse
    assert await refused(ground, above, "small") is OperationUnsupported
    await user.write(0, b"as ever")
    assert {ground.path(at).read_bytes()[:7] for at in range(2)} == {b"as ever"}


async def test_removals_that_cannot_be_are_refused(ground: Quorums):
    node = await ground.quorum(3, 2)
    with pytest.raises(ResourceNotFound):
        await children.remove_child(ground.graph, node, "children.7")
    node.children["children.1"].frozen_reason = "a job reads here"
    with pytest.raises(NodeInUse):
        await children.remove_child(ground.graph, node, "children.1")
    node.children["children.1"].frozen_reason = ""
    await children.remove_child(ground.graph, node, "children.1")
    with pytest.raises(InvalidArgument):
        await children.remove_child(ground.graph, node, "children.0")
    assert list(node.children) == ["children.0", "children.2"]


async def test_a_child_whose_disk_is_broken_can_be_taken_out(ground: Quorums):
    node = await ground.quorum(3, 2)
    user = ground.use(node)
    for operation in ("read", "write", "flush"):
        ground.gates.fail("copy1", operation, IoError("child", operation, 5, "gone"))
    await user.write(0, b"x")
    await children.remove_child(ground.graph, node, "children.1")
    assert list(node.children) == ["children.0", "children.2"]
    assert ("child-flush-failed", "children.1") in ground.events()


async def test_one_child_takes_the_place_of_another_in_one_transaction(ground: Quorums):
    node = await ground.quorum(2, 2)
    actions = [children.AddChild("q", ground.copy(2)), children.RemoveChild("q", "children.0")]
    await run(ground.graph, actions)
    assert list(node.children) == list(node.definition.children) == ["children.1", "children.2"]
    with pytest.raises(BlockError):
        await run(ground.graph, [children.AddChild("q", ground.copy(3)), *_removals("children.1", "children.2")])
    assert list(node.children) == list(node.definition.children) == ["children.1", "children.2"]
    user = ground.use(node)
    await user.write(0, b"only those")
    seen = [ground.path(at).read_bytes()[:10] for at in range(4)]
    assert seen == [ground.data[:10], b"only those", b"only those", ground.data[:10]]


def _removals(*names: str) -> list[children.RemoveChild]:
    return [children.RemoveChild("q", name) for name in names]


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", SEEDS)
async def test_children_are_exchanged_in_a_storm_and_all_that_stay_are_alike(ground: Quorums, seed: int):
    node = await ground.quorum(3, 2, rewrite_corrupted=True)
    user, reader = ground.use(node), ground.use(node, "reader", writable=False)
    storm = Storm(user, Register(SIZE, ground.data), seed, Mix(cancel=0.1))
    running = asyncio.ensure_future(storm.run(rounds=6))
    fresh = 3
    while not running.done() and fresh < 20:
        added = await children.add_child(
            ground.graph, node, ground.copy(fresh, data=random.Random(fresh).randbytes(SIZE))
        )
        # Whoever reads it all heals the newcomer; then one of the old ones may go.
        await content(reader)
        oldest = next(name for name in node.children if name != added)
        await children.remove_child(ground.graph, node, oldest)
        fresh += 1
    await running
    assert fresh > 5
    await content(reader)
    left = [int(name.rpartition(".")[2]) for name in node.children]
    assert len(left) == 3
    assert ground.print_of(*left) == {printed(await content(user))}
    assert all(kind == "quorum-report-bad" for kind, _ in ground.events())


# --- blkverify -------------------------------------------------------------------------------------------


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", SEEDS)
async def test_qcow2_is_its_raw_copy_in_a_storm(ground: Quorums, seed: int):
    await ground.qcow2("tested", "tested.qcow2", SIZE)
    raw = NodeDefinition("raw", children={"file": ground.file("raw.img", SIZE)})
    node = await ground.graph.open(
        NodeDefinition("blkverify", "v", children={"test": "tested", "raw": raw}),
    )
    user = ground.use(node)
    await Storm(user, Register(SIZE, bytes(SIZE)), seed, Mix(cancel=0.1, resize=1, zeroes=0.2)).run()
    assert ground.events() == []
    assert node.filtered is ground.graph.get("tested")


async def test_a_write_from_behind_is_found_by_the_next_read(ground: Quorums):
    raw = NodeDefinition("raw", "raw", children={"file": NodeDefinition("memory", "bytes", {"size": SIZE})})
    node = await ground.graph.open(
        NodeDefinition("blkverify", "v", children={"test": ground.copy(0, "file", bytes(SIZE)), "raw": raw})
    )
    user = ground.use(node)
    await user.write(1000, b"same")
    with pytest.raises(PermissionConflict):
        ground.use(ground.graph.get("raw"))
    ground.corrupt(0, random.Random(5))
    with pytest.raises(CopiesDiffer) as failure:
        await content(user)
    found = ground.path(0).read_bytes()
    expected = bytes(1000) + b"same" + bytes(SIZE - 1004)
    assert failure.value.offset == next(at for at in range(SIZE) if found[at] != expected[at])
    assert ("blkverify-mismatch", "") in ground.events()


async def test_without_a_quorum_nothing_is_read(ground: Quorums):
    node = await ground.quorum(3, 2)
    user = ground.use(node)
    for at in range(3):
        with ground.path(at).open("r+b") as file:
            file.write(bytes([at]) * 512)
    with pytest.raises(QuorumFailed):
        await content(user, 0, 512)
    assert printed(await content(user, 512)) == printed(ground.data[512:])
    await user.write(0, b"y" * 512)
    assert await content(user, 0, 512) == b"y" * 512
