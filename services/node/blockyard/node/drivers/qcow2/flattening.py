"""What an image must not have, or must have, before its version changes: zero flags, short snapshot records.

Version 2 has no flag for "reads as zeroes". Without a backing file an entry of 0 says the same. Over one it must
point to zeroes: to one cluster of them, shared by as many entries as its refcount allows (QEMU's
qcow2_expand_zero_clusters allocates one for each). A shared cluster is copied when it is written, as after a
snapshot. All of it is one change by a shadow, so a crash shows flags everywhere or nowhere.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import ImageCorrupt
from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Reason
from blockyard.node.drivers.qcow2.shadow import Roots, Shadow
from blockyard.node.drivers.qcow2.snapshots import change, l1_of, l2_tables, repeated, roots_of
from blockyard.node.formats.qcow2 import snapshots as records
from blockyard.node.formats.qcow2 import tables
from blockyard.node.interface.operations import Progress

SHARED: Final = 1 << 15
"""Entries that share a cluster of zeroes: half of what 16 bits count, so that snapshots find room to add."""
_ZERO: Final = np.uint64(tables.ZERO)
_PLACE: Final = np.uint64(tables.OFFSET)
_COMPRESSED: Final = np.uint64(tables.COMPRESSED)


async def complete_snapshot_records(image: Image) -> None:
    """Version 3 requires what version 2 may leave out: 64 bits of VM state size, and the disk's size."""
    complete = [_completed(image, item) for item in image.snapshots]
    if all(new is old for new, old in zip(complete, image.snapshots, strict=True)):
        return

    async def plan(shadow: Shadow) -> Roots:
        return await roots_of(image, shadow, image.header.size, image.l1.entries, complete)

    await change(image, plan, Reason.OTHER)


def _completed(image: Image, item: records.Snapshot) -> records.Snapshot:
    if len(item.extra) >= records.V3_EXTRA:
        return item
    size = image.header.size if item.disk_size < 0 else item.disk_size
    extra = records.packed_extra(item.vm_state_bytes, size, item.icount)
    return replace(item, disk_size=size, extra=extra)


async def remove_zero_flags(image: Image, progress: Progress) -> None:
    """Say the same without the flag, below the active L1 table and those of all snapshots."""
    await image.writeback.settle()
    found = await _tables_with_flags(image)
    if not found:
        return

    async def plan(shadow: Shadow) -> Roots:
        return await _Flattening(image, shadow, found, progress).run()

    await change(image, plan, Reason.OTHER)


async def _tables_with_flags(image: Image) -> dict[int, tuple[int, int]]:
    """Of each L2 table that has flags, by offset: how often L1 tables refer to it, and how many flags it has."""
    found: dict[int, tuple[int, int]] = {}
    for l1 in [image.l1.entries, *[await l1_of(image, item) for item in image.snapshots]]:
        async for _, offset, times, entries in l2_tables(image, l1):
            flags = int(_flagged(entries).sum())
            if flags:
                known = found.get(offset, (0, 0))[0]
                found[offset] = (known + times, flags)
    return found


def _flagged(entries: tables.Table) -> NDArray[np.bool_]:
    flagged: NDArray[np.bool_] = ((entries & _COMPRESSED) == 0) & ((entries & _ZERO) != 0)
    return flagged


