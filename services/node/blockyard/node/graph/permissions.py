"""Who may do what to a node at the same time: every edge's permissions, kept right when edges come, go or move.

What a permission means and how it passes down is `interface.permissions`; here it is applied to the graph as it is.
Nothing here awaits: a change and its refresh are one step, seen whole or not at all.

Invariants
1. No two edges of a node conflict, except within a change that is not refreshed yet.
2. An edge of a node's driver has what the driver says it needs, given what the node's own parents have.
3. A refresh that is refused leaves every permission as it was. Who changed the edges changes them back.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from blockyard.base.errors import PermissionConflict
from blockyard.node.interface.permissions import (
    CHANGING,
    NAMES,
    FollowsPermissions,
    Permissions,
    names,
    together,
)

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.node import Node


def refresh(*nodes: "Node") -> None:
    """Pass permissions down from nodes whose parents, driver or mode changed, and look for conflicts.

    Raises PermissionConflict that names both owners, or NodeReadOnly; then no permission has changed.
    """
    planned = _passed_down(nodes)
    touched = {node.uid: node for node in nodes} | {edge.node.uid: edge.node for edge in planned}
    for node in touched.values():
        check(node, planned)
    for edge, permissions in planned.items():
        blocks_otherwise = edge.permissions.shared != permissions.shared
        edge.permissions = permissions
        if blocks_otherwise:
            edge.node.on_blockers(edge.node)
    for node in touched.values():
        tell(node)


def tell(node: "Node") -> None:
    """Let a driver that wants to know have what its parents do: it may have changed, or the driver is new."""
    if isinstance(node.driver, FollowsPermissions):
        node.driver.permitted(together([edge.permissions for edge in node.parents]))


def check(node: "Node", planned: "dict[Edge, Permissions] | None" = None) -> None:
    """Raises PermissionConflict for two edges to the node that exclude each other, NodeReadOnly for a writer."""
    planned = planned or {}
    edges = [(edge, planned.get(edge, edge.permissions)) for edge in node.parents]
    used, shared = together([permissions for _, permissions in edges])
    if node.read_only and used & CHANGING:
        raise node.write_refusal()
    doubtful = used & ~shared
    if not doubtful:
        return
    for bit, name in NAMES.items():
        if not doubtful & bit:
            continue
        users = [edge for edge, permissions in edges if permissions.used & bit]
        refusing = [edge for edge, permissions in edges if not permissions.shared & bit]
        for user, owner in _pairs(users, refusing):
            raise PermissionConflict(node.name, name, described(user), described(owner))


def _pairs(users: "list[Edge]", refusing: "list[Edge]") -> "Iterator[tuple[Edge, Edge]]":
    """Each who uses with each other who refuses; one look where there is nothing."""
    return ((user, owner) for owner in refusing for user in users if user is not owner)


def _passed_down(nodes: "Iterable[Node]") -> "dict[Edge, Permissions]":
    """What edges below the nodes must have now, as far as it differs from what they have."""
    planned: dict[Edge, Permissions] = {}
    pending = list(nodes)
    while pending:
        node = pending.pop()
        above = together([planned.get(edge, edge.permissions) for edge in node.parents])
        for edge in node.children.values():
            wanted = node.driver.child_permissions(edge.name, edge.role, above, writable=not node.read_only)
            if planned.get(edge, edge.permissions) != wanted:
                planned[edge] = wanted
                pending.append(edge.node)
    return planned


def described(edge: "Edge") -> str:
    """An edge in an error: who holds it, and as what."""
    return f"{edge.holder} (as {edge.name})" if edge.parent is not None else edge.holder


class Blocker:
    """Why something may not be done to a node now, and whose wish that is (the seed's BdrvOpBlocker)."""

    __slots__ = ("operation", "owner", "reason")

    def __init__(self, operation: str, reason: str, owner: str) -> None:
        self.operation = operation
        self.reason = reason
        self.owner = owner


def blockers(node: "Node") -> list[Blocker]:
    """What the node's parents keep others from doing: unshared permissions and frozen edges."""
    found: list[Blocker] = []
    for edge in node.parents:
        if edge.frozen_reason:
            found.append(Blocker("replace", edge.frozen_reason, edge.holder))
        refused = ~edge.permissions.shared
        found += [Blocker(name, f"{edge.name} does not share it", edge.holder) for name in names(refused)]
    return found
