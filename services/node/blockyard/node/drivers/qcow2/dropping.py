"""Zeroes, discards and emptying: ranges of L2 entries changed at once, without moving bytes.

Each step handles the part of a range under one L2 table in one numpy pass; between steps a write-back may run,
so memory stays bounded however long the range.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.node.drivers.qcow2.allocation import Space
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Kind, Reason
from blockyard.node.drivers.qcow2.writeback import runs
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.tables import COMPRESSED, COPIED, OFFSET, ZERO
from blockyard.node.interface.flags import MAY_UNMAP

_PLACE: Final = np.uint64(OFFSET | COMPRESSED | COPIED)
"""With an external data file COPIED alone is a place too."""

Change = Callable[[tables.Table], tables.Table]


class Dropper:
    """The changes that forget data, for one image."""

    def __init__(self, image: Image, space: Space) -> None:
        self._image = image
        self._space = space

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        image = self._image
        if not image.has_zero_flag and image.has_backing:
            return False
        await image.before_write()
        if image.is_raw_apart:
            # Who reads the data file alone sees the same zeroes.
            await self._space.child().zero(offset, length, flags)
            flags &= ~MAY_UNMAP
        change = self._released if flags & MAY_UNMAP or not image.has_zero_flag else self._flagged
        await self._apply(offset, length, change, Reason.REQUEST, create=image.has_backing)
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self._image.before_write()
        if self._image.is_raw_apart:
            await self.zero(offset, length, MAY_UNMAP)
            return
        create = self._image.has_backing and self._image.has_zero_flag
        await self._apply(offset, length, self._released, Reason.REQUEST, create)

    async def reclaim(self) -> int:
        """Give up the places of clusters that read as zeroes anyway; how many they were."""
        image = self._image
        await image.before_write()
        found = 0

        def change(entries: tables.Table) -> tables.Table:
            nonlocal found
            kept = ((entries & np.uint64(COMPRESSED)) == 0) & ((entries & np.uint64(ZERO)) != 0)
            kept &= (entries & np.uint64(OFFSET)) != 0
            found += int(kept.sum())
            return np.where(kept, np.uint64(ZERO), entries)

        if image.has_zero_flag:
            await self._apply(0, image.header.size, change, Reason.OTHER, create=False)
        return found

    async def forget(self, offset: int, length: int) -> None:
        """Drop all mappings of a range, so that the backing file (or nothing) shows."""
        await self._image.before_write()
        await self._apply(offset, length, np.zeros_like, Reason.OTHER, create=False)

    async def forget_tables(self, first_key: int) -> None:
        """Drop everything mapped by L1 entries from `first_key` on, with the L2 tables themselves."""
        image = self._image
        await image.before_write()
        end = len(image.l1)
        async for key, _, _ in self._parts(
            first_key << image.geometry.table_bits, end << image.geometry.table_bits, False
        ):
            table = await image.l2.for_write(key)
            table.pins -= 1
            old = image.l2.offset_of(key) >> image.geometry.cluster_bits
            self._space.drop_entries(table.entries, Reason.OTHER)
            image.l1.set(key, 0)
            image.l2.forget(key)
            image.guard.remove(old)
            image.ledger.drop(Reason.OTHER, np.array([old], np.int64))

    def _flagged(self, entries: tables.Table) -> tables.Table:
        """Reads as zeroes, plain clusters stay allocated."""
        kept = np.where((entries & np.uint64(COMPRESSED)) != 0, np.uint64(0), entries)
        return np.where(self._needs_flag(entries), kept | np.uint64(ZERO), entries)

    def _released(self, entries: tables.Table) -> tables.Table:
        """Reads as zeroes if that can be said, and nothing stays allocated."""
        if not self._image.has_zero_flag:
            return np.zeros_like(entries)
        return np.where(self._needs_flag(entries), np.uint64(ZERO), entries)

    def _needs_flag(self, entries: tables.Table) -> NDArray[np.bool_]:
        """All but unallocated clusters with nothing behind them."""
        if self._image.has_backing:
            return np.ones(len(entries), np.bool_)
        needed: NDArray[np.bool_] = (entries & np.uint64(COMPRESSED | OFFSET | COPIED | ZERO)) != 0
        return needed

    async def _apply(self, offset: int, length: int, change: Change, reason: Reason, create: bool) -> None:
        image = self._image
        async for key, low, high in self._parts(offset, offset + length, create):
            table = await image.l2.for_write(key)
            try:
                if table.suspicious:
                    await self._space.refuse_metadata(table, low, high - low)
                before = table.entries[low:high].copy()
                after = change(before)
                differs = np.flatnonzero(before != after)
                if not len(differs):
                    continue
                table.entries[low:high] = after
                image.ledger.mark(Kind.TABLE, key, low + int(differs[0]), low + int(differs[-1]) + 1)
                gone = differs[(after[differs] & _PLACE) != (before[differs] & _PLACE)]
                await self._drop(key, low + gone, before[gone], reason)
            finally:
                table.pins -= 1

    async def _drop(self, key: int, numbers: NDArray[np.int64], entries: tables.Table, reason: Reason) -> None:
        """These entries (by their numbers in the table) have lost their clusters."""
        image = self._image
        if not image.has_data_file:
            self._space.drop_entries(entries, reason)
        elif len(numbers) and reason == Reason.REQUEST and image.writeback.passes(reason):
            # At once: the guest may write there again, and only it ever has these clusters.
            bits, base = image.geometry.cluster_bits, key << image.geometry.table_bits
            for first, count in runs(numbers):
                await self._space.child().discard(base + (first << bits), count << bits)

    async def _parts(self, offset: int, end: int, create: bool) -> AsyncIterator[tuple[int, int, int]]:
        """(L1 index, first entry, end) for each table of the range; also for those to be made if `create`."""
        image = self._image
        bits, per = image.geometry.cluster_bits, image.geometry.entries_per_table
        first, last = offset >> bits, (end + image.geometry.cluster_size - 1) >> bits
        while first < last:
            key, low = divmod(first, per)
            if not create:
                empty = image.l1.empty_run(key, (last - 1) // per - key + 1)
                if empty:
                    first = (key + empty) * per
                    continue
            high = min(per, low + last - first)
            yield key, low, high
            if image.writeback.is_due:
                await image.writeback.write_back()
            await asyncio.sleep(0)  # a long range must not hold up the loop
            first += high - low
