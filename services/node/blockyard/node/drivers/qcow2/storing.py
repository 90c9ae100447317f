"""Storing dirty bitmaps in an image, and taking one out: rule 2 of `bitmaps`, step by step.

1. Everything that waits to be written back is, so that refcounts in memory and on disk are the same.
2. Bits, tables and directory go to clusters that were free. A cluster of zeroes or ones needs none.
3. The write-back makes their refcounts durable, and what was written with them.
4. The header is switched: extension and autoclear bit, in one sector. From here on the new bitmaps count.
5. What the old directory named is dropped, and freed when that is durable (invariant 5 of `ordering`).

A crash before 4 shows the old directory, whose bitmaps are in use, and leaks; after it the new one, and leaks.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from blockyard.base.errors import ImageMarkedCorrupt, InvalidArgument, LimitReached, ResourceExists
from blockyard.base.units import MIB
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.drivers.qcow2.bitmaps import Found
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters, Reason
from blockyard.node.drivers.qcow2.overlap import Structure
from blockyard.node.drivers.qcow2.rebasing import laid_out, steps
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2 import bitmaps as codec
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.bitmaps import StoredBitmap
from blockyard.node.formats.qcow2.limits import (
    MAX_BITMAP_BYTES,
    MAX_BITMAP_DIRECTORY_BYTES,
    MAX_BITMAPS,
    SECTOR,
)
from blockyard.node.interface.bitmaps import ImageBitmap

_EMPTY: Final = StoredBitmap(0, 0, 0, 0, "")


def check_can_store(image: Image, names: Sequence[str], granularity: int) -> None:
    """Raises LimitReached or InvalidArgument."""
    kept = [record for record in image.bitmaps.records if record.name not in image.bitmaps.offered]
    if any(record.name == name for record in kept for name in names):
        raise ResourceExists("bitmap", names[-1])
    if len(kept) + len(names) > MAX_BITMAPS:
        raise LimitReached("bitmaps of an image", MAX_BITMAPS)
    directory = sum(record.size for record in kept)
    directory += sum(StoredBitmap(0, 0, 0, 0, name).size for name in names)
    if directory > MAX_BITMAP_DIRECTORY_BYTES:
        raise LimitReached("bytes of an image's bitmap directory", MAX_BITMAP_DIRECTORY_BYTES)
    size = image.geometry.cluster_size
    entries = codec.table_entries(image.header.size, granularity.bit_length() - 1, size)
    if entries * size > MAX_BITMAP_BYTES:
        raise InvalidArgument(
            "granularity_bytes",
            f"one that needs at most {MAX_BITMAP_BYTES} bytes of bits in the image",
            str(granularity),
        )
    _with_directory(image, ext.BitmapsExtension(1, size, size))  # whether the header has room for it


async def store(image: Image, wanted: Sequence[ImageBitmap]) -> None:
    """These are all that the image keeps."""
    if _is_stored(image, wanted):
        return
    await image.before_write()
    await image.writeback.settle()
    storing = _Storing(image)
    old = {each.record.name: each for each in reversed(image.bitmaps.found)}
    try:
        found = [await storing.bitmap(each, old.get(each.name)) for each in wanted]
        # What has no name for clients, or the name of another, is not theirs to leave out.
        names = {each.name for each in wanted} | image.bitmaps.offered
        found += [
            each
            for each in image.bitmaps.found
            if each.record.name not in names or old[each.record.name] is not each
        ]
        await storing.finish(found, {each.name for each in wanted})
        image.unlocked = False  # the next write makes what was just stored old, and has to say so first
    except BaseException:
        await storing.give_up()
        raise


async def remove(image: Image, name: str) -> None:
    """The image keeps this one no longer."""
    gone = next((each for each in image.bitmaps.found if each.record.name == name), None)
    if gone is None:
        return
    await image.before_write()
    await image.writeback.settle()
    storing = _Storing(image)
    try:
        left = [each for each in image.bitmaps.found if each is not gone]
        await storing.finish(left, image.bitmaps.offered - {name})
    except BaseException:
        await storing.give_up()
        raise


def _is_stored(image: Image, wanted: Sequence[ImageBitmap]) -> bool:
    """Whether the image says just that already, so that nothing need be written."""
    usable = [each for each in image.bitmaps.found if each.record.name in image.bitmaps.offered]
    if [each.record.name for each in usable] != [each.name for each in wanted]:
        return False
    for each, other in zip(usable, wanted, strict=True):
        if other.bits is None:
            continue
        is_same = not each.record.in_use and each.record.auto is other.recording
        if not is_same or each.digest != other.bits.sha256():
            return False
    return True


class _Storing:
    """One change of the directory."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._bits = image.geometry.cluster_bits
        self._size = image.geometry.cluster_size
        self._taken: list[tuple[int, int]] = []
        self._switched = False

    async def bitmap(self, wanted: ImageBitmap, old: Found | None) -> Found:
        """Write one; what the directory will have of it."""
        if wanted.bits is None:
            assert old is not None, wanted.name
            return old
        record = old.record if old is not None else _EMPTY
        flags = record.flags & codec.EXTRA_COMPATIBLE | (codec.AUTO if wanted.recording else 0)
        entries = await self._write_bits(wanted.bits)
        place = await self._write(tables.encode(entries)) if len(entries) else 0
        granularity_bits = wanted.granularity.bit_length() - 1
        stored = StoredBitmap(place, len(entries), flags, granularity_bits, wanted.name, extra=record.extra)
        return Found(stored, digest=wanted.bits.sha256())

    async def _write_bits(self, bits: DirtyBitmap) -> tables.Table:
        """Put clusters of bits somewhere; the table of them."""
        length = bits.serialized_size
        entries = np.zeros(-(-length // self._size), np.uint64)
        for first in range(0, len(entries), max(1, MIB // self._size)):
            data = bits.serialize(first * self._size, max(MIB, self._size))
            rows = np.frombuffer(data.ljust(-(-len(data) // self._size) * self._size, b"\0"), np.uint8)
            rows = rows.reshape(-1, self._size)
            entries[first : first + len(rows)][(rows == 0xFF).all(axis=1)] = codec.ALL_ONES
            own = np.flatnonzero(rows.any(axis=1) & ~(rows == 0xFF).all(axis=1))
            done = 0
            while done < len(own):
                run = await self._image.allocator.take(len(own) - done)
                self._taken.append((run.first, run.length))
                mine = own[done : done + run.length]
                await self._image.write(run.first << self._bits, rows[mine].tobytes())
                entries[first + mine] = (
                    np.arange(run.first, run.first + run.length, dtype=np.uint64)
                ) << np.uint64(self._bits)
                done += run.length
        return entries

    async def _write(self, data: bytes) -> int:
        """Put bytes that lie together somewhere; the offset."""
        count = self._image.geometry.clusters(len(data))
        first = await self._image.allocator.take_whole(count)
        self._taken.append((first, count))
        padded = data.ljust(count * self._size, b"\0")
        for at in range(0, len(padded), MIB):
            await self._image.write((first << self._bits) + at, padded[at : at + MIB])
        return first << self._bits

    async def finish(self, found: list[Found], offered: set[str]) -> None:
        """Make this the directory, and free what only the old one needs. `offered`: what the graph knows of it."""
        image = self._image
        place = ext.BitmapsExtension(0, 0, 0)
        if found:
            data = codec.encode_directory(each.record for each in found)
            place = ext.BitmapsExtension(len(found), len(data), await self._write(data))
        kept = {id(each) for each in found}
        dropped = [image.bitmaps.directory_clusters()] if image.bitmaps.found else []
        dropped += [
            await image.bitmaps.clusters_of(each.record) for each in image.bitmaps.found if id(each) not in kept
        ]
        await image.writeback.settle()
        await unbroken(self._switch(place, found, dropped))
        image.bitmaps.offered = offered
        await image.writeback.settle()

    async def _switch(self, place: ext.BitmapsExtension, found: list[Found], dropped: list[Clusters]) -> None:
        image = self._image
        async with image.writeback.lock:
            if image.broken:
                raise ImageMarkedCorrupt(image.name)
            changed = _with_directory(image, place)
            if image.bitmaps.found:
                clusters = image.bitmaps.directory_clusters()
                image.guard.remove(int(clusters[0]), len(clusters))
            self._switched = True
            for offset, data in _careful_steps(image.cluster, changed):
                await image.switch(offset, data)
            image.cluster = changed
            image.bitmaps.found, image.bitmaps.place = found, place
            if found and Structure.BITMAP_DIRECTORY in image.looked_at:
                clusters = image.bitmaps.directory_clusters()
                image.guard.add(int(clusters[0]), len(clusters))
            for clusters in dropped:
                image.ledger.drop(Reason.OTHER, clusters)

    async def give_up(self) -> None:
        """It failed: nothing refers to what was written. If the header may name it, nobody knows, and it stays."""
        if not self._switched:
            for first, count in self._taken:
                await self._image.allocator.give_back(first, count)


def _with_directory(image: Image, place: ext.BitmapsExtension) -> hdr.HeaderCluster:
    """The header cluster that names this directory, or none. Raises LimitReached if it has no room."""
    cluster = image.cluster
    data = ext.encode_bitmaps(place) if place.bitmaps else None
    records = ext.replaced(cluster.extensions, ext.BITMAPS, data)
    try:
        changed = laid_out(cluster, cluster.header, records, cluster.backing_name)
    except InvalidArgument as problem:
        raise LimitReached("bytes of the header cluster", cluster.header.cluster_size) from problem
    autoclear = cluster.header.autoclear & ~hdr.AUTOCLEAR_BITMAPS
    return changed.with_header(autoclear=autoclear | (hdr.AUTOCLEAR_BITMAPS if place.bitmaps else 0))


def _careful_steps(old: hdr.HeaderCluster, new: hdr.HeaderCluster) -> list[tuple[int, bytes]]:
    """As `rebasing.steps`; if one of them is more than a sector, the bitmaps mean nothing while it is written."""
    found = steps(old, new)
    if all(offset // SECTOR == (offset + len(data) - 1) // SECTOR or offset >= SECTOR for offset, data in found):
        return found
    silent = new.with_header(autoclear=new.header.autoclear & ~hdr.AUTOCLEAR_BITMAPS)
    before = old.with_header(autoclear=old.header.autoclear & ~hdr.AUTOCLEAR_BITMAPS)
    features = [(hdr.FEATURES_AT, hdr.encode_features(each.header)) for each in (before, new)]
    return [features[0], *steps(before, silent), features[1]]
