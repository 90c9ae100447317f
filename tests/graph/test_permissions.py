"""Who excludes whom: permissions of edges through chains, filters and changes, and what blocks an operation."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base.errors import NodeReadOnly, PermissionConflict
from blockyard.node.graph import surgery
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.graph.permissions import blockers
from blockyard.node.graph.temporary import borrowed
from blockyard.node.graph.user import SOLE_WRITER
from blockyard.node.interface import permissions as algebra
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import (
    ALL,
    CONSISTENT_READ,
    RESIZE,
    WRITE,
    WRITE_UNCHANGED,
    Permissions,
)
from tests.support.graphs import GraphGround

SIZE = 64 * 1024
SETS = st.integers(0, ALL)
EDGES = st.builds(Permissions, SETS, SETS)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def image(ground: GraphGround, name: str = "disk") -> Node:
    """A format over an explicit file node `NAME-file`."""
    file = await ground.strict(f"{name}-file", size=SIZE)
    return await ground.toycow(file, name=name, size=SIZE)


# --- the algebra ---------------------------------------------------------------------------------------


@given(st.lists(EDGES, max_size=6))
def test_parents_together_use_what_any_uses_and_share_what_all_share(edges: list[Permissions]):
    found = algebra.together(edges)
    for bit in algebra.NAMES:
        assert bool(found.used & bit) == any(edge.used & bit for edge in edges)
        assert bool(found.shared & bit) == all(edge.shared & bit for edge in edges)


@given(EDGES, EDGES, st.sampled_from(Role), st.booleans())
def test_who_asks_for_less_takes_no_more_of_a_child(
    more: Permissions, other: Permissions, role: Role, writable: bool
):
    less = Permissions(more.used & other.used, more.shared | other.shared)
    of_more = algebra.by_role(role, more, writable=writable)
    of_less = algebra.by_role(role, less, writable=writable)
    assert not of_less.used & ~of_more.used
    assert not of_more.shared & ~of_less.shared


@given(EDGES)
def test_a_backing_file_is_never_written_by_its_overlay(above: Permissions):
    assert not algebra.of_backing(above).used & (WRITE | WRITE_UNCHANGED | RESIZE)


@given(EDGES, st.booleans())
def test_the_file_of_an_image_is_written_by_nobody_else(above: Permissions, writable: bool):
    assert not algebra.of_image_file(above, writable=writable).shared & (WRITE | RESIZE)


# --- in the graph --------------------------------------------------------------------------------------


async def test_a_conflict_names_both_owners(ground: GraphGround):
    await image(ground)
    with pytest.raises(PermissionConflict) as refusal:
        ground.graph.use("disk-file", "export", "raw-disk", writable=True)
    assert refusal.value.user == "export/raw-disk"
    assert refusal.value.owner == "node/disk (as file)"
    assert refusal.value.permission == "write"


async def test_who_is_refused_leaves_no_edge_behind(ground: GraphGround):
    disk = await image(ground)
    file = disk.children["file"].node
    with pytest.raises(PermissionConflict):
        ground.graph.use(file.name, "export", "raw-disk", writable=True)
    assert [edge.holder for edge in file.parents] == ["node/disk"]


async def test_the_file_of_an_image_may_be_read_beside_it(ground: GraphGround):
    disk = await image(ground)
    ground.use(disk.children["file"].node, "look", writable=False)


async def test_two_formats_do_not_write_to_one_file(ground: GraphGround):
    await ground.memory("storage", SIZE)
    await ground.graph.open(NodeDefinition("raw", "first", children={"file": "storage"}))
    qcow2 = await ground.qcow2("disk", "disk.qcow2", SIZE)
    below = qcow2.children["file"].node.name
    with pytest.raises(PermissionConflict):
        await ground.graph.open(NodeDefinition("qcow2", "again", children={"file": below}))
    assert "again" not in ground.graph.nodes


async def test_two_guests_may_write_to_one_node(ground: GraphGround):
    disk = await image(ground)
    ground.use(disk, "one")
    ground.use(disk, "two")


async def test_a_jobs_target_is_written_by_nobody_else(ground: GraphGround):
    disk = await image(ground)
    job = ground.graph.use("disk", "job", "m1", writable=True, permissions=SOLE_WRITER)
    with pytest.raises(PermissionConflict):
        ground.use(disk, "guest")
    ground.use(disk, "look", writable=False)
    ground.graph.release(job)
    ground.use(disk, "guest")


async def test_what_users_need_goes_down_through_filters_and_back_when_they_leave(ground: GraphGround):
    storage = await ground.memory("storage", SIZE)
    middle = await ground.raw("middle", storage)
    await ground.raw("top", middle)
    edge = middle.children["file"]
    assert edge.permissions.used == 0
    user = ground.graph.use("top", "session", "s", writable=True)
    assert edge.permissions.used == CONSISTENT_READ | WRITE
    ground.graph.release(user)
    assert edge.permissions.used == 0


async def test_a_diamond_is_judged_as_it_is_in_the_end(ground: GraphGround):
    storage = await ground.memory("storage", SIZE)
    left, right = await ground.raw("left", storage), await ground.raw("right", storage)
    user = ground.graph.use("left", "job", "j", writable=True, permissions=SOLE_WRITER)
    with pytest.raises(PermissionConflict) as refusal:
        ground.use(right, "guest")
    assert refusal.value.node_name == "storage"
    ground.graph.release(user)
    ground.use(right, "guest")
    assert left.children["file"].permissions.used == 0


async def test_a_node_that_is_read_only_is_not_opened_under_a_writer(ground: GraphGround):
    await ground.graph.open(NodeDefinition("memory", "storage", {"size": SIZE}, read_only=True))
    await ground.graph.open(NodeDefinition("raw", "above", children={"file": "storage"}))
    with pytest.raises(NodeReadOnly):
        ground.graph.use("above", "session", "s", writable=True)


async def test_edges_that_would_conflict_at_their_new_node_do_not_move(ground: GraphGround):
    old, new = await ground.strict("old", size=SIZE), await ground.strict("new", size=SIZE)
    guest = ground.use(old, "guest")
    ground.graph.use("new", "job", "j", writable=True, permissions=SOLE_WRITER)
    with pytest.raises(PermissionConflict):
        await surgery.replace_node(ground.graph, old, new)
    assert guest.node is old and guest in old.parents and guest not in new.parents


async def test_blockers_say_what_is_refused_why_and_by_whom(ground: GraphGround):
    disk = await image(ground)
    found = {(item.operation, item.owner) for item in blockers(disk.children["file"].node)}
    assert found == {("write", "node/disk"), ("resize", "node/disk")}


async def test_watchers_hear_what_is_blocked_far_below_who_blocks_it(ground: GraphGround):
    await ground.memory("storage", SIZE)
    for name, below in (("middle", "storage"), ("top", "middle")):
        await ground.graph.open(NodeDefinition("raw", name, children={"file": below}))
    revisions = {name: node.revision for name, node in ground.graph.nodes.items()}
    ground.graph.use("top", "job", "j", writable=True, permissions=SOLE_WRITER)
    assert all(node.revision > revisions[name] for name, node in ground.graph.nodes.items())


async def test_a_call_that_reads_changes_no_etag(ground: GraphGround):
    await ground.memory("storage", SIZE)
    await ground.graph.open(NodeDefinition("raw", "top", children={"file": "storage"}))
    revisions = {name: node.revision for name, node in ground.graph.nodes.items()}
    with borrowed(ground.graph, "top", "Read", writable=True):
        assert {name: node.revision for name, node in ground.graph.nodes.items()} == revisions
