"""Changing edges between open nodes: overlays, filters, replacement, backing links, reopening.

Each operation drains what it touches, checks everything, and then moves edges in one step without an await: a
request sees the graph before or after, never between.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from blockyard.base.errors import GraphCycle, InvalidArgument, NodeInUse, OperationUnsupported
from blockyard.node.drivers.catalogue import driver_class
from blockyard.node.graph import requests
from blockyard.node.graph.chain import descends
from blockyard.node.graph.changes import Changes
from blockyard.node.graph.definition import driver_options
from blockyard.node.graph.drain import drained
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.opening import driver_context
from blockyard.node.interface.driver import BackingChangeable, BackingReference
from blockyard.node.interface.flags import Role

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


def _movable(node: "Node", target: "Node") -> list[Edge]:
    """The edges to `node` that may point to `target`: all but those of target and what is below it."""
    return [
        edge
        for edge in node.parents
        if not edge.stays and (edge.parent is None or not descends(target, edge.parent))
    ]


def check_movable(node: "Node", target: "Node", *, under_filters: bool = False) -> list[Edge]:
    """As `_movable`; raises NodeInUse for a frozen edge. A job's filter may come under another's."""
    edges = _movable(node, target)
    for edge in edges:
        if under_filters and edge.role is Role.FILTERED:
            continue
        if (frozen := _frozen_from(edge)) is not None:
            raise NodeInUse(node.name, "replace", f"{frozen.holder}: {frozen.frozen_reason}")
    return edges


def _frozen_from(edge: Edge) -> Edge | None:
    """The edge, or one above it with nothing but filters between, that is frozen: it means what is below them."""
    pending = [edge]
    while pending:
        edge = pending.pop()
        if edge.frozen_reason:
            return edge
        if edge.parent is not None and edge.role is Role.FILTERED:
            pending.extend(edge.parent.parents)
    return None


def move_users(node: "Node", target: "Node") -> None:
    """Point everyone above `node` to `target`. The caller drained both. Raises NodeInUse or PermissionConflict."""
    move_edges(check_movable(node, target), target)


def move_edges(edges: "list[Edge]", target: "Node") -> None:
    """Point edges to another node; all of them, or none if permissions there conflict. The caller drained."""
    changes = Changes()
    for edge in edges:
        changes.move(edge, target)
    changes.settle()


async def replace_node(graph: "Graph", node: "Node", target: "Node") -> None:
    """Give all users of a node another one. Raises GraphCycle, NodeInUse, InvalidArgument for a smaller target."""
    if node is target:
        raise GraphCycle(node.name, target.name)
    if target.driver.size < node.driver.size:
        raise InvalidArgument(
            "replacement_node_name", f"a node of at least {node.driver.size} bytes", str(target.driver.size)
        )
    check_movable(node, target)
    async with drained(node):
        await requests.flush(node)
        move_users(node, target)
    graph.changed(node, target)


async def insert_overlay(graph: "Graph", node: "Node", overlay: "Node") -> None:
    """Put an open overlay above a node, under its users: an external snapshot.

    Raises NodeInUse, OperationUnsupported, GraphCycle or InvalidArgument; then nothing changed.
    """
    if "backing" not in {slot.name for slot in overlay.driver.children}:
        raise OperationUnsupported(overlay.name, overlay.driver.name, "have a backing file")
    if overlay.parents:
        raise NodeInUse(overlay.name, "insert", ", ".join(overlay.holders()))
    if "backing" in overlay.children:
        raise NodeInUse(overlay.name, "insert", "its own backing child")
    if descends(node, overlay):
        raise GraphCycle(overlay.name, node.name)
    if overlay.driver.size < node.driver.size:
        raise InvalidArgument(
            "overlay_node_name", f"an overlay of at least {node.driver.size} bytes", str(overlay.driver.size)
        )
    async with drained(node):
        await requests.flush(node)
        move_users(node, overlay)
        overlay.children["backing"] = Edge(overlay, "backing", Role.BACKING, node)
        node.read_only = True
    graph.changed(node, overlay)


async def insert_filter(graph: "Graph", node: "Node", filter_node: "Node") -> None:
    """Put an open filter, which passes to the node, under the node's other users."""
    if filter_node.filtered is not node:
        raise InvalidArgument("filter", f"a filter that passes to {node.name}", filter_node.driver.name)
    check_movable(node, filter_node)
    async with drained(node):
        move_users(node, filter_node)
    graph.changed(node, filter_node)


async def remove_filter(graph: "Graph", filter_node: "Node") -> "Node":
    """Take a filter out from under its users; the node that took its place. The filter stays open without users."""
    below = filter_node.filtered
    if below is None:
        raise InvalidArgument("node_name", "a filter", filter_node.driver.name)
    async with drained(filter_node):
        for edge in list(filter_node.parents):
            edge.move(below)
    graph.changed(filter_node, below)
    return below


async def set_backing(
    graph: "Graph", node: "Node", backing: "Node | None", reference: BackingReference | None, *, header: bool
) -> None:
    """Change what is below a layer: the header first (durably, and ordered after the mappings), then the edge.

    A crash between the two leaves an image whose header names what it will be opened with: the new chain.
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
        if header:
            assert isinstance(driver, BackingChangeable)
            await driver.change_backing(reference)
            node.backing_filename = reference.filename if reference else ""
            node.backing_format = reference.format if reference else ""
        async with drained(node):
            node.children.pop("backing", None)
            if new is not None:
                node.children["backing"] = new
    except BaseException:
        if old is not None:
            old.frozen_reason = ""
        if new is not None:
            new.detach()
        raise
    if old is not None:
        old.detach()
    graph.changed(node)
    if old is not None:
        await graph.collect(old.node)


async def set_writable(graph: "Graph", node: "Node", writable: bool) -> None:
    """Open a node's driver, and its file's, again for writing or for reading only. Users and edges stay.

    Raises what opening raises; then the node is as it was, or, if even that cannot be opened again, its driver
    is closed and every request fails with IoError.
    """
    if node.definition.read_only is not writable:
        node.read_only = not writable
        graph.changed(node)
        return
    below = [node.primary.node] if node.primary is not None else []
    for child in below:
        if len(child.parents) > 1:
            raise NodeInUse(child.name, "reopen", ", ".join(child.holders()))
    async with drained(node):
        await requests.flush(node)
        await _swap_drivers(graph, [node, *below], writable)
    graph.changed(*below, node)


async def _swap_drivers(graph: "Graph", nodes: "list[Node]", writable: bool) -> None:
    """Close the drivers, parents first, and open them again, children first; on failure as they were."""
    for node in nodes:
        await node.driver.close()
    try:
        for node in reversed(nodes):
            await _reopen(graph, node, writable)
    except BaseException:
        for node in reversed(nodes):
            if node.definition.read_only is not writable:
                await node.driver.close()
            await _reopen(graph, node, not writable)
        raise


async def _reopen(graph: "Graph", node: "Node", writable: bool) -> None:
    definition = replace(node.definition, read_only=not writable)
    definition.check()
    class_ = driver_class(definition.driver)
    context = driver_context(graph, node.name, definition, node.children)
    node.driver = await class_.open(driver_options(class_, definition.options), context)
    node.definition, node.read_only = definition, not writable
    node.adopt_driver()
