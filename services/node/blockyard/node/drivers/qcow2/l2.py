"""L2 tables in memory: decoded once, read as plain integers, written back by ranges of entries.

What memory has is stricter than what a disk may say, so that the hot path need not ask: COPIED stands only in an
entry that has a host cluster which the guest alone refers to and which holds no metadata. With an external data
file a cluster is where the guest has it or nowhere (spec, external data file), and is the guest's alone.
"""

import asyncio

import numpy as np

from blockyard.node.drivers.qcow2.cache import Cache
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Kind, Reason
from blockyard.node.formats.qcow2 import subclusters, tables
from blockyard.node.formats.qcow2.limits import SECTOR


class L2Table:
    """One L2 table. `view` is the hot path's face of `entries`."""

    __slots__ = ("bitmaps", "blocked", "entries", "marks", "pins", "suspicious", "used", "view")

    def __init__(self, entries: tables.Table, bitmaps: tables.Table | None = None) -> None:
        self.entries = entries
        self.view = tables.scalars(entries)
        self.bitmaps = np.zeros(0, np.uint64) if bitmaps is None else bitmaps
        """States of subclusters, one word to an entry; empty where entries have none."""
        self.marks = tables.scalars(self.bitmaps)
        self.used = True
        self.pins = 0
        """Users that hold on to the object over an await."""
        self.blocked = False
        """Other metadata claims the same cluster: never written."""
        self.suspicious = False
        """Some entry points to metadata; such entries are never writable in place."""


