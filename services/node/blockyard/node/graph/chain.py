"""Walks through the graph: filters skipped, backing chains, who depends on whom. Pure reading."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


def below_filters(node: "Node") -> "Node":
    """The first node at or below that is no filter."""
    while node.filtered is not None:
        node = node.filtered
    return node


def above_filters(node: "Node") -> "Node":
    """Where a guest enters who names a node: the filters that jobs put above it, or the node itself. A guest that
    came in below a copy-before-write would overwrite what a backup still needs."""
    found = node
    while True:
        above = (edge.parent for edge in found.parents if edge.parent is not None)
        filter_ = next((parent for parent in above if parent.implicit and parent.filtered is found), None)
        if filter_ is None:
            return found
        found = filter_


def layers(node: "Node") -> "Iterator[Node]":
    """The backing chain from a node down, filters skipped."""
    current: Node | None = below_filters(node)
    while current is not None:
        yield current
        backing = current.backing
        current = below_filters(backing.node) if backing is not None else None


def overlay_above(node: "Node") -> "Node | None":
    """The layer whose backing is the node, filters skipped; None if it is the active layer."""
    pending = list(node.parents)
    while pending:
        edge = pending.pop()
        if edge.parent is None:
            continue
        if edge.name == "backing":
            return edge.parent
        if edge is edge.parent.primary and edge.parent.is_filter:
            pending.extend(edge.parent.parents)
    return None


def descends(node: "Node", target: "Node") -> bool:
    """Whether `target` is at or below `node`."""
    pending, seen = [node], set()
    while pending:
        current = pending.pop()
        if current is target:
            return True
        if current.uid not in seen:
            seen.add(current.uid)
            pending.extend(edge.node for edge in current.children.values())
    return False


def subtree(*nodes: "Node") -> "list[Node]":
    """The nodes and everything below them, each once, parents before their children."""
    found: list[Node] = []
    pending = [(node, False) for node in nodes]
    seen: set[str] = set()
    while pending:
        current, children_done = pending.pop()
        if children_done:
            found.append(current)
        elif current.uid not in seen:
            seen.add(current.uid)
            pending.append((current, True))
            pending.extend((edge.node, False) for edge in current.children.values())
    found.reverse()
    return found
