"""Pointing edges to another node: which may move, what keeps them, and the move itself.

Synchronous; the caller has drained the nodes. Must not open, flush or publish.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import NodeInUse
from blockyard.node.graph.chain import descends
from blockyard.node.graph.changes import Changes
from blockyard.node.graph.edge import Edge
from blockyard.node.interface.flags import Role

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node

own_freeze: Final[ContextVar[str]] = ContextVar("blockyard_own_freeze", default="")
"""Why the transaction that runs now has frozen the edges it moved: that is no reason for its own actions."""


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
        if edge.frozen_reason not in ("", own_freeze.get()):
            return edge
        if edge.parent is not None and edge.role is Role.FILTERED:
            pending.extend(edge.parent.parents)
    return None


def move_users(node: "Node", target: "Node") -> Changes:
    """Point everyone above `node` to `target`. The caller drained both. Raises NodeInUse or PermissionConflict."""
    return move_edges(check_movable(node, target), target)


def move_edges(edges: "list[Edge]", target: "Node") -> Changes:
    """Point edges to another node; all of them, or none if permissions there conflict. The caller drained."""
    changes = Changes()
    for edge in edges:
        changes.move(edge, target)
    changes.settle()
    return changes
