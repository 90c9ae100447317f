"""Counting what an image's tables refer to, in bounded memory, whatever the tables say.

Theory. The truth about references is in L1 and L2 tables, snapshots, bitmaps and the header; refcounts are
only a summary of it. The truth is summed up again: one pass of numpy over every distinct L2 table. A table that is
referred to a million times is read once and counts a million; a loop is just a large count; what lies in a hole of
the file is not read. So work is bounded by what the file holds, not by what it claims (see `tallying`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import ImageCorrupt
from blockyard.base.ranges import ByteRange
from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2.allocation import referenced
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters
from blockyard.node.drivers.qcow2.scanning import Entries, scan
from blockyard.node.drivers.qcow2.tallying import FEW, WINDOW, WINDOW_BITS, Counts, Few, add, add_run
from blockyard.node.formats.qcow2 import bitmaps, subclusters, tables, validate
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2.limits import MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS
from blockyard.node.interface.driver import CheckReport
from blockyard.node.interface.mapping import MapKind
from blockyard.node.interface.operations import Progress, untold

MAX_FINDINGS: Final = 100
_ENTRIES: Final = MIB // 8
"""Entries of an L1 table looked at in one step: 1 MiB of them."""
_ZERO_TABLE: Final = bytes(2 * MIB)
"""The largest table."""


@dataclass(frozen=True, slots=True)
class Root:
    """L1 tables in one place: the disk's, or that of so many snapshots."""

    what: str
    place: ByteRange
    times: int = 1
    is_active: bool = False


@dataclass(frozen=True, slots=True)
class Fixed:
    """Metadata in its place, referred to so often."""

    place: ByteRange
    times: int = 1


def note(report: CheckReport, text: str) -> None:
    """Keep the first findings in words."""
    if len(report.findings) < MAX_FINDINGS:
        report.findings.append(text)


Look = Callable[[Entries], Awaitable[None]]


