"""The work map of a session in a file that the kernel keeps when the process is killed.

What lives here: the file, its parts, and what of it may be believed. What must not: sessions, the graph.

Theory. The map is memory that is mapped from a file: a store into it survives `kill -9` as a store into the page
cache does, and costs what a store costs. It does not survive a power cut in any order that could be relied on; so
the file says which boot of which machine wrote it, and is believed in that boot only, or if it was closed in good
order.

What a killed process had in memory besides is lost: the mappings of a format that were not flushed, on the target
and on the source. So a granule that was dealt with is *unsettled* until a flush of both that began later has ended.
There are two generations of unsettled granules: one collects, and a checkpoint begins the other one, flushes, and
empties the first.

    left        granules that are to be copied
    unsettled   dealt with or being dealt with, but a kill may undo it (two generations)
    exposed     unsettled, and a guest was let at the source since: its old data is nowhere else (backup)

Invariants
1. A granule that is in none of `left` and `unsettled` is dealt with whatever happens to the process.
2. `unsettled` gets a granule before `left` loses it.
"""

import mmap
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from blockyard.node.core.dirty import DirtyBitmap

MAGIC: Final = b"BYCOPY01"
_HEADER: Final = struct.Struct("<8s36sIIQQQQQ")
"""Magic, boot, flags, granularity; size of what it maps; bytes copied, zero, skipped; where the cursor stands."""
_HEADER_BYTES: Final = 4096
_WHOLE: Final = 1
"""Flag: closed in good order, everything flushed. Believed in any boot."""
_PARTS: Final = 4
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def this_boot() -> str:
    """What tells one run of the kernel from all others; empty where there is no such thing, and then nothing that a
    killed process left is believed."""
    try:
        return _BOOT.read_text().strip()[:36]
    except OSError:
        return ""


class MappedBits(DirtyBitmap):
    """A bitmap whose bits lie in somebody else's memory."""

    __slots__ = ("_memory", "_outgrown")

    def __init__(
        self, size: int, granularity: int, memory: memoryview, outgrown: Callable[[], None] = lambda: None
    ) -> None:
        """`outgrown` is called when what it maps changes its size, which the memory cannot follow."""
        self._memory: memoryview | None = None
        self._outgrown = outgrown
        super().__init__(size, granularity)
        assert len(memory) == len(self._bits)
        self._memory = memory
        super()._set_bits(memory)
        self._mask_tail()
        self._recount()

    def _set_bits(self, bits: bytearray | memoryview) -> None:
        """The bits as a whole. They stay where they are as long as they fit there."""
        if self._memory is not None and len(self._memory) == len(bits):
            self._memory[:] = bits
            return
        if self._memory is not None:
            self._memory = None
            self._outgrown()
        super()._set_bits(bits)

    def let_go(self) -> None:
        """From now on they lie in memory of our own."""
        memory, self._memory = self._memory, None
        if memory is not None:
            super()._set_bits(bytearray(memory))


