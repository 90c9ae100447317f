"""Counting what an image's tables refer to, in bounded memory, whatever the tables say.

Theory. The truth about references is in L1 and L2 tables, snapshots, bitmaps and the header; refcounts are
only a summary of it. The truth is summed up again window by window of the host's clusters: one pass of numpy
over every distinct L2 table per window. A table that is referred to a million times is read once and counts
a million; a loop is just a large count. So work is bounded by the file's size, not by what it claims.
"""

import asyncio
from collections.abc import AsyncIterator
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
from blockyard.node.formats.qcow2 import bitmaps, subclusters, tables, validate
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2.limits import MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS
from blockyard.node.interface.driver import CheckReport
from blockyard.node.interface.operations import Progress, untold

WINDOW: Final = 1 << 24
"""Clusters counted at a time: 64 MiB of counters, 1 TiB of file at 64 KiB clusters."""
MAX_FINDINGS: Final = 100

Counts = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Root:
    """An L1 table."""

    what: str
    entries: tables.Table
    is_active: bool


def note(report: CheckReport, text: str) -> None:
    """Keep the first findings in words."""
    if len(report.findings) < MAX_FINDINGS:
        report.findings.append(text)


class References:
    """The references of one image. Its metadata must be on disk (settled)."""

    def __init__(self, image: Image, with_refcounts: bool = True, progress: Progress = untold) -> None:
        self._image = image
        self._progress = progress
        self._with_refcounts = with_refcounts
        self._bits = image.geometry.cluster_bits
        self.total = image.geometry.clusters(image.file.size)
        """Clusters of the file."""

    async def windows(self, report: CheckReport) -> AsyncIterator[tuple[int, Counts]]:
        """(First cluster, counters) for the whole file. Faults of entries are reported with the first window."""
        image = self._image
        roots = await self._roots(report)
        fixed = await self._fixed(report)
        first, end = 0, max(1, self.total)
        self._highest = -1
        while first < end:
            counts = np.zeros(min(WINDOW, max(0, self.total - first)), np.uint32)
            for clusters in fixed:
                _add(counts, first, clusters, 1)
            async for clusters, times in self._tables(roots, report if first == 0 else CheckReport()):
                _add(counts, first, clusters, times)
                if len(clusters):
                    self._highest = max(self._highest, int(clusters.max()))
            yield first, counts
            # Nothing is referred to or counted past this, however long the file is.
            counted = int(np.flatnonzero(image.refcounts.table)[-1]) + 1 if image.refcounts.table.any() else 0
            end = min(self.total, max(self._highest + 1, counted * image.geometry.block_entries))
            first += WINDOW

    async def _roots(self, report: CheckReport) -> list[Root]:
        image = self._image
        roots = [Root("L1 table", image.l1.entries, True)]
        for snapshot in image.snapshots:
            if snapshot.l1_size:
                if snapshot.l1_offset + snapshot.l1_size * 8 > self.total << self._bits:
                    report.corruptions += 1
                    note(report, f"L1 table of snapshot {snapshot.identifier} lies outside the file")
                    continue
                data = await image.read(snapshot.l1_offset, snapshot.l1_size * 8)
                roots.append(Root(f"L1 table of snapshot {snapshot.identifier}", tables.decode(data), False))
        return roots

    async def _fixed(self, report: CheckReport) -> list[Clusters]:
        """Everything but L2 tables and what they refer to."""
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
            places += [ByteRange(item.l1_offset, item.l1_size * 8) for item in image.snapshots if item.l1_size]
        if self._with_refcounts:
            header = image.header
            length = header.refcount_table_clusters * header.cluster_size
            places.append(ByteRange(header.refcount_table_offset, length))
        result = [self._clusters_of(place) for place in places]
        if self._with_refcounts:
            result.append(self._blocks(report))
        return result + await self._bitmaps(report)

    def _clusters_of(self, place: ByteRange) -> Clusters:
        return np.arange(place.offset >> self._bits, self._image.geometry.clusters(place.end), dtype=np.int64)

    def _blocks(self, report: CheckReport) -> Clusters:
        offsets = self._image.refcounts.table & np.uint64(tables.REFCOUNT_TABLE_OFFSET)
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
        done, total = 0, sum(int(np.count_nonzero(root.entries)) for root in roots)
        for root in roots:
            offsets = root.entries & np.uint64(tables.OFFSET)
            offsets = offsets[offsets != 0]
            good = self._inside(offsets)
            if not good.all():
                report.corruptions += int((~good).sum())
                note(
                    report, f"{root.what}: L2 table at {int(offsets[~good][0]):#x} is unaligned or outside the file"
                )
            distinct, times = np.unique(offsets[good], return_counts=True)
            yield np.repeat((distinct >> np.uint64(self._bits)).astype(np.int64), times), 1
            # In guest order while nothing is shared, so that fragmentation is counted as it is.
            order = offsets[good] if len(distinct) == good.sum() else distinct
            weights = dict(zip(distinct.tolist(), times.tolist(), strict=True))
            for offset in order.tolist():
                self._progress("references", done, total)
                done += weights[offset]
                words = tables.decode(await self._image.read(offset, self._image.geometry.cluster_size))
                entries = words[:: self._image.geometry.entry_words]
                if root.is_active:
                    _measure(entries, self._bits, report)
                yield self._valid(entries, words, offset, report), weights[offset]
                await asyncio.sleep(0)  # a large image must not hold up the loop

    def _valid(self, entries: tables.Table, words: tables.Table, offset: int, report: CheckReport) -> Clusters:
        """The clusters of the file that an L2 table's sound entries refer to; the unsound are reported."""
        image = self._image
        packed = (entries & np.uint64(tables.COMPRESSED)) != 0
        places = entries & np.uint64(tables.OFFSET)
        faults = ~packed & (places != 0) & ~(self._aligned(places) if image.has_data_file else self._inside(places))
        has_flag = image.has_zero_flag and not image.geometry.extended
        reserved = tables.L2_RESERVED if has_flag else tables.L2_RESERVED | tables.ZERO
        odd = (~packed & ((entries & np.uint64(reserved)) != 0)) | (
            packed & ((entries & np.uint64(tables.COPIED)) != 0)
        )
        if image.geometry.extended:
            odd |= subclusters.faults(entries, words[1::2])
        if image.has_data_file:
            odd |= packed
        elif packed.any():
            _, last = tables.compressed_clusters(entries[packed], self._bits)
            faults[packed] = last >= self.total
        bad = int(faults.sum()) + int(odd.sum())
        if bad:
            report.corruptions += bad
            at = int(np.flatnonzero(faults | odd)[0])
            note(report, f"L2 table at {offset:#x}: entry {at} is {int(entries[at]):#018x}")
        return np.zeros(0, np.int64) if image.has_data_file else referenced(entries[~faults], self._bits)

    async def _bitmaps(self, report: CheckReport) -> list[Clusters]:
        """Clusters of persistent bitmaps, while their autoclear bit says that they are valid."""
        image = self._image
        data = ext.find(image.cluster.extensions, ext.BITMAPS)
        if data is None or not image.header.autoclear & hdr.AUTOCLEAR_BITMAPS:
            return []
        try:
            place = ext.decode_bitmaps(data, image.name)
            if place.bitmaps > MAX_BITMAPS or place.directory_size > MAX_BITMAP_DIRECTORY_BYTES:
                raise ImageCorrupt(image.name, "bitmaps extension", "sizes within limits", str(place))
            raw = await image.read(place.directory_offset, place.directory_size)
            found = bitmaps.decode_directory(raw, place.bitmaps, image.geometry.cluster_size, image.name)
        except ImageCorrupt as problem:
            report.corruptions += 1
            note(report, str(problem))
            return []
        result = [self._clusters_of(ByteRange(place.directory_offset, place.directory_size))]
        for bitmap in found:
            result.append(self._clusters_of(ByteRange(bitmap.table_offset, bitmap.table_size * 8)))
            end = min(bitmap.table_offset + bitmap.table_size * 8, self.total << self._bits)
            for at in range(bitmap.table_offset, end, MIB):
                entries = tables.decode(await image.read(at, min(MIB, end - at)))
                result.append(referenced(entries & np.uint64(tables.OFFSET), self._bits))
        return result


def _add(counts: Counts, first: int, clusters: Clusters, times: int) -> None:
    """Count references inside one window."""
    local = clusters - first
    local = local[(local >= 0) & (local < len(counts))]
    if not len(local):
        return
    if len(local) == 1 or bool((local[1:] > local[:-1]).all()):
        counts[local] += np.uint32(times)
        return
    numbers, repeats = np.unique(local, return_counts=True)
    counts[numbers] += (repeats * times).astype(np.uint32)


def _measure(entries: tables.Table, bits: int, report: CheckReport) -> None:
    """QEMU's figures of allocation and fragmentation (inside one L2 table)."""
    packed = (entries & np.uint64(tables.COMPRESSED)) != 0
    places = (entries & np.uint64(tables.OFFSET)) >> np.uint64(bits)
    used = packed | (places != 0)
    report.allocated_clusters += int(used.sum())
    report.compressed_clusters += int(packed.sum())
    plain = places[used & ~packed].astype(np.int64)
    report.fragmented_clusters += int(packed.sum())
    report.fragmented_clusters += int((plain[1:] != plain[:-1] + 1).sum())
