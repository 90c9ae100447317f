"""Half-open byte ranges and alignment arithmetic: the one place for both.

Must not know nodes, files or requests. Every function is pure.
"""

from collections.abc import Iterator
from typing import NamedTuple


class ByteRange(NamedTuple):
    """The bytes `offset <= x < end`. An empty range has `length == 0`."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length

    def overlaps(self, other: "ByteRange") -> bool:
        return self.offset < other.offset + other.length and other.offset < self.offset + self.length

    def intersection(self, other: "ByteRange") -> "ByteRange":
        """The shared part; empty (at the later start) if there is none."""
        start = max(self.offset, other.offset)
        return ByteRange(start, max(0, min(self.end, other.end) - start))

    def widened(self, alignment: int) -> "ByteRange":
        """The smallest aligned range around this one."""
        start = align_down(self.offset, alignment)
        return ByteRange(start, align_up(self.end, alignment) - start)

    def narrowed(self, alignment: int) -> "ByteRange":
        """The largest aligned range inside this one; empty if no aligned unit fits."""
        start = align_up(self.offset, alignment)
        return ByteRange(start, max(0, align_down(self.end, alignment) - start))

    def pieces(self, size: int) -> Iterator["ByteRange"]:
        """This range cut at multiples of `size`, in order."""
        position = self.offset
        while position < self.end:
            stop = min(self.end, align_down(position, size) + size)
            yield ByteRange(position, stop - position)
            position = stop


def align_down(value: int, alignment: int) -> int:
    """The largest multiple that is not above; `alignment` need not be a power of two."""
    return value - value % alignment


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple that is not below."""
    return -(-value // alignment) * alignment


def is_aligned(value: int, alignment: int) -> bool:
    """Whether it is a multiple."""
    return value % alignment == 0


def is_power_of_two(value: int) -> bool:
    """Whether it is 1, 2, 4 ...; zero and negative numbers are not."""
    return value > 0 and value & (value - 1) == 0
