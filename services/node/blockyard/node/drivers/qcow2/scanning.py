"""Reading L2 tables one after another, many at a time, and keeping of them what is not empty.

A check looks at every L2 table of an image, and most entries of a large disk are empty: 10 GiB of data spread over
1 TiB are 164 thousand entries in 128 MiB of tables. So tables are read into one buffer, and only what is not zero
is decoded. Must not judge what it reads.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.formats.qcow2 import tables

PIECE: Final = MIB
"""Bytes of tables read and searched at a time, at least one table: small enough for the processor's cache."""
PIECE_TABLES: Final = 64
"""and at most so many, each of which may cost a system call, between two turns of the loop."""
BATCH: Final = 16 * MIB
"""Bytes of tables judged together at most, for a call of numpy costs as much as a thousand entries; or"""
BATCH_ENTRIES: Final = 1 << 17
"""so many entries, and what the last piece adds: as many, a megabyte."""


@dataclass(frozen=True, slots=True)
class Entries:
    """What is not empty in some L2 tables, in their order."""

    offsets: tables.Table
    """Of the tables, in the file."""
    owners: NDArray[np.int64]
    """Of each entry, its table's place in `offsets`; ascending."""
    positions: NDArray[np.int64]
    """Of each entry, its index in its table; ascending in each."""
    entries: tables.Table
    bitmaps: tables.Table
    """Of each entry, that of its subclusters; nothing in an image without them."""

    def only(self, chosen: NDArray[np.bool_]) -> "Entries":
        """Some of the entries."""
        bitmaps = self.bitmaps[chosen] if len(self.bitmaps) else self.bitmaps
        return Entries(self.offsets, self.owners[chosen], self.positions[chosen], self.entries[chosen], bitmaps)


async def scan(image: Image, offsets: tables.Table) -> AsyncIterator[Entries]:
    """The tables at these places of the file, each as often as it is named."""
    size = image.geometry.cluster_size
    step = max(1, min(PIECE // size, PIECE_TABLES))
    buffer = memoryview(bytearray(min(step, max(1, len(offsets))) * size))
    batch = _Batch(size, image.geometry.entry_words)
    for start in range(0, len(offsets), step):
        piece = offsets[start : start + step]
        part = buffer[: len(piece) * size]
        await _fill(image, piece, part)
        batch.add(piece, np.frombuffer(part, np.uint64))
        if batch.is_full:
            yield batch.take()
        await asyncio.sleep(0)  # a large image must not hold up the loop
    if batch.offsets:
        yield batch.take()


async def _fill(image: Image, offsets: tables.Table, buffer: memoryview) -> None:
    """Read tables that lie together at once."""
    size = image.geometry.cluster_size
    breaks = np.flatnonzero(np.diff(offsets) != np.uint64(size)) + 1
    places = offsets.tolist()
    for low, high in pairwise([0, *breaks.tolist(), len(offsets)]):
        part = buffer[low * size : high * size]
        if not image.file.read_now(places[low], part):
            await image.file.read(places[low], part)


class _Batch:
    """Gathers."""

    def __init__(self, table_bytes: int, words: int) -> None:
        self._table_bytes = table_bytes
        self._words = words
        """Of an entry: with subclusters it has a second one, their bitmap."""
        self._per_table = table_bytes // tables.ENTRY_BYTES // words
        self._clear()

    def _clear(self) -> None:
        self.offsets: list[tables.Table] = []
        self._numbers: list[NDArray[np.int64]] = []
        self._entries: list[tables.Table] = []
        self._bitmaps: list[tables.Table] = [np.zeros(0, np.uint64)]
        self._tables = 0
        self._count = 0

    @property
    def is_full(self) -> bool:
        return self._tables * self._table_bytes >= BATCH or self._count >= BATCH_ENTRIES

    def add(self, offsets: tables.Table, raw: tables.Table) -> None:
        """Tables as they are on disk: big-endian."""
        if self._words == 1:
            found = np.flatnonzero(raw != 0)
            self._entries.append(raw[found].byteswap())
        else:
            pairs = raw.reshape(-1, self._words)
            found = np.flatnonzero((pairs[:, 0] | pairs[:, 1]) != 0)
            self._entries.append(pairs[found, 0].byteswap())
            self._bitmaps.append(pairs[found, 1].byteswap())
        self.offsets.append(offsets)
        self._numbers.append(found + self._tables * self._per_table)
        self._tables += len(offsets)
        self._count += len(found)

    def take(self) -> Entries:
        numbers = np.concatenate(self._numbers)
        found = Entries(
            np.concatenate(self.offsets),
            numbers >> (self._per_table.bit_length() - 1),
            numbers & (self._per_table - 1),
            np.concatenate(self._entries),
            np.concatenate(self._bitmaps),
        )
        self._clear()
        return found
