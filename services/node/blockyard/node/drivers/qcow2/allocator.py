"""Finds free host clusters and makes refcount structures grow.

Theory. Next fit from the lowest cluster that may be free (`_hint`), inside what refcount blocks cover; past
that the image is extended: missing blocks first, then a larger refcount table if it must grow, then the room
that was asked for, all in one contiguous run that describes itself. A cluster that was never used since the
file was opened and lies past the file's end then is `virgin`: it reads as zeroes.
"""

import asyncio
from typing import NamedTuple

import numpy as np

from blockyard.base.errors import NoSpace, SizeTooLarge
from blockyard.base.ranges import align_up
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters, Kind, Reason
from blockyard.node.drivers.qcow2.refcounts import Block
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.limits import MAX_HOST_OFFSET, MAX_REFCOUNT_TABLE_BYTES

_SCAN = 512
"""Counters looked at first; most allocations end here (one numpy call of 1 us)."""


class Run(NamedTuple):
    """Contiguous clusters, ours now."""

    first: int
    length: int
    """Clusters."""
    virgin: bool
    """They read as zeroes."""


class Allocator:
    """Hands out clusters with refcount 1, in memory at once, on disk by the write-back."""

    def __init__(self, image: Image, end: int, virgin: int) -> None:
        self._image = image
        self.lock = asyncio.Lock()
        self._hint = 0
        self.end = end
        """First cluster after all that are in use."""
        self.virgin = virgin
        """Bytes; the file has never had anything from here on."""

    def freed(self, clusters: Clusters) -> None:
        """These counters fell to zero."""
        if len(clusters):
            self._hint = min(self._hint, int(clusters.min()))
            self._image.compressed.forget(clusters)

    def _claim(self, first: int, count: int) -> bool:
        """Whether the run reads as zeroes; afterwards it counts as used."""
        bits = self._image.geometry.cluster_bits
        fresh = first << bits >= self.virgin
        self.virgin = max(self.virgin, (first + count) << bits)
        return fresh

    async def take(self, count: int) -> Run:
        """Contiguous clusters, at least 1 and at most `count`."""
        await self._image.event("cluster_alloc")
        async with self.lock:
            found = await self._find(count)
            if found is None:
                wanted = min(count, self._image.refcounts.block_entries - 1)
                found = await self._extend(wanted), wanted
        await self._check(*found)
        return Run(*found, self._claim(*found))

    def rewind(self) -> None:
        """Look for free clusters from the file's begin on."""
        self._hint = 0

    async def take_run(self, count: int) -> int:
        """Exactly `count` contiguous clusters, past everything in use."""
        await self._image.event("cluster_alloc")
        async with self.lock:
            first = await self._extend(count)
        await self._check(first, count)
        self._claim(first, count)
        return first

    async def take_whole(self, count: int) -> int:
        """Exactly `count` contiguous clusters: the first room of that size, else past everything in use."""
        async with self.lock:
            first = await self._find_whole(count)
        if first < 0:
            return await self.take_run(count)
        await self._check(first, count)
        self._claim(first, count)
        return first

    async def _find_whole(self, count: int) -> int:
        """The first run of `count` free clusters inside one refcount block, now in use; -1 if there is none."""
        refcounts, per = self._image.refcounts, self._image.refcounts.block_entries
        index, entry = divmod(self._hint, per)
        while count <= per and (present := refcounts.next_block(index)) >= 0:
            index, entry = present, entry if present == index else 0
            block = await refcounts.blocks.get(index)
            low = _whole_run(block, entry, count)
            if low >= 0:
                refcounts.set_range(index, block, low, low + count, 1)
                first = index * per + low
                self.end = max(self.end, first + count)
                return first
            index, entry = index + 1, 0
        return -1

    async def give_back(self, first: int, count: int) -> None:
        """Clusters of `take` to which nothing was made to refer."""
        await self._image.event("cluster_free")
        refcounts = self._image.refcounts
        for index, low, high in refcounts.pieces(first, count):
            block = await refcounts.blocks.get(index)
            refcounts.set_range(index, block, low, high, 0)
        self._hint = min(self._hint, first)

    async def _check(self, first: int, count: int) -> None:
        image = self._image
        if first + count > MAX_HOST_OFFSET >> image.geometry.cluster_bits:
            raise NoSpace(image.context.node_name, "allocation past the format's last host offset")
        if first < image.guard.end:
            hit = image.guard.first_hit(first, count)
            if hit >= 0:
                offset = hit << image.geometry.cluster_bits
                size = image.geometry.cluster_size
                what = f"refcount of the metadata at {offset:#x} ({image.guard.name_of(hit)})"
                raise await image.corrupt(what, "at least 1", "0", offset=offset, size=size)

    async def _find(self, count: int) -> tuple[int, int] | None:
        refcounts, per = self._image.refcounts, self._image.refcounts.block_entries
        begun = self._hint
        index, entry = divmod(begun, per)
        while (present := refcounts.next_block(index)) >= 0:
            if present != index:
                index, entry = present, 0
            block = await refcounts.blocks.get(index)
            run = _free_run(block, entry, count)
            if run is not None:
                low, high = run
                refcounts.set_range(index, block, low, high, 1)
                first = index * per + low
                self.end = max(self.end, first + high - low)
                if self._hint == begun:
                    self._hint = first + high - low
                return first, high - low
            index, entry = index + 1, 0
        if self._hint == begun:
            self._hint = max(begun, self.end)
        return None

    async def _extend(self, count: int) -> int:
        """Room after everything in use, with the refcount structures that cover it; the first cluster of it."""
        refcounts, start = self._image.refcounts, self.end
        missing, table_clusters = self._plan(start, count)
        first = start + len(missing) + table_clusters
        end = first + count
        known = await refcounts.usable_block(start // refcounts.block_entries)
        if known is not None:
            known.pins += 1
        try:
            if missing:
                await self._image.event("refblock_alloc")
            if table_clusters:
                # A cancelled guest write must not leave the header half switched.
                await unbroken(self._grow_table(start, missing, table_clusters, end))
            else:
                self._enter(start, missing, end)
                self._took(start, first, end)
        finally:
            if known is not None:
                known.pins -= 1
        return first

    def _took(self, start: int, first: int, end: int) -> None:
        """The image has been extended: metadata up to `first`, then room up to `end`."""
        self._image.guard.add(start, first - start)
        self._claim(start, first - start)
        self.end = max(self.end, end)

    def _plan(self, start: int, count: int) -> tuple[list[int], int]:
        """Missing blocks and clusters for a larger table (0: it need not grow), for a run from `start`."""
        refcounts, per = self._image.refcounts, self._image.refcounts.block_entries
        size = self._image.geometry.cluster_size
        missing: list[int] = []
        table_clusters = 0
        while True:
            last = (start + len(missing) + table_clusters + count - 1) // per
            now_missing = [index for index in range(start // per, last + 1) if not refcounts.block_offset(index)]
            needed = 0
            if last >= len(refcounts.table):
                # Half as much again, as QEMU grows it, so that growth stays rare.
                wanted = max(last + 1, len(refcounts.table) * 3 // 2)
                needed = max(table_clusters, align_up(wanted * 8, size) // size)
                if needed * size > MAX_REFCOUNT_TABLE_BYTES:
                    needed = MAX_REFCOUNT_TABLE_BYTES // size
                if (last + 1) * 8 > needed * size:
                    raise SizeTooLarge("refcount table in bytes", (last + 1) * 8, MAX_REFCOUNT_TABLE_BYTES)
            if len(now_missing) == len(missing) and needed == table_clusters:
                return now_missing, table_clusters
            missing, table_clusters = now_missing, needed

    async def _grow_table(self, start: int, missing: list[int], table_clusters: int, end: int) -> None:
        """Invariant 6 of `ordering`: blocks and the new table durable, the header, flush, the old table dropped."""
        image, refcounts = self._image, self._image.refcounts
        bits, size = image.geometry.cluster_bits, image.geometry.cluster_size
        old_table, old_first = refcounts.table, image.header.refcount_table_offset >> bits
        old_clusters = image.header.refcount_table_clusters
        async with image.writeback.lock:
            grown = np.zeros(table_clusters * size // 8, np.uint64)
            grown[: len(old_table)] = old_table
            refcounts.table = grown
            try:
                self._enter(start, missing, end)
                await image.event("refblock_alloc_write_blocks")
                for index in sorted(image.ledger.marks[Kind.BLOCK]):
                    await image.write(*refcounts.encode_block(index, 0, refcounts.block_entries))
                table_offset = (start + len(missing)) << bits
                await image.event("refblock_alloc_write_table")
                await image.write(table_offset, tables.encode(grown))
                await image.file.flush()
            except BaseException:
                refcounts.table = old_table
                self._forget(missing, start, end)
                raise
            await image.event("refblock_alloc_switch_table")
            image.update_header(refcount_table_offset=table_offset, refcount_table_clusters=table_clusters)
            await image.switch(hdr.REFCOUNT_TABLE_AT, hdr.encode_refcount_table(image.header))
            image.ledger.marks[Kind.REFTABLE].clear()
        # Here, not in the caller: that may have been cancelled, and must not give these clusters away again.
        self._took(start, start + len(missing) + table_clusters, end)
        image.guard.remove(old_first, old_clusters)
        image.ledger.drop(Reason.OTHER, np.arange(old_first, old_first + old_clusters, dtype=np.int64))

    def _enter(self, start: int, missing: list[int], end: int) -> None:
        """New blocks from `start` on, and everything up to `end` in use."""
        refcounts = self._image.refcounts
        for number, index in enumerate(missing):
            refcounts.create(index, (start + number) << self._image.geometry.cluster_bits)
        for index, low, high in refcounts.pieces(start, end - start):
            refcounts.set_range(index, refcounts.blocks.items[index], low, high, 1)

    def _forget(self, missing: list[int], start: int, end: int) -> None:
        """Undo `_enter` after a failed growth."""
        refcounts, ledger = self._image.refcounts, self._image.ledger
        for index in missing:
            refcounts.blocks.items.pop(index, None)
            ledger.marks[Kind.BLOCK].pop(index, None)
            ledger.marks[Kind.REFTABLE].pop(index // refcounts.table_per_sector, None)
        for index, low, high in refcounts.pieces(start, end - start):
            block = refcounts.blocks.items.get(index)
            if block is not None:
                refcounts.set_range(index, block, low, high, 0)


def _free_run(block: Block, start: int, count: int) -> tuple[int, int] | None:
    """The first run of free clusters at or after `start`, cut to `count`; None if the block has none."""
    values = block.values
    position, width = start, max(_SCAN, count + 1)
    while position < len(values):
        window = values[position : position + width] == 0
        low = int(window.argmax())
        if window[low]:
            low += position
            rest = values[low : low + count] != 0
            stop = int(rest.argmax())
            return low, low + (stop if rest[stop] else len(rest))
        position += width
        width = min(width * 8, 1 << 16)
    return None


def _whole_run(block: Block, start: int, count: int) -> int:
    """The first of `count` free entries one behind another, at or after `start`; -1 if there are none."""
    used = np.flatnonzero(block.values[start:]) + start
    begins = np.concatenate(([start], used + 1))
    fitting = np.flatnonzero(np.append(used, len(block.values)) - begins >= count)
    return int(begins[fitting[0]]) if len(fitting) else -1
