"""What happens around a guest's write while a session runs: copy before it, or write both sides.

Both are behind a filter driver (see `interface.interposer`). Errors of the target never reach a guest, but for a
copy-before-write that was asked to protect the snapshot.
"""

from collections.abc import Callable

from blockyard.base.errors import BlockError, OperationUnsupported
from blockyard.base.ranges import ByteRange, align_down
from blockyard.node.copying.spec import Failure, Side, SideFailed
from blockyard.node.copying.work import CopyWork
from blockyard.node.graph.edge import Edge
from blockyard.node.interface.interposer import Apply


def _clamped(work: CopyWork, offset: int, length: int) -> ByteRange:
    wide = ByteRange(offset, length).widened(work.bits.granularity)
    return ByteRange(wide.offset, min(wide.end, max(work.size, offset + length)) - wide.offset)


class CopyBeforeWrite:
    """Old data of granules that are still in the work map goes to the target first."""

    def __init__(
        self, file: Edge, work: CopyWork, *, break_snapshot: bool, on_broken: Callable[[Failure], None]
    ) -> None:
        self._file = file
        self._work = work
        self._break_snapshot = break_snapshot
        self._on_broken = on_broken

    def free_now(self, offset: int, length: int) -> bool:
        """Nothing of the range is left to copy, and no copy of it is under way."""
        work = self._work
        wide = _clamped(work, offset, length)
        free = not work.locks.busy(wide.offset, wide.length)
        free = free and work.bits.next_dirty(wide.offset, wide.end) is None
        if free and work.volatile:
            work.expose(wide.offset, wide.length)
        return free

    async def guest_write(self, offset: int, length: int, apply: Apply, *, exact: bool = True) -> None:
        wide = _clamped(self._work, offset, length)
        try:
            await self._work.move(wide)
        except SideFailed as problem:
            if not self._break_snapshot:
                raise problem.failure.error from problem
            self._work.bits.clear_all()
            self._on_broken(problem.failure)
        self._work.expose(wide.offset, wide.length)
        await apply(self._file)


class WriteBoth:
    """A guest's write ends when source and target have it. Until asked for, writes only pass (and are recorded)."""

    def __init__(self, file: Edge, work: CopyWork, on_failed: Callable[[Failure], None]) -> None:
        self._file = file
        self._work = work
        self._on_failed = on_failed
        self.blocking = False
        self._passing = 0
        """Writes to the source alone that are under way."""

    def free_now(self, offset: int, length: int) -> bool:
        if self._work.kept is not None and not self.blocking:
            # The write comes now; a kill between it and the mark that follows it must not hide it.
            self._work.bits.mark(offset, length)
        return not self.blocking

    async def guest_write(self, offset: int, length: int, apply: Apply, *, exact: bool = True) -> None:
        if not self.blocking:
            self._passing += 1
            key = self._work.begin(_clamped(self._work, offset, length))
            try:
                await apply(self._file)
            finally:
                self._passing -= 1
                self._work.end(key)
            return
        work = self._work
        wide = _clamped(work, offset, length)
        async with work.locks.hold(wide.offset, wide.length):
            left_before = self._left(wide, ByteRange(offset, length))
            # A write from before the change of mode marks the map when it is done, perhaps in this very range.
            certain = exact and not self._passing
            key = work.begin(wide)
            try:
                await apply(self._file)
                if not exact or not await self._applied_there(offset, length, apply) or not certain:
                    return
                work.bits.clear(wide.offset, wide.length)
                for piece in left_before:
                    work.bits.mark(piece.offset, piece.length)
            finally:
                work.end(key)

    async def _applied_there(self, offset: int, length: int, apply: Apply) -> bool:
        """The same on the target. If that fails the recorder has marked the range: the job copies it again."""
        assert self._work.target is not None
        try:
            await apply(self._work.target)
        except OperationUnsupported:
            return False  # the guest asked for something that only its own node can do; that is no fault
        except BlockError as problem:
            self._on_failed(Failure(Side.TARGET, ByteRange(offset, length), problem))
            return False
        return True

    def _left(self, wide: ByteRange, written: ByteRange) -> list[ByteRange]:
        """Granules that stay in the map: left before, and not covered whole by this write."""
        bits, covered = self._work.bits, written.narrowed(self._work.bits.granularity)
        left: list[ByteRange] = []
        for edge in {wide.offset, align_down(wide.end - 1, bits.granularity)}:
            granule = ByteRange(edge, bits.granularity)
            if bits.is_dirty(granule.offset) and not covered.overlaps(granule):
                left.append(ByteRange(granule.offset, min(granule.length, bits.size - granule.offset)))
        return left
