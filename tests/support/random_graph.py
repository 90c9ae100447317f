"""A random life of a graph over the API, and what must be there after each step: a model without any driver.

Disks are qcow2 images. The number that was last written and flushed stands at offset 0 of what a guest sees.
"""

from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random

from blockyard.client import Client
from blockyard.client.definitions import file, generic, qcow2

SIZE = 1 << 20
Step = tuple["Model", Callable[[Client], Awaitable[object]]]


@dataclass
class Model:
    """What is acknowledged."""

    children: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of each node of a client's own: edges to others of that sort."""
    exports: dict[str, str] = field(default_factory=dict)
    bitmaps: set[tuple[str, str]] = field(default_factory=set)
    written: dict[str, int] = field(default_factory=dict)
    """The number in a disk's own layer."""
    below: set[str] = field(default_factory=set)
    """Disks that an overlay was put on: read-only from then on."""

    def value(self, node: str) -> int:
        """The number that a reader of the node finds."""
        if node in self.written:
            return self.written[node]
        lower = self.children[node].get("backing") or self.children[node].get("file")
        return self.value(lower) if lower else 0

    def layer(self, node: str) -> str:
        """Where a write to the node lands."""
        while "file" in self.children[node]:
            node = self.children[node]["file"]
        return node

    def users(self, node: str) -> list[str]:
        return [name for name, below in self.children.items() if node in below.values()] + [
            name for name, used in self.exports.items() if used == node
        ]

    def move(self, node: str, target: str) -> None:
        for name, below in self.children.items():
            if name != target:
                below.update({edge: target for edge, used in below.items() if used == node})
        self.exports.update({name: target for name, used in self.exports.items() if used == node})

    def writable(self, node: str) -> bool:
        return self.layer(node) not in self.below

    def seen(self) -> dict[str, object]:
        """As `look` sees it."""
        return {
            "nodes": sorted(self.children),
            "edges": sorted(
                (name, edge, used) for name, below in self.children.items() for edge, used in below.items()
            ),
            "exports": dict(sorted(self.exports.items())),
            "bitmaps": sorted(self.bitmaps),
            "values": {name: self.value(name) for name in sorted(self.children)},
        }


async def look(client: Client) -> dict[str, object]:
    """The graph as it is."""
    found = await client.nodes.graph()
    own = {node.node_name for node in found.nodes if not node.implicit}
    reading = {name: int.from_bytes(await client.data.read(name, 0, 8)) for name in sorted(own)}
    return {
        "nodes": sorted(own),
        "edges": sorted(
            (edge.parent, edge.child.name, edge.child.node_name)
            for edge in found.edges
            if edge.parent in own and edge.child.node_name in own
        ),
        "exports": {export.export_id: export.node_name for export in await client.exports.list()},
        "bitmaps": sorted((bitmap.node_name, bitmap.name) for bitmap in await client.bitmaps.list()),
        "values": reading,
    }