class KeptMap:
    """The file, open. See the module."""

    def __init__(self, path: Path, memory: mmap.mmap, size: int, granularity: int) -> None:
        self.path = path
        self._memory = memory
        self._view = memoryview(memory)
        length = _part_bytes(size, granularity)
        starts = [_HEADER_BYTES + index * length for index in range(_PARTS)]
        parts = [
            MappedBits(size, granularity, self._view[start : start + length], self.distrust) for start in starts
        ]
        self.left, self._collecting, self._settling, self.exposed = parts
        self.granularity = granularity
        self.size = size

    # --- the file -----------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, size: int, granularity: int) -> Self:
        """A new one: nothing is left, nothing unsettled. Raises OSError."""
        length = _HEADER_BYTES + _PARTS * _part_bytes(size, granularity)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # All of it now: a store into a hole of a full disk would kill the process.
            os.posix_fallocate(descriptor, 0, length)
            header = _HEADER.pack(MAGIC, this_boot().encode(), 0, granularity, size, 0, 0, 0, 0)
            os.pwrite(descriptor, header, 0)
            os.fsync(descriptor)
            return cls(path, mmap.mmap(descriptor, length), size, granularity)
        finally:
            os.close(descriptor)

    @classmethod
    def open(cls, path: Path) -> tuple[Self, bool] | None:
        """What an earlier process left, and whether it is to be believed; None if there is no such map.

        From now on it belongs to this boot, durably.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            head = os.pread(descriptor, _HEADER.size, 0)
            if len(head) < _HEADER.size:
                return None
            magic, boot, flags, granularity, size, *figures = _HEADER.unpack(head)
            length = _HEADER_BYTES + _PARTS * _part_bytes(size, granularity) if granularity else 0
            if magic != MAGIC or os.fstat(descriptor).st_size != length:
                return None
            now = this_boot()
            believed = bool(flags & _WHOLE) or (bool(now) and boot.rstrip(b"\0").decode(errors="replace") == now)
            os.pwrite(descriptor, _HEADER.pack(MAGIC, now.encode(), 0, granularity, size, *figures), 0)
            os.fsync(descriptor)
            return cls(path, mmap.mmap(descriptor, length), size, granularity), believed
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def close_whole(self) -> None:
        """Everything that it says is flushed where it says it is: it is believed whatever comes. Raises OSError."""
        self._memory.flush()
        self._put_flags(_WHOLE)
        self._memory.flush()
        self.let_go()

    def distrust(self) -> None:
        """Guests went on without it, so it says nothing any more."""
        _HEADER.pack_into(self._memory, 0, MAGIC, b"", 0, self.granularity, self.size, *self.figures)

    def let_go(self) -> None:
        """Close the file; the bits go on in memory of our own."""
        for part in (self.left, self._collecting, self._settling, self.exposed):
            part.let_go()
        self._view.release()
        with suppress(BufferError):  # an array may still look at it; it goes with that
            self._memory.close()

    def remove(self) -> None:
        """It is not needed any more."""
        self.let_go()
        self.path.unlink(missing_ok=True)

    # --- figures ------------------------------------------------------------------------------------------

    @property
    def figures(self) -> tuple[int, int, int, int]:
        """Bytes copied, zero, skipped, and the cursor, as they were last told."""
        copied, zero, skipped, cursor = _HEADER.unpack_from(self._memory, 0)[5:]
        return copied, zero, skipped, cursor

    def tell(self, copied: int, zero: int, skipped: int, cursor: int) -> None:
        """Figures for whoever opens it next. 0.5 us."""
        struct.pack_into("<QQQQ", self._memory, _HEADER.size - 32, copied, zero, skipped, cursor)

    def _put_flags(self, flags: int) -> None:
        struct.pack_into("<I", self._memory, 44, flags)

    # --- unsettled granules -------------------------------------------------------------------------------

    @property
    def unsettled_bytes(self) -> int:
        """At most: a granule may be in both generations."""
        return self._collecting.dirty_bytes + self._settling.dirty_bytes

    def unsettle(self, offset: int, length: int) -> None:
        """A kill may undo what is done, or being done, with these granules."""
        if offset < self.size:
            self._collecting.mark(offset, min(length, self.size - offset))

    def settle(self, offset: int, length: int) -> None:
        """It may not, nor what was done with them before."""
        self._collecting.clear(offset, length)
        self._settling.clear(offset, length)

    def is_unsettled(self, offset: int, end: int) -> bool:
        """Whether any granule of the range is."""
        return any(bits.next_dirty(offset, end) is not None for bits in (self._collecting, self._settling))

    def begin_checkpoint(self) -> None:
        """What is unsettled now is waited for; what comes is for the next checkpoint. One at a time."""
        self._settling.merge(self._collecting)
        self._collecting.clear_all()

    def end_checkpoint(self) -> None:
        """Everything from before it began is flushed."""
        self._settling.clear_all()
        if not self._collecting.count:
            self.exposed.clear_all()

    def abandon_checkpoint(self) -> None:
        """The flush failed: nothing is settled by it."""
        self._collecting.merge(self._settling)
        self._settling.clear_all()

    # --- after a kill -------------------------------------------------------------------------------------

    def is_torn(self) -> bool:
        """Whether old data is lost: a guest was let at granules whose copies a kill may have undone."""
        return any(self.is_unsettled(run.offset, run.end) for run in self.exposed.extents())

    def put_back(self) -> None:
        """What is unsettled is left again."""
        for bits in (self._collecting, self._settling):
            self.left.merge(bits)
        for bits in (self._collecting, self._settling, self.exposed):
            bits.clear_all()


def _part_bytes(size: int, granularity: int) -> int:
    granules = -(-size // granularity)
    return -(-granules // 8)
