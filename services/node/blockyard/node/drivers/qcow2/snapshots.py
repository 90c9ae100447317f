"""Taking, applying and deleting internal snapshots.

Each is one change by a shadow (module `shadow`): what is planned here is which tables the image has afterwards, and
how many references everything has. The disk is an L1 table and the L2 tables below it; a snapshot is another L1
table. A cluster has as many references as there are paths to it from all of them.

Rules
1. A flag COPIED is right below the active L1, everywhere else it means nothing (spec, L1 and L2 entries). An L2
   table below the active L1 whose flags change gets a new place; a table that a snapshot shows is never touched.
2. The VM state is what L1 has past the disk's end, from the next L1 entry on (qcow2_vm_state_offset). A snapshot
   with VM state takes that part along, and the disk goes on without it: nobody pays for copying it.
3. The caller keeps guest requests away, and is not cancelled between the switch and its return.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import (
    BlockError,
    ImageCorrupt,
    InvalidArgument,
    LimitReached,
    OperationUnsupported,
    ResourceExists,
    SizeTooLarge,
)
from blockyard.base.units import MAX_SIZE, MIB
from blockyard.node.drivers.qcow2.allocation import referenced
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters, Reason
from blockyard.node.drivers.qcow2.shadow import Roots, Shadow, write_snapshot_table
from blockyard.node.formats.qcow2 import snapshots as records
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.limits import (
    MAX_L1_BYTES,
    MAX_SNAPSHOT_TABLE_BYTES,
    MAX_SNAPSHOTS,
    SECTOR,
)
from blockyard.node.formats.qcow2.snapshots import Snapshot
from blockyard.node.interface.internal_snapshots import SnapshotWish

_COPIED: Final = np.uint64(tables.COPIED)
_OFFSET: Final = np.uint64(tables.OFFSET)
_BATCH: Final = MIB
"""Bytes of changed L2 tables that wait to be written together."""

Plan = Callable[[Shadow], Awaitable[Roots]]


async def create(image: Image, wish: SnapshotWish) -> Snapshot:
    """Take one. Raises ResourceExists, LimitReached, InvalidArgument; OperationUnsupported for full refcounts, or
    for data in another file, of which there is one version."""
    _check_new(image, wish)
    made: list[Snapshot] = []

    async def plan(shadow: Shadow) -> Roots:
        offset, count = 0, 0
        active, kept = await _divided(image, shadow, with_state=bool(wish.vm_state_bytes))
        if len(kept):
            offset, count = await shadow.write_table(kept), len(kept)
        made.append(_record(image, wish, offset, count))
        return await roots_of(image, shadow, image.header.size, active, [*image.snapshots, made[0]])

    await change(image, plan, Reason.OTHER)
    return made[0]


async def delete(image: Image, snapshot: Snapshot) -> None:
    """Forget one, and free what it alone held."""

    async def plan(shadow: Shadow) -> Roots:
        l1 = await l1_of(image, snapshot)
        async for _, offset, times, words in l2_tables(image, l1):
            shadow.change(repeated(offset >> image.geometry.cluster_bits, times), -1)
            shadow.change(_held(image, words), -times)
        if snapshot.l1_size:
            shadow.change_run(snapshot.l1_offset, snapshot.l1_size * 8, -1)
        active = await _with_right_flags(image, shadow)
        left = [item for item in image.snapshots if item is not snapshot]
        return await roots_of(image, shadow, image.header.size, active, left)

    await change(image, plan, Reason.SNAPSHOT)


async def revert(image: Image, snapshot: Snapshot) -> None:
    """Make the disk, its size and the VM state beside it what they were. Raises ImageCorrupt, SizeTooLarge."""
    size = disk_size_of(image, snapshot)

    async def plan(shadow: Shadow) -> Roots:
        bits = image.geometry.cluster_bits
        l1 = await l1_of(image, snapshot)
        active = np.zeros(max(len(l1), image.geometry.l1_entries(size)), np.uint64)
        active[: len(l1)] = l1 & _OFFSET
        writer = _Rewriter(image, shadow, active)
        async for key, offset, times, words in l2_tables(image, l1):
            shadow.change(_held(image, words), times)
            if (bare := _without_flags(image, words)) is not None:
                await writer.rewrite(key, offset, times, times, bare, is_copied=times == 1)
            else:
                shadow.change(repeated(offset >> bits, times), 1)
        await writer.end()
        async for _, offset, times, words in l2_tables(image, image.l1.entries):
            shadow.change(repeated(offset >> bits, times), -1)
            shadow.change(_held(image, words), -times)
        return await roots_of(image, shadow, size, active, image.snapshots)

    await change(image, plan, Reason.SNAPSHOT)


def disk_size_of(image: Image, snapshot: Snapshot) -> int:
    """Guest bytes of a snapshot: the disk's where a record does not say (it then could not be resized)."""
    size = image.header.size if snapshot.disk_size < 0 else snapshot.disk_size
    if size > MAX_SIZE or size % SECTOR:
        raise ImageCorrupt(image.name, f"disk size of snapshot {snapshot.identifier}", "whole sectors", str(size))
    if (needed := image.geometry.l1_entries(size) * 8) > MAX_L1_BYTES:
        raise SizeTooLarge("L1 table of the snapshot in bytes", needed, MAX_L1_BYTES)
    return size


