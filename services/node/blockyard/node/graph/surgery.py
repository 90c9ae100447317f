"""Changing edges between open nodes: overlays, filters, replacement, backing links.

Each operation drains what it touches, checks everything, and then moves edges in one step without an await: a
request sees the graph before or after, never between. What can be part of a transaction is an action
(`graph.actions`); the function here is the transaction of that one action.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.base.errors import GraphCycle, NodeInUse, OperationUnsupported
from blockyard.base.failpoints import reach
from blockyard.node.graph import actions
from blockyard.node.graph.chain import descends
from blockyard.node.graph.drain import drained
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.permissions import refresh
from blockyard.node.graph.transaction import run
from blockyard.node.interface.driver import BackingChangeable, BackingReference
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import together

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


async def replace_node(graph: "Graph", node: "Node", target: "Node") -> None:
    """Give all users of a node another one. Raises GraphCycle, NodeInUse, InvalidArgument for a smaller target."""
    await run(graph, [actions.ReplaceNode(node.name, target.name)])


async def insert_overlay(graph: "Graph", node: "Node", overlay: "Node") -> None:
    """Put an open overlay above a node, under its users: an external snapshot.

    Raises NodeInUse, OperationUnsupported, GraphCycle or InvalidArgument; then nothing changed.
    """
    await run(graph, [actions.InsertOverlay(node.name, overlay.name)])


async def insert_filter(graph: "Graph", node: "Node", filter_node: "Node") -> None:
    """Put an open filter, whose child is the node, under the node's other users."""
    await run(graph, [actions.PlaceFilter(node.name, filter_node.name)])


async def remove_filter(graph: "Graph", filter_node: "Node") -> "Node":
    """Take a filter out from under its users; the node that took its place. The filter stays open without users."""
    below = actions.below_filter(filter_node)
    await run(graph, [actions.LiftFilter(filter_node.name)])
    return below


async def set_backing(
    graph: "Graph",
    node: "Node",
    backing: "Node | None",
    reference: BackingReference | None,
    *,
    header: bool,
    together_with: Callable[[], Callable[[], None]] | None = None,
) -> None:
    """Change what is below a layer: the header first (durably, and ordered after the mappings), then the edge.

    The catalogue holds the present link from before the header changes, and the new one before requests go on: a
    crash between leaves the old or the new chain, and both give the guest the same data. `together_with` may touch
    what shall be kept in the same commit as the new link; it returns what takes that back.
    """
    driver = node.driver
    if header and not isinstance(driver, BackingChangeable):
        raise OperationUnsupported(node.name, driver.name, "change its backing file")
    if backing is not None and descends(backing, node):
        raise GraphCycle(node.name, backing.name)
    old = node.backing
    if old is not None:
        if old.frozen_reason:
            raise NodeInUse(node.name, "change the backing file of", old.frozen_reason)
        old.frozen_reason = "its backing file is being changed"
    # The new edge holds the new backing node while the header is written.
    new = Edge(node, "backing", Role.BACKING, backing) if backing is not None else None
    try:
        if new is not None:
            _check_permissions(node, new)
        if header:
            assert isinstance(driver, BackingChangeable)
            await graph.kept.keep_link(node)
            reach("node.header.before")
            await driver.change_backing(reference)
            reach("node.header.after")
            node.backing_filename = reference.filename if reference else ""
            node.backing_format = reference.format if reference else ""
        async with drained(node):
            before = dict(node.children)
            node.children.pop("backing", None)
            if new is not None:
                node.children["backing"] = new
            refresh(node)
            take_back = together_with() if together_with is not None else None

            def undo() -> None:
                _restore_children(node, before)
                if take_back is not None:
                    take_back()

            await graph.kept.keep(undo, node)
    except BaseException:
        if old is not None:
            old.frozen_reason = ""
        if new is not None:
            new.detach()
            refresh(new.node)
        raise
    if old is not None:
        old.detach()
        refresh(old.node)
    graph.changed(node)
    if old is not None:
        await graph.collect(old.node)


def _restore_children(node: "Node", before: dict[str, Edge]) -> None:
    """In place, for the driver looks at this very mapping."""
    node.children.clear()
    node.children.update(before)
    refresh(node)


def _check_permissions(node: "Node", backing: Edge) -> None:
    """Give a backing edge what it will have, before anything is written. Raises PermissionConflict."""
    above = together([edge.permissions for edge in node.parents])
    backing.permissions = node.driver.child_permissions("backing", Role.BACKING, above, writable=not node.read_only)
    refresh(backing.node)
