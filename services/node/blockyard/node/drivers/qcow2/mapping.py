"""From guest ranges to host places: reading L2 tables that are in memory.

`answer` is the part of `lookup` behind its one-cluster fast path (see `driver`). Runs are found over plain
integers while they are short and in one numpy pass when they are long.
"""

from typing import Final

import numpy as np

from blockyard.base.errors import ImageCorrupt
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l2 import L2Table
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.tables import COMPRESSED, COPIED, OFFSET, ZERO
from blockyard.node.interface.child import Child
from blockyard.node.interface.mapping import MapKind, Mapping

_SCALAR: Final = 12
"""Up to so many clusters a loop over integers is cheaper than numpy's call overhead."""
MAX_ENCODED_RUN: Final = 64
"""Compressed clusters in one mapping, so that one `read_encoded` holds bounded memory."""


class Mapper:
    """Answers for one image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._data = image.data
        self._is_apart = image.has_data_file
        geometry = image.geometry
        self._bits = geometry.cluster_bits
        self._size = geometry.cluster_size
        self._per_table = geometry.entries_per_table
        self._table_bits = geometry.table_bits
        self._zero = ZERO if image.has_zero_flag else 0
        self._steps = np.arange(self._per_table, dtype=np.uint64) << np.uint64(self._bits)

    def without_table(self, offset: int, length: int) -> Mapping | None:
        """The answer where L1 has no table; None if it has one."""
        key = offset >> self._table_bits
        l1 = self._image.l1
        if l1.view[key] & OFFSET:
            return None
        keys = ((offset + length - 1) >> self._table_bits) - key + 1
        if keys == 1:
            return Mapping(MapKind.BACKING, length)
        empty = l1.empty_run(key, keys)
        end = (key + empty) << self._table_bits
        return Mapping(MapKind.BACKING, min(length, end - offset))

    def answer(self, table: L2Table, offset: int, length: int, writable: bool) -> Mapping:
        """The first run of a range that begins under `table`."""
        index = (offset >> self._bits) & (self._per_table - 1)
        within = offset & (self._size - 1)
        count = min(self._per_table - index, (within + length + self._size - 1) >> self._bits)
        entry = table.view[index]
        if entry & COMPRESSED:
            return self._encoded(table, index, count, offset, length)
        if entry & self._zero:
            run = self._flag_run(table, index, count, COMPRESSED | ZERO, ZERO)
            return Mapping(MapKind.ZERO, min(length, (run << self._bits) - within))
        if not entry & (OFFSET | COPIED):
            run = self._flag_run(table, index, count, COMPRESSED | self._zero | OFFSET | COPIED, 0)
            return Mapping(MapKind.BACKING, min(length, (run << self._bits) - within))
        place = self._place_of(entry, offset)
        run = self._contiguous(table, index, count)
        length = min(length, (run << self._bits) - within)
        return Mapping(MapKind.DATA, length, self._child(), place + within, writable and bool(entry & COPIED))

    def _encoded(self, table: L2Table, index: int, count: int, offset: int, length: int) -> Mapping:
        if self._is_apart:
            raise self._wrong(offset, "a plain cluster, in the data file", "a compressed one")
        run = self._flag_run(table, index, min(count, MAX_ENCODED_RUN), COMPRESSED, COMPRESSED)
        return Mapping(MapKind.ENCODED, min(length, (run << self._bits) - (offset & (self._size - 1))))

    def _place_of(self, entry: int, offset: int) -> int:
        """Where a plain cluster is. Raises ImageCorrupt if it cannot be there."""
        place = entry & OFFSET
        if place & (self._size - 1):
            raise self._wrong(offset, f"a host offset aligned to {self._size}", f"{place:#x}")
        if self._is_apart and not entry & COPIED:
            raise self._wrong(offset, "the same offset in the data file", f"{place:#x}")
        return place

    def _child(self) -> Child:
        """Who holds the guest's data. Raises DataFileMissing if the image was opened without it."""
        if self._data is None:
            raise self._image.without_data()
        return self._data

    def _wrong(self, offset: int, expected: str, found: str) -> ImageCorrupt:
        start = offset & ~(self._size - 1)
        return self._image.wrong(f"L2 entry of guest offset {start:#x}", expected, found)

    def _flag_run(self, table: L2Table, index: int, count: int, mask: int, value: int) -> int:
        """How many entries from `index` on have `entry & mask == value`; the first is known to."""
        if count <= _SCALAR:
            view = table.view
            for number in range(1, count):
                if view[index + number] & mask != value:
                    return number
            return count
        differs = (table.entries[index : index + count] & np.uint64(mask)) != np.uint64(value)
        hit = int(differs.argmax())
        return hit if differs[hit] else count

    def _contiguous(self, table: L2Table, index: int, count: int) -> int:
        """How many entries from `index` on lie one after another in the file with equal flags."""
        entry, view = table.view[index], table.view
        for number in range(1, min(count, _SCALAR)):
            if view[index + number] != entry + (number << self._bits):
                return number
        if count <= _SCALAR:
            return count
        differs = table.entries[index : index + count] != self._steps[:count] + np.uint64(entry)
        hit = int(differs.argmax())
        return hit if differs[hit] else count

    def places(self, count: int, first: int, flags: int) -> tables.Table:
        """Entries for `count` clusters from host cluster `first` on."""
        entries: tables.Table = self._steps[:count] + np.uint64(first << self._bits | flags)
        return entries
