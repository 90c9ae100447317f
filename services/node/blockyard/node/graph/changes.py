"""Changes of edges that can be taken back: the one place where edges between open nodes come, go and move.

Nothing here awaits or publishes. Whoever changes drains first, makes all changes, and settles: then permissions are
right and the changes stand, or everything is as it was and the error says why.

Invariants
1. `undo` restores every edge, the order of every node's children, and every mode that was changed.
2. Between the first change and `settle` (or `undo`) nothing awaits.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from blockyard.base.errors import BlockError
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.permissions import refresh
from blockyard.node.interface.driver import ManyChildren

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node
    from blockyard.node.interface.flags import Role


class Link(NamedTuple):
    """An edge as it was when it came or went."""

    edge: Edge
    node: "Node"


class Changes:
    """A list of changes, newest last."""

    def __init__(self) -> None:
        self._added: list[Link] = []
        self._removed: list[Link] = []
        self.touched: dict[str, Node] = {}
        self._undo: list[Callable[[], object]] = []
        self._concerned: list[tuple[int, str]] = []
        self._frozen: list[Edge] = []
        self._created: set[Edge] = set()
        self._reason = ""

    def attach(self, parent: "Node", name: str, role: "Role", node: "Node") -> Edge:
        """A new edge from a parent to a child."""
        restore = _restoring(parent)
        edge = Edge(parent, name, role, node)
        parent.children[name] = edge
        self._note(restore, parent, node)
        self._undo.append(lambda: _leave(edge))
        self._created.add(edge)
        self._added.append(Link(edge, node))
        return edge

    def detach(self, edge: Edge) -> None:
        """Take an edge away from its parent node."""
        parent, node = edge.parent, edge.node
        assert parent is not None
        restore = _restoring(parent)
        del parent.children[edge.name]
        _leave(edge)
        self._note(restore, parent, node)
        self._undo.append(lambda: node.parents.append(edge))
        self._removed.append(Link(edge, node))

    def move(self, edge: Edge, node: "Node") -> None:
        """Point an edge to another node."""
        before = edge.node
        edge.move(node)
        self._note(lambda: edge.move(before), before, node)
        self._removed.append(Link(edge, before))
        self._added.append(Link(edge, node))

    def set_read_only(self, node: "Node", read_only: bool) -> None:
        """Refuse writes to a node, or take them again."""
        before = node.read_only
        node.read_only = read_only

        def restore() -> None:
            node.read_only = before

        self._note(restore, node)

    def also(self, undo: Callable[[], object], *touched: "Node") -> None:
        """A change that somebody else made, and how it is taken back."""
        self._note(undo, *touched)

    def __len__(self) -> int:
        return len(self._undo)

    def names_since(self, count: int) -> list[str]:
        """Names of the nodes that changes after the first `count` were about."""
        return [name for at, name in self._concerned if at >= count]

    def settle(self) -> None:
        """Let permissions follow. Raises PermissionConflict or NodeReadOnly, or what a driver of many children has
        against one that another node became; then everything is as it was."""
        try:
            for parent in {edge.parent for edge, _ in self.arrived() if edge.parent is not None}:
                if isinstance(parent.driver, ManyChildren):
                    parent.driver.check_children(parent.children)
            refresh(*self.touched.values())
        except BlockError:
            self.undo()
            raise

    def freeze(self, reason: str) -> None:
        """Nobody else may change these edges until `thaw`."""
        self._reason = reason
        for edge, _ in self.arrived():
            if not edge.frozen_reason:
                edge.frozen_reason = reason
                self._frozen.append(edge)

    def thaw(self) -> None:
        """End a freeze."""
        for edge in self._frozen:
            if edge.frozen_reason == self._reason:
                edge.frozen_reason = ""
        self._frozen = []

    def arrived(self) -> list[Link]:
        """Edges that are where they were not before."""
        return [Link(edge, edge.node) for edge in _once(self._added) if edge in edge.node.parents]

    def departed(self) -> list[Link]:
        """Edges that were where they are not any more, with the node they were at."""
        first = _once(self._removed)
        return [Link(edge, node) for edge, node in first.items() if edge not in self._created]

    def undo(self) -> None:
        """Take every change back, the newest first."""
        self.thaw()
        while self._undo:
            self._undo.pop()()
        refresh(*self.touched.values())
        self._added, self._removed = [], []

    def _note(self, undo: Callable[[], object], *touched: "Node") -> None:
        self._concerned += [(len(self._undo), node.name) for node in touched]
        self._undo.append(undo)
        self.touched.update((node.uid, node) for node in touched)


def _once(links: list[Link]) -> dict[Edge, "Node"]:
    """Each edge with the node of its first link."""
    found: dict[Edge, Node] = {}
    for edge, node in links:
        found.setdefault(edge, node)
    return found


def _leave(edge: Edge) -> None:
    """As `Edge.detach`, of an edge that may come back: permissions follow when all changes are made."""
    edge.node.parents.remove(edge)


def _restoring(parent: "Node") -> Callable[[], None]:
    """Restores a node's children in place, for the driver looks at this very mapping."""
    before = dict(parent.children)

    def restore() -> None:
        parent.children.clear()
        parent.children.update(before)

    return restore
