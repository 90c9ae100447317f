"""An edge of the graph: how a parent, or a user from outside, reaches a node.

The edge is the only way to a node's requests. It re-resolves its node on every use, so that the graph may be
changed under it, and it is where drained requests wait: `node.quiesced` is looked at here and nowhere else.
It implements `interface.child.Child`; see the rules there. Must not know drivers or how a request is served.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from blockyard.base.ranges import align_up
from blockyard.base.units import SECTOR
from blockyard.node.core.accounting import BLOCK_STATUS, DISCARD, FLUSH, READ, TRUNCATE, WRITE, WRITE_ZEROES
from blockyard.node.graph import populating, requests, snapshots
from blockyard.node.graph.chain import below_filters
from blockyard.node.graph.holding import is_own
from blockyard.node.graph.reading import fill_zeroes, map_own
from blockyard.node.graph.status import status_at
from blockyard.node.graph.tracking import asker
from blockyard.node.interface import tracing
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import FormatDriver
from blockyard.node.interface.flags import Preallocation, Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Mapping
from blockyard.node.interface.permissions import NOTHING
from blockyard.node.interface.waiting import WaitReason

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node

span_starter: Final = tracing.active.get
"""A sampled request awaits in every layer, where the spans are; the others pay 40 ns for the look."""


class Edge:
    """A named edge. `parent` is None for a user from outside (see `graph.user`)."""

    __slots__ = ("coming", "frozen_reason", "name", "node", "parent", "permissions", "role", "stays")

    def __init__(self, parent: "Node | None", name: str, role: Role, node: "Node") -> None:
        self.parent = parent
        self.name = name
        self.role = role
        self.node = node
        self.coming = ""
        """Name of the parent while that is being opened."""
        self.frozen_reason = ""
        """Why the graph may not change this edge now; empty if it may (the seed's backing_blocker)."""
        self.stays = False
        """It holds this very node, whatever takes the node's place for others."""
        self.permissions = NOTHING
        """What the parent does with the node, and what it lets others do (see `graph.permissions`)."""
        node.parents.append(self)

    @property
    def holder(self) -> str:
        """Who keeps the node by this edge, for errors and listings."""
        if self.parent is not None:
            return f"node/{self.parent.name}"
        return f"node/{self.coming} (being opened)"

    def move(self, node: "Node") -> None:
        """Point to another node. The caller has drained both."""
        self.node.parents.remove(self)
        self.node = node
        node.parents.append(self)
        if self.parent is not None:
            self.parent.refresh_limits()

    def detach(self) -> None:
        """Let go of the node. The edge must not be used afterwards."""
        self.node.parents.remove(self)

    # --- interface.child.Child -------------------------------------------------------------------------

    @property
    def node_name(self) -> str:
        return self.node.name

    @property
    def size(self) -> int:
        return self.node.driver.size

    @property
    def read_only(self) -> bool:
        return self.node.read_only

    @property
    def limits(self) -> Limits:
        return self.node.driver.limits

    @property
    def plain(self) -> bool:
        return True

    @property
    def compresses(self) -> bool:
        return below_filters(self.node).driver.compresses

    @property
    def filename(self) -> str:
        return self.node.filename

    def read_now(self, offset: int, into: memoryview) -> bool:
        node = self.node
        if node.quiesced or offset + len(into) > node.driver.size or span_starter() is not None:
            return False
        return node.read_now(node, offset, into)

    async def read(self, offset: int, into: memoryview) -> None:
        node = await self.entered(READ, offset, len(into))
        within = min(len(into), max(0, node.driver.size - offset))
        if within < len(into):
            fill_zeroes(into[within:])
            into = into[:within]
        if within and (span_starter() is not None or not node.read_now(node, offset, into)):
            await requests.read(node, offset, into)

    def populated_now(self, offset: int, length: int) -> bool:
        node = self.node
        while node.is_filter and not node.quiesced:
            node = node.children[node.driver.primary].node
        return not node.quiesced and populating.is_populated(node, offset, length)

    async def populate(self, offset: int, length: int, bottom: str = "") -> int:
        return await populating.populate(self, offset, length, bottom)

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        node = self.node
        if (
            node.quiesced
            or (node.is_format and offset + len(data) > node.driver.size)
            or span_starter() is not None
        ):
            return False
        return node.write_now(node, offset, data, flags)

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        node = await self.entered(WRITE, offset, len(data))
        await self._make_room(node, offset + len(data))
        if span_starter() is not None or not node.write_now(node, offset, data, flags):
            await requests.write(node, offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        node = await self.entered(WRITE_ZEROES, offset, length)
        await self._make_room(node, offset + length)
        await requests.zero(node, offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        node = await self.entered(DISCARD, offset, length)
        await requests.discard(node, offset, min(length, max(0, node.driver.size - offset)))

    async def flush(self) -> None:
        await requests.flush(await self.entered(FLUSH))

    async def truncate(
        self, size: int, preallocation: Preallocation = Preallocation.OFF, exact: bool = False
    ) -> None:
        await requests.truncate(await self.entered(TRUNCATE, size), size, preallocation, exact)

    @property
    def listens(self) -> bool:
        return self.node.driver.listens

    async def debug_event(self, event: str) -> None:
        driver = self.node.driver
        if driver.listens:
            await driver.debug_event(event)

    async def map(self, offset: int, length: int) -> Mapping:
        return await map_own(await self.entered(BLOCK_STATUS, offset, length), offset, length)

    async def reads_as_zeroes(self, offset: int, length: int) -> tuple[bool, int]:
        node = await self.entered(BLOCK_STATUS, offset, length)
        there = node.driver.size - offset
        if there <= 0:
            return True, length
        extent = await status_at(node, offset, min(length, there))
        return extent.zero, extent.length

    @property
    def snapshot_size(self) -> int:
        return snapshots.size(self)

    async def read_snapshot(self, offset: int, into: memoryview) -> None:
        await snapshots.read(self, offset, into)

    async def map_snapshot(self, offset: int, length: int) -> Mapping:
        return await snapshots.map_(self, offset, length)

    async def discard_snapshot(self, offset: int, length: int) -> None:
        await snapshots.discard(self, offset, length)

    async def _make_room(self, node: "Node", end: int) -> None:
        """Grow a format's node that is written past its end; protocol nodes, and raw with them, grow by writing."""
        driver = node.driver
        if isinstance(driver, FormatDriver) and not driver.transparent and end > driver.size:
            size = align_up(end, SECTOR)
            await requests.truncate(node, size, Preallocation.OFF, exact=False, only_grow=True)

    async def entered(self, type_: int = BLOCK_STATUS, offset: int = 0, length: int = 0) -> "Node":
        """The node, once it is not drained: where every request comes in, and is seen while it is held."""
        if self.parent is None:
            asker.set(self.holder)
        while (node := self.node).quiesced and not is_own(node):
            with node.tracker.hold(type_, offset, length, WaitReason.DRAINED):
                while self.node is node and node.quiesced and not is_own(node):
                    if node.undrained is None:
                        node.undrained = asyncio.get_running_loop().create_future()
                    await asyncio.shield(node.undrained)
        return node
