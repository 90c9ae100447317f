"""What the catalogue keeps of the graph itself: executors, nodes, their write thresholds and dirty bitmaps."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph import recording
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.executors import MAIN
from blockyard.node.graph.kept_form import decoded, encoded, parsed
from blockyard.node.graph.present import kept_definition
from blockyard.node.graph.threshold import set_write_threshold
from blockyard.node.interface.keeper import Key

if TYPE_CHECKING:
    from blockyard.node.graph.executors import Executors
    from blockyard.node.graph.graph import Graph

NODE = "node"
BITMAP = "bitmap"
EXECUTOR = "executor"
THRESHOLD = "write-threshold"


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
        nodes = [Key(NODE, other) for other in _references(whole) if other not in own]
        return [*(Key(EXECUTOR, executor) for executor in _executors(whole)), *nodes]

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


def _executors(definition: NodeDefinition) -> set[str]:
    """Executors that it, or what comes with it, runs on."""
    found = {definition.executor} - {"", MAIN}
    for below in (*definition.children.values(), definition.followed):
        if isinstance(below, NodeDefinition):
            found |= _executors(below)
    return found


class ExecutorKind:
    """Executors that clients made. Those of the configuration are made by it, each time."""

    name = EXECUTOR

    def __init__(self, executors: "Executors") -> None:
        self._executors = executors
        self._configured = frozenset(executors.names())

    def names(self) -> Iterable[str]:
        return [name for name in self._executors.names() if name not in self._configured]

    def definition(self, name: str) -> str | None:
        if name not in self.names():
            return None
        return json.dumps({"threads": self._executors.pool(name).threads})

    def needs(self, name: str, definition: str) -> list[Key]:
        return []

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        threads = parsed(definition).get("threads")
        if not isinstance(threads, int):
            raise InvalidArgument("definition", "a number of threads", definition[:64])
        if name not in self._configured:
            self._executors.create(name, threads)

    def shown(self, definition: str) -> str:
        return f"json:{definition}"


class ThresholdKind:
    """Write thresholds that have not been passed: whoever waits for one would wait for ever."""

    name = THRESHOLD

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph

    def names(self) -> Iterable[str]:
        return [node.name for node in self._graph.nodes.values() if node.threshold is not None]

    def definition(self, name: str) -> str | None:
        node = self._graph.kept.lasting_part(name)
        if node is None or node.threshold is None:
            return None
        return json.dumps({"offset": node.threshold.offset})

    def needs(self, name: str, definition: str) -> list[Key]:
        return [Key(NODE, name)]

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        offset = parsed(definition).get("offset")
        if not isinstance(offset, int):
            raise InvalidArgument("definition", "an offset", definition[:64])
        set_write_threshold(self._graph, self._graph.get(name), offset)

    def shown(self, definition: str) -> str:
        return f"json:{definition}"


class BitmapKind:
    """Named dirty bitmaps. Those with a file come back with its bits (`graph.kept_bitmaps`). The bits of others end
    with the process, so they come back inconsistent: that some writes were missed must be seen, or a backup would
    leave them out (block/qcow2-bitmap.c does the same after a crash)."""

    name = BITMAP

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph

    def names(self) -> Iterable[str]:
        return [f"{node.name}/{bitmap}" for node in self._graph.nodes.values() for bitmap in node.bitmaps]

    def definition(self, name: str) -> str | None:
        node_name, _, bitmap_name = name.partition("/")
        node = self._graph.kept.lasting_part(node_name)
        bitmap = node.bitmaps.get(bitmap_name) if node is not None else None
        if bitmap is None or bitmap.internal or (bitmap.in_image and bitmap.file is None):
            return None
        values: dict[str, object] = {"granularity": bitmap.bits.granularity, "recording": bitmap.recording}
        if bitmap.file is not None and bitmap.guard is not None:
            values |= {"bits": bitmap.file.name, "heat": bitmap.guard.heat.name, "in_image": bitmap.in_image}
        return json.dumps(values)

    def needs(self, name: str, definition: str) -> list[Key]:
        return [Key(NODE, name.partition("/")[0])]

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        node_name, _, bitmap_name = name.partition("/")
        granularity = parsed(definition).get("granularity")
        if not isinstance(granularity, int):
            raise InvalidArgument("definition", "a granularity", definition[:64])
        node = self._graph.get(node_name)
        if not await self._graph.guards.restore(node, bitmap_name, definition) and bitmap_name not in node.bitmaps:
            recording.lost(self._graph, node, bitmap_name, granularity)

    def shown(self, definition: str) -> str:
        return f"json:{definition}"
