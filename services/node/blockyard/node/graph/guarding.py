"""Dirty bitmaps of a node that survive a crash: exact when the process died, never too little after a power cut.

The bits of a guarded bitmap are in a file that is written through memory (`interface.vault`), so the kernel has
them when a store returns. What only a sync makes durable is covered by an activity log (`core.heat`).

Theory. A granule is *safe* to write if its bit is durably set, or if its region is durably hot. Every write waits
until its granules are safe, and marks them, before it reaches the driver; it marks them again when the data is in
place, for somebody may have cleared them meanwhile (`graph.requests`, invariant 1). A cold region becomes hot by
one slot of the log and one sync, shared by all who wait. When all slots are taken, some regions cool down: the bits
are synced, then the slots are free. So a write waits only if it is the first one to a clean granule of a cold
region.

After the death of the process the file has every mark that was made, so every write that reached the driver. After
a power cut every hot region counts as dirty.

Invariants (the argument is in docs/design/0009-bitmaps-that-survive.md)
1. In a region that is neither hot nor in `_unsafe` every bit that is set in memory is set durably.
2. A region is in `_hot` only while its slot is durable, and leaves it before its slot is given away.
3. A slot is given away only after the bits of its region were synced, and none of them was set since.
4. Bits are cleared only while the node is drained, or by a successor that has every mark since.
"""

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import BlockError
from blockyard.node.core.heat import MAX_SLOTS, REGION_SHIFT, HeatLog, length_for, slots_for
from blockyard.node.graph.drain import drained
from blockyard.node.interface.vault import Vault, VaultFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from blockyard.node.graph.bitmaps import Bitmap
    from blockyard.node.graph.node import Node

BULK: Final = 4
"""A request over more regions than this is marked, and the bits are synced, rather than to heat them all."""


@asynccontextmanager
async def changed_everywhere(node: "Node") -> "AsyncIterator[None]":
    """While a drained node changes by other than writes, and all its bitmaps are marked: no crash is before the
    marks.

    Raises VaultUnusable before anything is changed.
    """
    if node.guard is not None:
        for bitmap in node.recorders:
            bitmap.mark(0, node.driver.size)
        await node.guard.sync()
    try:
        yield
    finally:
        if node.guard is not None:
            await node.guard.sync()


async def presume_dirty(node: "Node") -> None:
    """Others will write the node: what only we record is durably marked before. Raises VaultUnusable."""
    if node.guard is not None:
        async with drained(node):
            for bitmap in node.recorders:
                if not bitmap.in_image:
                    bitmap.mark(0, node.driver.size)
            await node.guard.sync()


