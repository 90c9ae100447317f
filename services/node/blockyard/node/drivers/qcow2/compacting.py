"""Moving what lies at the end of the file into free clusters before it, so that the file can be cut off.

Theory. Everything may have to move: data, compressed clusters, L2 and L1 tables, refcount blocks, the snapshot
table; and what moves may be shared with snapshots. So a move is a change by a shadow, as snapshots are: copies and
new tables go to clusters that were free, one sector of the header switches, and only then the old places are free.
A crash shows the image before or after, with the same content. One step moves a bounded number of bytes while no
request is in flight; guests run between steps.

What is in use and not found from the header's tables (persistent bitmaps, what an extension points at) stays where
it is, and everything below the last such cluster with it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import OperationUnsupported, ResourceBusy
from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters, Reason
from blockyard.node.drivers.qcow2.shadow import Roots, Shadow, write_snapshot_table
from blockyard.node.drivers.qcow2.snapshots import change, l1_of, l2_tables, repeated
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import snapshots as records
from blockyard.node.formats.qcow2 import tables
from blockyard.node.interface.operations import CompactStep

LEAST_BYTES: Final = 64 * MIB
"""Moved in one step at most, or twice the bytes of all L2 tables if that is more, for each step reads them all."""
_COPY: Final = MIB
_COPIED: Final = np.uint64(tables.COPIED)
_PLACE: Final = np.uint64(tables.OFFSET)
_COMPRESSED: Final = np.uint64(tables.COMPRESSED)


async def step(image: Image) -> CompactStep:
    """Move some of the tail. The caller cuts the file off afterwards, and comes again unless it is done."""
    check(image)
    if image.reading:
        raise ResourceBusy("snapshot", ", ".join(image.reading), "a call that reads it")
    await image.before_write()
    await image.writeback.settle()
    usage = await _Usage.of(image)
    window = await _window(image, usage)
    before = usage.end << image.geometry.cluster_bits
    if window is None:
        return CompactStep(before, usage.used << image.geometry.cluster_bits, 0, True)
    image.allocator.rewind()
    work = _Move(image, window)
    try:
        await change(image, work.plan, Reason.OTHER)
    except _NoRoomError:
        return CompactStep(before, usage.used << image.geometry.cluster_bits, 0, True)
    await _forget_blocks(image)
    moved = work.moved << image.geometry.cluster_bits
    return CompactStep(before, usage.used << image.geometry.cluster_bits, moved, work.moved == 0)


async def _forget_blocks(image: Image) -> None:
    """Refcount blocks that count nothing any more: all of them lie behind what is in use."""
    places = image.refcounts.forget_from(await image.refcounts.end_of_use(exactly=True))
    if len(places):
        image.guard.removed.update(places.tolist())
        image.ledger.drop(Reason.OTHER, places)
        await image.writeback.settle()


def check(image: Image) -> None:
    """Raises OperationUnsupported for an image whose clusters cannot be moved or read here."""
    header = image.header
    rules = (
        (header.incompatible & hdr.DATA_FILE, "an external data file"),
        (header.incompatible & hdr.EXTENDED_L2, "extended L2 entries"),
        # The place in the file is part of the key stream (qcow2_co_encrypt, crypt_physical_offset).
        (header.crypt_method, "encrypted clusters"),
    )
    for there, what in rules:
        if there:
            raise OperationUnsupported(image.context.node_name, "qcow2", f"compact an image with {what}")


class _NoRoomError(Exception):
    """Free clusters lie behind those that would move there."""


@dataclass(slots=True)
class _Usage:
    """Host clusters in use."""

    used: int
    end: int
    """After the last."""
    counts: list[tuple[int, NDArray[np.int64]]]
    """(Refcount block, entries in use) of the blocks that have some, from the last down."""

    @classmethod
    async def of(cls, image: Image) -> "_Usage":
        refcounts, total, end = image.refcounts, 0, 0
        counts: list[tuple[int, NDArray[np.int64]]] = []
        for index in np.flatnonzero(refcounts.table).tolist():
            used = np.flatnonzero((await refcounts.blocks.get(index)).values)
            if len(used):
                total += len(used)
                end = index * refcounts.block_entries + int(used[-1]) + 1
                counts.insert(0, (index, used))
        return cls(total, end, counts)

    def last(self, count: int, per: int) -> int:
        """The first cluster of the smallest tail that has `count` clusters in use."""
        for index, used in self.counts:
            if len(used) >= count:
                return index * per + int(used[len(used) - count])
            count -= len(used)
        return 0


@dataclass(frozen=True, slots=True)
class _Window:
    """The tail that is to be emptied: clusters [cut, end)."""

    cut: int
    end: int
    tables: dict[int, int]
    """L2 tables that must be written anew, by offset, and how often L1 tables refer to each."""
    plain: NDArray[np.bool_]
    """By cluster from `cut` on: plain data refers to it."""

    def holds(self, clusters: Clusters) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (clusters >= self.cut) & (clusters < self.end)
        return inside


async def _window(image: Image, usage: _Usage) -> _Window | None:
    """As much of the tail as a step may move and as there is room for below; None if nothing is worth it."""
    bits, per = image.geometry.cluster_bits, image.refcounts.block_entries
    weights = await _weights(image)
    most = max(LEAST_BYTES, 2 * len(weights) << bits) >> bits
    cut = max(usage.used, usage.last(min(most, usage.used), per))
    if cut >= usage.end:
        return None
    window = await _scanned(image, weights, cut, usage.end)
    fixed = image.header.refcount_table_clusters + image.geometry.clusters(len(image.l1) * 8)
    fixed += image.geometry.clusters(image.snapshot_table_bytes)
    fixed += sum(image.geometry.clusters(item.l1_size * 8) for item in image.snapshots)
    # What is written anew needs both places until the switch.
    cut = max(cut, usage.used + fixed + len(window.tables) + len(usage.counts))
    return await _scanned(image, weights, cut, usage.end) if cut < usage.end else None


async def _roots(image: Image) -> list[tables.Table]:
    return [image.l1.entries, *[await l1_of(image, item) for item in image.snapshots]]


async def _weights(image: Image) -> dict[int, int]:
    """Of each L2 table, by offset: how often L1 tables refer to it."""
    weights: dict[int, int] = {}
    for l1 in await _roots(image):
        offsets, times = np.unique(l1 & _PLACE, return_counts=True)
        for offset, count in zip(offsets.tolist(), times.tolist(), strict=True):
            if offset:
                weights[offset] = weights.get(offset, 0) + count
    return weights


async def _scanned(image: Image, weights: dict[int, int], cut: int, end: int) -> _Window:
    window = _Window(cut, end, {}, np.zeros(end - cut, np.bool_))
    bits = np.uint64(image.geometry.cluster_bits)
    async for offset, entries in _all_tables(image, weights):
        clusters = ((entries & _PLACE) >> bits).astype(np.int64)
        is_packed = (entries & _COMPRESSED) != 0
        plain = clusters[~is_packed & window.holds(clusters)]
        window.plain[plain - cut] = True
        if len(plain) or offset >> int(bits) >= cut or _packed_inside(entries[is_packed], int(bits), window):
            window.tables[offset] = weights[offset]
    return window


async def _all_tables(image: Image, weights: dict[int, int]) -> AsyncIterator[tuple[int, tables.Table]]:
    """Each L2 table once. Raises ImageCorrupt for one outside the file."""
    async for _, offset, _, entries in l2_tables(image, np.array(sorted(weights), np.uint64)):
        yield offset, entries


def _packed_inside(entries: tables.Table, bits: int, window: _Window) -> bool:
    """Whether compressed clusters touch the window."""
    if not len(entries):
        return False
    _, last = tables.compressed_clusters(entries, bits)
    return bool((last >= window.cut).any())


class _Move:
    """One step's change."""

    def __init__(self, image: Image, window: _Window) -> None:
        self._image = image
        self._window = window
        self._bits = image.geometry.cluster_bits
        self._size = image.geometry.cluster_size
        self._places: dict[int, int] = {}
        """L2 tables: from the old offset to the new one."""
        self._packed: dict[int, int] = {}
        """Compressed entries: from the old one to the new one."""
        self._tail = self._limit = 0
        """Where the next compressed cluster goes, and how far there is room for it."""
        self.moved = 0

    async def plan(self, shadow: Shadow) -> Roots:
        self._shadow = shadow
        window = self._window
        old = np.flatnonzero(window.plain) + window.cut
        new = np.array(await self._take(len(old)), np.int64)
        await self._copy(old, new)
        shadow.change(new, -1)  # one reference was counted when each was taken; those of the entries follow
        await self._move_tables(dict(zip(old.tolist(), new.tolist(), strict=True)))
        self._touch_blocks()
        roots = await self._roots()
        self.moved += len(old) + len(self._packed)
        return roots

    async def _take(self, count: int) -> list[int]:
        """Clusters below the window. Raises _NoRoomError if there are none."""
        found = await self._shadow.take(count)
        if any(cluster >= self._window.cut for cluster in found):
            raise _NoRoomError
        return found

    # --- data --------------------------------------------------------------------------------------------

    async def _copy(self, old: Clusters, new: Clusters) -> None:
        """Clusters one by one where they must be, in long pieces where they can be."""
        image, limit = self._image, max(1, _COPY >> self._bits)
        position = 0
        while position < len(old):
            count = 1
            while (
                count < limit
                and position + count < len(old)
                and old[position + count] == old[position] + count
                and new[position + count] == new[position] + count
            ):
                count += 1
            data = await image.read(int(old[position]) << self._bits, count << self._bits)
            await image.write(int(new[position]) << self._bits, memoryview(data))
            position += count

    async def _repacked(self, entry: int, times: int) -> int:
        """A compressed cluster's entry at its new place, which may be one behind another's."""
        if entry in self._packed:
            place = tables.decode_compressed(self._packed[entry], self._bits)
        else:
            place = await self._pack(entry)
        self._count_packed(tables.decode_compressed(entry, self._bits), -times)
        self._count_packed(place, times)
        return self._packed[entry]

    async def _pack(self, entry: int) -> tables.CompressedPlace:
        """Put the bytes of one behind the last, or at the begin of another cluster."""
        old = tables.decode_compressed(entry, self._bits)
        data = await self._image.read(old.offset, old.length)
        if self._limit - self._tail < len(data):
            await self._extend(len(data))
        at = self._tail
        await self._image.write(at, memoryview(data))
        self._tail = at + len(data)
        self._packed[entry] = tables.encode_compressed(at, len(data), self._bits)
        return tables.decode_compressed(self._packed[entry], self._bits)

    async def _extend(self, length: int) -> None:
        """Room for so many bytes in a row."""
        missing = self._image.geometry.clusters(length - (self._limit - self._tail)) * self._size
        start = await self._take_run(missing)
        if start != self._limit:
            if missing < length:
                missing = self._image.geometry.clusters(length) * self._size
                start = await self._take_run(missing)
            self._tail = start
        self._limit = start + missing

    async def _take_run(self, length: int) -> int:
        start = await self._shadow.take_run(length)
        if start + length > self._window.cut << self._bits:
            raise _NoRoomError
        self._shadow.change_run(start, length, -1)  # only what is put there counts
        return start

    def _count_packed(self, place: tables.CompressedPlace, by: int) -> None:
        first, last = place.offset >> self._bits, (place.end - 1) >> self._bits
        self._shadow.change(np.arange(first, last + 1, dtype=np.int64), by)

    # --- tables ------------------------------------------------------------------------------------------

    async def _move_tables(self, moves: dict[int, int]) -> None:
        image, shadow = self._image, self._shadow
        bits = np.uint64(self._bits)
        waiting: list[tuple[int, tables.Table]] = []
        async for offset, entries in _all_tables(image, self._window.tables):
            times = self._window.tables[offset]
            result = entries.copy()
            is_packed = (entries & _COMPRESSED) != 0
            clusters = ((entries & _PLACE) >> bits).astype(np.int64)
            hit = np.flatnonzero(~is_packed & self._window.holds(clusters))
            if len(hit):
                targets = np.array([moves[cluster] for cluster in clusters[hit].tolist()], np.int64)
                result[hit] = (entries[hit] & ~_PLACE) | (targets.astype(np.uint64) << bits)
                shadow.change(clusters[hit], -times)
                shadow.change(targets, times)
            for index in np.flatnonzero(is_packed).tolist():
                entry = int(entries[index])
                if (tables.decode_compressed(entry, self._bits).end - 1) >> self._bits >= self._window.cut:
                    result[index] = await self._repacked(entry, times)
            waiting.append((offset, result))
            if len(waiting) * self._size >= MIB:
                await self._write(waiting)
                waiting = []
        await self._write(waiting)

    async def _write(self, waiting: list[tuple[int, tables.Table]]) -> None:
        if not waiting:
            return
        places = await self._shadow.write_l2([entries for _, entries in waiting])
        if max(places) >> self._bits >= self._window.cut:
            raise _NoRoomError
        for (offset, _), place in zip(waiting, places, strict=True):
            times = self._window.tables[offset]
            self._places[offset] = place
            self._shadow.change(repeated(offset >> self._bits, times), -1)
            self._shadow.change(repeated(place >> self._bits, times - 1), 1)

    def _touch_blocks(self) -> None:
        """Refcount blocks in the window are written anew, like those that differ."""
        offsets = self._image.refcounts.table & np.uint64(tables.REFCOUNT_TABLE_OFFSET)
        for index in np.flatnonzero(offsets >= np.uint64(self._window.cut << self._bits)).tolist():
            self._shadow.touch(index)
            self.moved += 1

    async def _roots(self) -> Roots:
        """L1 tables and the snapshot table, anew where they change or lie in the window."""
        image, header, shadow = self._image, self._image.header, self._shadow
        active = self._relocated(image.l1.entries)
        l1_offset = header.l1_table_offset
        if len(active) and (
            self._is_inside(l1_offset, len(active) * 8) or bool((active != image.l1.entries).any())
        ):
            shadow.change_run(l1_offset, len(active) * 8, -1)
            l1_offset = await shadow.write_table(active)
        kept = [await self._snapshot(item) for item in image.snapshots]
        table_offset, table_bytes = header.snapshots_offset, image.snapshot_table_bytes
        moves = any(new is not old for new, old in zip(kept, image.snapshots, strict=True))
        if kept and (moves or self._is_inside(table_offset, table_bytes)):
            shadow.change_run(table_offset, table_bytes, -1)
            table_offset, table_bytes = await write_snapshot_table(shadow, kept)
        if self._is_inside(header.refcount_table_offset, 1):
            self.moved += 1
        return Roots(header.size, active, l1_offset, kept, table_offset, table_bytes)

    async def _snapshot(self, item: records.Snapshot) -> records.Snapshot:
        l1 = await l1_of(self._image, item)
        changed = self._relocated(l1)
        if not len(l1) or not (self._is_inside(item.l1_offset, len(l1) * 8) or bool((changed != l1).any())):
            return item
        self._shadow.change_run(item.l1_offset, len(l1) * 8, -1)
        return replace(item, l1_offset=await self._shadow.write_table(changed))

    def _is_inside(self, offset: int, length: int) -> bool:
        """Whether a table's clusters reach into the window; it counts as moved then."""
        inside = offset + length > self._window.cut << self._bits
        self.moved += inside
        return inside

    def _relocated(self, l1: tables.Table) -> tables.Table:
        result = l1.copy()
        offsets = l1 & _PLACE
        known = np.array(list(self._places), np.uint64)
        for key in np.flatnonzero(np.isin(offsets, known)).tolist():
            result[key] = (int(l1[key]) & ~tables.OFFSET) | self._places[int(offsets[key])]
        return result
