"""Keeping a point in time: the interposer of a client's own copy-before-write filter (QEMU's
block/copy-before-write.c), and what snapshot-access reads of it.

Theory. Before a guest changes a granule that is still left its old bytes are copied to the target; what of it reads
as zeroes is zeroed there. A snapshot's read looks where a range is: in the target, or in the disk, and then a
change of that range waits until it was read. Which is which, and what nobody wants, is kept by `core.pointintime`.

Nobody may trust the disk once a copy failed and the guest went first, so reads that were under way look again
whether that happened. A copy that takes too long is not waited for any longer, but goes on: a thread may be in the
middle of it, and what it copies is right in any case, because a range that is left was not changed.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from blockyard.base.errors import (
    BlockError,
    CopyTooSlow,
    InvalidArgument,
    NodeInUse,
    PointInTimeLost,
    RangeNotKept,
)
from blockyard.base.ranges import ByteRange
from blockyard.base.units import MIB
from blockyard.node.core.pointintime import Place, PointInTime, granularity_for
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import DriverContext
from blockyard.node.interface.flags import MAY_UNMAP
from blockyard.node.interface.interposer import Apply
from blockyard.node.interface.mapping import MapKind, Mapping

CHUNK: Final = 1 * MIB
"""Bytes of one copy in memory, and of what is locked at a time: a guest that discards its disk blocks no other
request for longer than that takes."""
LATE_MAX: Final = 64
"""Copies that took too long and go on. With so many the target takes nothing, and further ones are not begun."""


@dataclass(frozen=True, slots=True)
class KeepingPolicy:
    """How a point in time is kept."""

    break_snapshot: bool = False
    """When a copy fails it is lost, and the guest's write goes on; else the guest's write fails."""
    timeout: int = 0
    """Seconds of a guest's time that a copy may take; 0 is any."""
    least_granularity: int = 0
    bitmap: tuple[str, str] | None = None
    """Node and name of the bitmap that marks what is kept; None keeps everything."""