class Guard:
    """Of one node; `node.guard` while it has guarded bitmaps."""

    def __init__(
        self, node: "Node", vault: Vault, heat: VaultFile, hot_bytes: int, on_lost: "Callable[[], None]"
    ) -> None:
        self.node = node
        self.vault = vault
        self.heat = heat
        self._hot_bytes = hot_bytes
        self._on_lost = on_lost
        self._slots = slots_for(hot_bytes)
        """Regions that may be hot at once."""
        self._log = HeatLog(heat.room(length_for(MAX_SLOTS)))
        self.bitmaps: list[Bitmap] = []
        self.begun = False
        """The log is of this life; until then it says what the last one left."""
        self.steady: tuple[bytearray | memoryview, int, int] | None = None
        """Table of the only bitmap that records, while each bit that is set makes its granule safe to write."""
        self.others = True
        """Somebody beside the guarded bitmaps wants to know of each write."""
        self._hot: dict[int, int] = {}
        """Region: slot, the longest hot first."""
        self._free: list[int] = []
        self._unsafe: set[int] = set()
        self._touched: set[int] = set()
        """Regions whose bits were set without being hot since the present sync began."""
        self._wanted: dict[int, None] = {}
        self._changing = asyncio.Lock()

    # --- before a write ----------------------------------------------------------------------------------

    def ready_now(self, offset: int, length: int) -> bool:
        """Whether a range may be written now; then it is marked."""
        if not self.begun:
            return False
        first, last = offset >> REGION_SHIFT, (offset + length - 1) >> REGION_SHIFT
        hot = self._hot
        if first == last:
            if first not in hot and (first in self._unsafe or not self._covered(offset, length)):
                return False
        elif any(each not in hot for each in range(first, last + 1)) and (
            not self._unsafe.isdisjoint(range(first, last + 1)) or not self._covered(offset, length)
        ):
            return False
        for bitmap in self.bitmaps:
            if bitmap.recording:
                bitmap.mark(offset, length)
        return True

    def _covered(self, offset: int, length: int) -> bool:
        for bitmap in self.bitmaps:
            if bitmap.recording and not (bitmap.kept or bitmap.bits).covers(offset, length):
                return False
        return True

    async def ready(self, offset: int, length: int) -> None:
        """Return when a range may be written. If the log cannot be kept, the bitmaps are given up, not the
        write."""
        while length and not self.ready_now(offset, length):
            try:
                await self._prepare(offset, length)
            except BlockError as problem:
                self.give_up(problem)
                return

    async def _prepare(self, offset: int, length: int) -> None:
        first, last = offset >> REGION_SHIFT, (offset + length - 1) >> REGION_SHIFT
        is_bulk = last - first >= min(BULK, self._slots // 2)
        if not is_bulk:
            self._wanted.update(dict.fromkeys(range(first, last + 1)))
        async with self._changing:
            if not self.begun:
                await self._begin()
            if is_bulk:
                for bitmap in self.bitmaps:
                    if bitmap.recording:
                        bitmap.mark(offset, length)
                await self._sync_bits()
            elif self._wanted:
                wanted = [each for each in self._wanted if each not in self._hot][: self._slots // 2]
                for each in [each for each in self._wanted if each in self._hot or each in wanted]:
                    del self._wanted[each]
                if wanted:
                    await self._heat_up(wanted)

    async def _begin(self) -> None:
        """Bits as they were found are durable, then the log begins anew."""
        await self._sync_bits()
        self._log.begin(self.vault.boot, clean=False)
        await self.heat.sync()
        self._free = list(range(MAX_SLOTS))
        self.begun = True
        self.refresh()

    async def _heat_up(self, regions: list[int]) -> None:
        if (over := len(self._hot) + len(regions) - self._slots) > 0:
            await self._cool_down(over)
        taken = [(region, self._free.pop()) for region in regions]
        try:
            for region, slot in taken:
                self._log.set(slot, region)
            await self.heat.sync()
        except BaseException:
            self._free += [slot for _, slot in taken]
            raise
        self._hot.update(taken)
        self._unsafe.difference_update(regions)
        self.refresh()

    async def _cool_down(self, count: int) -> None:
        """Free this many slots, and some more, so that one sync serves many regions."""
        victims = list(self._hot)[: max(count, self._slots // 4)]
        slots = [self._hot.pop(region) for region in victims]
        self._unsafe.update(victims)
        self.steady = None
        try:
            await self._sync_bits()
        except BaseException:
            self._hot.update(zip(victims, slots, strict=True))
            raise
        for slot in slots:
            self._log.clear(slot)
        self._free += slots

    async def _sync_bits(self) -> None:
        """All bits that are set now are durable."""
        before, self._touched = set(self._unsafe), set()
        await asyncio.gather(*(bitmap.file.sync() for bitmap in self.bitmaps if bitmap.file is not None))
        self._unsafe -= before - self._touched
        self.refresh()

    def touched(self, offset: int, length: int) -> None:
        """Bits of a range were set: until they are synced only a hot log covers them (invariant 1)."""
        for region in range(offset >> REGION_SHIFT, ((offset + length - 1) >> REGION_SHIFT) + 1):
            if region not in self._hot:
                self._unsafe.add(region)
                self._touched.add(region)
                self.steady = None

    def refresh(self) -> None:
        """Look again at what the hot path may take for granted; after every change of what records."""
        own = [each for each in self.bitmaps if each.recording]
        is_steady = self.begun and not self._unsafe and len(own) == 1 and own[0].successor is None
        self.steady = own[0].kept.table() if is_steady and own[0].kept is not None else None
        self.others = self.node.threshold is not None or len(self.node.recorders) > len(own)

    # --- the bitmaps themselves --------------------------------------------------------------------------

    async def sync(self) -> None:
        """What the bitmaps say now is durable. Raises VaultUnusable."""
        async with self._changing:
            await self._sync_bits()

    def add(self, bitmap: "Bitmap") -> None:
        """Guard it from now on. The node is drained, or nobody uses it yet."""
        bitmap.guard = self
        self.bitmaps.append(bitmap)
        self._slots = slots_for(self._hot_bytes, max(each.bits.granularity for each in self.bitmaps))
        self.refresh()

    def drop(self, bitmap: "Bitmap") -> None:
        """Guard it no longer; its file is removed. The node loses its guard with its last bitmap."""
        self.bitmaps.remove(bitmap)
        self.refresh()
        if (file := bitmap.detach()) is not None:
            file.close()
            self.vault.remove(file.name)
        if not self.bitmaps:
            self._end()
            self.vault.remove(self.heat.name)

    def give_up(self, problem: BlockError) -> None:
        """The log, or the bits, cannot be kept: the bitmaps say nothing any more, and nobody may believe the
        files."""
        node = self.node
        node.context.report("bitmaps-lost", {"error": str(problem)})
        for bitmap in list(self.bitmaps):
            bitmap.inconsistent, bitmap.recording = True, False
            self.drop(bitmap)
        node.record_bitmaps()
        self._on_lost()

    async def leave(self) -> None:
        """The node closes, and its bitmaps are to come back: they are durable, and the log says so."""
        async with self._changing:
            try:
                await self._sync_bits()
                if not self._unsafe:
                    self._log.begin(self.vault.boot, clean=True)
                    await self.heat.sync()
            except BlockError as problem:  # then the log covers what is not durable, as after a crash
                self.node.context.report("bitmaps-not-synced", {"error": str(problem)})
        for bitmap in self.bitmaps:
            if bitmap.file is not None:
                bitmap.file.close()
        self._end()

    def _end(self) -> None:
        self.heat.close()
        if self.node.guard is self:
            self.node.guard = None
            self.node.adopt_driver()

    # --- coming back -------------------------------------------------------------------------------------

    def missed(self) -> list[int]:
        """Regions that may hold writes that the bits do not know: hot when the power went. Raises nothing: a log
        that cannot be read is not `is_readable`."""
        if self._log.is_clean or self._log.boot == self.vault.boot:
            return []
        return self._log.regions()

    @property
    def is_readable(self) -> bool:
        return self._log.is_valid
