"""A point in time of a disk that is written on: which old bytes are where (QEMU's block/copy-before-write.c).

Pure bookkeeping; who copies and when is the driver's. Must not know nodes, requests or files.

Theory. At first every granule is `left`: its old bytes are in the disk alone. Before it is changed they go to a
target, and it is left no more. `readable` says what anyone will ever want of it: a granule that was discarded, or
that the bitmap never marked, is neither copied nor read. QEMU has a third map of what is done; here that is what is
readable and not left, because a granule stays left until the target has it.

Invariants
1. What is left is readable, and was not changed in the disk since the point in time.
2. What is readable and not left is in the target.
3. Who reads old bytes from the disk is in `readers`: a change that found its range copied waits for them, for they
   looked before that.
"""

from enum import Enum
from typing import Final

from blockyard.base.ranges import ByteRange
from blockyard.node.core.dirty import MAX_GRANULARITY, DirtyBitmap
from blockyard.node.core.rangelocks import RangeLocks, RangeReaders

LEAST_GRANULARITY: Final = 65536
"""BLOCK_COPY_CLUSTER_SIZE_DEFAULT (block/block-copy.c)."""
MAP_BITS: Final = 2**28
"""A map takes at most 32 MiB, while granules can still grow: up to 16 PiB."""


class Place(Enum):
    """Where old bytes are."""

    DISK = "disk"
    TARGET = "target"
    NOWHERE = "nowhere"
    """Not to be read."""


def granularity_for(size: int, *wanted: int) -> int:
    """The largest that is wanted, at least 64 KiB, and more if a map of `size` bytes would be large."""
    found = max(LEAST_GRANULARITY, *wanted)
    while found < MAX_GRANULARITY and size > found * MAP_BITS:
        found *= 2
    return found


class PointInTime:
    """See the module. `size` is the disk's at the point in time: what it grew by since is no part of it."""

    __slots__ = ("copying", "left", "readable", "readers", "size")

    def __init__(self, size: int, granularity: int, only: DirtyBitmap | None = None) -> None:
        """`only`: what else than this is not kept."""
        self.size = size
        self.left = DirtyBitmap(size, granularity)
        if only is None:
            self.left.mark(0, size)
        else:
            self.left.merge(only)
        self.readable = self.left.copy()
        self.copying = RangeLocks()
        """Held while a range is copied."""
        self.readers = RangeReaders()

    @property
    def granularity(self) -> int:
        return self.left.granularity

    def widened(self, offset: int, length: int) -> ByteRange:
        """Whole granules around a range, as far as the point in time goes; perhaps empty."""
        wide = ByteRange(offset, length).widened(self.granularity)
        return ByteRange(wide.offset, max(0, min(wide.end, self.size) - wide.offset))

    def free_now(self, offset: int, length: int) -> bool:
        """Whether a range may be changed at once: none of it is left, and nobody reads old bytes there."""
        if self.readers.busy(offset, length):
            return False
        left = self.left
        return not left.count or left.next_dirty(offset, offset + length) is None

    def next_left(self, offset: int, end: int) -> ByteRange | None:
        """The first run in `[offset, end)` that must be copied before it is changed."""
        return self.left.next_dirty(offset, end)

    def copied(self, run: ByteRange) -> None:
        """The target has these granules."""
        self.left.clear(run.offset, run.length)

    def drop(self, offset: int, length: int) -> ByteRange:
        """Nobody will read the range any more; the whole granules inside, which is what that means."""
        unit = self.granularity
        end = offset + length if offset + length >= self.size else (offset + length) // unit * unit
        start = -(-offset // unit) * unit
        dropped = ByteRange(start, max(0, min(end, self.size) - start))
        self.left.clear(dropped.offset, dropped.length)
        self.readable.clear(dropped.offset, dropped.length)
        return dropped

    def drop_all(self) -> None:
        """Nothing of it can be trusted."""
        self.left.clear_all()
        self.readable.clear_all()

    def keeps(self, offset: int, length: int) -> bool:
        """Whether all of a range may be read."""
        return self.readable.next_dirty(offset, offset + length) == ByteRange(offset, length)

    def place(self, offset: int, length: int) -> tuple[Place, int]:
        """Where the begin of a range is, and how many bytes of it are there, at least one."""
        end = offset + length
        readable = self.readable.next_dirty(offset, end)
        if readable is None or readable.offset > offset:
            return Place.NOWHERE, length if readable is None else readable.offset - offset
        left = self.left.next_dirty(offset, readable.end)
        if left is None:
            return Place.TARGET, readable.length
        if left.offset > offset:
            return Place.TARGET, left.offset - offset
        return Place.DISK, left.length
