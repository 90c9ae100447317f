"""What the catalogue keeps of the graph itself: nodes, and the names of dirty bitmaps."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph import recording
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.kept_form import decoded, encoded, parsed
from blockyard.node.graph.present import kept_definition, root_of
from blockyard.node.interface.keeper import Key

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

NODE = "node"
BITMAP = "bitmap"


class NodeKind:
    """Nodes of clients' own, each with the implicit ones below it."""

    name = NODE

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph

    def names(self) -> Iterable[str]:
        return list(self._graph.nodes)

    def definition(self, name: str) -> str | None:
        node = self._graph.kept.lasting(name)
        return encoded(kept_definition(node)) if node is not None and not node.implicit else None

    def needs(self, name: str, definition: str) -> list[Key]:
        whole = decoded(definition)
        own = {name, *_names(whole)}
        return [Key(NODE, other) for other in _references(whole) if other not in own]

    def provides(self, name: str, definition: str) -> list[str]:
        return _names(decoded(definition))

    async def restore(self, name: str, definition: str) -> None:
        await self._graph.restore(decoded(definition))

    def shown(self, definition: str) -> str:
        return decoded(definition).specification()


def _names(definition: NodeDefinition) -> list[str]:
    """The node's and those of all that comes with it."""
    found = [definition.node_name]
    for below in (*definition.children.values(), definition.followed):
        if isinstance(below, NodeDefinition):
            found += _names(below)
    return found


def _references(definition: NodeDefinition) -> list[str]:
    """Names of nodes that must be there before."""
    found: list[str] = []
    for below in (*definition.children.values(), definition.followed):
        if isinstance(below, str):
            found.append(below)
        elif below is not None:
            found += _references(below)
    return found


class BitmapKind:
    """Named dirty bitmaps. Their bits end with the process, so they come back inconsistent: that some writes were
    missed must be seen, or a backup would leave them out (block/qcow2-bitmap.c does the same after a crash)."""

    name = BITMAP

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph

    def names(self) -> Iterable[str]:
        return [f"{node.name}/{bitmap}" for node in self._graph.nodes.values() for bitmap in node.bitmaps]

    def definition(self, name: str) -> str | None:
        node_name, _, bitmap_name = name.partition("/")
        node = self._graph.kept.lasting(node_name)
        bitmap = node.bitmaps.get(bitmap_name) if node is not None else None
        if node is None or bitmap is None or bitmap.internal or not self._lasts(node):
            return None
        return json.dumps({"granularity": bitmap.bits.granularity, "recording": bitmap.recording})

    def _lasts(self, node: "Node") -> bool:
        root = root_of(node)
        return root is not None and self._graph.kept.lasting(root.name) is root

    def needs(self, name: str, definition: str) -> list[Key]:
        return [Key(NODE, name.partition("/")[0])]

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        node_name, _, bitmap_name = name.partition("/")
        granularity = parsed(definition).get("granularity")
        if not isinstance(granularity, int):
            raise InvalidArgument("definition", "a granularity", definition[:64])
        recording.lost(self._graph, self._graph.get(node_name), bitmap_name, granularity)

    def shown(self, definition: str) -> str:
        return f"json:{definition}"
