"""Dirty bitmaps: which parts of a node were written (the seed's HBitmap).

What must not live here: names, owners, freezing (`graph.bitmaps`), durability, and what is done with the answer.

Theory. One bit per granule of `granularity` bytes in one flat array, in qcow2's layout (bit i is bit i % 8 of byte
i // 8), so that storing a bitmap is copying it. A mark inside one granule is plain Python on a bytearray (a numpy
scalar would cost more than the whole call); everything else is vectorised through a numpy view of the same bytes:
1 TiB at 64 KiB is 2 MiB and is scanned in 0.1 ms.

Invariants:
1. Nothing is ever under-reported: `mark` rounds out, `clear` rounds in (a last granule cut short by the end of the
   node counts as whole), and a mark past the end grows the bitmap.
2. `count` is exact at all times; bits past the last granule are 0.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import InvalidArgument
from blockyard.base.ranges import ByteRange, is_power_of_two
from blockyard.base.units import MAX_SIZE, MIB

MIN_GRANULARITY: Final = 512
MAX_GRANULARITY: Final = 64 * MIB
"""bdrv_create_dirty_bitmap takes 512 B and up; jobs take up to 64 MiB (block/mirror.c)."""
DEFAULT_GRANULARITY: Final = 65536
MAX_BYTES: Final = 512 * MIB
"""Memory of one bitmap: QEMU's bound as well (BME_MAX_PHYS_SIZE, block/qcow2-bitmap.c)."""

_WINDOW: Final = 8192
"""Bytes of bits that one step of an iteration unpacks: 64 Ki granules."""
_SCALED: Final = 128 * 1024
"""Bytes of bits that one step of a merge across granularities unpacks: 8 of the coarsest granule in the finest."""
_FIRST_WINDOW: Final = 64
_LAST_WINDOW: Final = 256 * 1024


Room = Callable[[int], memoryview]
"""Gives so many bytes for bits: those that it gave before, cut or followed by zeroes."""


