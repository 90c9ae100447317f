"""The dirty bitmaps that an image keeps: read when it is opened, marked before it is written, stored at its end.

Rules
1. Before the first change of an image every bitmap in it is durably marked as in use: from then on what the image
   says of them is old, and only storing makes it new (the spec's in_use; `announce`).
2. Storing never writes over what is stored. New bits, tables and directory go to free clusters, their refcounts are
   durable, then one sector of the header is switched, then what it named before is freed (`storing`).
3. What we do not understand (flags, extra data, another type) is kept byte for byte, and marked as in use like the
   rest, for we do not maintain it.
4. Without the autoclear bit the extension means nothing: somebody wrote the image who does not know it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from blockyard.base.errors import ImageCorrupt
from blockyard.base.units import MIB
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters
from blockyard.node.formats.qcow2 import bitmaps as codec
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.bitmaps import StoredBitmap
from blockyard.node.formats.qcow2.limits import MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS
from blockyard.node.interface.bitmaps import ImageBitmap

MAX_LOADED: Final = 1024
"""Bitmaps of an image that are used; more are kept and not used, for each write would mark them all."""
MAX_LOADED_BYTES: Final = 96 * MIB
"""Bits of all of them in memory: 48 TiB at 64 KiB. 32 KiB of a hostile file can ask for all of it."""


@dataclass(slots=True)
class Found:
    """A record, and what became of it."""

    record: StoredBitmap
    problem: str = ""
    """Why it is not used though it is not in use."""
    digest: str = ""
    """Of the bits as they are stored."""


def _between(bits: int) -> int:
    """The nearest granularity that can be."""
    return min(max(bits, codec.MIN_GRANULARITY_BITS), codec.MAX_GRANULARITY_BITS)


class Bitmaps:
    """Those of one image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.found: list[Found] = []
        """In the order of the directory, as it is on disk."""
        self.place = ext.BitmapsExtension(0, 0, 0)
        self.offered: set[str] = set()
        """Names that the graph was told; the others are kept as they are."""
        self._loaded: list[ImageBitmap] = []

    @property
    def is_valid(self) -> bool:
        """The extension is there and means something (rule 4)."""
        return bool(self.found)

    @property
    def records(self) -> list[StoredBitmap]:
        return [each.record for each in self.found]

    # --- reading -----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the directory, and the bits of what can be used. Raises ImageCorrupt for what cannot be."""
        image = self._image
        data = ext.find(image.cluster.extensions, ext.BITMAPS)
        if data is None or image.header.version < 3 or not image.header.autoclear & hdr.AUTOCLEAR_BITMAPS:
            return
        self.place = _checked(ext.decode_bitmaps(data, image.name), image)
        raw = await image.read(self.place.directory_offset, self.place.directory_size)
        records = codec.decode_directory(raw, self.place.bitmaps, image.geometry.cluster_size, image.name)
        names = self.offered
        room = MAX_LOADED_BYTES
        for number, record in enumerate(records):
            if len(names) >= MAX_LOADED:
                self.found.append(Found(record, "too many"))
                continue
            found = Found(record, self._unusable(record, names, room))
            self.found.append(found)
            if record.name in names or not _shown(record):
                continue
            names.add(record.name)
            bits = None if found.problem or record.in_use else await self._bits_of(found)
            if bits is not None:
                room -= bits.serialized_size
            # What cannot be is unusable, and shown as the nearest that can.
            granularity = 1 << _between(record.granularity_bits)
            self._loaded.append(ImageBitmap(record.name, granularity, bits, record.auto and bits is not None))
            if not number % 64:
                await asyncio.sleep(0)

    def _unusable(self, record: StoredBitmap, names: set[str], room: int) -> str:
        image = self._image
        size = record.table_size * image.geometry.cluster_size
        if problem := codec.unusable(record, image.header.size, image.geometry.cluster_size):
            return problem
        if record.name in names:
            return "another of the same name"
        if not record.in_use and size - image.geometry.cluster_size > room:
            return f"{size} bytes, more than all may take in memory together"
        return ""

    async def _bits_of(self, found: Found) -> DirtyBitmap | None:
        image, record = self._image, found.record
        size = image.geometry.cluster_size
        bits = DirtyBitmap(image.header.size, 1 << record.granularity_bits)
        at = 0
        async for entries in self.table(record):
            if (bad := codec.bad_entry(entries, size, image.file.size)) >= 0:
                found.problem = f"entry {at // size + bad} of its table is {int(entries[bad]):#x}"
                image.context.report("bitmap-unusable", {"name": record.name, "problem": found.problem})
                return None
            for first, count, place in _runs(entries, size):
                await self._fill(bits, at + first * size, count * size, place)
            at += len(entries) * size
        bits.settle()
        found.digest = bits.sha256()
        return bits

    async def _fill(self, bits: DirtyBitmap, start: int, length: int, place: int) -> None:
        """Bytes of bits from a place in the file; ones if it is 0."""
        end = min(start + length, bits.serialized_size)
        for at in range(start, end, MIB):
            count = min(MIB, end - at)
            bits.put(await self._image.read(place + at - start, count) if place else b"\xff" * count, at)

    async def table(self, record: StoredBitmap) -> AsyncIterator[tables.Table]:
        """The entries of a table, at most a MiB of it at a time."""
        end = record.table_offset + record.table_size * 8
        for at in range(record.table_offset, end, MIB):
            yield tables.decode(await self._image.read(at, min(MIB, end - at)))

    def take(self) -> list[ImageBitmap]:
        loaded, self._loaded = self._loaded, []
        return loaded

    # --- writing -----------------------------------------------------------------------------------------

    async def announce(self) -> None:
        """Rule 1. Only flags change, each inside one sector, so a crash shows some of them and no other harm."""
        if all(each.record.in_use for each in self.found):
            return
        marked = [record.flagged(codec.IN_USE, True) for record in self.records]
        data = codec.encode_directory(marked)
        image = self._image
        for at in range(0, len(data), MIB):
            await image.write(self.place.directory_offset + at, data[at : at + MIB])
        await image.file.flush()
        for each, record in zip(self.found, marked, strict=True):
            each.record = record

    async def clusters_of(self, record: StoredBitmap) -> Clusters:
        """Everything that a record refers to, as far as it can be told; sound places only."""
        image = self._image
        bits, end = image.geometry.cluster_bits, image.geometry.clusters(image.file.size)
        parts = [_clusters(image, record.table_offset, record.table_size * 8)]
        async for entries in self.table(record):
            if codec.bad_entry(entries, image.geometry.cluster_size, image.file.size) < 0:
                places = (entries & np.uint64(tables.OFFSET)) >> np.uint64(bits)
                parts.append(places[places != 0].astype(np.int64))
        clusters = np.concatenate(parts)
        return clusters[clusters < end]

    def directory_clusters(self) -> Clusters:
        return _clusters(self._image, self.place.directory_offset, self.place.directory_size)


