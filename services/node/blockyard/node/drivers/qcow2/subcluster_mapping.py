"""From guest ranges to host places where L2 entries are extended: the unit is the subcluster.

The first subcluster of a range decides of what kind the answer is; inside a cluster the run of its kind is found
with a few operations on the bitmap, and over whole clusters as in `mapping`, in one numpy pass when they are many.
"""

import numpy as np

from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l2 import L2Table
from blockyard.node.drivers.qcow2.mapping import Mapper
from blockyard.node.formats.qcow2 import subclusters
from blockyard.node.formats.qcow2.subclusters import ALL, HAS_PLACE, PER_CLUSTER, is_sound, ones_from
from blockyard.node.formats.qcow2.tables import COMPRESSED, COPIED, OFFSET
from blockyard.node.interface.mapping import MapKind, Mapping

_make = tuple.__new__
_SCALAR = 4
"""Up to so many whole clusters a loop is cheaper than numpy's call overhead."""


class SubclusterMapper(Mapper):
    """Answers for one image with extended L2 entries."""

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self._sub_bits = image.geometry.subcluster_bits
        # All bits that a sound plain entry has only as COPIED: then the rest is an aligned offset.
        self._flags = (1 << 64) - 1 - (OFFSET & ~(self._size - 1))

    def answer(self, table: L2Table, offset: int, length: int, writable: bool) -> Mapping:
        within = offset & (self._size - 1)
        end = within + length
        if end <= self._size:
            index = (offset >> self._bits) & (self._per_table - 1)
            bitmap = table.marks[index]
            wanted = (1 << ((end - 1) >> self._sub_bits) + 1) - (1 << (within >> self._sub_bits))
            if not bitmap >> PER_CLUSTER and self._data is not None:
                # The usual cases, 0.6 us each: all of it is data, or nothing of it is here.
                entry = table.view[index]
                if bitmap & wanted == wanted and entry & self._flags == COPIED:
                    return _make(Mapping, (MapKind.DATA, length, self._data, (entry ^ COPIED) + within, writable))
                if not bitmap and not entry & COMPRESSED:
                    return _make(Mapping, (MapKind.BACKING, length, None, 0, False))
        return self._any_answer(table, offset, length, writable)

    def _any_answer(self, table: L2Table, offset: int, length: int, writable: bool) -> Mapping:
        index = (offset >> self._bits) & (self._per_table - 1)
        within = offset & (self._size - 1)
        count = min(self._per_table - index, (within + length + self._size - 1) >> self._bits)
        entry, bitmap = table.view[index], table.marks[index]
        if entry & COMPRESSED:
            return self._encoded(table, index, count, offset, length)
        if not is_sound(entry, bitmap):
            raise self._wrong(offset, "subclusters that are allocated or zero", f"bitmap {bitmap:#018x}")
        first = within >> self._sub_bits
        kind = _kind_at(bitmap, first)
        run = ones_from(_mask_of(kind, bitmap), first)
        if first + run == PER_CLUSTER and count > 1:
            run += self._run_on(table, index, count, kind)
        length = min(length, ((first + run) << self._sub_bits) - within)
        if kind is not MapKind.DATA:
            return Mapping(kind, length)
        place = self._place_of(entry, offset)
        return Mapping(kind, length, self._child(), place + within, writable and bool(entry & COPIED))

    def _run_on(self, table: L2Table, index: int, count: int, kind: MapKind) -> int:
        """How many subclusters from the cluster after `index` on, of `count` clusters, go on alike."""
        entry, whole = table.view[index], 1
        if count > _SCALAR:
            whole = 1 + self._whole_clusters(table, index + 1, count - 1, entry, kind)
        while whole < count:
            here, bitmap = table.view[index + whole], table.marks[index + whole]
            follows = kind is not MapKind.DATA or here == entry + (whole << self._bits)
            goes_on = follows and not here & COMPRESSED and is_sound(here, bitmap)
            mask = _mask_of(kind, bitmap) if goes_on else 0
            if mask != ALL:
                return (whole - 1) * PER_CLUSTER + ones_from(mask, 0)
            whole += 1
        return (count - 1) * PER_CLUSTER

    def _whole_clusters(self, table: L2Table, index: int, count: int, before: int, kind: MapKind) -> int:
        """How many of these clusters are of one kind as a whole, and follow `before` if they are data."""
        entries, bitmaps = table.entries[index : index + count], table.bitmaps[index : index + count]
        if kind is MapKind.DATA:
            expected = self._steps[1 : count + 1] + np.uint64(before)
            alike = (entries == expected) & (bitmaps == np.uint64(ALL)) & np.bool_(before & HAS_PLACE != 0)
        else:
            alike = subclusters.full_of(bitmaps, entries, is_zero=kind is MapKind.ZERO)
        first = int(alike.argmin())
        return count if alike[first] else first


def _kind_at(bitmap: int, subcluster: int) -> MapKind:
    if bitmap >> subcluster & 1:
        return MapKind.DATA
    return MapKind.ZERO if bitmap >> (PER_CLUSTER + subcluster) & 1 else MapKind.BACKING


def _mask_of(kind: MapKind, bitmap: int) -> int:
    """Subclusters of a kind."""
    if kind is MapKind.DATA:
        return bitmap & ALL
    if kind is MapKind.ZERO:
        return bitmap >> PER_CLUSTER
    return ~(bitmap | bitmap >> PER_CLUSTER) & ALL
