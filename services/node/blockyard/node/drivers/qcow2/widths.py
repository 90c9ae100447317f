"""Refcounts of another width: the same counters in a second structure, and one sector of the header that switches.

The new blocks and table go to clusters that were free. They say of every cluster what the old ones say, but that
the old structure is free and the new one in use. So a crash shows the old image (what was taken is not counted on
disk) or the new one. (QEMU's qcow2_change_refcount_order does the same, and writes the header in two parts.)
"""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from blockyard.base.errors import OperationUnsupported, SizeTooLarge
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import refcounts as codec
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.geometry import Geometry
from blockyard.node.formats.qcow2.limits import MAX_REFCOUNT_TABLE_BYTES
from blockyard.node.interface.operations import Progress


async def change(image: Image, bits: int, reload: Callable[[], Awaitable[None]], progress: Progress) -> None:
    """Make counters `bits` wide. `reload` takes up the image's parts, for those in memory have the old width.

    Raises OperationUnsupported if one is too large for that; then nothing has changed.
    """
    await image.before_write()
    await image.writeback.settle()
    work = _Change(image, Geometry(image.geometry.cluster_bits, bits.bit_length() - 1), progress)
    try:
        await work.place()
        await work.write()
        await image.file.flush()
    except BaseException:
        await work.give_up()
        raise
    await unbroken(_finish(work, reload))


async def _finish(work: "_Change", reload: Callable[[], Awaitable[None]]) -> None:
    await work.switch()
    await reload()


class _Change:
    """One change of width."""

    def __init__(self, image: Image, geometry: Geometry, progress: Progress) -> None:
        self._image = image
        self._geometry = geometry
        self._progress = progress
        self._taken: list[tuple[int, int]] = []
        self._places: dict[int, int] = {}
        """Clusters of the new blocks."""
        self._table_first = 0
        self._table_clusters = 0

    # --- room --------------------------------------------------------------------------------------------

    async def place(self) -> None:
        """Take clusters until what was taken is covered too."""
        while True:
            needed = await self._needed()
            missing = sorted(needed - self._places.keys())
            length = (max(needed, default=0) + 1) * 8
            if length > MAX_REFCOUNT_TABLE_BYTES:
                raise SizeTooLarge("refcount table in bytes", length, MAX_REFCOUNT_TABLE_BYTES)
            clusters = self._geometry.clusters(length)
            if not missing and clusters <= self._table_clusters:
                return
            for index, cluster in zip(missing, await self._take(len(missing)), strict=True):
                self._places[index] = cluster
            if clusters > self._table_clusters:
                if self._table_clusters:
                    self._taken.remove((self._table_first, self._table_clusters))
                    await self._image.allocator.give_back(self._table_first, self._table_clusters)
                self._table_first = await self._image.allocator.take_whole(clusters)
                self._table_clusters = clusters
                self._taken.append((self._table_first, clusters))

    async def _needed(self) -> set[int]:
        """New blocks that count something."""
        refcounts, per = self._image.refcounts, self._geometry.block_entries
        needed: set[int] = set()
        for index in np.flatnonzero(refcounts.table).tolist():
            block = await refcounts.blocks.get(index)
            used = np.flatnonzero(block.values) + index * refcounts.block_entries
            needed.update(np.unique(used // per).tolist())
            await asyncio.sleep(0)
        return needed

    async def _take(self, count: int) -> list[int]:
        found: list[int] = []
        while len(found) < count:
            run = await self._image.allocator.take(count - len(found))
            self._taken.append((run.first, run.length))
            found += range(run.first, run.first + run.length)
        return found

    async def give_up(self) -> None:
        """Nothing refers to what was taken."""
        for first, count in self._taken:
            await self._image.allocator.give_back(first, count)

    # --- counters ----------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Put the blocks and the table in their places."""
        image, size = self._image, self._geometry.cluster_size
        table = np.zeros(self._table_clusters * size // 8, np.uint64)
        freed = self._freed()
        for number, (index, cluster) in enumerate(sorted(self._places.items())):
            self._progress("refcounts", number, len(self._places))
            data = codec.encode(await self._values(index, freed), self._geometry.refcount_order)
            await image.write(cluster * size, data)
            table[index] = cluster * size
        await image.write(self._table_first * size, tables.encode(table))
        self._progress("refcounts", len(self._places), len(self._places))

    def _freed(self) -> Clusters:
        """What nothing refers to after the switch: the old structure, and what was dropped on the way."""
        image, bits = self._image, self._geometry.cluster_bits
        header = image.header
        first = header.refcount_table_offset >> bits
        blocks = (image.refcounts.table & np.uint64(tables.REFCOUNT_TABLE_OFFSET)) >> np.uint64(bits)
        groups = [
            np.arange(first, first + header.refcount_table_clusters, dtype=np.int64),
            blocks[blocks != 0].astype(np.int64),
            *(clusters for _, clusters in image.ledger.drops),
        ]
        return np.sort(np.concatenate(groups))

    async def _values(self, index: int, freed: Clusters) -> codec.Counters:
        """The counters of one new block."""
        refcounts, per = self._image.refcounts, self._geometry.block_entries
        first = index * per
        wide = np.zeros(per, np.uint64)
        for old, low, high in refcounts.pieces(first, per):
            block = await refcounts.usable_block(old)
            if block is not None:
                at = old * refcounts.block_entries + low - first
                wide[at : at + high - low] = block.values[low:high]
        low, high = np.searchsorted(freed, (first, first + per))
        np.subtract.at(wide, freed[low:high] - first, 1)
        limit = self._geometry.max_refcount
        over = np.flatnonzero(wide > np.uint64(limit))
        if len(over):
            cluster, bits = first + int(over[0]), self._geometry.refcount_bits
            what = f"have refcounts of {bits} bits: cluster {cluster} has {int(wide[over[0]])} references"
            raise OperationUnsupported(self._image.context.node_name, "qcow2", what)
        result: codec.Counters = wide.astype(codec.dtype_of(self._geometry.refcount_order))
        return result

    # --- the switch --------------------------------------------------------------------------------------

    async def switch(self) -> None:
        """Place, size and width are in one sector."""
        image, bits = self._image, self._geometry.cluster_bits
        async with image.writeback.lock:
            image.update_header(
                refcount_table_offset=self._table_first << bits,
                refcount_table_clusters=self._table_clusters,
                refcount_order=self._geometry.refcount_order,
            )
            await image.switch(hdr.REFCOUNT_TABLE_AT, hdr.encode_refcounts(image.header))
            image.geometry = self._geometry
