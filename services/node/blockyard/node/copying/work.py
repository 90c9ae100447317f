"""What is left to copy, and moving one chunk of it: the engine under every kind of session.

Theory. The work map has a bit per granule that is left. A chunk is claimed by clearing its bits and holding its
range lock, then moved extent by extent as block status tells: data is copied, zeroes are made (or found made
already), and what the kind does not want is passed over. A chunk that fails goes back into the map.

Invariants
1. A granule is in the map, or its range is held or waited for in `locks`, or the target has it. Where the map is
   kept, this holds after a kill as well, with `unsettled` granules instead of locks (`kept_map`).
2. `cursor` moves forward at every claim, so that orders that run side by side never claim the same chunk.
"""

from typing import TYPE_CHECKING, Final

from blockyard.base.errors import BlockError
from blockyard.base.failpoints import reach
from blockyard.base.ranges import ByteRange, align_down
from blockyard.base.units import KIB, MIB
from blockyard.node.copying import kernel
from blockyard.node.copying.kept_map import KeptMap
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
        kept: KeptMap | None = None,
        volatile: bool = False,
    ) -> None:
        self.source = source
        self.base = base
        self.target = target
        """None for a stream: the source is populated from what is below it."""
        self.bits = bits
        self.locks = RangeLocks()
        self.cursor = 0
        self.total = Tally()
        self.kept = kept
        """The file that holds the map; None if it ends with the process."""
        self.volatile = volatile
        """A kill may undo what was copied until source and target were flushed."""
        self._under_way: dict[int, ByteRange] = {}
        """Ranges that someone writes to, or copies: a checkpoint must not settle them."""
        self._next_key = 0
        if kept is not None:
            self.total.copied, self.total.zero, self.total.skipped, self.cursor = kept.figures
        self._pool = pool
        self._flags = flags
        self._zero_flags = MAY_UNMAP if unmap else 0
        self._end: tuple[int, int] | None = None

    @classmethod
    def ended(cls, size: int, remaining: int, granularity: int, total: Tally) -> "CopyWork":
        """Of a session that is over: figures and nothing else."""
        work = cls.__new__(cls)
        work.bits, work.total, work.kept, work.cursor = DirtyBitmap(0, granularity), total, None, 0
        work._end = size, remaining
        return work

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
        self.kept = None
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
                key = self.begin(run)
                self.bits.clear(run.offset, run.length)
                reach("node.copy.before")
                try:
                    await self._move_run(ByteRange(run.offset, min(run.end, self.size) - run.offset), tally)
                except BaseException:
                    self.bits.mark(run.offset, run.length)
                    raise
                finally:
                    self.end(key)
                reach("node.copy.after")
                position = run.end
        self.total.add(tally)
        if self.kept is not None:
            total = self.total
            self.kept.tell(total.copied, total.zero, total.skipped, self.cursor)
        return tally

    # --- what a kill may undo --------------------------------------------------------------------------

    def begin(self, run: ByteRange) -> int:
        """Something is being done with the range that a kill may cut short: it counts as left until `end`."""
        self._next_key += 1
        if self.kept is not None:
            self._under_way[self._next_key] = run
            self.kept.unsettle(run.offset, run.length)
        return self._next_key

    def end(self, key: int) -> None:
        """It is done, or in the map again. What a flush must settle stays unsettled."""
        run = self._under_way.pop(key, None)
        if run is None or self.kept is None or self.volatile:
            return
        if not any(run.overlaps(other) for other in self._under_way.values()):
            self.kept.settle(run.offset, run.length)

    def begin_checkpoint(self) -> None:
        """What was done up to now is settled when source and target are flushed and `KeptMap.end_checkpoint` is
        called; what is under way is not."""
        assert self.kept is not None
        self.kept.begin_checkpoint()
        for run in self._under_way.values():
            self.kept.unsettle(run.offset, run.length)

    def expose(self, offset: int, length: int) -> None:
        """A guest is let at the source, whose old data may be nowhere else after a kill (backup)."""
        if self.volatile and self.kept is not None and self.kept.is_unsettled(offset, offset + length):
            self.kept.exposed.mark(offset, min(length, self.kept.size - offset))

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
