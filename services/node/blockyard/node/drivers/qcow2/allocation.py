"""Room for writes: reserve, make visible, or give back.

A reservation is invisible until `commit`; the L2 table it belongs to is pinned meanwhile. Entries change in
memory only, and what they replace is dropped through the ledger (invariant 5 of `ordering`).
"""

from typing import Final, NamedTuple

import numpy as np

from blockyard.node.drivers.qcow2.allocator import Run
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l2 import L2Table
from blockyard.node.drivers.qcow2.mapping import Mapper
from blockyard.node.drivers.qcow2.ordering import Clusters, Kind, Reason
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.tables import COMPRESSED, COPIED, OFFSET, ZERO
from blockyard.node.interface.child import Child
from blockyard.node.interface.mapping import Allocation

_SCALAR: Final = 16
"""Up to so many entries a loop over integers is cheaper than numpy's call overhead."""


class Reservation(NamedTuple):
    """The token of an Allocation."""

    key: int
    entry: int
    """First L2 entry."""
    length: int
    """Clusters."""
    first: int
    """Host cluster."""
    table: L2Table
    is_new: bool
    """False if the place was the guest's already."""
    virgin: bool = False
    """The place reads as zeroes."""
    low: int = 0
    high: int = 0
    """Subclusters that are written, from the first cluster's first on; `high` 0 for whole clusters."""


class Space:
    """Allocate, commit, abandon for one image."""

    def __init__(self, image: Image, mapper: Mapper) -> None:
        self._image = image
        self._mapper = mapper
        self._bits = image.geometry.cluster_bits
        self._per_table = image.geometry.entries_per_table
        self._table_bits = image.geometry.table_bits
        self._is_raw = image.is_raw_apart

    async def allocate(self, offset: int, length: int) -> Allocation:
        image = self._image
        await image.before_write()
        key = offset >> self._table_bits
        table = await image.l2.for_write(key)
        try:
            index = (offset >> self._bits) & (self._per_table - 1)
            first_cluster = offset >> self._bits
            wanted = min(self._per_table - index, ((offset + length - 1) >> self._bits) - first_cluster + 1)
            count, in_place = run_of(table, index, wanted, self._bits)
            start = first_cluster << self._bits
            if in_place:
                return self._existing(table, key, index, count, start)
            if table.suspicious:
                await self.refuse_metadata(table, index, count)
            first, count, virgin = await self.take(count, first_cluster)
        except BaseException:
            table.pins -= 1
            raise
        end = start + (count << self._bits)
        is_covered = offset == start and offset + length >= end
        keep = not is_covered and not (virgin and self._reads_as_zero(table, index, count, start))
        token = Reservation(key, index, count, first, table, True, virgin)
        return self._room(start, count << self._bits, first << self._bits, token, keep)

    async def take(self, count: int, guest_cluster: int) -> Run:
        """Host clusters for `count` guest clusters, or fewer: free ones, or the same in an external data file."""
        if self._image.has_data_file:
            return Run(guest_cluster, count, False)
        run = await self._image.allocator.take(count)
        # A place that reads as zeroes is deciphered to noise.
        return run if self._image.encryption is None else run._replace(virgin=False)

    def child(self) -> Child:
        """Where guest data goes."""
        if self._image.data is None:
            raise self._image.without_data()
        return self._image.data

    async def store(self, offset: int, data: memoryview) -> None:
        """Write whole clusters of the guest's, whatever is there (the last may be cut), into new room."""
        child = self.child()
        while data:
            room = await self.allocate(offset, len(data))
            token = room.token
            assert isinstance(token, Reservation)
            assert room.start == offset
            part = data[: room.length]
            try:
                await child.write(room.offset, bytes(part).ljust(room.length, b"\0"))
            except BaseException:
                await self.abandon(token)
                raise
            await self.commit(token)
            offset, data = offset + len(part), data[len(part) :]

    def _existing(self, table: L2Table, key: int, index: int, count: int, start: int) -> Allocation:
        """A place that is ours and may be written: preallocated zeroes, or plain data after all."""
        place = table.view[index] & OFFSET
        token = Reservation(key, index, count, place >> self._bits, table, False)
        # Nothing around the data may be lost: behind a zero flag there are old bytes, else there is guest data.
        return self._room(start, count << self._bits, place, token, True)

    def _room(self, start: int, length: int, place: int, token: Reservation, keep: bool) -> Allocation:
        if self._is_raw:  # by itself the data file is as long as the disk, whatever a cluster is
            length = min(length, self._image.header.size - start)
        return Allocation(start, length, self.child(), place, token, keep)

    def _reads_as_zero(self, table: L2Table, index: int, count: int, start: int) -> bool:
        """Whether a range about to be replaced holds nothing but zeroes, for sure and cheaply."""
        backing = self._image.context.children.get("backing")
        may_show = backing is not None and start < backing.size
        zero = ZERO if self._image.has_zero_flag else 0
        for entry in table.view[index : index + count]:
            if entry & COMPRESSED or (not entry & zero and (entry & (OFFSET | COPIED) or may_show)):
                return False
        return True

    async def refuse_metadata(self, table: L2Table, index: int, count: int) -> None:
        """Replacing an entry that points to metadata would drop a reference to that."""
        bits = self._bits
        for number in range(index, index + count):
            entry = table.view[number]
            place = 0 if entry & COMPRESSED else entry & OFFSET
            if place and (hit := self._image.guard.first_hit(place >> bits, 1)) >= 0:
                what = self._image.guard.name_of(hit)
                raise await self._image.corrupt(
                    f"L2 entry {number}",
                    "guest data",
                    f"metadata at {place:#x} ({what})",
                    offset=place,
                    size=1 << bits,
                )

    async def commit(self, token: Reservation) -> None:
        self.publish(token)
        if self._image.writeback.is_due:
            await self._image.writeback.write_back()

    def publish(self, token: Reservation) -> None:
        """Readers see the new place from now on. Atomic."""
        key, index, count, first, table, is_new = token[:6]
        entry = first << self._bits | COPIED
        if is_new or table.view[index] != entry:
            if count == 1:
                old = table.view[index]
                table.view[index] = entry
                if is_new and old & (COMPRESSED | OFFSET):
                    self.drop_entries(np.array([old], np.uint64), Reason.OTHER)
            else:
                before = table.entries[index : index + count].copy()
                table.entries[index : index + count] = self._mapper.places(count, first, COPIED)
                if is_new and before.any():
                    self.drop_entries(before, Reason.OTHER)
            self._image.ledger.mark(Kind.TABLE, key, index, index + count)
        table.pins -= 1

    def enter(self, table: L2Table, index: int, entry: int) -> None:
        """Put a compressed cluster's entry into a table."""
        table.view[index] = entry

    async def abandon(self, token: Reservation) -> None:
        token.table.pins -= 1
        if token.is_new and not self._image.has_data_file:
            await self._image.allocator.give_back(token.first, token.length)

    def drop_entries(self, entries: tables.Table, reason: Reason) -> None:
        """Nothing refers to what these entries pointed to any more."""
        if self._image.has_data_file:
            return  # they are always the guest's
        clusters = referenced(entries, self._bits)
        if len(clusters):
            if self._image.compressed.tail_cluster >= 0:
                self._image.compressed.forget(clusters)
            self._image.ledger.drop(reason, clusters)