class Preserver:
    """See the module."""

    past: PointInTime

    def __init__(self, file: Child, target: Child, policy: KeepingPolicy, context: DriverContext) -> None:
        """Raises what `begin` raises."""
        self._file = file
        self._target = target
        self._policy = policy
        self._context = context
        self.lost: PointInTimeLost | None = None
        """Why there is no point in time any more."""
        self._late: set[asyncio.Task[None]] = set()
        if context.restored:
            self.past = PointInTime(file.size, self._granularity())
            self._lose("the service was restarted, and its maps ended with it")
        elif context.begins_later:
            self.past = PointInTime(file.size, self._granularity())
        else:
            self.begin()

    def begin(self) -> None:
        """The point in time is now. Raises what looking for the bitmap raises; InvalidArgument if it is of another
        size, or for a smaller target."""
        size = self._file.size
        if self._late:
            raise NodeInUse(
                self._context.node_name, "begin a point in time at", "copies to its target that take too long"
            )
        if self._target.size < size:
            raise InvalidArgument(
                "target", f"a node of at least {size} bytes", f"{self._target.node_name} of {self._target.size}"
            )
        only = None
        if self._policy.bitmap is not None:
            only = self._context.bitmaps.copy_of(*self._policy.bitmap)
            if only.size != size:
                raise InvalidArgument("bitmap_name", f"a bitmap of {size} bytes", f"one of {only.size}")
        self.past = PointInTime(size, self._granularity(), only)
        self.lost = None

    async def end(self) -> None:
        """Return when nothing uses the children any more."""
        late = list(self._late)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _granularity(self) -> int:
        wanted = (self._target.limits.allocation_unit, self._policy.least_granularity)
        return granularity_for(self._file.size, *wanted)

    # --- what guests change ------------------------------------------------------------------------------

    def free_now(self, offset: int, length: int) -> bool:
        return self.past.free_now(offset, length)

    async def guest_write(self, offset: int, length: int, apply: Apply, *, exact: bool = True) -> None:
        """Raises what failed of the copy, or CopyTooSlow, if the snapshot is not to be broken."""
        past = self.past
        wide = past.widened(offset, length)
        if past.next_left(wide.offset, wide.end) is not None:
            try:
                await self._in_time(self._copy(past, wide))
            except BlockError as problem:
                if not self._policy.break_snapshot:
                    raise
                self._lose(str(problem))
        if self.lost is None:
            await past.readers.gone(offset, length)
        await apply(self._file)

    async def _in_time(self, copy: Coroutine[Any, Any, None]) -> None:
        seconds = self._policy.timeout
        if not seconds:
            return await copy
        if len(self._late) >= LATE_MAX:
            copy.close()
            raise CopyTooSlow(self._context.node_name, seconds)
        work = asyncio.ensure_future(copy)
        timer = asyncio.ensure_future(self._context.clock.sleep(seconds))
        try:
            await asyncio.wait((work, timer), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise CopyTooSlow(self._context.node_name, seconds)
            work.result()
        finally:
            timer.cancel()
            if not work.done():
                self._late.add(work)
                work.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # who was told that it took too long need not hear how it ended

    def _lose(self, why: str) -> None:
        if self.lost is None:
            self.lost = PointInTimeLost(self._context.node_name, why)
            self.past.drop_all()
            self._context.report("point-in-time-lost", {"failure": why, "target": self._target.node_name})

    # --- copying -----------------------------------------------------------------------------------------

    async def _copy(self, past: PointInTime, wide: ByteRange) -> None:
        """Nothing of a range of whole granules is left when this returns."""
        for piece in wide.pieces(max(CHUNK, past.granularity)):
            if past.next_left(piece.offset, piece.end) is None:
                continue
            async with past.copying.hold(piece.offset, piece.length):
                # Who held it before may have copied it.
                while (run := past.next_left(piece.offset, piece.end)) is not None:
                    await self._copy_run(run)
                    past.copied(run)

    async def _copy_run(self, run: ByteRange) -> None:
        position = run.offset
        while position < run.end:
            zero, length = await self._file.reads_as_zeroes(position, run.end - position)
            if zero:
                await self._target.zero(position, length, MAY_UNMAP)
            else:
                length = min(length, CHUNK)
                data = memoryview(bytearray(length))
                if not self._file.read_now(position, data):
                    await self._file.read(position, data)
                if not self._target.write_now(position, data):
                    await self._target.write(position, data)
            position += length

    # --- what the snapshot shows -------------------------------------------------------------------------

    async def read(self, offset: int, into: memoryview) -> None:
        """See `OffersSnapshot`."""
        past = self._kept()
        if into and not past.keeps(offset, len(into)):
            raise RangeNotKept(self._context.node_name, offset, len(into))
        while into:
            self._kept()
            place, length = past.place(offset, len(into))
            part = into[:length]
            if place is Place.DISK:
                with past.readers.reading(offset, length):
                    await self._file.read(offset, part)
            else:  # or dropped meanwhile, by the reader's own choice
                await self._target.read(offset, part)
            offset, into = offset + length, into[length:]
        self._kept()

    async def map(self, offset: int, length: int) -> Mapping:
        """See `OffersSnapshot`."""
        place, length = self._kept().place(offset, length)
        if place is Place.NOWHERE:
            raise RangeNotKept(self._context.node_name, offset, length)
        child = self._file if place is Place.DISK else self._target
        zero, length = await child.reads_as_zeroes(offset, length)
        return Mapping(MapKind.ZERO if zero else MapKind.DATA, length, None, offset)

    async def discard(self, offset: int, length: int) -> None:
        """See `OffersSnapshot`."""
        past = self._kept()
        dropped = past.drop(offset, length)
        if dropped.length:
            async with past.copying.hold(dropped.offset, dropped.length):
                await self._target.discard(dropped.offset, dropped.length)

    def _kept(self) -> PointInTime:
        """Raises PointInTimeLost."""
        if self.lost is not None:
            raise PointInTimeLost(self.lost.node_name, self.lost.failure)
        return self.past
