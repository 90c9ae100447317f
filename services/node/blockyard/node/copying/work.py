"""What is left to copy, and moving one chunk of it: the engine under every kind of session.

Theory. The work map has a bit per granule that is left. A chunk is claimed by clearing its bits and holding its
range lock, then moved extent by extent as block status tells: data is copied, zeroes are made (or found made
already), and what the kind does not want is passed over. A chunk that fails goes back into the map.

Invariants
1. A granule is in the map, or its range is held or waited for in `locks`, or the target has it.
2. `cursor` moves forward at every claim, so that orders that run side by side never claim the same chunk.
"""

from typing import TYPE_CHECKING, Final

from blockyard.base.errors import BlockError
from blockyard.base.ranges import ByteRange, align_down
from blockyard.base.units import KIB, MIB
from blockyard.node.copying import kernel
from blockyard.node.copying.spec import Failure, Side, SideFailed, Tally
from blockyard.node.core.accounting import WRITE
from blockyard.node.core.dirty import MAX_GRANULARITY, DirtyBitmap
from blockyard.node.core.rangelocks import RangeLocks
from blockyard.node.graph import requests
from blockyard.node.graph.status import Extent, block_status, status_at
from blockyard.node.interface.flags import COMPRESSED, MAY_UNMAP

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.user import User
    from blockyard.node.interface.driver import Pool

CHUNK: Final = 4 * MIB
"""Mixed content is claimed in pieces of this: long enough for the kernel, short enough for a guest to wait."""
READ_CHUNK: Final = 1 * MIB
"""Bytes in memory for a piece that the kernel does not copy."""
EXTENTS: Final = 256
DEFAULT_GRANULARITY: Final = 64 * KIB
MAP_BITS: Final = 2**28
"""A map that nobody sized takes at most 32 MiB, while the granularity can still grow: up to 16 PiB."""