def _clusters(image: Image, offset: int, length: int) -> Clusters:
    bits = image.geometry.cluster_bits
    return np.arange(offset >> bits, image.geometry.clusters(offset + length), dtype=np.int64)


def _checked(place: ext.BitmapsExtension, image: Image) -> ext.BitmapsExtension:
    end = place.directory_offset + place.directory_size
    if (
        not 1 <= place.bitmaps <= MAX_BITMAPS
        or not 1 <= place.directory_size <= MAX_BITMAP_DIRECTORY_BYTES
        or place.directory_offset % image.geometry.cluster_size
        or not place.directory_offset
        or end > image.geometry.clusters(image.file.size) << image.geometry.cluster_bits
    ):
        raise ImageCorrupt(
            image.name, "bitmaps extension", "a directory within limits, inside the file", str(place)
        )
    return place


def _shown(record: StoredBitmap) -> bool:
    """Whether it has a name that clients can say."""
    return codec.is_name(record.encoded_name)


def _runs(entries: tables.Table, size: int) -> list[tuple[int, int, int]]:
    """(First entry, count, place in the file or 0 for ones) of entries that say something, neighbours together."""
    places = (entries & np.uint64(tables.OFFSET)).astype(np.int64)
    said = np.flatnonzero(entries)
    if not len(said):
        return []
    own = places[said]
    near = (
        (np.diff(said) == 1)
        & (np.diff(own) == np.where(own[1:] == 0, 0, size))
        & ((own[1:] == 0) == (own[:-1] == 0))
    )
    starts = np.concatenate(([0], np.flatnonzero(~near) + 1))
    counts = np.diff(np.concatenate((starts, [len(said)])))
    return list(zip(said[starts].tolist(), counts.tolist(), own[starts].tolist(), strict=True))
