"""Room for writes where L2 entries are extended: a host cluster at a time, subclusters of it as they are written.

Only the subclusters that a write touches are filled and entered; the rest of a new cluster stays with the backing
file or zero. A cluster that moves (compressed, or shared with a snapshot) takes along what it holds: the room then
spans from the first to the last of that. Two requests never meet in a cluster (`Limits.allocation_unit`), so the
bits around a reservation stay as they are until it is committed.
"""

import numpy as np

from blockyard.node.drivers.qcow2.allocation import Reservation, Space, run_of
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l2 import L2Table
from blockyard.node.drivers.qcow2.mapping import Mapper
from blockyard.node.drivers.qcow2.ordering import Kind, Reason
from blockyard.node.formats.qcow2.subclusters import ALL, HAS_PLACE, PER_CLUSTER, mask_of, masks_of, with_written
from blockyard.node.formats.qcow2.tables import COMPRESSED, COPIED, OFFSET
from blockyard.node.interface.mapping import Allocation


class SubclusterSpace(Space):
    """Allocate, commit, abandon for one image with extended L2 entries."""

    def __init__(self, image: Image, mapper: Mapper) -> None:
        super().__init__(image, mapper)
        self._sub_bits = image.geometry.subcluster_bits

    async def allocate(self, offset: int, length: int) -> Allocation:
        image = self._image
        await image.before_write()
        key = offset >> self._table_bits
        table = await image.l2.for_write(key)
        try:
            index = (offset >> self._bits) & (self._per_table - 1)
            cluster = offset >> self._bits
            wanted = min(self._per_table - index, ((offset + length - 1) >> self._bits) - cluster + 1)
            count, in_place = run_of(table, index, wanted, self._bits)
            start = cluster << self._bits
            end = min(offset + length, start + (count << self._bits))
            if in_place:
                low, high = self._touched_in_place(table, index, offset - start, end - start)
                first, virgin = (table.view[index] & OFFSET) >> self._bits, False
            else:
                if table.suspicious:
                    await self.refuse_metadata(table, index, count)
                first, count, virgin = await self.take(count, cluster)
                end = min(end, start + (count << self._bits))
                low, high = self._moved(table, index, count, offset - start, end - start)
        except BaseException:
            table.pins -= 1
            raise
        token = Reservation(key, index, count, first, table, not in_place, virgin, low, high)
        return self._place(token, start, offset, end)

    def _place(self, token: Reservation, start: int, offset: int, end: int) -> Allocation:
        low, high = token.low << self._sub_bits, token.high << self._sub_bits
        keep = offset != start + low or end < start + high
        if keep and token.virgin:
            keep = not self._zero_around(token, start)
        place = (token.first << self._bits) + low
        return self._room(start + low, high - low, place, token, keep)

    def _touched_in_place(self, table: L2Table, index: int, first: int, end: int) -> tuple[int, int]:
        """Subclusters that hold `[first, end)`, but for a last one that is cut and can be written in place."""
        low, high = first >> self._sub_bits, -(-end >> self._sub_bits)
        last_cluster, last = divmod(high - 1, PER_CLUSTER)
        is_cut = end & ((1 << self._sub_bits) - 1)
        if is_cut and high - low > 1 and table.marks[index + last_cluster] >> last & 1:
            high -= 1
        return low, high

    def _moved(self, table: L2Table, index: int, count: int, first: int, end: int) -> tuple[int, int]:
        """Subclusters that must be in the new place: those that hold `[first, end)`, and what moves along."""
        low, high = first >> self._sub_bits, -(-end >> self._sub_bits)
        before = self._held(table, index)
        if before:
            low = min(low, (before & -before).bit_length() - 1)
        after = self._held(table, index + count - 1)
        if after:
            high = max(high, (count - 1) * PER_CLUSTER + after.bit_length())
        return low, high

    @staticmethod
    def _held(table: L2Table, index: int) -> int:
        """Mask of the subclusters whose bytes are in the present place."""
        return ALL if table.view[index] & COMPRESSED else table.marks[index] & ALL

    def _zero_around(self, token: Reservation, start: int) -> bool:
        """Whether what the room will hold, before the write, is nothing but zeroes, for sure and cheaply."""
        backing = self._image.context.children.get("backing")
        may_show = backing is not None and start < backing.size
        for number in range(token.length):
            if self._held(token.table, token.entry + number):
                return False
            if may_show:
                low = max(token.low - number * PER_CLUSTER, 0)
                mask = mask_of(low, min(token.high - number * PER_CLUSTER, PER_CLUSTER))
                if mask & ~(token.table.marks[token.entry + number] >> PER_CLUSTER):
                    return False
        return True

    def publish(self, token: Reservation) -> None:
        key, index, count, first, table, is_new, _, low, high = token
        high = high or count * PER_CLUSTER
        before = table.entries[index : index + count].copy()
        if count == 1:
            mask = mask_of(low, high)
            bits = 0 if table.view[index] & COMPRESSED else table.marks[index]
            table.view[index] = first << self._bits | COPIED
            table.marks[index] = (bits | mask) & ~(mask << PER_CLUSTER)
        else:
            bitmaps = table.bitmaps[index : index + count]
            bitmaps[(before & np.uint64(COMPRESSED)) != 0] = 0
            table.bitmaps[index : index + count] = with_written(bitmaps, masks_of(low, high, count))
            table.entries[index : index + count] = self._mapper.places(count, first, COPIED)
        if is_new and bool((before & np.uint64(HAS_PLACE | COMPRESSED)).any()):
            self.drop_entries(before, Reason.OTHER)
        self._image.ledger.mark(Kind.TABLE, key, index, index + count)
        table.pins -= 1

    def enter(self, table: L2Table, index: int, entry: int) -> None:
        table.view[index] = entry
        table.marks[index] = 0
