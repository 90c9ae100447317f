"""Carries sealed epochs to the file in the order of `ordering`, and gives dropped clusters back after it."""

import asyncio
import itertools

import numpy as np

from blockyard.base.errors import ImageMarkedCorrupt
from blockyard.node.drivers.qcow2 import ordering
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Clusters, Epoch, Kind, Reason
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.interface.flags import DiscardMode

MAX_DROPPED = 1 << 16
"""Dropped clusters that may wait for a write-back before their droppers must help (7 MiB if each came alone)."""

Writes = list[tuple[int, bytes]]


class Writeback:
    """One write-back at a time; those who wait for durability share the next one."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.lock = asyncio.Lock()
        """Held by a write-back, and by whoever rewrites metadata by other means (growth, resize, repair)."""
        self._sealed: Epoch | None = None
        self._begun = 0
        self._durable = 0

    def holds(self, kind: Kind, key: int) -> bool:
        """Whether memory is the only place that has it right."""
        sealed = self._sealed
        return self._image.ledger.holds(kind, key) or (sealed is not None and sealed.holds(kind, key))

    @property
    def is_due(self) -> bool:
        """Whether so much waits that its makers must help."""
        image = self._image
        marks = image.ledger.marks
        return (
            len(marks[Kind.TABLE]) + len(marks[Kind.FRESH]) > image.l2.dirty_limit
            or len(marks[Kind.BLOCK]) > image.refcounts.blocks.limit
            or image.ledger.dropped > MAX_DROPPED
        )

    async def flush(self) -> None:
        """Everything committed before this call is durable when it returns."""
        if self._image.ledger.is_empty and self._sealed is None:
            await self._image.flush_data()
            await self._image.file.flush()
            return
        ticket = self._begun + 1
        async with self.lock:
            if self._durable < ticket:
                await self._run(final=True)

    async def write_back(self) -> None:
        """Bound what waits; no promise of durability."""
        async with self.lock:
            if self.is_due:
                await self._run(final=False)

    async def write_out(self) -> None:
        """Everything goes to the file below, in order; the file is flushed only where order needs it."""
        async with self.lock:
            if not self._image.ledger.is_empty:
                await self._run(final=False)

    async def settle(self) -> None:
        """Write everything, give back all drops, write that too. Leaves refcounts exact and durable."""
        async with self.lock:
            await self.settle_locked()

    async def retire(self) -> None:
        """The image is about to be closed: settle, and take the dirty bit back (invariant 7)."""
        image = self._image
        async with self.lock:
            await self.settle_locked()
            if image.header.incompatible & hdr.DIRTY:
                image.update_header(incompatible=image.header.incompatible & ~hdr.DIRTY)
                await image.switch(hdr.FEATURES_AT, hdr.encode_features(image.header))

    async def settle_locked(self) -> None:
        await self._run(final=True, refcounts=True)
        if not self._image.ledger.is_empty:
            await self._run(final=True, refcounts=True)

    async def _run(self, final: bool, refcounts: bool = False) -> None:
        image = self._image
        if image.broken:
            raise ImageMarkedCorrupt(image.name)
        self._begun += 1
        ticket = self._begun
        too_many = len(image.ledger.marks[Kind.BLOCK]) > image.refcounts.blocks.limit
        epoch = image.ledger.seal(refcounts or too_many or not image.is_lazy)
        self._sealed = epoch
        try:
            await self._carry(epoch, self._encode(epoch), final)
        except BaseException:
            image.ledger.reopen(epoch)
            image.l2.unmark_forgotten()
            raise
        finally:
            self._sealed = None
        if final:
            self._durable = ticket
        await self._release(epoch.drops)

    def _encode(self, epoch: Epoch) -> list[Writes]:
        """The bytes of every phase, all as of now."""
        return [
            joined(
                sorted(
                    self._piece(kind, key, span) for kind in phase.kinds for key, span in epoch.marks[kind].items()
                )
            )
            for phase in ordering.PHASES
        ]

    def _piece(self, kind: Kind, key: int, span: ordering.Span) -> tuple[int, bytes]:
        image = self._image
        if kind == Kind.BLOCK:
            return image.refcounts.encode_block(key, *span)
        if kind == Kind.REFTABLE:
            return image.refcounts.encode_table_sector(key)
        if kind == Kind.L1:
            at, data = image.l1.encode_sector(key)
            return image.header.l1_table_offset + at, data
        return image.l2.encode(key, *span)

    async def _carry(self, epoch: Epoch, phases: list[Writes], final: bool) -> None:
        image = self._image
        if image.is_lazy and epoch.has((Kind.TABLE, Kind.L1)):
            await self._announce_dirty()
        await image.flush_data()  # invariant 2, where guest data has a file of its own
        due = ordering.barriers(epoch, final)
        for phase, writes, barrier in zip(ordering.PHASES, phases, due, strict=True):
            await self._tell(epoch, phase)
            for offset, data in writes:
                await image.write(offset, data)
            if barrier:
                await image.file.flush()
                epoch.landed = True

    async def _tell(self, epoch: Epoch, phase: ordering.Phase) -> None:
        """Emit what the phase is about to write, new refcount blocks as QEMU does (alloc_refcount_block)."""
        if not self._image.file.listens:
            return
        if Kind.BLOCK in phase.kinds and epoch.has((Kind.BLOCK,)) and epoch.has((Kind.REFTABLE,)):
            await self._image.event("refblock_alloc_write")
        for kind in phase.kinds:
            if epoch.has((kind,)):
                await self._image.event(ordering.EVENTS[kind])

    async def _announce_dirty(self) -> None:
        """Invariant 7: the barrier after the contents phase makes it durable before any mapping."""
        image = self._image
        if not image.header.incompatible & hdr.DIRTY:
            image.update_header(incompatible=image.header.incompatible | hdr.DIRTY)
            await image.write_features()

    async def _release(self, drops: list[tuple[Reason, Clusters]]) -> None:
        """Invariant 5: what dropped these is durable. What cannot be given back now stays in the ledger."""
        image = self._image
        groups = _grouped(drops, image.refcounts.block_entries)
        while groups:
            reason, index, numbers, times = groups[-1]
            try:
                await image.event("cluster_free")
                block = await image.refcounts.usable_block(index)
                if block is not None and self.passes(reason):
                    block.pins += 1  # what is counted down below must still be the one in the cache
                    try:
                        await self._discard_below(numbers[block.values[numbers % len(block.values)] == times])
                    finally:
                        block.pins -= 1
            except BaseException:
                for why, _, waiting, amounts in groups:
                    image.ledger.drop(why, np.repeat(waiting, amounts))
                raise
            groups.pop()
            image.allocator.freed(image.refcounts.decrease(index, block, numbers, times))

    def passes(self, reason: Reason) -> bool:
        """Whether the file below is asked to discard what was dropped for this reason."""
        options, unmap = self._image.options, self._image.context.discard == DiscardMode.UNMAP
        if reason == Reason.REQUEST:
            return unmap if options.pass_discard_request is None else options.pass_discard_request
        return unmap and (
            options.pass_discard_snapshot if reason == Reason.SNAPSHOT else options.pass_discard_other
        )

    async def _discard_below(self, clusters: Clusters) -> None:
        """Before they can be allocated again, so that no new data is discarded."""
        size = self._image.geometry.cluster_size
        for first, count in runs(clusters):
            await self._image.file.discard(first * size, count * size)


Group = tuple[Reason, int, Clusters, Clusters]
"""Reason, refcount block, cluster numbers in order, how often each was dropped."""


def _grouped(drops: list[tuple[Reason, Clusters]], block_entries: int) -> list[Group]:
    groups: list[Group] = []
    for reason in Reason:
        same = [clusters for why, clusters in drops if why == reason]
        if same:
            numbers, times = np.unique(np.concatenate(same), return_counts=True)
            indexes = numbers // block_entries
            edges = np.flatnonzero(np.diff(indexes)) + 1
            for part, amounts in zip(np.split(numbers, edges), np.split(times, edges), strict=True):
                groups.append((reason, int(part[0]) // block_entries, part, amounts))
    return groups


def runs(numbers: Clusters) -> list[tuple[int, int]]:
    """(first, count) of the runs of consecutive values in a sorted array."""
    if not len(numbers):
        return []
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    edges = np.concatenate(([0], breaks, [len(numbers)]))
    return [(int(numbers[low]), int(high - low)) for low, high in itertools.pairwise(edges)]


def joined(pieces: Writes) -> Writes:
    """Neighbouring pieces as one write; none longer than 1 MiB unless a single piece is."""
    result: Writes = []
    batch: list[bytes] = []
    start = end = -1
    for offset, data in pieces:
        if offset != end or end - start > 1 << 20:
            if batch:
                result.append((start, b"".join(batch)))
            batch, start = [], offset
        batch.append(data)
        end = offset + len(data)
    if batch:
        result.append((start, b"".join(batch)))
    return result