class CopyWork:
    """The work of one session between a source node and a target (the source itself for a stream)."""

    def __init__(
        self,
        source: "Node",
        base: "Node | None",
        target: "User | None",
        bits: DirtyBitmap,
        pool: "Pool",
        *,
        flags: int = 0,
        unmap: bool = True,
    ) -> None:
        self.source = source
        self.base = base
        self.target = target
        """None for a stream: the source is populated from what is below it."""
        self.bits = bits
        self.locks = RangeLocks()
        self.cursor = 0
        self.total = Tally()
        self._pool = pool
        self._flags = flags
        self._zero_flags = MAY_UNMAP if unmap else 0
        self._end: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        return self.bits.size if self._end is None else self._end[0]

    @property
    def remaining(self) -> int:
        """Bytes in the map."""
        return self.bits.dirty_bytes if self._end is None else self._end[1]

    def retire(self) -> None:
        """Nothing moves any more: keep the figures, let the map and the nodes go."""
        self._end = self.size, self.remaining
        self.bits = DirtyBitmap(0, self.bits.granularity)
        self.target = self.base = None
        del self.source

    # --- claiming --------------------------------------------------------------------------------------

    async def step(self, within: ByteRange | None, limit: int) -> Tally | None:
        """Claim and move the next chunk; None if nothing is left in the range. Raises SideFailed."""
        run = self._next(within)
        if run is None:
            return None
        piece = await self._piece(run, limit)
        if self.bits.next_dirty(piece.offset, piece.offset + 1) is None:
            return Tally()  # someone took it while block status was asked
        return await self.move(piece)

    def _next(self, within: ByteRange | None) -> ByteRange | None:
        granularity = self.bits.granularity
        # Part of a granule can be neither claimed nor done with.
        whole = (within or ByteRange(0, self.size)).widened(granularity)
        start, end = whole.offset, min(whole.end, self.size)
        cursor = min(max(self.cursor, start), end)
        run = self.bits.next_dirty(cursor, end) or self.bits.next_dirty(start, cursor)
        if run is not None:
            # Claimed now, narrowed below; whoever asks next begins behind the widest chunk we may take.
            self.cursor = min(run.end, run.offset + max(CHUNK, granularity))
        return run

    async def _piece(self, run: ByteRange, limit: int) -> ByteRange:
        """The part of a run to move at once: a whole hole, or a chunk of mixed content."""
        run = ByteRange(run.offset, min(run.length, self.size - run.offset))
        extent = await self._extent(run)
        if extent.length > CHUNK and not self._wants_data(extent):
            length = (
                extent.length if extent.length == run.length else align_down(extent.length, self.bits.granularity)
            )
            self.cursor = max(self.cursor, run.offset + length)
            return ByteRange(run.offset, length)
        chunk = max(self.bits.granularity, align_down(min(CHUNK, limit), self.bits.granularity))
        return ByteRange(run.offset, min(run.length, chunk))

    async def _extent(self, run: ByteRange) -> Extent:
        try:
            return await status_at(self.source, run.offset, run.length, self.base)
        except BlockError as problem:
            raise SideFailed(Failure(Side.SOURCE, run, problem)) from problem

    def _wants_data(self, extent: Extent) -> bool:
        return extent.allocated and not extent.zero

    # --- moving ----------------------------------------------------------------------------------------

    async def move(self, piece: ByteRange) -> Tally:
        """Move the dirty parts of a piece under its range lock. Raises SideFailed; they are dirty again then."""
        tally = Tally()
        async with self.locks.hold(piece.offset, piece.length):
            position = piece.offset
            while (run := self.bits.next_dirty(position, piece.end)) is not None:
                run = ByteRange(run.offset, min(run.end, piece.end) - run.offset)
                self.bits.clear(run.offset, run.length)
                try:
                    await self._move_run(ByteRange(run.offset, min(run.end, self.size) - run.offset), tally)
                except BaseException:
                    self.bits.mark(run.offset, run.length)
                    raise
                position = run.end
        self.total.add(tally)
        return tally

    async def _move_run(self, run: ByteRange, tally: Tally) -> None:
        position = run.offset
        while position < run.end:
            rest = ByteRange(position, run.end - position)
            try:
                extents = await block_status(self.source, rest.offset, rest.length, self.base, EXTENTS)
            except BlockError as problem:
                raise SideFailed(Failure(Side.SOURCE, rest, problem)) from problem
            for extent in extents:
                await self._move_extent(extent, tally)
            position = extents[-1].offset + extents[-1].length

    async def _move_extent(self, extent: Extent, tally: Tally) -> None:
        here = ByteRange(extent.offset, extent.length)
        if self.target is None:
            await self._populate(extent, tally)
        elif self.base is not None and not extent.allocated:
            tally.skipped += extent.length
        elif extent.zero or not extent.allocated:
            await self._zero(self.target, here)
            tally.zero += extent.length
        else:
            await self._copy(self.target, here)
            tally.copied += extent.length

    async def _copy(self, target: "User", here: ByteRange) -> None:
        position = here.offset
        while position < here.end:
            payload = await self._fetch(position, here.end - position)
            try:
                await requests.write_from(
                    await target.entered(WRITE, position, payload.length), position, payload, self._flags
                )
            except BlockError as problem:
                raise SideFailed(Failure(Side.TARGET, ByteRange(position, payload.length), problem)) from problem
            position += payload.length

    async def _fetch(self, offset: int, length: int) -> kernel.Payload:
        try:
            if self._flags & COMPRESSED:
                return await kernel.buffered(self.source, offset, min(length, READ_CHUNK))
            return await kernel.payload(self.source, offset, length, self._pool, READ_CHUNK)
        except BlockError as problem:
            raise SideFailed(Failure(Side.SOURCE, ByteRange(offset, length), problem)) from problem

    async def _zero(self, target: "User", here: ByteRange) -> None:
        """Make zeroes where the target does not read as zero already: a fresh target costs one look per hole."""
        position = here.offset
        try:
            while position < here.end:
                extent = await status_at(await target.entered(), position, here.end - position)
                if not extent.zero:
                    await target.zero(position, extent.length, self._zero_flags)
                position += extent.length
        except BlockError as problem:
            raise SideFailed(Failure(Side.TARGET, here, problem)) from problem

    # --- streaming -------------------------------------------------------------------------------------

    async def _populate(self, extent: Extent, tally: Tally) -> None:
        """Bring up what lies between the node and the base. Zeroes matter only above a base, but there also those
        that nobody holds: where a short layer ends, the base would show."""
        if not extent.allocated or (self.base is None if extent.zero else extent.depth == 0):
            tally.skipped += extent.length
            return
        try:
            if extent.zero:
                written = await requests.populate_zeroes(self.source, extent.offset, extent.length)
                tally.zero += written
            else:
                written = await requests.populate(self.source, extent.offset, extent.length, self._fetch_below)
                tally.copied += written
        except BlockError as problem:
            failed = ByteRange(extent.offset, extent.length)
            raise SideFailed(Failure(Side.TARGET, failed, problem)) from problem
        tally.skipped += extent.length - written

    async def _fetch_below(self, offset: int, length: int) -> kernel.Payload:
        backing = self.source.backing
        assert backing is not None
        try:
            node = await backing.entered()
            size = node.driver.size
            if offset >= size:
                # Not by a read through the node: that would wait for the request that fetches.
                return kernel.BufferPayload(memoryview(bytes(min(length, READ_CHUNK))))
            return await kernel.payload(node, offset, min(length, size - offset), self._pool, READ_CHUNK)
        except BlockError as problem:
            raise SideFailed(Failure(Side.SOURCE, ByteRange(offset, length), problem)) from problem


def default_granularity(cluster_sizes: "list[int]", size: int) -> int:
    """The larger cluster size, at least 64 KiB, at most 1 MiB; more if the map of so many bytes would be large."""
    least = min(1 * MIB, max([DEFAULT_GRANULARITY, *cluster_sizes]))
    while least < MAX_GRANULARITY and size > least * MAP_BITS:
        least *= 2
    return least
