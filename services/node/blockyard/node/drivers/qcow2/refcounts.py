"""Refcounts of host clusters in memory: the table whole, blocks through a bounded cache.

A block in memory is always safe to write (invariant 5 of `ordering`): increases are early, decreases late.
Changes between two awaits are atomic for everyone else in the loop.
"""

from collections.abc import Iterator

import numpy as np

from blockyard.node.drivers.qcow2.cache import Cache
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters, Kind
from blockyard.node.formats.qcow2 import refcounts as codec
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.limits import SECTOR

TABLE_PER_SECTOR = SECTOR // 8

_END_BLOCKS = 16
"""Blocks looked at to find the last cluster in use; then the end of what the next one covers will do."""


class Block:
    """One refcount block, one element per cluster."""

    __slots__ = ("pins", "used", "values")

    def __init__(self, values: codec.Counters) -> None:
        self.values = values
        self.used = True
        self.pins = 0


class Refcounts:
    """The counters of one image."""

    def __init__(self, image: Image, table: tables.Table) -> None:
        self._image = image
        self.table = table
        geometry = image.geometry
        self.order = geometry.refcount_order
        self.block_entries = geometry.block_entries
        self.table_per_sector = TABLE_PER_SECTOR
        self._per_sector = min(SECTOR * 8 // geometry.refcount_bits, geometry.block_entries)
        element = np.dtype(codec.dtype_of(self.order)).itemsize
        limit = max(4, image.cache_sizes.refcounts // (self.block_entries * element))
        self.blocks: Cache[Block] = Cache(limit, self._load, self._held)

    def _held(self, index: int) -> bool:
        return self._image.writeback.holds(Kind.BLOCK, index)

    async def _load(self, index: int) -> Block:
        offset = self.block_offset(index)
        if offset % self._image.geometry.cluster_size:
            raise await self._image.corrupt(
                f"refcount table entry {index}", "an offset aligned to the cluster size", f"{offset:#x}"
            )
        await self._image.event("refblock_load")
        data = await self._image.read(offset, self._image.geometry.cluster_size)
        return Block(codec.decode(data, self.order))

    @property
    def is_plausible(self) -> bool:
        """Whether every block is aligned and inside the file."""
        offsets = self.table & np.uint64(tables.REFCOUNT_TABLE_OFFSET)
        size = np.uint64(self._image.geometry.cluster_size)
        return bool(((offsets % size == 0) & (offsets < np.uint64(self._image.file.size))).all())

    def block_offset(self, index: int) -> int:
        """Where a block is in the file; 0 if it does not exist."""
        return int(self.table[index]) & tables.REFCOUNT_TABLE_OFFSET if index < len(self.table) else 0

    def next_block(self, index: int) -> int:
        """The first existing block at or after `index`, or -1."""
        if index in self.blocks.items:
            return index
        position = index
        while position < len(self.table):
            window = self.table[position : position + 4096]
            present = window != 0
            if present.any():
                return position + int(present.argmax())
            position += len(window)
        return -1

    def create(self, index: int, offset: int) -> Block:
        """A new block, all counters 0, entered in the table."""
        block = Block(np.zeros(self.block_entries, codec.dtype_of(self.order)))
        self.table[index] = offset
        self.blocks.put(index, block)
        self._image.ledger.mark(Kind.BLOCK, index, 0, self.block_entries)
        self._image.ledger.mark(Kind.REFTABLE, index // TABLE_PER_SECTOR)
        return block

    def set_range(self, index: int, block: Block, low: int, high: int, value: int) -> None:
        block.values[low:high] = value
        self._image.ledger.mark(Kind.BLOCK, index, low, high)

    async def end_of_use(self, *, exactly: bool = False) -> int:
        """First cluster after all that are counted, or a little later (the search is bounded unless `exactly`)."""
        present = np.flatnonzero(self.table)
        for index in present[::-1][: len(present) if exactly else _END_BLOCKS].tolist():
            used = np.flatnonzero((await self.blocks.get(index)).values)
            if len(used):
                return int(index * self.block_entries + used[-1] + 1)
        rest = len(present) - _END_BLOCKS
        return int(present[rest - 1] + 1) * self.block_entries if rest > 0 else 0

    def forget_from(self, end: int) -> Clusters:
        """Let go of the blocks that count nothing but clusters from `end` on, which are all free; their clusters.

        Only there: in the midst of the file clusters without a block would never be used again.
        """
        found = np.flatnonzero(self.table)
        found = found[found * self.block_entries >= end]
        places = [self.block_offset(index) >> self._image.geometry.cluster_bits for index in found.tolist()]
        for index in found.tolist():
            self.table[index] = 0
            self.blocks.items.pop(index, None)
            self._image.ledger.marks[Kind.BLOCK].pop(index, None)
            self._image.ledger.mark(Kind.REFTABLE, index // TABLE_PER_SECTOR)
        return np.array(places, np.int64)

    def pieces(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(block index, low, high) of a run of clusters."""
        position, end = first, first + count
        while position < end:
            index, low = divmod(position, self.block_entries)
            high = min(self.block_entries, low + end - position)
            yield index, low, high
            position += high - low

    async def get(self, cluster: int) -> int:
        index, entry = divmod(cluster, self.block_entries)
        if not self.block_offset(index):
            return 0
        return int((await self.blocks.get(index)).values[entry])

    def known(self, cluster: int) -> int:
        """The counter if its block is in memory, else 0."""
        index, entry = divmod(cluster, self.block_entries)
        block = self.blocks.items.get(index)
        return int(block.values[entry]) if block is not None else 0

    def increase_now(self, cluster: int) -> None:
        """One more reference to a cluster whose counter is `known` and not full."""
        index, entry = divmod(cluster, self.block_entries)
        block = self.blocks.items[index]
        assert 0 < int(block.values[entry]) < self._image.geometry.max_refcount
        block.values[entry] += 1
        self._image.ledger.mark(Kind.BLOCK, index, entry, entry + 1)

    async def usable_block(self, index: int) -> Block | None:
        """The block, or None if the table has none there."""
        return await self.blocks.get(index) if self.block_offset(index) else None

    def decrease(self, index: int, block: Block | None, numbers: Clusters, times: Clusters) -> Clusters:
        """Take `times` references from each of a block's clusters; those that became free.

        A counter that would fall below zero is left alone: the image is inconsistent, and a report says so.
        """
        if block is None:
            self._report_underflow(int(numbers[0]))
            return numbers[:0]
        entries = numbers - index * self.block_entries
        amounts = times.astype(np.uint64).astype(block.values.dtype)
        values = block.values[entries]
        enough = values >= times.astype(np.uint64)
        if not enough.all():
            self._report_underflow(int(numbers[~enough][0]))
            entries, amounts, values = entries[enough], amounts[enough], values[enough]
        if not len(entries):
            return numbers[:0]
        left = values - amounts
        block.values[entries] = left
        self._image.ledger.mark(Kind.BLOCK, index, int(entries[0]), int(entries[-1]) + 1)
        freed: Clusters = entries[left == 0] + index * self.block_entries
        return freed

    def _report_underflow(self, cluster: int) -> None:
        self._image.context.report(
            "corrupted", {"what": "refcount", "cluster": str(cluster), "found": "0", "fatal": "false"}
        )

    def encode_block(self, index: int, low: int, high: int) -> tuple[int, bytes]:
        """(File offset, bytes) of the sectors that hold entries `[low, high)`."""
        per = self._per_sector
        low, high = low - low % per, min(self.block_entries, -(-high // per) * per)
        block = self.blocks.items[index]
        start = self.block_offset(index) + low * self._image.geometry.refcount_bits // 8
        return start, codec.encode(block.values[low:high], self.order)

    def encode_table_sector(self, number: int) -> tuple[int, bytes]:
        part = self.table[number * TABLE_PER_SECTOR : (number + 1) * TABLE_PER_SECTOR]
        return self._image.header.refcount_table_offset + number * SECTOR, tables.encode(part)
