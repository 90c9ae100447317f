"""The graph as a tree for terminals and as DOT for Graphviz.

A node that has several parents is drawn once with what is below it; later it is only named. Pure functions.
"""

from collections import defaultdict
from typing import Final, NamedTuple

from blockyard.cli import units
from blockyard.v1.node_pb2 import GetGraphResponse
from blockyard.v1.types_pb2 import BlockDriverState

Edge = GetGraphResponse.Edge


class Strokes(NamedTuple):
    """What branches are made of."""

    branch: str
    last: str
    through: str
    nothing: str
    above: str


LINES: Final = Strokes("├─ ", "└─ ", "│  ", "   ", "(drawn above)")
ASCII: Final = Strokes("|- ", "`- ", "|  ", "   ", "(drawn above)")


def drawn(graph: GetGraphResponse, strokes: Strokes = LINES) -> str:
    """The graph as a tree, users in brackets behind what they use."""
    picture = _Picture(graph, strokes)
    for name in picture.roots():
        picture.draw(name, "", "", "")
    return "\n".join(picture.lines) if picture.lines else "no nodes are open"


class _Picture:
    def __init__(self, graph: GetGraphResponse, strokes: Strokes) -> None:
        self._nodes = {node.node_name: node for node in graph.nodes}
        self._strokes = strokes
        self._below: dict[str, list[Edge]] = defaultdict(list)
        self._users: dict[str, list[str]] = defaultdict(list)
        for edge in graph.edges:
            if edge.parent:
                self._below[edge.parent].append(edge)
            else:
                self._users[edge.child.node_name].append(f"{edge.holder.kind} {edge.holder.name}".strip())
        self._seen: set[str] = set()
        self.lines: list[str] = []

    def roots(self) -> list[str]:
        """Nodes without a parent; a cycle, which cannot be, would still be drawn from its first node."""
        children = {edge.child.node_name for edges in self._below.values() for edge in edges}
        tops = sorted(name for name in self._nodes if name not in children)
        return tops or sorted(self._nodes)[:1]

    def draw(self, name: str, edge: str, lead: str, below: str) -> None:
        seen = name in self._seen
        self._seen.add(name)
        node = self._nodes.get(name)
        words = f"{name} {self._strokes.above}" if seen else self._label(name, node)
        self.lines.append(f"{lead}{edge + ': ' if edge else ''}{words}")
        if seen:
            return
        edges = self._below[name]
        for index, item in enumerate(edges):
            last = index == len(edges) - 1
            self.draw(
                item.child.node_name,
                item.child.name,
                below + (self._strokes.last if last else self._strokes.branch),
                below + (self._strokes.nothing if last else self._strokes.through),
            )

    def _label(self, name: str, node: BlockDriverState | None) -> str:
        if node is None:
            return name
        words = [name, node.driver, units.size(node.size_bytes)]
        words += ["read-only"] if node.read_only else []
        words += [node.filename] if node.filename else []
        users = self._users[name]
        known = {user.partition(":")[0] for user in users}
        users = users + [f"job {job}" for job in node.jobs if f"job {job}" not in known]
        return "  ".join(words) + (f"  [{', '.join(users)}]" if users else "")


def dot(graph: GetGraphResponse) -> str:
    """The graph in the DOT language."""
    lines = ["digraph blockyard {", "  rankdir=TB;", '  node [shape=box, fontname="sans-serif"];']
    for node in sorted(graph.nodes, key=lambda item: item.node_name):
        label = "\\n".join(filter(None, (node.node_name, node.driver, units.size(node.size_bytes), node.filename)))
        style = ', style="dashed"' if node.implicit else ""
        lines.append(f"  {_quoted(node.node_name)} [label={_quoted(label)}{style}];")
    for edge in graph.edges:
        if edge.parent:
            style = ', style="dotted"' if edge.child.name == "backing" else ""
            label = _quoted(edge.child.name)
            lines.append(f"  {_quoted(edge.parent)} -> {_quoted(edge.child.node_name)} [label={label}{style}];")
        else:
            user = f"{edge.holder.kind} {edge.holder.name}".strip()
            lines.append(f"  {_quoted(user)} [shape=ellipse];")
            lines.append(f"  {_quoted(user)} -> {_quoted(edge.child.node_name)};")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
