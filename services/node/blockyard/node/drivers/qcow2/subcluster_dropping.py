"""Zeroes and discards where L2 entries are extended: bits of subclusters instead of a flag of the cluster.

Zeroes reach single subclusters; a discard drops whole clusters, as QEMU's does. A cluster of which zeroing with
leave to unmap keeps nothing is given back.
"""

import numpy as np

from blockyard.node.drivers.qcow2.allocation import Space
from blockyard.node.drivers.qcow2.dropping import Change, Dropper
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l2 import L2Table
from blockyard.node.drivers.qcow2.ordering import Kind, Reason
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.subclusters import HAS_PLACE, allocated, masks_of, with_zeroed
from blockyard.node.formats.qcow2.tables import COMPRESSED

_USED = np.uint64(HAS_PLACE | COMPRESSED)


class SubclusterDropper(Dropper):
    """The changes that forget data, for one image with extended L2 entries."""

    def __init__(self, image: Image, space: Space) -> None:
        super().__init__(image, space)
        self._bits = image.geometry.cluster_bits
        self._sub_bits = image.geometry.subcluster_bits

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        await self._image.before_write()
        end = offset + length
        for edge in (offset, end):
            if edge == end == self._image.header.size:
                continue
            if edge & (self._image.geometry.cluster_size - 1):
                await self._unpack(edge >> self._bits << self._bits, offset, end)
        return await super().zero(offset, length, flags)

    async def _unpack(self, start: int, offset: int, end: int) -> None:
        """Of a compressed cluster a part is zeroed: store it plainly, zeroes included."""
        image = self._image
        key = start >> image.geometry.table_bits
        if image.mapper.without_table(start, 1) is not None:
            return
        entry = (await image.l2.get(key)).view[(start >> self._bits) % image.geometry.entries_per_table]
        if not entry & COMPRESSED:
            return
        content = bytearray(image.geometry.cluster_size)
        await image.compressed.read(start, memoryview(content))
        low, high = max(0, offset - start), min(len(content), end - start)
        content[low:high] = bytes(high - low)
        await self._space.store(start, memoryview(content))

    async def _apply(self, offset: int, length: int, change: Change, reason: Reason, create: bool) -> None:
        image = self._image
        end = offset + length
        async for key, low, high in self._parts(offset, end, create):
            table = await image.l2.for_write(key)
            try:
                if table.suspicious:
                    await self._space.refuse_metadata(table, low, high - low)
                base = (key << image.geometry.table_bits) + (low << self._bits)
                first = max(0, offset - base) >> self._sub_bits
                last = -(-min(end - base, (high - low) << self._bits) >> self._sub_bits)
                masks = masks_of(first, last, high - low)
                await self._change_part(table, key, low, high, masks, change, reason)
            finally:
                table.pins -= 1

    async def _change_part(
        self, table: L2Table, key: int, low: int, high: int, masks: tables.Table, change: Change, reason: Reason
    ) -> None:
        before, bits_before = table.entries[low:high].copy(), table.bitmaps[low:high].copy()
        after, bits_after = self._changed(before, bits_before, masks, change)
        differs = np.flatnonzero((before != after) | (bits_before != bits_after))
        if not len(differs):
            return
        table.entries[low:high], table.bitmaps[low:high] = after, bits_after
        self._image.ledger.mark(Kind.TABLE, key, low + int(differs[0]), low + int(differs[-1]) + 1)
        gone = differs[(after[differs] & _USED) != (before[differs] & _USED)]
        await self._drop(key, low + gone, before[gone], reason)

    def _changed(
        self, entries: tables.Table, bitmaps: tables.Table, masks: tables.Table, change: Change
    ) -> tuple[tables.Table, tables.Table]:
        """Entries and bitmaps after one of the changes that `Dropper` knows."""
        nothing = np.uint64(0)
        if change not in (self._flagged, self._released):
            return np.zeros_like(entries), np.zeros_like(bitmaps)
        packed = (entries & np.uint64(COMPRESSED)) != 0
        zeroed = with_zeroed(np.where(packed, nothing, bitmaps), masks)
        kept = np.where(packed, nothing, entries)
        if change == self._released:
            kept = np.where(allocated(zeroed) == 0, nothing, kept)
        if not self._image.has_backing:
            # What is not there reads as zeroes anyway.
            empty = ((entries & _USED) == 0) & (bitmaps == 0)
            zeroed = np.where(empty, nothing, zeroed)
        return kept, zeroed