class _Flattening:
    """One change of all tables that have flags."""

    def __init__(self, image: Image, shadow: Shadow, found: dict[int, tuple[int, int]], progress: Progress) -> None:
        self._image = image
        self._shadow = shadow
        self._found = found
        self._progress = progress
        self._bits = image.geometry.cluster_bits
        self._left = sum(times * flags for times, flags in found.values())
        """References to zeroes that are still to be given."""
        self._zeroes = 0
        """The cluster of zeroes that is being shared; 0: none yet."""
        self._room = 0

    async def run(self) -> Roots:
        image = self._image
        moved: dict[int, int] = {}
        waiting: list[tuple[int, tables.Table]] = []
        for number, offset in enumerate(self._found):
            self._progress("zero flags", number, len(self._found))
            if offset % image.geometry.cluster_size or offset >= image.file.size:
                raise ImageCorrupt(image.name, "L2 table", "aligned and inside the file", f"{offset:#x}")
            entries = tables.decode(await image.read(offset, image.geometry.cluster_size))
            waiting.append((offset, await self._flattened(offset, entries)))
            if len(waiting) * image.geometry.cluster_size >= MIB:
                moved |= await self._write(waiting)
                waiting = []
        moved |= await self._write(waiting)
        self._progress("zero flags", len(self._found), len(self._found))
        kept = [await self._snapshot(item, moved) for item in image.snapshots]
        same = all(new is old for new, old in zip(kept, image.snapshots, strict=True))
        active = _relocated(image.l1.entries, moved)
        return await roots_of(image, self._shadow, image.header.size, active, image.snapshots if same else kept)

    async def _flattened(self, offset: int, entries: tables.Table) -> tables.Table:
        """An L2 table without flags; its references follow."""
        times = self._found[offset][0]
        flagged = np.flatnonzero(_flagged(entries))
        places = ((entries[flagged] & _PLACE) >> np.uint64(self._bits)).astype(np.int64)
        self._shadow.change(places[places != 0], -times)
        result = entries.copy()
        result[flagged] = 0
        if self._image.has_backing:
            position = 0
            while position < len(flagged):
                await self._make_room(times)
                count = min(len(flagged) - position, max(1, self._room // times))
                place = np.uint64(self._zeroes << self._bits)
                # A cluster with a single reference is the guest's to write (rule 1 of `snapshots`).
                alone = self._room == SHARED and self._left == 1 and self._is_active(offset)
                result[flagged[position : position + count]] = place | np.uint64(tables.COPIED if alone else 0)
                # One reference was counted when it was taken.
                given = count * times - (1 if self._room == SHARED else 0)
                self._shadow.change(repeated(self._zeroes, given), 1)
                self._room -= count * times
                self._left -= count * times
                position += count
        return result

    async def _make_room(self, times: int) -> None:
        """A cluster of zeroes that can take another entry; the very last reference fits into any."""
        if self._room >= times or (self._zeroes and self._left == 1):
            return
        self._zeroes = (await self._shadow.take(1))[0]
        self._room = SHARED
        size = self._image.geometry.cluster_size
        await self._image.write_data(self._zeroes << self._bits, bytes(size))

    def _is_active(self, offset: int) -> bool:
        return bool(((self._image.l1.entries & _PLACE) == np.uint64(offset)).any())

    async def _write(self, waiting: list[tuple[int, tables.Table]]) -> dict[int, int]:
        """Give tables new places; from the old ones to those."""
        if not waiting:
            return {}
        places = await self._shadow.write_l2([entries for _, entries in waiting])
        moved = dict(zip((offset for offset, _ in waiting), places, strict=True))
        for old, new in moved.items():
            times = self._found[old][0]
            self._shadow.change(repeated(old >> self._bits, times), -1)
            self._shadow.change(repeated(new >> self._bits, times - 1), 1)
        return moved

    async def _snapshot(self, item: records.Snapshot, moved: dict[int, int]) -> records.Snapshot:
        """A snapshot's record, with its L1 table anew if that changes."""
        l1 = await l1_of(self._image, item)
        changed = _relocated(l1, moved)
        if not bool((changed != l1).any()):
            return item
        self._shadow.change_run(item.l1_offset, item.l1_size * 8, -1)
        return replace(item, l1_offset=await self._shadow.write_table(changed))


def _relocated(l1: tables.Table, moved: dict[int, int]) -> tables.Table:
    """An L1 table whose L2 tables have moved."""
    result = l1.copy()
    offsets = l1 & _PLACE
    for key in np.flatnonzero(np.isin(offsets, np.array(list(moved), np.uint64))).tolist():
        result[key] = (int(l1[key]) & ~tables.OFFSET) | moved[int(offsets[key])]
    return result