async def l1_of(image: Image, snapshot: Snapshot) -> tables.Table:
    """A snapshot's L1 table. Raises ImageCorrupt."""
    length = snapshot.l1_size * 8
    if snapshot.l1_offset + length > image.file.size:
        place = f"an end at {snapshot.l1_offset + length}"
        what = f"L1 table of snapshot {snapshot.identifier}"
        raise ImageCorrupt(image.name, what, f"inside the file of {image.file.size} bytes", place)
    return tables.decode(await image.read(snapshot.l1_offset, length))


# --- the parts -------------------------------------------------------------------------------------------


def _check_new(image: Image, wish: SnapshotWish) -> None:
    wish.check()
    if image.has_data_file:
        raise OperationUnsupported(image.context.node_name, "qcow2", "take snapshots: its data is in another file")
    if len(image.snapshots) >= MAX_SNAPSHOTS:
        raise LimitReached("snapshots of an image", MAX_SNAPSHOTS)
    if any(item.name == wish.name for item in image.snapshots):
        raise ResourceExists("snapshot", wish.name)
    room = (len(image.l1) - image.geometry.l1_entries(image.header.size)) << image.geometry.table_bits
    if wish.vm_state_bytes > max(0, room):
        raise InvalidArgument(
            "vm_state_bytes", f"at most the {max(0, room)} that were saved", f"{wish.vm_state_bytes}"
        )


def _record(image: Image, wish: SnapshotWish, l1_offset: int, l1_size: int) -> Snapshot:
    seconds, rest = divmod(wish.time_ns, 10**9)
    size = image.header.size
    return Snapshot(
        l1_offset,
        l1_size,
        records.new_identifier(image.snapshots),
        wish.name,
        seconds,
        rest,
        wish.vm_clock_ns,
        wish.vm_state_bytes,
        size,
        wish.icount,
        records.packed_extra(wish.vm_state_bytes, size, wish.icount),
    )


async def change(image: Image, plan: Plan, reason: Reason) -> None:
    """Do it, or leave the image as it was."""
    await image.before_write()
    await image.writeback.settle()
    shadow = Shadow(image)
    try:
        roots = await plan(shadow)
        freed = await shadow.switch(roots)
    except BaseException:
        if not shadow.is_switched:
            await shadow.give_up()
        raise
    if image.writeback.passes(reason):
        bits = image.geometry.cluster_bits
        with suppress(BlockError):  # it only saves room
            for first, count in freed:
                await image.file.discard(first << bits, count << bits)
    shadow.reuse(freed)


async def roots_of(
    image: Image, shadow: Shadow, size: int, active: tables.Table, snapshots: list[Snapshot]
) -> Roots:
    """Write the active L1 table and the snapshot table where they differ, and let the old ones go."""
    header = image.header
    l1_offset = header.l1_table_offset
    if len(active) != len(image.l1) or bool((active != image.l1.entries).any()):
        l1_offset = await shadow.write_table(active) if len(active) else 0
        if len(image.l1):
            shadow.change_run(header.l1_table_offset, len(image.l1) * 8, -1)
    if snapshots is image.snapshots:
        table_offset, table_bytes = header.snapshots_offset, image.snapshot_table_bytes
    else:
        table_offset, table_bytes = await write_snapshot_table(shadow, snapshots)
        if table_bytes > MAX_SNAPSHOT_TABLE_BYTES:
            raise LimitReached("bytes of an image's snapshot table", MAX_SNAPSHOT_TABLE_BYTES)
        if image.snapshots:
            shadow.change_run(header.snapshots_offset, image.snapshot_table_bytes, -1)
    return Roots(size, active, l1_offset, snapshots, table_offset, table_bytes)


