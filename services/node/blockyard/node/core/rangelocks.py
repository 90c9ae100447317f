"""Exclusive locks on byte ranges, in order of arrival: what keeps a job's copies and a guest's writes apart. And
readers of ranges, who keep nobody out, but can be waited for (QEMU's block/reqlist.c).

Must not know what is locked. Invariant: of two overlapping ranges the earlier one is granted first, so nobody
starves and two holders never overlap.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class _Range:
    __slots__ = ("end", "released", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.released: asyncio.Future[None] | None = None


class RangeLocks:
    """Locks of one address space. Few are held at once (a job's window and a guest's depth), so a list will do."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[_Range] = []

    def busy(self, offset: int, length: int) -> bool:
        """Whether anyone holds or waits for an overlapping range."""
        return any(item.start < offset + length and offset < item.end for item in self._ranges)

    @asynccontextmanager
    async def hold(self, offset: int, length: int) -> AsyncIterator[None]:
        """Hold the range; waits for every overlapping one that came before."""
        mine = _Range(offset, offset + length)
        before = [item for item in self._ranges if item.start < mine.end and mine.start < item.end]
        self._ranges.append(mine)
        try:
            for other in before:
                await _release_of(other)
            yield
        finally:
            self._ranges.remove(mine)
            _release(mine)


class RangeReaders:
    """Who is reading which range. Few at a time: a backup's window."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[_Range] = []

    def busy(self, offset: int, length: int) -> bool:
        """Whether anyone reads an overlapping range."""
        return bool(self._ranges) and bool(self._within(offset, length))

    @contextmanager
    def reading(self, offset: int, length: int) -> Iterator[None]:
        """Read the range while the body runs."""
        mine = _Range(offset, offset + length)
        self._ranges.append(mine)
        try:
            yield
        finally:
            self._ranges.remove(mine)
            _release(mine)

    async def gone(self, offset: int, length: int) -> None:
        """Return when all who read an overlapping range now have ended."""
        for reader in self._within(offset, length):
            await _release_of(reader)

    def _within(self, offset: int, length: int) -> list[_Range]:
        return [item for item in self._ranges if item.start < offset + length and offset < item.end]


def _release(held: _Range) -> None:
    if held.released is not None:
        held.released.set_result(None)
    held.end = held.start


async def _release_of(other: _Range) -> None:
    if other.end == other.start:
        return
    if other.released is None:
        other.released = asyncio.get_running_loop().create_future()
    await asyncio.shield(other.released)