class DirtyBitmap:
    """See the module. Offsets, lengths and `size` are bytes of the node."""

    __slots__ = ("_bits", "_granules", "_room", "_shift", "_view", "count", "granularity", "size")

    def __init__(self, size: int, granularity: int = DEFAULT_GRANULARITY, room: Room | None = None) -> None:
        """`room`: where the bits are, with what they say already; by default memory of its own, all clean."""
        if not is_power_of_two(granularity) or not MIN_GRANULARITY <= granularity <= MAX_GRANULARITY:
            raise InvalidArgument(
                "granularity", f"a power of two, {MIN_GRANULARITY} to {MAX_GRANULARITY}", str(granularity)
            )
        self.granularity = granularity
        self._shift = granularity.bit_length() - 1
        self.count = 0
        """Dirty granules."""
        self.size = size
        self._granules = self._checked_granules(size)
        self._room = room
        if room is None:
            self._set_bits(bytearray(-(-self._granules // 8)))
        else:
            self._set_bits(room(-(-self._granules // 8)))
            self.settle()

    # --- changing ---------------------------------------------------------------------------------------

    def mark(self, offset: int, length: int) -> None:
        """Every granule that the range touches is dirty. 0.3 us inside one granule."""
        if not length:
            return
        end = offset + length
        if end > self.size:
            self.resize(end)
        shift = self._shift
        first, last = offset >> shift, (end - 1) >> shift
        if first == last:
            bits, byte, mask = self._bits, first >> 3, 1 << (first & 7)
            if not bits[byte] & mask:
                bits[byte] |= mask
                self.count += 1
        else:
            self._fill(first, last + 1, True)

    def clear(self, offset: int, length: int) -> None:
        """Every granule that lies wholly in the range is clean."""
        end = offset + length
        first = -(-offset >> self._shift)
        stop = self._granules if end >= self.size else end >> self._shift
        if first < stop:
            self._fill(first, stop, False)

    def clear_all(self) -> None:
        self._view[:] = 0
        self.count = 0

    def merge(self, other: Self) -> None:
        """What is dirty there is dirty here too. Granularities may differ; bytes past our end do not matter."""
        if other.granularity == self.granularity:
            shared = min(len(self._bits), len(other._bits))
            np.bitwise_or(self._view[:shared], other._view[:shared], out=self._view[:shared])
            self._mask_tail()
            self._recount()
            return
        end = min(self.size, other.size)
        shared = -(-end >> self._shift)
        for start, bits in other._scaled(self._shift, end):
            bits = bits[: max(0, shared - start)]
            view = self._view[start >> 3 : (start + len(bits) + 7) >> 3]
            np.bitwise_or(view, np.packbits(bits, bitorder="little"), out=view)
        self._recount()

    def resize(self, size: int) -> None:
        """Follow the node: new granules are clean, cut ones forgotten."""
        granules = self._checked_granules(size)
        if granules != self._granules:
            self._granules = granules
            length = -(-granules // 8)
            if self._room is not None:
                self._set_bits(self._room(length))
            else:  # a bytearray that numpy looks at cannot change its length
                self._set_bits(bytearray(self._bits[:length]) + bytes(max(0, length - len(self._bits))))
            if size < self.size:
                self._mask_tail()
                self._recount()
        self.size = size

    def become(self, other: "DirtyBitmap") -> None:
        """Say what another of the same granularity says, in the room that it has."""
        assert self.granularity == other.granularity
        self.resize(other.size)
        self.put(other._bits)
        self.settle()

    def copy(self) -> "DirtyBitmap":
        twin = DirtyBitmap(self.size, self.granularity)
        twin._set_bits(bytearray(self._bits))
        twin.count = self.count
        return twin

    # --- asking -----------------------------------------------------------------------------------------

    @property
    def dirty_bytes(self) -> int:
        """Bytes in dirty granules, those past the end of the node not counted."""
        total = self.count << self._shift
        if self._granules and self._bit(self._granules - 1):
            total -= (self._granules << self._shift) - self.size
        return total

    def is_dirty(self, offset: int) -> bool:
        assert 0 <= offset < self.size, offset
        return bool(self._bit(offset >> self._shift))

    def within(self, other: "DirtyBitmap") -> bool:
        """Whether nothing is dirty here that is clean there; of the same granularity."""
        shared = min(len(self._view), len(other._view))
        extra = self._view[:shared] & ~other._view[:shared]
        return not extra.any() and not self._view[shared:].any()

    def table(self) -> tuple[bytearray | memoryview, int, int]:
        """The bits themselves, how far an offset is shifted to be a granule's number, and how many granules there
        are.

        For the one place that cannot pay for a call. Good until the size changes.
        """
        return self._bits, self._shift, self._granules

    def covers(self, offset: int, length: int) -> bool:
        """Whether every granule that the range touches is dirty."""
        if offset + length > self.size:
            return False
        first, last = offset >> self._shift, (offset + length - 1) >> self._shift
        if first == last:
            return bool(self._bits[first >> 3] >> (first & 7) & 1)
        return self._seek(first, last + 1, False) > last

    def next_dirty(self, offset: int, end: int | None = None) -> ByteRange | None:
        """The first dirty run in `[offset, end)`, cut to it; None if all of it is clean."""
        end = self.size if end is None else min(end, self.size)
        if offset >= end or not self.count:
            return None
        stop = ((end - 1) >> self._shift) + 1
        first = self._seek(offset >> self._shift, stop, True)
        if first >= stop:
            return None
        last = self._seek(first + 1, stop, False)
        start = max(offset, first << self._shift)
        return ByteRange(start, min(end, last << self._shift) - start)

    def extents(self, offset: int = 0, end: int | None = None) -> Iterator[ByteRange]:
        """The dirty runs in `[offset, end)` in order, neighbours joined, with bounded memory.

        Marks made meanwhile behind the present position are not seen, ahead of it perhaps.
        """
        end = self.size if end is None else min(end, self.size)
        if offset >= end:
            return
        position, stop = offset >> self._shift, ((end - 1) >> self._shift) + 1
        run: tuple[int, int] | None = None
        while (position := self._seek(position, stop, True)) < stop:
            limit = min(stop, ((position >> 3) + _WINDOW) << 3)
            for first, last in self._runs(position, limit):
                if run is not None and run[1] == first:
                    run = (run[0], last)
                    continue
                if run is not None:
                    yield self._extent(run, offset, end)
                run = (first, last)
            position = limit
        if run is not None:
            yield self._extent(run, offset, end)

    # --- storing ----------------------------------------------------------------------------------------

    @property
    def serialized_size(self) -> int:
        """Bytes of the whole bitmap in qcow2's layout."""
        return len(self._bits)

    def serialize(self, start: int = 0, length: int | None = None) -> bytes:
        """Bytes `[start, start + length)` of the bitmap in qcow2's layout; to the end by default."""
        return bytes(self._bits[start : None if length is None else start + length])

    def deserialize(self, data: bytes | bytearray | memoryview, start: int = 0) -> None:
        """Replace the bytes from `start` on by stored ones. What they say past the last granule is ignored."""
        self.put(data, start)
        self.settle()

    def put(self, data: bytes | bytearray | memoryview, start: int = 0) -> None:
        """As `deserialize`, for one of many pieces; `settle` after the last."""
        taken = min(len(data), len(self._bits) - start)
        self._bits[start : start + taken] = memoryview(data)[:taken]

    def settle(self) -> None:
        """Make `count` right after `put`."""
        self._mask_tail()
        self._recount()

    def sha256(self) -> str:
        """Of the bits in whole 64-bit words, at least one, in hex: as QEMU's hbitmap_sha256 takes it."""
        digest = hashlib.sha256(self._bits)
        length = len(self._bits)
        digest.update(bytes(max(8, -(-length // 8) * 8) - length))
        return digest.hexdigest()

    # --- bits -------------------------------------------------------------------------------------------

    def _scaled(self, shift: int, end: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The bits before byte `end` as if granules were of 1 << `shift` bytes, piece by piece: the number of the
        first, and a byte for each."""
        by, whole = shift - self._shift, -(-end >> self._shift)
        step = max(1, _SCALED >> max(0, -by))
        for position in range(0, len(self._bits), step):
            bits = np.unpackbits(self._view[position : position + step], bitorder="little")
            bits = bits[: max(0, whole - position * 8)]
            if by < 0:
                yield (position * 8) << -by, np.repeat(bits, 1 << -by)
                continue
            groups = np.zeros(-(-len(bits) >> by) << by, np.uint8)
            groups[: len(bits)] = bits
            yield (position * 8) >> by, groups.reshape(-1, 1 << by).max(axis=1)

    def _checked_granules(self, size: int) -> int:
        granules = -(-size >> self._shift)
        if not 0 <= size <= MAX_SIZE or granules > MAX_BYTES * 8:
            least = f"{self.granularity}"
            while granules > MAX_BYTES * 8:
                granules >>= 1
                least = "a larger one"
            raise InvalidArgument("granularity", f"{least} for {size} bytes", str(self.granularity))
        return granules

    def _set_bits(self, bits: bytearray | memoryview) -> None:
        self._bits = bits
        self._view: NDArray[np.uint8] = np.frombuffer(bits, np.uint8)

    def _bit(self, index: int) -> int:
        return self._bits[index >> 3] >> (index & 7) & 1

    def _recount(self) -> None:
        self.count = _ones(self._view)

    def _mask_tail(self) -> None:
        if self._granules & 7:
            self._bits[len(self._bits) - 1] &= (1 << (self._granules & 7)) - 1

    def _fill(self, first: int, stop: int, dirty: bool) -> None:
        """Set or reset granules `[first, stop)`, which is not empty, and keep `count`."""
        low, high = first >> 3, (stop - 1) >> 3
        head = 0xFF << (first & 7) & 0xFF
        tail = 0xFF >> (7 - (stop - 1 & 7))
        if low == high:
            self._fill_byte(low, head & tail, dirty)
            return
        self._fill_byte(low, head, dirty)
        self._fill_byte(high, tail, dirty)
        if high - low > 1:
            middle = self._view[low + 1 : high]
            before = _ones(middle)
            middle[:] = 0xFF if dirty else 0
            self.count += (len(middle) * 8 if dirty else 0) - before

    def _fill_byte(self, index: int, mask: int, dirty: bool) -> None:
        before = self._bits[index]
        after = before | mask if dirty else before & ~mask
        self._bits[index] = after
        self.count += after.bit_count() - before.bit_count()

    def _seek(self, first: int, stop: int, dirty: bool) -> int:
        """The first granule in `[first, stop)` that is so; `stop` if none is."""
        if first >= stop:
            return stop
        # The byte that holds `first`, without the bits before it.
        byte = (self._bits[first >> 3] ^ (0 if dirty else 0xFF)) >> (first & 7)
        if byte:
            return min(stop, first + _lowest(byte))
        position, end, window = (first >> 3) + 1, (stop + 7) >> 3, _FIRST_WINDOW
        uninteresting = 0 if dirty else 0xFF
        while position < end:
            different = self._view[position : min(end, position + window)] != uninteresting
            found = int(different.argmax())
            if different[found]:
                byte = self._bits[position + found] ^ uninteresting
                return min(stop, (position + found) * 8 + _lowest(byte))
            position += len(different)
            window = min(window * 8, _LAST_WINDOW)
        return stop

    def _runs(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Runs of dirty granules in `[first, stop)`, at most a window long."""
        base = first & ~7
        bits = np.unpackbits(self._view[first >> 3 : (stop + 7) >> 3], bitorder="little")
        bits[: first - base] = 0
        bits[stop - base :] = 0
        padded = np.concatenate((_ZERO, bits, _ZERO)).view(np.int8)
        changes = np.flatnonzero(np.diff(padded)) + base
        edges = changes.tolist()
        return zip(edges[::2], edges[1::2], strict=True)

    def _extent(self, run: tuple[int, int], offset: int, end: int) -> ByteRange:
        start = max(offset, run[0] << self._shift)
        return ByteRange(start, min(end, run[1] << self._shift) - start)


_ZERO: Final = np.zeros(1, np.uint8)


def _lowest(byte: int) -> int:
    return (byte & -byte).bit_length() - 1


def _ones(view: NDArray[np.uint8]) -> int:
    whole = len(view) & ~7
    words = view[:whole].view(np.uint64)
    return int(np.bitwise_count(words).sum(dtype=np.int64)) + int(
        np.bitwise_count(view[whole:]).sum(dtype=np.int64)
    )
