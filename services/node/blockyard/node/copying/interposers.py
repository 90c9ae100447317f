"""What happens around a guest's write while a session runs: copy before it, or write both sides.

Both are behind a filter driver (see `interface.interposer`). Errors of the target never reach a guest, but for a
copy-before-write that was asked to protect the snapshot.
"""

from collections.abc import Callable

from blockyard.base.errors import BlockError
from blockyard.base.ranges import ByteRange
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
        return not work.locks.busy(wide.offset, wide.length) and work.bits.next_dirty(wide.offset, wide.end) is None

    async def guest_write(self, offset: int, length: int, apply: Apply) -> None:
        wide = _clamped(self._work, offset, length)
        try:
            await self._work.move(wide)
        except SideFailed as problem:
            if not self._break_snapshot:
                raise problem.failure.error from problem
            self._work.bits.clear_all()
            self._on_broken(problem.failure)
        await apply(self._file)


class WriteBoth:
    """A guest's write ends when source and target have it. Until asked for, writes only pass (and are recorded)."""

    def __init__(self, file: Edge, work: CopyWork, on_failed: Callable[[Failure], None]) -> None:
        self._file = file
        self._work = work
        self._on_failed = on_failed
        self.blocking = False

    def free_now(self, offset: int, length: int) -> bool:
        return not self.blocking

    async def guest_write(self, offset: int, length: int, apply: Apply) -> None:
        if not self.blocking:
            await apply(self._file)
            return
        work = self._work
        wide = _clamped(work, offset, length)
        async with work.locks.hold(wide.offset, wide.length):
            left_before = self._left(wide, ByteRange(offset, length))
            await apply(self._file)
            assert work.target is not None
            try:
                await apply(work.target)
            except BlockError as problem:
                # The recorder has marked the range: the job copies it again.
                self._on_failed(Failure(Side.TARGET, ByteRange(offset, length), problem))
                return
            work.bits.clear(wide.offset, wide.length)
            for piece in left_before:
                work.bits.mark(piece.offset, piece.length)

    def _left(self, wide: ByteRange, written: ByteRange) -> list[ByteRange]:
        """Granules that stay in the map: left before, and not covered whole by this write."""
        bits, covered = self._work.bits, written.narrowed(self._work.bits.granularity)
        left: list[ByteRange] = []
        for edge in (wide.offset, max(wide.offset, wide.end - bits.granularity)):
            granule = ByteRange(edge, bits.granularity).widened(bits.granularity)
            if bits.is_dirty(granule.offset) and not covered.overlaps(granule):
                left.append(ByteRange(granule.offset, min(granule.length, bits.size - granule.offset)))
        return left