async def _divided(image: Image, shadow: Shadow, *, with_state: bool) -> tuple[tables.Table, tables.Table]:
    """The L1 tables of the disk and of a new snapshot, who share everything, but for the VM state (rule 2)."""
    bits = image.geometry.cluster_bits
    disk = image.geometry.l1_entries(image.header.size)
    active = image.l1.entries.copy()
    active[:disk] &= ~_COPIED
    writer = _Rewriter(image, shadow, active)
    async for key, offset, times, words in l2_tables(image, image.l1.entries[:disk]):
        shadow.change(_held(image, words), times)
        if (bare := _without_flags(image, words)) is not None:
            shadow.change(repeated(offset >> bits, times), -1)
            await writer.rewrite(key, offset, times, 2 * times, bare, is_copied=False)
        else:
            shadow.change(repeated(offset >> bits, times), 1)
    await writer.end()
    kept = active & ~_COPIED
    (active if with_state else kept)[disk:] = 0
    return active, kept


async def _with_right_flags(image: Image, shadow: Shadow) -> tables.Table:
    """The active L1 table, with flags above and below it as the references will be."""
    bits = image.geometry.cluster_bits
    active = image.l1.entries & _OFFSET
    writer = _Rewriter(image, shadow, active)
    async for key, offset, times, words in l2_tables(image, image.l1.entries):
        entries = words[:: image.geometry.entry_words]
        is_own = int((await shadow.counts(np.array([offset >> bits], np.int64)))[0]) == 1
        plain = ((entries & np.uint64(tables.COMPRESSED)) == 0) & ((entries & _OFFSET) != 0)
        right = entries & np.where(plain, ~_COPIED, ~np.uint64(0))
        if is_own:
            places = np.flatnonzero(plain)
            counts = await shadow.counts(((entries[places] & _OFFSET) >> np.uint64(bits)).astype(np.int64))
            right[places[counts == 1]] |= _COPIED
            active[key] |= _COPIED
        if is_own and bool((right != entries).any()):
            shadow.change(repeated(offset >> bits, times), -1)
            words[:: image.geometry.entry_words] = right
            await writer.rewrite(key, offset, times, times, words, is_copied=True)
    await writer.end()
    return active


class _Rewriter:
    """Gives L2 tables new places, some at a time, and enters those in an L1 table."""

    def __init__(self, image: Image, shadow: Shadow, l1: tables.Table) -> None:
        self._image = image
        self._shadow = shadow
        self._l1 = l1
        self._waiting: list[tuple[NDArray[np.int64], int, tables.Table, bool]] = []

    async def rewrite(
        self, key: int, offset: int, times: int, references: int, words: tables.Table, *, is_copied: bool
    ) -> None:
        """The table at `offset`, which L1 has at `key` (and elsewhere, if often), becomes this one."""
        keys = np.array([key]) if times == 1 else np.flatnonzero((self._l1 & _OFFSET) == np.uint64(offset))
        self._waiting.append((keys, references, words, is_copied))
        if len(self._waiting) * self._image.geometry.cluster_size >= _BATCH:
            await self.end()

    async def end(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        places = await self._shadow.write_l2([words for _, _, words, _ in waiting])
        for (keys, references, _, is_copied), place in zip(waiting, places, strict=True):
            self._l1[keys] = place | (tables.COPIED if is_copied else 0)
            self._shadow.change(repeated(place >> self._image.geometry.cluster_bits, 1), references - 1)


async def l2_tables(image: Image, l1: tables.Table) -> AsyncIterator[tuple[int, int, int, tables.Table]]:
    """(L1 index, offset, how often L1 has it, words) of each distinct L2 table, in guest order."""
    size, end = image.geometry.cluster_size, image.file.size
    offsets = l1 & _OFFSET
    distinct, firsts, times = np.unique(offsets, return_index=True, return_counts=True)
    for number in np.argsort(firsts).tolist():
        key, offset = int(firsts[number]), int(distinct[number])
        if not offset:
            continue
        if offset % size or offset >= end:
            what = f"L2 table of L1 entry {key}"
            raise ImageCorrupt(image.name, what, f"aligned and inside the file of {end} bytes", f"{offset:#x}")
        yield key, offset, int(times[number]), tables.decode(await image.read(offset, size))
        await asyncio.sleep(0)  # a large image must not hold up the loop


def _held(image: Image, words: tables.Table) -> Clusters:
    """Clusters that an L2 table refers to."""
    return referenced(words[:: image.geometry.entry_words], image.geometry.cluster_bits)


def _without_flags(image: Image, words: tables.Table) -> tables.Table | None:
    """An L2 table without COPIED flags; None if it has none."""
    step = image.geometry.entry_words
    if not bool((words[::step] & _COPIED).any()):
        return None
    words[::step] &= ~_COPIED
    return words


def repeated(cluster: int, times: int) -> Clusters:
    return np.full(times, cluster, np.int64)