class L2:
    """The cache of L2 tables by L1 index."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._per_sector = SECTOR // 8 // image.geometry.entry_words
        limit = max(2, image.cache_sizes.l2 // image.geometry.cluster_size)
        self.tables: Cache[L2Table] = Cache(limit, self._load, self._held)
        self.structure = asyncio.Lock()
        """Held while L1 entries are made."""

    @property
    def dirty_limit(self) -> int:
        """Tables that may wait for a write-back before writers must help: half of the cache, at most 8 MiB."""
        return max(1, min(self.tables.limit // 2, (8 << 20) // self._image.geometry.cluster_size))

    def _held(self, key: int) -> bool:
        writeback = self._image.writeback
        return writeback.holds(Kind.TABLE, key) or writeback.holds(Kind.FRESH, key)

    def offset_of(self, key: int) -> int:
        """Where the table is in the file; 0 if there is none."""
        return self._image.l1.view[key] & tables.OFFSET

    async def _load(self, key: int) -> L2Table:
        image = self._image
        offset = self.offset_of(key)
        if offset % image.geometry.cluster_size:
            raise await image.corrupt(f"L1 entry {key}", "an offset aligned to the cluster size", f"{offset:#x}")
        if offset >= image.file.size:
            raise await image.corrupt(
                f"L1 entry {key}", f"an offset in the file of {image.file.size} bytes", f"{offset:#x}"
            )
        await image.event("l2_load")
        table = self._decoded(tables.decode(await image.read(offset, image.geometry.cluster_size)), key)
        if not image.context.read_only:
            cluster = offset >> image.geometry.cluster_bits
            table.blocked = cluster in image.guard.doubled and cluster not in image.guard.removed
            if not image.has_data_file:
                self._distrust(table)
        return table

    def _decoded(self, words: tables.Table, key: int) -> L2Table:
        geometry = self._image.geometry
        table = L2Table(*subclusters.split(words)) if geometry.extended else L2Table(words)
        copied = np.uint64(tables.COPIED)
        if not self._image.has_data_file:
            table.entries[(table.entries & np.uint64(tables.OFFSET | tables.COMPRESSED)) == 0] &= ~copied
            return table
        entries = table.entries
        wanted = np.arange(len(entries), dtype=np.uint64) << np.uint64(geometry.cluster_bits)
        wanted += np.uint64(key << geometry.table_bits)
        places = entries & np.uint64(tables.OFFSET | tables.COMPRESSED)
        has_place = (entries & np.uint64(tables.OFFSET | tables.COPIED)) != 0
        table.entries[:] = np.where(has_place & (places == wanted), entries | copied, entries & ~copied)
        return table

    def new_table(self) -> L2Table:
        """A table without any mapping."""
        entries = self._image.geometry.entries_per_table
        bitmaps = np.zeros(entries, np.uint64) if self._image.geometry.extended else None
        return L2Table(np.zeros(entries, np.uint64), bitmaps)

    def _distrust(self, table: L2Table) -> None:
        """Take the right to write in place from entries that point to metadata."""
        entries = table.entries
        plain = (entries & np.uint64(tables.COPIED | tables.COMPRESSED)) == np.uint64(tables.COPIED)
        clusters = ((entries & np.uint64(tables.OFFSET)) >> np.uint64(self._image.geometry.cluster_bits)).astype(
            np.int64
        )
        if self._image.guard.hits(clusters[plain]):
            table.suspicious = True
            for index in np.flatnonzero(plain).tolist():
                if self._image.guard.first_hit(int(clusters[index]), 1) >= 0:
                    table.view[index] &= ~tables.COPIED

    async def get(self, key: int) -> L2Table:
        return await self.tables.get(key)

    @staticmethod
    def _is_own(entry: int) -> bool:
        """A flag without a place says nothing: at offset 0 is the header."""
        return bool(entry & tables.COPIED and entry & tables.OFFSET)

    async def for_write(self, key: int) -> L2Table:
        """The table, pinned, in a place that is ours alone: created or copied if need be."""
        if not self._is_own(self._image.l1.view[key]):
            async with self.structure:
                entry = self._image.l1.view[key]
                if not entry & tables.OFFSET:
                    await self._place(key, self.new_table())
                elif not self._is_own(entry):
                    await self._unshare(key)
        table = await self.get(key)
        if table.blocked:
            raise await self._image.corrupt(
                f"L2 table of L1 entry {key}",
                "a cluster of its own",
                "other metadata in the same cluster",
                offset=self.offset_of(key),
                size=self._image.geometry.cluster_size,
            )
        table.pins += 1
        return table

    async def _place(self, key: int, table: L2Table) -> None:
        """Give a new table a cluster and enter it in L1."""
        image = self._image
        table.pins += 1
        cluster = (await image.allocator.take(1)).first
        image.guard.add(cluster)
        self.tables.put(key, table)
        image.l1.set(key, cluster << image.geometry.cluster_bits | tables.COPIED)
        image.ledger.mark(Kind.FRESH, key, 0, image.geometry.entries_per_table)
        table.pins -= 1

    async def _unshare(self, key: int) -> None:
        """The table belongs to a snapshot too: copy it, and drop our reference to the old one."""
        image = self._image
        old = self.offset_of(key) >> image.geometry.cluster_bits
        await image.event("l2_alloc_cow_read")
        table = await self.get(key)
        await self._place(key, table)
        image.ledger.drop(Reason.OTHER, np.array([old], np.int64))

    def encode(self, key: int, low: int, high: int) -> tuple[int, bytes]:
        """(File offset, bytes) of the sectors that hold entries `[low, high)`."""
        table = self.tables.items[key]
        per, words = self._per_sector, self._image.geometry.entry_words
        low -= low % per
        high = -(-high // per) * per
        part = table.entries[low:high]
        data = tables.encode(part) if words == 1 else subclusters.encode(part, table.bitmaps[low:high])
        return self.offset_of(key) + low * 8 * words, data

    def unmark_forgotten(self) -> None:
        """After an epoch was reopened: tables that were forgotten meanwhile need no writing."""
        for kind in (Kind.TABLE, Kind.FRESH):
            marks = self._image.ledger.marks[kind]
            for key in [key for key in marks if key not in self.tables.items]:
                del marks[key]

    def forget(self, key: int) -> None:
        """The table is no longer part of the image; nothing of it needs writing."""
        self.tables.items.pop(key, None)
        for kind in (Kind.TABLE, Kind.FRESH):
            self._image.ledger.marks[kind].pop(key, None)