class Life:
    """Chooses steps. Each is one call that changes the graph or writes to it."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._number = 0

    def _new(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}{self._number}"

    async def step(self, model: Model, client: Client) -> Step:
        """The model after a step, and the call that makes it so. Images that it needs are made here."""
        if len(model.children) < 3:
            return await self._open(model, client)
        while True:
            made = await self._random.choice(
                (
                    self._open,
                    self._overlay,
                    self._overlay,
                    self._insert,
                    self._remove,
                    self._replace,
                    self._close,
                    self._export,
                    self._unexport,
                    self._bitmap,
                    self._write,
                    self._write,
                )
            )(model, client)
            if made is not None:
                return made

    async def _open(self, model: Model, client: Client) -> Step:
        after, name = deepcopy(model), await self._image(client)
        after.children[name] = {}
        return after, lambda client: client.nodes.open(qcow2(file(f"{name}.qcow2"), node_name=name))

    async def _image(self, client: Client) -> str:
        name = self._new("disk")
        await client.images.create(f"{name}.qcow2", SIZE, format="qcow2", overwrite=True)
        return name

    async def _overlay(self, model: Model, client: Client) -> Step | None:
        """An open disk without users and backing goes above another."""
        free = [name for name in model.children if name.startswith("disk") and not model.users(name)]
        free = [name for name in free if not model.children[name] and name not in model.written]
        free = [name for name in free if model.writable(name)]
        used = [name for name in model.children if name.startswith("disk") and model.users(name)]
        used = [name for name in used if model.writable(name)]
        if not free or not used:
            return await self._open(model, client)
        node, overlay = self._random.choice(used), self._random.choice(free)
        after = deepcopy(model)
        after.move(node, overlay)
        after.children[overlay]["backing"] = node
        after.below.add(node)
        return after, lambda client: client.nodes.insert_overlay(node, overlay)

    async def _insert(self, model: Model, client: Client) -> Step | None:
        node, name = self._some(model, used=True), self._new("filter")
        if node is None or not model.writable(node):
            return None
        after = deepcopy(model)
        after.move(node, name)
        after.children[name] = {"file": node}
        wanted = generic("copy-on-read", children={"file": node}, node_name=name)
        return after, lambda client: client.nodes.insert_filter(node, wanted)

    async def _remove(self, model: Model, client: Client) -> Step | None:
        filters = [name for name in model.children if name.startswith("filter")]
        if not filters:
            return None
        name, after = self._random.choice(filters), deepcopy(model)
        below = after.children.pop(name)["file"]
        after.move(name, below)
        after.bitmaps = {each for each in after.bitmaps if each[0] != name}
        return after, lambda client: client.nodes.remove_filter(name)

    async def _replace(self, model: Model, client: Client) -> Step | None:
        node = self._some(model, used=True)
        free = [
            name
            for name in model.children
            if name.startswith("disk") and not model.users(name) and model.writable(name) and name != node
        ]
        if node is None or not free or node in self._chain(model, free[0]) or self._backs(model, node):
            return None
        after = deepcopy(model)
        after.move(node, free[0])
        return after, lambda client: client.nodes.replace(node, free[0])

    def _backs(self, model: Model, node: str) -> bool:
        return any(below.get("backing") == node for below in model.children.values())

    def _chain(self, model: Model, node: str) -> list[str]:
        found = [node]
        for name in found:
            found += model.children[name].values()
        return found

    async def _close(self, model: Model, client: Client) -> Step | None:
        node = self._some(model, used=False)
        if node is None or len(model.children) < 6:
            return None
        after = deepcopy(model)
        del after.children[node]
        after.written.pop(node, None)
        after.bitmaps = {each for each in after.bitmaps if each[0] != node}
        return after, lambda client: client.nodes.close(node)

    async def _export(self, model: Model, client: Client) -> Step | None:
        node, name = self._some(model, used=None), self._new("export")
        if node is None or not model.writable(node) or len(model.exports) > 3:
            return None
        after = deepcopy(model)
        after.exports[name] = node
        return after, lambda client: client.exports.add_nbd(node, name, writable=True)

    async def _unexport(self, model: Model, client: Client) -> Step | None:
        if len(model.exports) < 2:
            return None
        name, after = self._random.choice(list(model.exports)), deepcopy(model)
        del after.exports[name]
        return after, lambda client: client.exports.remove(name)

    async def _bitmap(self, model: Model, client: Client) -> Step | None:
        node, after = self._some(model, used=None), deepcopy(model)
        if node is None:
            return None
        if model.bitmaps and self._random.random() < 0.4:
            owner, name = self._random.choice(sorted(model.bitmaps))
            after.bitmaps.discard((owner, name))
            return after, lambda client: client.bitmaps.remove(owner, name)
        name = self._new("bitmap")
        after.bitmaps.add((node, name))
        return after, lambda client: client.bitmaps.add(node, name)

    async def _write(self, model: Model, client: Client) -> Step | None:
        node = self._some(model, used=True)
        if node is None or not model.writable(node):
            return None
        number = self._random.getrandbits(48)
        after = deepcopy(model)
        after.written[model.layer(node)] = number

        async def write(client: Client) -> None:
            await client.data.write(node, 0, number.to_bytes(8))
            await client.data.flush(node)

        return after, write

    def _some(self, model: Model, *, used: bool | None) -> str | None:
        names = [name for name in model.children if used is None or bool(model.users(name)) is used]
        return self._random.choice(names) if names else None
