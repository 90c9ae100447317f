"""The states of one image side by side: the disk, and each of its snapshots.

Theory. What two states refer to in the same place of the file is the same: nobody overwrites a cluster that a
snapshot refers to. So states are compared by their tables alone: an L2 table that both have is not even read, and
of two tables the entries are compared at once. Entries that differ may still hold equal bytes; that is more than
what differs, and never less.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.formats.qcow2 import subclusters, tables
from blockyard.node.interface.internal_snapshots import SnapshotView, Stretch
from blockyard.node.interface.mapping import MapKind, Mapping

CACHED_TABLES: Final = 4
"""L2 tables of a view in memory: it is looked at from its beginning to its end."""
_KEYS: Final = 1 << 16
"""L1 entries compared at once."""
_SAME: Final = 0


class View:
    """A state of an image (`interface.internal_snapshots.SnapshotView`)."""

    def __init__(self, image: Image) -> None:
        self._image = image

    @classmethod
    def beside(cls, image: Image) -> "View":
        """Of an image that was opened for this view alone."""
        image.l2.tables.limit = CACHED_TABLES
        return cls(image)

    @property
    def size(self) -> int:
        return self._image.header.size

    async def map(self, offset: int, length: int) -> Mapping:
        image = self._image
        answer = image.mapper.without_table(offset, length)
        if answer is None:
            table = await image.l2.get(offset >> image.geometry.table_bits)
            answer = image.mapper.answer(table, offset, length, False)
        return answer

    async def against(self, base: SnapshotView, offset: int, length: int) -> list[Stretch]:
        assert isinstance(base, View)
        bits = self._image.geometry.table_bits
        key = offset >> bits
        count = min(((offset + length - 1) >> bits) - key + 1, _KEYS)
        equal = self._tables(key, count) == base._tables(key, count)
        if equal[0]:
            run = count if equal.all() else int((~equal).argmax())
            return [Stretch(min(length, ((key + run) << bits) - offset), True, MapKind.BACKING, MapKind.BACKING)]
        length = min(length, ((key + 1) << bits) - offset)
        return self._compared(await self._entries(key), await base._entries(key), offset, length)

    def _tables(self, key: int, count: int) -> NDArray[np.uint64]:
        return self._image.l1.entries[key : key + count] & np.uint64(tables.OFFSET)

    async def _entries(self, key: int) -> tables.Table:
        """An entry for each unit that is allocated by itself: a cluster, or a subcluster."""
        geometry = self._image.geometry
        if not self._image.l1.view[key] & tables.OFFSET:
            return np.zeros(1 << geometry.table_bits - geometry.subcluster_bits, np.uint64)
        table = await self._image.l2.get(key)
        if not geometry.extended:
            return table.entries
        return subclusters.unfolded(table.entries, table.bitmaps, geometry.subcluster_bits)

    def _compared(self, mine: tables.Table, theirs: tables.Table, offset: int, length: int) -> list[Stretch]:
        geometry = self._image.geometry
        bits, per = geometry.subcluster_bits, len(mine)
        first = (offset >> bits) & (per - 1)
        last = ((offset + length - 1) >> bits) & (per - 1)
        mine, theirs = mine[first : last + 1], theirs[first : last + 1]
        differs = (mine ^ theirs) & ~np.uint64(tables.COPIED) != 0
        # One number for each pair of kinds, so that runs are where it changes.
        states = np.where(differs, 1 + self._kinds(mine) * len(MapKind) + self._kinds(theirs), _SAME)
        starts = np.concatenate(([0], np.flatnonzero(np.diff(states)) + 1))
        ends = np.append(starts[1:], len(states))
        base = offset - (first << bits)
        found: list[Stretch] = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            low = max(offset, base + ((first + start) << bits))
            high = min(offset + length, base + ((first + end) << bits))
            of_target, of_base = divmod(max(int(states[start]) - 1, 0), len(MapKind))
            is_same = int(states[start]) == _SAME
            found.append(Stretch(high - low, is_same, MapKind(of_base), MapKind(of_target)))
        return found

    def _kinds(self, entries: tables.Table) -> NDArray[np.int64]:
        """`MapKind` of each."""
        zero = np.uint64(tables.ZERO if self._image.has_zero_flag else 0)
        tests = [(entries & np.uint64(tables.COMPRESSED)) != 0, (entries & zero) != 0]
        tests.append((entries & np.uint64(tables.OFFSET)) != 0)
        kinds = [int(MapKind.ENCODED), int(MapKind.ZERO), int(MapKind.DATA)]
        result: NDArray[np.int64] = np.select(tests, kinds, int(MapKind.BACKING)).astype(np.int64)
        return result
