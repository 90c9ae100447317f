"""What must be the same after a restart, read over the API; and a keeper in memory whose commits can fail."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from blockyard.base.errors import CatalogueNotWritten
from blockyard.client import Client
from blockyard.node.interface.keeper import Drop, Entry, Key, Put
from blockyard.v1 import types_pb2 as types

FACTS = (
    "driver",
    "size_bytes",
    "read_only",
    "auto_read_only",
    "cache",
    "discard",
    "detect_zeroes",
    "filename",
    "implicit",
    "executor",
    "labels",
    "effective_options",
    "full_open_options",
)


class MemoryKeeper:
    """A keeper whose entries live as long as it: what is durable is in `rows`."""

    location = "memory"

    def __init__(self) -> None:
        self.rows: dict[Key, Entry] = {}
        self.commits = 0
        self.before: Callable[[int], None] = lambda number: None
        """Called with the number of a commit before it happens; raises to make it fail."""
        self.after: Callable[[int], None] = lambda number: None
        self.slowly: Callable[[], Awaitable[None]] | None = None
        """What goes on before and after a commit, as a disk takes its time."""

    async def entries(self) -> list[Entry]:
        return sorted(self.rows.values(), key=lambda entry: entry.position)

    async def keep(self, changes: Sequence[Put | Drop]) -> None:
        self.commits += 1
        if self.slowly is not None:
            await self.slowly()
        self.before(self.commits)
        for change in changes:
            if isinstance(change, Put):
                self.rows[change.entry.key] = change.entry
            else:
                self.rows.pop(change.key, None)
        self.after(self.commits)
        if self.slowly is not None:
            await self.slowly()

    def fail_from(self, number: int, last: int | None = None) -> None:
        """These commits fail as on a full disk."""

        def before(found: int) -> None:
            if number <= found <= (last or number):
                raise CatalogueNotWritten(self.location, "disk full")

        self.before = before


async def picture(client: Client) -> dict[str, Any]:
    """Nodes with their options, edges, bitmaps and exports."""
    graph = await client.nodes.graph()
    nodes = {node.node_name: _facts(await client.nodes.get(node.node_name)) for node in graph.nodes}
    edges = sorted((edge.parent, edge.child.name, edge.child.node_name) for edge in graph.edges if edge.parent)
    exports = {
        export.export_id: (export.node_name, export.writable, export.nbd.name, tuple(export.uris))
        for export in await client.exports.list()
    }
    return {"nodes": nodes, "edges": edges, "exports": exports}


def _facts(node: types.BlockDriverState) -> dict[str, Any]:
    facts = {name: str(getattr(node, name)) for name in FACTS}
    for name in ("effective_options", "full_open_options"):
        facts[name] = json.loads(facts[name].removeprefix("json:"))
    facts["bitmaps"] = sorted((bitmap.name, bitmap.granularity_bytes) for bitmap in node.dirty_bitmaps)
    return facts


def differences(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[str]:
    """Where two pictures differ."""
    found: list[str] = []
    for key in sorted({*before, *after}):
        old, new, where = before.get(key), after.get(key), f"{path}/{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, where)
        elif old != new:
            found.append(f"{where}: {old} became {new}")
    return found
