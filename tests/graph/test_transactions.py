"""Several changes as one: all of them at one instant, or no trace of any."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    LimitReached,
    NodeInUse,
    NodeNotFound,
    PermissionConflict,
    TransactionFailed,
)
from blockyard.node.graph import drain, recording, recording_actions, surgery
from blockyard.node.graph.actions import (
    CloseNode,
    InsertFilter,
    InsertOverlay,
    OpenNode,
    RemoveFilter,
    ReplaceNode,
)
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.drain import parents_first
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.transaction import MAX_ACTIONS, Action, Plan, run
from blockyard.node.graph.user import SOLE_WRITER
from tests.support.graphs import GraphGround, content

SIZE = 64 * 1024


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


class Fails(Action):
    """Fails in the phase that it is told."""

    def __init__(self, phase: str) -> None:
        self._phase = phase

    def _maybe(self, phase: str) -> None:
        if phase == self._phase:
            raise InvalidArgument("phase", "another one", phase)

    async def prepare(self, plan: Plan) -> None:
        self._maybe("prepare")

    async def settle_down(self, plan: Plan) -> None:
        self._maybe("settle_down")

    def apply(self, plan: Plan) -> None:
        self._maybe("apply")

    async def switch(self, plan: Plan) -> None:
        self._maybe("switch")


PHASES = ("prepare", "settle_down", "apply", "switch")


def picture(graph: Graph) -> dict[str, Any]:
    """Everything that a client could see of a graph."""
    return {
        name: (
            node.uid,
            node.revision,
            node.read_only,
            node.quiesced,
            [(edge.name, edge.node.name, edge.frozen_reason, edge.permissions) for edge in node.children.values()],
            sorted((edge.holder, edge.name, edge.frozen_reason, edge.permissions) for edge in node.parents),
            {key: (item.recording, item.bits.serialize()) for key, item in node.bitmaps.items()},
            len(node.recorders),
        )
        for name, node in graph.nodes.items()
    }


def raw(name: str, below: str) -> NodeDefinition:
    return NodeDefinition("raw", name, children={"file": below})


async def disks(ground: GraphGround, count: int = 2) -> None:
    """`disk0` ... and an overlay for each, `top0` ..., that is not inserted yet."""
    for number in range(count):
        await ground.toycow(await ground.strict(f"file{number}", size=SIZE), name=f"disk{number}", size=SIZE)
        await ground.toycow(await ground.strict(f"topfile{number}"), name=f"top{number}", size=SIZE)


# --- all of it -----------------------------------------------------------------------------------------


async def test_snapshots_of_several_disks_are_of_one_instant(ground: GraphGround):
    await disks(ground)
    users = [ground.use(ground.graph.get(f"disk{number}"), f"guest{number}") for number in range(2)]
    outcome = await run(ground.graph, [InsertOverlay("disk0", "top0"), InsertOverlay("disk1", "top1")])
    assert [user.node.name for user in users] == ["top0", "top1"]
    assert outcome.pause_ns > 0
    moved = {(edge.holder, edge.node_name) for edge in outcome.added_edges}
    assert moved == {
        ("session/guest0", "top0"),
        ("session/guest1", "top1"),
        ("node/top0", "disk0"),
        ("node/top1", "disk1"),
    }


async def test_a_later_action_builds_on_an_earlier_one(ground: GraphGround):
    await ground.memory("disk", SIZE)
    user = ground.use(ground.graph.get("disk"))
    await run(
        ground.graph, [OpenNode(raw("above", "disk")), OpenNode(raw("top", "above")), ReplaceNode("disk", "top")]
    )
    assert user.node.name == "top"
    await user.write(0, b"through all")
    assert await content(user, 0, 11) == b"through all"


async def test_two_overlays_of_one_disk_stack_in_their_order(ground: GraphGround):
    await disks(ground)
    user = ground.use(ground.graph.get("disk0"))
    await run(ground.graph, [InsertOverlay("disk0", "top0"), InsertOverlay("top0", "top1")])
    assert user.node.name == "top1"
    assert user.node.backing is not None and user.node.backing.node.name == "top0"


async def test_nodes_of_later_actions_are_no_users_of_what_comes_before(ground: GraphGround):
    """They are opened first, so they hold what they stand on when the earlier actions happen."""
    await disks(ground)
    user = ground.use(ground.graph.get("disk0"), "guest")
    filter_ = NodeDefinition("copy-on-read", "filter", children={"file": "top0"})
    look = OpenNode(raw("look", "disk0"))
    await run(ground.graph, [InsertOverlay("disk0", "top0"), InsertFilter("top0", filter_), look])
    below = ground.graph.get("filter").children["file"].node
    assert (user.node.name, below.name) == ("filter", "top0")
    assert ground.graph.get("look").children["file"].node is ground.graph.get("disk0")


async def test_what_is_closed_goes_with_what_it_alone_holds(ground: GraphGround):
    await ground.graph.open(
        NodeDefinition("raw", "disk", children={"file": NodeDefinition("memory", options={"size": SIZE})})
    )
    outcome = await run(ground.graph, [CloseNode("disk")])
    assert ground.graph.nodes == {}
    assert outcome.removed_nodes[0] == "disk" and len(outcome.removed_nodes) == 2


async def test_a_bitmap_begins_at_the_instant_of_the_snapshot(ground: GraphGround):
    await disks(ground)
    user = ground.use(ground.graph.get("disk0"))
    actions = [InsertOverlay("disk0", "top0"), recording_actions.CreateBitmap("top0", "since", 4096)]
    await run(ground.graph, actions)
    await user.write(8192, b"x")
    top = ground.graph.get("top0")
    assert [extent.offset for extent in recording.find(top, "since").bits.extents()] == [8192]


async def test_a_node_is_flushed_through_one_that_the_same_transaction_holds(ground: GraphGround):
    """Parents come to rest first, and their flush goes through children that are drained by then."""
    await disks(ground)
    await ground.graph.open(NodeDefinition("copy-on-read", "upper", children={"file": "disk0"}))
    user = ground.use(ground.graph.get("upper"), "guest")
    await user.write(0, b"x")
    actions = [RemoveFilter("upper"), InsertOverlay("disk0", "top0"), recording_actions.CreateBitmap("file0", "b")]
    await asyncio.wait_for(run(ground.graph, actions), 10)
    assert user.node.name == "top0"


async def test_a_transaction_waits_for_a_node_that_another_holds_too(ground: GraphGround):
    await disks(ground)
    node = ground.graph.get("file0")
    user = ground.use(ground.graph.get("disk0"), "guest")
    await user.write(0, b"x")
    drain.begin(node)
    change = asyncio.create_task(
        run(ground.graph, [InsertOverlay("disk0", "top0"), recording_actions.CreateBitmap("file0", "b")])
    )
    for _ in range(50):
        await asyncio.sleep(0)
    assert not change.done() and "b" not in node.bitmaps
    drain.end(node)
    await asyncio.wait_for(change, 10)


async def test_requests_wait_for_the_change_and_see_all_of_it(ground: GraphGround):
    await disks(ground)
    user = ground.use(ground.graph.get("disk0"))
    arrived: asyncio.Task[None] | None = None

    class WritesMeanwhile(Action):
        async def switch(self, plan: Plan) -> None:
            nonlocal arrived
            arrived = asyncio.create_task(user.write(0, b"during"))
            await asyncio.sleep(0)
            assert not arrived.done()

    await run(ground.graph, [InsertOverlay("disk0", "top0"), WritesMeanwhile()])
    assert arrived is not None
    await arrived
    assert await content(ground.use(ground.graph.get("disk0"), "look", writable=False), 0, 6) == bytes(6)
    assert await content(user, 0, 6) == b"during"


async def test_permissions_are_judged_when_everything_has_moved(ground: GraphGround):
    old, _new = await ground.memory("old", SIZE), await ground.memory("new", SIZE)
    ground.graph.use("old", "job", "a", writable=True, permissions=SOLE_WRITER)
    ground.graph.use("new", "job", "b", writable=True, permissions=SOLE_WRITER)
    with pytest.raises(PermissionConflict):
        await surgery.replace_node(ground.graph, old, ground.graph.get("new"))
    spare = await ground.memory("spare", SIZE)
    await run(ground.graph, [ReplaceNode("old", "spare"), ReplaceNode("new", "old"), ReplaceNode("spare", "new")])
    assert [edge.holder for edge in old.parents] == ["job/b"]
    assert spare.parents == []


async def test_watchers_hear_of_it_when_it_stands_and_once_for_each_node(ground: GraphGround):
    await disks(ground)
    seen: list[tuple[str, str]] = []
    publish = ground.graph.hub.publish

    def hear(kind: Any, name: str, resource: Any) -> int:
        assert all(not node.quiesced for node in ground.graph.nodes.values())
        seen.append((kind, name))
        return publish(kind, name, resource)

    ground.graph.hub.publish = hear  # type: ignore[method-assign]
    await run(ground.graph, [OpenNode(raw("look", "file0")), recording_actions.CreateBitmap("disk0", "b")])
    assert sorted(seen) == [("added", "look"), ("modified", "disk0"), ("modified", "file0")]


# --- nothing of it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
async def test_a_failure_in_any_phase_leaves_no_trace(ground: GraphGround, phase: str):
    await disks(ground)
    ground.use(ground.graph.get("disk0"))
    recording.create(ground.graph, ground.graph.get("disk1"), "b", 4096)
    before, revision = picture(ground.graph), ground.graph.hub.revision
    actions = [
        OpenNode(raw("new", "file1")),
        InsertOverlay("disk0", "top0"),
        recording_actions.DeleteBitmap("disk1", "b"),
        CloseNode("new"),
        Fails(phase),
    ]
    with pytest.raises(BlockError):
        await run(ground.graph, actions)
    assert picture(ground.graph) == before
    assert ground.graph.hub.revision == revision
    assert not ground.graph.claimed


async def test_every_action_that_fails_is_named_by_its_place(ground: GraphGround):
    await disks(ground)
    actions = [CloseNode("nobody"), InsertOverlay("disk0", "top0"), ReplaceNode("disk1", "disk1")]
    with pytest.raises(TransactionFailed) as refusal:
        await run(ground.graph, actions)
    assert (refusal.value.failed, refusal.value.actions) == (2, 3)
    assert refusal.value.failures.startswith("0: NODE_NOT_FOUND") and "; 2: GRAPH_CYCLE" in refusal.value.failures


async def test_a_single_action_fails_with_its_own_error(ground: GraphGround):
    with pytest.raises(NodeNotFound):
        await run(ground.graph, [CloseNode("nobody")])


async def test_a_node_that_is_still_used_is_not_closed(ground: GraphGround):
    disk = await ground.memory("disk", SIZE)
    ground.use(disk)
    with pytest.raises(NodeInUse):
        await run(ground.graph, [CloseNode("disk")])
    assert ground.graph.get("disk") is disk


async def test_a_dry_run_tells_the_change_and_makes_none(ground: GraphGround):
    await disks(ground)
    ground.use(ground.graph.get("disk0"))
    before, revision = picture(ground.graph), ground.graph.hub.revision
    actions = [OpenNode(raw("new", "file1")), InsertOverlay("disk0", "top0"), CloseNode("top1")]
    outcome = await run(ground.graph, actions, validate_only=True)
    assert outcome.failures == []
    assert (outcome.added_nodes, outcome.removed_nodes) == (["new"], ["top1"])
    assert ("session/test", "top0") in {(edge.holder, edge.node_name) for edge in outcome.added_edges}
    assert ("session/test", "disk0") in {(edge.holder, edge.node_name) for edge in outcome.removed_edges}
    assert picture(ground.graph) == before and ground.graph.hub.revision == revision


async def test_a_dry_run_tells_what_would_fail(ground: GraphGround):
    await disks(ground)
    outcome = await run(ground.graph, [CloseNode("nobody"), InsertOverlay("disk0", "disk1")], validate_only=True)
    assert [failure.index for failure in outcome.failures] == [0]


async def test_a_conflict_is_told_of_the_action_that_brought_it(ground: GraphGround):
    await disks(ground)
    await ground.memory("old", SIZE)
    ground.graph.use("old", "export", "writer", writable=True)
    ground.graph.use("disk1", "job", "j", writable=True, permissions=SOLE_WRITER)
    actions = [InsertOverlay("disk0", "top0"), ReplaceNode("old", "disk1"), OpenNode(raw("look", "topfile1"))]
    outcome = await run(ground.graph, actions, validate_only=True)
    assert [(each.index, each.error.reason) for each in outcome.failures] == [(1, "PERMISSION_CONFLICT")]


async def test_too_many_actions_are_refused(ground: GraphGround):
    with pytest.raises(LimitReached):
        await run(ground.graph, [Action()] * (MAX_ACTIONS + 1))


async def test_nobody_moves_what_a_transaction_may_still_take_back(ground: GraphGround):
    await disks(ground)
    ground.use(ground.graph.get("disk0"))
    spare = await ground.memory("spare", SIZE)

    class OthersTry(Action):
        async def switch(self, plan: Plan) -> None:
            other = asyncio.create_task(surgery.replace_node(ground.graph, ground.graph.get("top0"), spare))
            with pytest.raises(NodeInUse):
                await other

    # A context of its own, as another call has: what a transaction may do, others may not.
    await run(ground.graph, [InsertOverlay("disk0", "top0"), _Elsewhere(OthersTry())])


class _Elsewhere(Action):
    """Runs an action's switch in a context that knows nothing of the transaction."""

    def __init__(self, action: Action) -> None:
        self._action = action

    async def switch(self, plan: Plan) -> None:
        import contextvars

        await asyncio.create_task(_awaited(self._action.switch(plan)), context=contextvars.Context())