class References:
    """The references of one image. Its metadata must be on disk (settled)."""

    def __init__(
        self,
        image: Image,
        with_refcounts: bool = True,
        progress: Progress = untold,
        look: Look | None = None,
    ) -> None:
        """`look` sees the active L2 tables as they go by, once."""
        self._image = image
        self._look = look
        self._progress = progress
        self._with_refcounts = with_refcounts
        self._bits = image.geometry.cluster_bits
        self.total = image.geometry.clusters(image.file.size)
        """Clusters of the file."""
        self.uncounted: tuple[Clusters, Counts] = (np.zeros(0, np.int64), np.zeros(0, np.uint32))
        """After all windows: clusters past the first of them that no block counts, and their references."""

    async def windows(self, report: CheckReport) -> AsyncIterator[tuple[int, Counts]]:
        """(First cluster, counters) for all parts of the file in which something is counted or referred to.

        They come in order and in whole refcount blocks. Faults of entries are reported with the first.

        Left out is what is referred to past the first window where no refcount block is: see `uncounted`.
        """
        roots, fixed = await self._roots(report), await self._fixed(report)
        loose = await self._loose(report, fixed)
        few, counts = Few(), np.zeros(min(WINDOW, self.total), np.uint32)
        for item in fixed:
            add_run(counts, 0, self._run(item.place), item.times)
            few.add_run(self._run(item.place), item.times)
        for clusters, times in loose:
            add(counts, 0, clusters, times)
            few.add(clusters, times)
        async for clusters, times in self._tables(roots, report):
            add(counts, 0, clusters, times)
            few.add(clusters, times)
        self._look = None
        yield 0, counts
        if few.is_complete:
            for part in self._parts(few):
                yield part
            return
        per = self._image.geometry.block_entries
        counted = np.unique((self._blocks_past_window() * per) >> WINDOW_BITS).tolist()
        for number in sorted({*counted, *few.windows}):
            first = number << WINDOW_BITS
            if first >= self.total:
                break
            counts = np.zeros(min(WINDOW, self.total - first), np.uint32)
            for item in fixed:
                add_run(counts, first, self._run(item.place), item.times)
            for clusters, times in loose:
                add(counts, first, clusters, times)
            async for clusters, times in self._tables(roots, CheckReport()):
                add(counts, first, clusters, times)
            yield first, counts

    def _blocks_past_window(self) -> NDArray[np.int64]:
        """Indexes of refcount blocks that there are for clusters of the file past the first window."""
        if not self._with_refcounts:
            return np.zeros(0, np.int64)
        table, per = self._image.refcounts.table, self._image.geometry.block_entries
        first = WINDOW // per
        found: NDArray[np.int64] = np.flatnonzero(table[first : -(-self.total // per)]) + first
        return found

    def _parts(self, few: Few) -> Iterator[tuple[int, Counts]]:
        """Windows of neighbouring blocks."""
        per = self._image.geometry.block_entries
        clusters, weights = few.total()
        inside = clusters < self.total
        clusters, weights = clusters[inside], weights[inside]
        touched = np.unique(clusters // per)
        blocks = self._blocks_past_window() if self._with_refcounts else touched
        if self._with_refcounts:
            missing = ~np.isin(clusters // per, blocks)
            self.uncounted = (clusters[missing], weights[missing])
        most = max(1, WINDOW // per)
        breaks = np.flatnonzero(np.diff(blocks) != 1) + 1
        for run in np.split(blocks, breaks) if len(blocks) else ():
            for at in range(0, len(run), most):
                part = run[at : at + most]
                first, end = int(part[0]) * per, min(self.total, (int(part[-1]) + 1) * per)
                counts = np.zeros(end - first, np.uint32)
                low, high = np.searchsorted(clusters, (first, end))
                counts[clusters[low:high] - first] = weights[low:high]
                yield first, counts

    async def _roots(self, report: CheckReport) -> list[Root]:
        image = self._image
        roots = [Root("L1 table", ByteRange(image.header.l1_table_offset, len(image.l1) * 8), is_active=True)]
        places: dict[ByteRange, list[str]] = {}
        for snapshot in image.snapshots:
            if snapshot.l1_size:
                place = ByteRange(snapshot.l1_offset, snapshot.l1_size * 8)
                places.setdefault(place, []).append(snapshot.identifier)
        for place, names in places.items():
            what = f"L1 table of snapshot {names[0]}"
            if place.end > self.total << self._bits:
                report.corruptions += len(names)
                note(report, f"{what} lies outside the file")
                continue
            roots.append(Root(what, place, len(names)))
        return roots

    async def _fixed(self, report: CheckReport) -> list[Fixed]:
        """Everything but L2 tables, what they refer to, and what lies loose."""
        image = self._image
        places = [
            place
            for what, place in validate.header_places(image.header)
            if what not in ("snapshot table", "refcount table")
        ]
        if image.crypto_place is not None:
            places.append(image.crypto_place)
        if image.snapshots:
            places.append(ByteRange(image.header.snapshots_offset, image.snapshot_table_bytes))
        if self._with_refcounts:
            header = image.header
            length = header.refcount_table_clusters * header.cluster_size
            places.append(ByteRange(header.refcount_table_offset, length))
        result = [Fixed(place) for place in places]
        snapshots = [root for root in await self._roots(CheckReport()) if not root.is_active]
        return result + [Fixed(root.place, root.times) for root in snapshots]

    async def _loose(self, report: CheckReport, fixed: list[Fixed]) -> list[tuple[Clusters, int]]:
        """Clusters that are listed one by one, and how often they count: refcount blocks, the bits of bitmaps."""
        blocks = [(self._blocks(report), 1)] if self._with_refcounts else []
        return blocks + await self._bitmaps(report, fixed)

    def _run(self, place: ByteRange) -> tuple[int, int]:
        return place.offset >> self._bits, self._image.geometry.clusters(place.end)

    def _blocks(self, report: CheckReport) -> Clusters:
        table = self._image.refcounts.table
        odd = table[(table & np.uint64(tables.REFCOUNT_TABLE_RESERVED)) != 0]
        if len(odd):
            report.corruptions += len(odd)
            note(report, f"refcount table: an entry has reserved bits: {int(odd[0]):#018x}")
        offsets = table & np.uint64(tables.REFCOUNT_TABLE_OFFSET)
        offsets = offsets[offsets != 0]
        good = self._inside(offsets)
        if not good.all():
            report.corruptions += int((~good).sum())
            note(report, f"refcount block at {int(offsets[~good][0]):#x} is unaligned or outside the file")
        clusters: Clusters = (offsets[good] >> np.uint64(self._bits)).astype(np.int64)
        return clusters

    def _inside(self, offsets: tables.Table) -> NDArray[np.bool_]:
        """Aligned, and in a cluster of the file."""
        return self._aligned(offsets) & (offsets < np.uint64(self.total << self._bits))

    def _aligned(self, offsets: tables.Table) -> NDArray[np.bool_]:
        aligned: NDArray[np.bool_] = (offsets & np.uint64(self._image.geometry.cluster_size - 1)) == 0
        return aligned

    async def _tables(self, roots: list[Root], report: CheckReport) -> AsyncIterator[tuple[Clusters, int]]:
        """L2 tables, and what each refers to, with how often it counts."""
        shared = Shared()
        self._done, self._expected = 0, int(np.count_nonzero(self._image.l1.entries))
        for root in roots:
            async for entries in self._entries(root):
                offsets = self._sound(root, entries, report)
                self._expected += 0 if root.is_active else len(offsets) * root.times
                distinct, times = np.unique(offsets, return_counts=True)
                clusters = (distinct >> np.uint64(self._bits)).astype(np.int64)
                yield np.repeat(clusters, times), root.times
                if root.is_active:
                    # In guest order while nothing is shared, so that fragmentation is counted as it is.
                    order = offsets if len(distinct) == len(offsets) else distinct
                    weights = dict(zip(distinct.tolist(), times.tolist(), strict=True))
                    async for found in self._referred(order.tolist(), weights, report, is_active=True):
                        yield found
                elif shared.add(distinct.tolist(), times.tolist(), root.times):
                    async for found in self._referred(list(shared.weights), shared.weights, report):
                        yield found
                    shared = Shared()
        async for found in self._referred(list(shared.weights), shared.weights, report):
            yield found

    def _sound(self, root: Root, entries: tables.Table, report: CheckReport) -> tables.Table:
        """Where an L1 table's entries have L2 tables."""
        used = entries[entries != 0]
        odd = used[faults_of_l1(used)]
        if len(odd):
            report.corruptions += len(odd)
            note(report, f"{root.what}: an entry has reserved bits, or flags and no table: {int(odd[0]):#018x}")
        offsets = used & np.uint64(tables.OFFSET)
        offsets = offsets[offsets != 0]
        good = self._inside(offsets)
        if not good.all():
            report.corruptions += int((~good).sum())
            at = int(offsets[~good][0])
            note(report, f"{root.what}: L2 table at {at:#x} is unaligned or outside the file")
        sound: tables.Table = offsets[good]
        return sound

    async def _entries(self, root: Root) -> AsyncIterator[tables.Table]:
        """Pieces of an L1 table that may hold something; the disk's is in memory."""
        if root.is_active:
            for entries in pieces(self._image.l1.entries):
                yield entries
            return
        async for at, length in self._data_of(root.place):
            yield tables.decode(await self._image.read(at, length))

    async def _data_of(self, place: ByteRange) -> AsyncIterator[tuple[int, int]]:
        """(Offset, length) of the parts of a range that are no holes of the file, a MiB at most each."""
        at, end = place.offset, min(place.end, self._image.file.size)
        while at < end:
            length = min(MIB, end - at)
            if end - at > MIB:
                mapping = await self._image.file.map(at, end - at)
                # Whole entries; a hole that ends inside one ends before it.
                run = mapping.length if mapping.length >= 8 else 8
                if mapping.kind is MapKind.ZERO:
                    at += run - run % 8
                    continue
                length = min(MIB, run - run % 8, end - at)
            yield at, length
            at += length

    async def _referred(
        self, offsets: list[int], weights: dict[int, int], report: CheckReport, *, is_active: bool = False
    ) -> AsyncIterator[tuple[Clusters, int]]:
        self._progress("references", self._done, self._expected)
        async for batch in scan(self._image, np.array(offsets, np.uint64)):
            times = np.array([weights[offset] for offset in batch.offsets.tolist()], np.int64)
            self._done += int(times.sum())
            self._progress("references", self._done, self._expected)
            if is_active:
                _measure(batch, self._bits, report)
                if self._look is not None:
                    await self._look(batch)
            sound = self._valid(batch, report)
            for weight in np.unique(times).tolist():
                chosen = sound.entries if (times == weight).all() else sound.entries[times[sound.owners] == weight]
                yield referenced(chosen, self._bits), weight

    def _valid(self, batch: Entries, report: CheckReport) -> Entries:
        """The sound entries of L2 tables that refer to the file; the unsound are reported."""
        image, entries = self._image, batch.entries
        packed = (entries & np.uint64(tables.COMPRESSED)) != 0
        places = entries & np.uint64(tables.OFFSET)
        faults = ~packed & (places != 0) & ~(self._aligned(places) if image.has_data_file else self._inside(places))
        has_flag = image.has_zero_flag and not image.geometry.extended
        reserved = tables.L2_RESERVED if has_flag else tables.L2_RESERVED | tables.ZERO
        odd = (~packed & ((entries & np.uint64(reserved)) != 0)) | (
            packed & ((entries & np.uint64(tables.COPIED)) != 0)
        )
        if image.geometry.extended:
            odd |= subclusters.faults(entries, batch.bitmaps)
        if image.has_data_file:
            odd |= packed
        elif packed.any():
            _, last = tables.compressed_clusters(entries[packed], self._bits)
            faults[packed] = last >= self.total
        bad = faults | odd
        if not bad.any() and not image.has_data_file:
            return batch
        report.corruptions += int(faults.sum()) + int(odd.sum())
        _, firsts = np.unique(batch.owners[bad], return_index=True)
        for at in np.flatnonzero(bad)[firsts[:MAX_FINDINGS]].tolist():
            offset, entry = int(batch.offsets[batch.owners[at]]), int(entries[at])
            note(report, f"L2 table at {offset:#x}: entry {int(batch.positions[at])} is {entry:#018x}")
        return batch.only(~faults if not image.has_data_file else np.zeros(len(entries), np.bool_))

    async def _bitmaps(self, report: CheckReport, fixed: list[Fixed]) -> list[tuple[Clusters, int]]:
        """Clusters of persistent bitmaps, while their autoclear bit says that they are valid."""
        image = self._image
        data = ext.find(image.cluster.extensions, ext.BITMAPS)
        if data is None or not image.header.autoclear & hdr.AUTOCLEAR_BITMAPS:
            return []
        try:
            place = ext.decode_bitmaps(data, image.name)
            if place.bitmaps > MAX_BITMAPS or place.directory_size > MAX_BITMAP_DIRECTORY_BYTES:
                raise ImageCorrupt(image.name, "bitmaps extension", "sizes within limits", str(place))
            directory = ByteRange(place.directory_offset, place.directory_size)
            validate.check_inside(image.name, "bitmap directory", directory, image.file.size)
            raw = await image.read(place.directory_offset, place.directory_size)
            found = bitmaps.decode_directory(raw, place.bitmaps, image.geometry.cluster_size, image.name)
        except ImageCorrupt as problem:
            report.corruptions += 1
            note(report, str(problem))
            return []
        fixed.append(Fixed(directory))
        places: dict[ByteRange, int] = {}
        for bitmap in found:
            table = ByteRange(bitmap.table_offset, bitmap.table_size * 8)
            places[table] = places.get(table, 0) + 1
        if sum(table.length for table in places) > self.total << self._bits:
            report.corruptions += 1
            note(report, "bitmap tables: together they are larger than the file")
            return []
        result: list[tuple[Clusters, int]] = []
        for table, times in places.items():
            fixed.append(Fixed(table, times))
            async for at, length in self._data_of(table):
                entries = tables.decode(await image.read(at, length))
                result.append((referenced(entries & np.uint64(tables.OFFSET), self._bits), times))
        return result


def faults_of_l1(entries: tables.Table) -> NDArray[np.bool_]:
    """Which entries have reserved bits, or flags and no table."""
    reserved = (entries & np.uint64(tables.L1_RESERVED)) != 0
    faults: NDArray[np.bool_] = reserved | ((entries != 0) & ((entries & np.uint64(tables.OFFSET)) == 0))
    return faults


def is_zero(table: bytearray) -> bool:
    """Whether a table as it is on disk says nothing (one memcmp)."""
    return _ZERO_TABLE.startswith(table)


def pieces(entries: tables.Table) -> Iterator[tables.Table]:
    """A table in parts that are worked on in bounded memory."""
    for at in range(0, len(entries), _ENTRIES):
        yield entries[at : at + _ENTRIES]


class Shared:
    """L2 tables of snapshots, which mostly have the same: offset to how often it is referred to."""

    def __init__(self) -> None:
        self.weights: dict[int, int] = {}

    def add(self, offsets: list[int], times: list[int], factor: int) -> bool:
        """Whether it is time to look at them: more would take too much memory."""
        for offset, count in zip(offsets, times, strict=True):
            self.weights[offset] = self.weights.get(offset, 0) + count * factor
        return len(self.weights) > FEW // 8


def _measure(batch: Entries, bits: int, report: CheckReport) -> None:
    """QEMU's figures of allocation and fragmentation (inside one L2 table)."""
    packed = (batch.entries & np.uint64(tables.COMPRESSED)) != 0
    places = (batch.entries & np.uint64(tables.OFFSET)) >> np.uint64(bits)
    used = packed | (places != 0)
    report.allocated_clusters += int(np.count_nonzero(used))
    report.compressed_clusters += int(np.count_nonzero(packed))
    chosen = used & ~packed
    plain, owners = places[chosen].astype(np.int64), batch.owners[chosen]
    report.fragmented_clusters += int(np.count_nonzero(packed))
    breaks = (plain[1:] != plain[:-1] + 1) & (owners[1:] == owners[:-1])
    report.fragmented_clusters += int(np.count_nonzero(breaks))