def run_of(table: L2Table, index: int, wanted: int, cluster_bits: int) -> tuple[int, bool]:
    """How many entries from `index` on can be served alike, and whether in place (contiguous, ours)."""
    view = table.view
    entry = view[index]
    if _is_ours(entry):
        count = 1
        while count < wanted and view[index + count] == entry + (count << cluster_bits):
            count += 1
        return count, True
    if wanted <= _SCALAR:
        for number in range(1, wanted):
            if _is_ours(view[index + number]):
                return number, False
        return wanted, False
    entries = table.entries[index : index + wanted]
    ours = (entries & np.uint64(COPIED | COMPRESSED)) == np.uint64(COPIED)
    hit = int(ours.argmax())
    return (hit if ours[hit] else wanted), False


def _is_ours(entry: int) -> bool:
    return entry & (COPIED | COMPRESSED) == COPIED


def referenced(entries: tables.Table, cluster_bits: int) -> Clusters:
    """Host clusters that L2 entries refer to, as often as they do."""
    is_compressed = (entries & np.uint64(COMPRESSED)) != 0
    places = (entries & np.uint64(OFFSET)) >> np.uint64(cluster_bits)
    plain: Clusters = places[~is_compressed & (places != 0)].astype(np.int64)
    if not is_compressed.any():
        return plain
    first, last = tables.compressed_clusters(entries[is_compressed], cluster_bits)
    spans = last - first + 1
    offsets = np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
    return np.concatenate((plain, np.repeat(first, spans) + offsets))