async def _awaited(work: Any) -> None:
    await work


# --- random lists --------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d", "cow", "top", "f", "new"])
ACTIONS = st.one_of(
    st.builds(ReplaceNode, NAMES, NAMES),
    st.builds(InsertOverlay, NAMES, NAMES),
    st.builds(CloseNode, NAMES),
    st.builds(lambda name, below: OpenNode(raw(name, below)), NAMES, NAMES),
    st.builds(lambda name, below: InsertFilter(below, raw(name, below)), NAMES, NAMES),
    st.builds(RemoveFilter, NAMES),
    st.builds(recording_actions.CreateBitmap, NAMES, st.sampled_from(["one", "two"]), st.just(4096)),
    st.builds(recording_actions.DeleteBitmap, NAMES, st.sampled_from(["one", "two"])),
    st.builds(recording_actions.ClearBitmap, NAMES, st.sampled_from(["one", "two"])),
    st.builds(lambda name, other: recording_actions.MergeBitmaps(name, "one", [(other, "two")]), NAMES, NAMES),
    st.builds(recording_actions.SetRecording, NAMES, st.sampled_from(["one", "two"]), st.booleans()),
)


@settings(deadline=None)
@given(st.lists(ACTIONS, max_size=6), st.sampled_from([None, *PHASES]))
def test_random_lists_with_a_failing_member_leave_no_trace(
    tmp_path_factory: pytest.TempPathFactory, actions: list[Action], phase: str | None
):
    async def check() -> None:
        ground = GraphGround(tmp_path_factory.mktemp("graph"))
        for name in "abcd":
            await ground.memory(name, SIZE)
        await ground.toycow(await ground.strict("f", size=SIZE), name="cow", size=SIZE)
        await ground.toycow(await ground.strict("topfile"), name="top", size=SIZE)
        await ground.raw("over-a", ground.graph.get("a"))
        ground.use(ground.graph.get("b"), "guest")
        ground.use(ground.graph.get("cow"), "reader", writable=False)
        ground.graph.use("c", "job", "j", writable=True, permissions=SOLE_WRITER)
        recording.create(ground.graph, ground.graph.get("a"), "two", 4096).bits.mark(0, 9000)
        before, revision = picture(ground.graph), ground.graph.hub.revision
        wanted = [*actions, *([Fails(phase)] if phase else [])]
        try:
            await run(ground.graph, wanted)
        except BlockError:
            assert picture(ground.graph) == before
            assert ground.graph.hub.revision == revision
        else:
            assert phase is None
        assert_whole(ground.graph)
        assert await ground.leave() == []

    asyncio.run(check())


def assert_whole(graph: Graph) -> None:
    """Edges mirror each other, nothing is drained or claimed, no two edges conflict, no circle."""
    assert not graph.claimed
    for node in graph.nodes.values():
        assert node.quiesced == 0
        for edge in node.children.values():
            assert edge.parent is node and edge in edge.node.parents and not edge.frozen_reason
            assert edge.node.name in graph.nodes
        for edge in node.parents:
            assert edge.node is node
            others = [other for other in node.parents if other is not edge]
            assert all(not edge.permissions.used & ~other.permissions.shared for other in others)
    order = parents_first(graph.nodes.values())
    place = {node.name: at for at, node in enumerate(order)}
    assert all(place[node.name] < place[edge.node.name] for node in order for edge in node.children.values())
