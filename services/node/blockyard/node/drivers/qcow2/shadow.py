"""A second version of an image's tables, written beside the one that counts, and a single sector that switches.

Theory. A change of snapshots alters references all over the image at once: refcounts, COPIED flags, L1 tables, the
snapshot table. In place no order of writes keeps them consistent (QEMU's leaves 15 to 17 % of crash states with
flags that contradict refcounts). So nothing is changed in place. New tables go to clusters that were free; every
refcount block that differs, and the refcount table, is written anew; then one write of 48 bytes in the header's
first sector switches size, L1, refcount table and snapshot table together. It costs the same bytes: a changed L2
table or refcount block is written once either way. Until the switch a crash shows the old image (at worst with
leaks, where refcount blocks had to be made), after it the new one. Version 2 needs no dirty bit for it.

Invariants
1. The ledger is settled before a shadow begins, and nothing else changes metadata until it ends.
2. What the shadow changes is a difference to the counters in memory. Those count what it has taken as one
   reference, and are never written in place.
3. Every counter is checked against its bounds, and metadata against being freed, before the switch.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import ImageCorrupt, ImageMarkedCorrupt, OperationUnsupported
from blockyard.base.ranges import align_up
from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2.guard import Guard
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import REFCOUNT_KINDS, Clusters, Kind
from blockyard.node.drivers.qcow2.overlap import Structure
from blockyard.node.drivers.qcow2.places import inactive_l2, metadata_clusters
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.drivers.qcow2.writeback import Writes, joined, runs
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import refcounts as codec
from blockyard.node.formats.qcow2 import snapshots as records
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.snapshots import Snapshot

_NARROW_LIMIT: Final = 30_000
"""Differences are 16 bits wide until they might not fit."""


@dataclass(slots=True)
class Roots:
    """What the header will point at."""

    size: int
    l1: tables.Table
    l1_offset: int
    snapshots: list[Snapshot]
    snapshots_offset: int
    snapshot_table_bytes: int


class _Difference:
    """Of one refcount block."""

    __slots__ = ("bound", "values")

    def __init__(self, entries: int) -> None:
        self.values: NDArray[Any] = np.zeros(entries, np.int16)
        self.bound = 0

    def add(self, entries: Clusters, amounts: NDArray[np.int64]) -> None:
        self.bound += int(np.abs(amounts).max())
        if self.bound > _NARROW_LIMIT and self.values.dtype == np.int16:
            self.values = self.values.astype(np.int64)
        self.values[entries] += amounts.astype(self.values.dtype)


class Shadow:
    """One change. Use `take` and `change`, then `switch`; on any error before that, `give_up`."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._bits = image.geometry.cluster_bits
        self._size = image.geometry.cluster_size
        self._per = image.refcounts.block_entries
        self._differences: dict[int, _Difference] = {}
        self._taken: list[tuple[int, int]] = []
        self._freed: list[tuple[int, int]] = []
        self._table_bytes = 0
        self.is_switched = False

    # --- room --------------------------------------------------------------------------------------------

    async def take(self, count: int) -> list[int]:
        """`count` clusters, wherever they are, with one reference each."""
        found: list[int] = []
        while len(found) < count:
            run = await self._image.allocator.take(count - len(found))
            self._taken.append((run.first, run.length))
            found += range(run.first, run.first + run.length)
        return found

    async def take_run(self, length: int) -> int:
        """Where `length` bytes fit, in clusters that lie together; a file offset."""
        count = max(1, self._image.geometry.clusters(length))
        first = await self._image.allocator.take_whole(count)
        self._taken.append((first, count))
        return first << self._bits

    async def write_table(self, entries: tables.Table) -> int:
        """Put a table of 64-bit entries somewhere; its offset."""
        return await self.write_bytes(tables.encode(entries))

    async def write_bytes(self, data: bytes) -> int:
        """Put bytes somewhere, with zeroes to the end of their last cluster."""
        offset = await self.take_run(len(data))
        padded = data.ljust(max(self._size, align_up(len(data), self._size)), b"\0")
        for at in range(0, len(padded), MIB):
            await self._image.write(offset + at, padded[at : at + MIB])
        return offset

    async def write_l2(self, changed: list[tables.Table]) -> list[int]:
        """Put L2 tables somewhere; the offset of each."""
        offsets = [cluster << self._bits for cluster in await self.take(len(changed))]
        pieces: Writes = [(at, tables.encode(entries)) for at, entries in zip(offsets, changed, strict=True)]
        for offset, data in joined(sorted(pieces)):
            await self._image.write(offset, data)
        return offsets

    # --- references --------------------------------------------------------------------------------------

    def change(self, clusters: Clusters, by: int) -> None:
        """So many more (or less) references to each of these, as often as it occurs. Raises ImageCorrupt."""
        if not len(clusters):
            return
        if len(clusters) == 1 or bool((clusters[1:] > clusters[:-1]).all()):
            numbers, amounts = clusters, np.full(len(clusters), by, np.int64)
        else:
            numbers, times = np.unique(clusters, return_counts=True)
            amounts = times.astype(np.int64) * by
        indexes = numbers // self._per
        edges = np.flatnonzero(np.diff(indexes)) + 1
        for part, amount in zip(np.split(numbers, edges), np.split(amounts, edges), strict=True):
            index = int(part[0]) // self._per
            self._difference(index).add(part - index * self._per, amount)

    def touch(self, index: int) -> None:
        """Give a refcount block a new place, whether it changes or not."""
        self._difference(index)

    def change_run(self, offset: int, length: int, by: int) -> None:
        """The same for the clusters of `length` bytes of metadata."""
        first = offset >> self._bits
        self.change(np.arange(first, self._image.geometry.clusters(offset + length), dtype=np.int64), by)

    def _difference(self, index: int) -> _Difference:
        found = self._differences.get(index)
        if found is None:
            if not self._image.refcounts.block_offset(index):
                cluster = index * self._per
                raise self._wrong(f"refcount block of cluster {cluster}", "one, for clusters in use", "none")
            found = self._differences[index] = _Difference(self._per)
        return found

    async def counts(self, clusters: Clusters) -> NDArray[np.int64]:
        """References to each of these as they will be, as far as 2^62."""
        result = np.zeros(len(clusters), np.int64)
        indexes = clusters // self._per
        for index in np.unique(indexes).tolist():
            block = await self._image.refcounts.usable_block(index)
            if block is None:
                continue
            here = indexes == index
            entries = clusters[here] - index * self._per
            values = np.minimum(block.values[entries].astype(np.uint64), np.uint64(1 << 62)).astype(np.int64)
            difference = self._differences.get(index)
            result[here] = values if difference is None else values + difference.values[entries]
        return result

    def _wrong(self, what: str, expected: str, found: str) -> ImageCorrupt:
        return ImageCorrupt(self._image.name, what, expected, found)

    # --- the switch --------------------------------------------------------------------------------------

    async def switch(self, roots: Roots) -> list[tuple[int, int]]:
        """Make it the image that counts; the runs of clusters (first, count) that became free.

        Raises ImageCorrupt or OperationUnsupported for references that cannot be: then nothing has changed.
        """
        image = self._image
        table, places = await self._places()
        header = replace(
            image.header,
            size=roots.size,
            l1_size=len(roots.l1),
            l1_table_offset=roots.l1_offset,
            refcount_table_offset=places[-1] << self._bits,
            refcount_table_clusters=len(table) * 8 >> self._bits,
            nb_snapshots=len(roots.snapshots),
            snapshots_offset=roots.snapshots_offset,
        )
        groups = metadata_clusters(header, roots.snapshots, table, roots.l1, image.crypto_place)
        if Structure.INACTIVE_L2 in image.looked_at:
            groups += await inactive_l2(image, roots.snapshots)
        if image.bitmaps.found:
            groups.append((Structure.BITMAP_DIRECTORY, image.bitmaps.directory_clusters()))
        guard = Guard.build(groups)
        await self._write_blocks(places, guard)
        await image.write(places[-1] << self._bits, tables.encode(table))
        await image.file.flush()
        await unbroken(self._commit(header, table, guard, roots))
        return self._freed

    async def _places(self) -> tuple[tables.Table, dict[int, int]]:
        """The new refcount table, and the cluster of each block that changes; of the table itself under -1."""
        refcounts, places, released = self._image.refcounts, {-1: -1}, -1
        while True:
            length = len(refcounts.table)
            if places[-1] >= 0:
                await self._return(places[-1])
            places[-1] = await self.take_run(length * 8) >> self._bits
            released = self._release_table(released)
            while missing := sorted(self._changed() - places.keys()):
                clusters = await self.take(len(missing))
                for index, cluster in zip(missing, clusters, strict=True):
                    places[index] = cluster
                    self.change_run(refcounts.block_offset(index), 1, -1)
            # Making room may have moved and grown the old table; then there is more to count.
            if len(refcounts.table) == length and self._image.header.refcount_table_offset == released:
                break
        table = refcounts.table.copy()
        for index, cluster in places.items():
            if index >= 0:
                table[index] = cluster << self._bits
        return table, places

    def _release_table(self, released: int) -> int:
        """Nothing will refer to the refcount table that the header has now; its offset."""
        header = self._image.header
        if released != header.refcount_table_offset:
            if released >= 0:
                # Who moved it has noted itself that the old one is to be freed.
                self.change_run(released, self._table_bytes, 1)
            self._table_bytes = header.refcount_table_clusters << self._bits
            self.change_run(header.refcount_table_offset, self._table_bytes, -1)
        return header.refcount_table_offset

    async def _return(self, first: int) -> None:
        """Free a run again that turned out not to be needed."""
        run = next(run for run in self._taken if run[0] == first)
        self._taken.remove(run)
        await self._image.allocator.give_back(*run)

    def _changed(self) -> set[int]:
        """Blocks that differ from the disk."""
        return self._differences.keys() | self._image.ledger.marks[Kind.BLOCK].keys()

    async def _write_blocks(self, places: dict[int, int], guard: Guard) -> None:
        batch: Writes = []
        waiting = 0
        for index, cluster in sorted(places.items(), key=lambda item: item[1]):
            if index < 0:
                continue
            data = codec.encode(await self._new_values(index, guard), self._image.refcounts.order)
            batch.append((cluster << self._bits, data))
            waiting += len(data)
            if waiting >= 4 * MIB:
                await self._write_all(batch)
                batch, waiting = [], 0
        await self._write_all(batch)

    async def _write_all(self, batch: Writes) -> None:
        for offset, data in joined(batch):
            await self._image.write(offset, data)

    async def _new_values(self, index: int, guard: Guard) -> codec.Counters:
        """Invariant 3, for one block."""
        block = await self._image.refcounts.blocks.get(index)
        difference = self._differences.get(index)
        if difference is None:
            return block.values
        geometry = self._image.geometry
        old = block.values.astype(np.uint64)
        amounts = np.abs(difference.values).astype(np.uint64)
        falls = difference.values < 0
        under = np.flatnonzero(falls & (old < amounts))
        if len(under):
            cluster = index * self._per + int(under[0])
            raise self._wrong(f"refcount of cluster {cluster}", f"at least {amounts[under[0]]}", f"{old[under[0]]}")
        if bool((~falls & (old > np.uint64(geometry.max_refcount) - amounts)).any()):
            bits = geometry.refcount_bits
            raise OperationUnsupported(
                self._image.context.node_name, "qcow2", f"count another reference: its refcounts have {bits} bits"
            )
        new = np.where(falls, old - amounts, old + amounts)
        gone = np.flatnonzero((old != 0) & (new == 0)) + index * self._per
        if (hit := guard.hit_of(gone)) >= 0:
            raise self._wrong(f"refcount of the metadata at {hit << self._bits:#x}", "at least 1", "0")
        self._freed += runs(gone)
        result: codec.Counters = new.astype(block.values.dtype)
        return result

    async def _commit(self, header: hdr.Header, table: tables.Table, guard: Guard, roots: Roots) -> None:
        image = self._image
        async with image.writeback.lock:
            if image.broken:
                raise ImageMarkedCorrupt(image.name)
            # From here on it is the new image, or, if nobody knows, none that may be written.
            self.is_switched = True
            image.cluster = hdr.HeaderCluster(header, image.cluster.extensions, image.cluster.backing_name)
            await image.switch(hdr.SIZE_AT, hdr.encode_roots(header))
            image.snapshots, image.snapshot_table_bytes = roots.snapshots, roots.snapshot_table_bytes
            image.l1.replace(roots.l1)
            image.l2.tables.items.clear()
            image.refcounts.table = table
            image.refcounts.blocks.items.clear()
            for kind in REFCOUNT_KINDS:
                image.ledger.marks[kind].clear()
            image.guard = guard.only(image.looked_at)

    def reuse(self, freed: list[tuple[int, int]]) -> None:
        """What became free may be taken again."""
        for first, count in freed:
            self._image.allocator.freed(np.arange(first, first + count, dtype=np.int64))

    async def give_up(self) -> None:
        """It was not switched to: what was taken is free again."""
        for first, count in self._taken:
            await self._image.allocator.give_back(first, count)
        self._taken = []


async def write_snapshot_table(shadow: Shadow, snapshots: list[Snapshot]) -> tuple[int, int]:
    """Where the new table is, and its bytes; (0, 0) if there are none."""
    data = records.encode(snapshots)
    return (await shadow.write_bytes(data), len(data)) if data else (0, 0)
