"""A new refcount structure from what is really referenced, behind the end of the file.

Nothing of the old one is trusted or overwritten; the header's switch to the new one is a single sector.
"""

import numpy as np

from blockyard.base.errors import SizeTooLarge
from blockyard.node.drivers.qcow2.counting import References, note
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import REFCOUNT_KINDS
from blockyard.node.drivers.qcow2.tallying import Counts
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import refcounts as codec
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.limits import MAX_REFCOUNT_TABLE_BYTES
from blockyard.node.interface.driver import CheckReport


async def rebuild(image: Image, report: CheckReport) -> None:
    """Write it and switch to it. Afterwards refcounts in memory are those on disk."""
    references = References(image, with_refcounts=False)
    per = image.geometry.block_entries
    needed: list[int] = []
    async for first, counts in references.windows(CheckReport()):
        needed += _used_blocks(first, counts, per)
    plan = _Plan(image, references.total, needed)
    async for first, counts in References(image, with_refcounts=False).windows(CheckReport()):
        await plan.write_blocks(first, counts, report)
    await plan.write_own_blocks()
    table = plan.table()
    await image.write(plan.table_first << image.geometry.cluster_bits, tables.encode(table))
    await image.file.flush()
    image.update_header(
        refcount_table_offset=plan.table_first << image.geometry.cluster_bits,
        refcount_table_clusters=plan.table_clusters,
    )
    await image.switch(hdr.REFCOUNT_TABLE_AT, hdr.encode_refcount_table(image.header))
    image.refcounts.table = table
    image.refcounts.blocks.items.clear()
    for kind in REFCOUNT_KINDS:
        image.ledger.marks[kind].clear()


def _used_blocks(first: int, counts: Counts, per: int) -> list[int]:
    whole = len(counts) // per * per
    used = np.flatnonzero(counts[:whole].reshape(-1, per).any(axis=1)).tolist()
    if counts[whole:].any():
        used.append(whole // per)
    return [first // per + index for index in used]


class _Plan:
    """Where the new structure goes: its blocks, then its table, from `start` on."""

    def __init__(self, image: Image, start: int, needed: list[int]) -> None:
        self._image = image
        self._per = image.geometry.block_entries
        self._start = start
        blocks, clusters = sorted(set(needed)), 0
        while True:
            end = start + len(blocks) + clusters
            own = range(start // self._per, (max(end, start + 1) - 1) // self._per + 1)
            wanted = sorted({*needed, *own})
            size = image.geometry.clusters((wanted[-1] + 1) * 8)
            if wanted == blocks and size == clusters:
                break
            blocks, clusters = wanted, size
        if clusters << image.geometry.cluster_bits > MAX_REFCOUNT_TABLE_BYTES:
            raise SizeTooLarge(
                "refcount table in bytes", clusters << image.geometry.cluster_bits, MAX_REFCOUNT_TABLE_BYTES
            )
        self._blocks = blocks
        self._place = {index: start + number for number, index in enumerate(blocks)}
        self.table_first = start + len(blocks)
        self.table_clusters = clusters
        self._end = self.table_first + clusters
        self._written: set[int] = set()

    def table(self) -> tables.Table:
        table = np.zeros(self.table_clusters * self._image.geometry.cluster_size // 8, np.uint64)
        bits = self._image.geometry.cluster_bits
        for index, place in self._place.items():
            table[index] = place << bits
        return table

    async def write_blocks(self, first: int, counts: Counts, report: CheckReport) -> None:
        """The blocks of one window (windows are multiples of a block, or lie inside one)."""
        last = first + max(1, len(counts)) - 1
        for index in range(first // self._per, last // self._per + 1):
            if index in self._place:
                low = max(first, index * self._per)
                part = counts[low - first : (index + 1) * self._per - first]
                await self._write(index, low - index * self._per, part, report)

    async def write_own_blocks(self) -> None:
        """Blocks that cover nothing but the new structure."""
        for index in self._blocks:
            if index not in self._written:
                await self._write(index, 0, np.zeros(0, np.uint32), CheckReport())

    async def _write(self, index: int, low: int, part: Counts, report: CheckReport) -> None:
        image = self._image
        limit = image.geometry.max_refcount
        place = self._place[index] << image.geometry.cluster_bits
        order = image.geometry.refcount_order
        if index in self._written:
            values = codec.decode(await image.read(place, image.geometry.cluster_size), order)
        else:
            values = np.zeros(self._per, codec.dtype_of(order))
        if limit < 1 << 32 and bool((part > limit).any()):
            report.check_errors += int((part > limit).sum())
            note(report, f"refcounts of {image.geometry.refcount_bits} bits cannot hold the references there are")
            part = np.minimum(part, np.uint32(limit))
        values[low : low + len(part)] = part
        base = index * self._per
        values[max(0, self._start - base) : max(0, min(self._per, self._end - base))] = 1
        await image.write(place, codec.encode(values, order))
        self._written.add(index)
