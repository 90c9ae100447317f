"""What concurrent requests may show: a register per byte, and storms of random requests that are held to it.

Theory. Every write is a row with a range and a value. A byte may show the value of a row that is allowed there:
from the moment a write begins its value is allowed; when it ends, the values of all that had ended before it
began are not. A read may show what was allowed when it began, or the value of any write that began while it ran.
When nothing is in flight everything is read twice, compared, and what was seen becomes the ground of the next
round.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blockyard.base.errors import BlockError
from blockyard.node.graph.user import User
from blockyard.node.interface.flags import COMPRESSED, FUA, MAY_UNMAP
from tests.support.graphs import content

FOREVER = 1 << 62


@dataclass(slots=True)
class _Row:
    start: int
    end: int
    value: int | NDArray[np.uint8]
    began: int
    ended: int = FOREVER
    may_do_nothing: bool = False


class Register:
    """The bytes of a node under concurrent writes. `below` is what a dropped range may show instead of zeroes."""

    def __init__(self, size: int, ground: bytes, below: bytes = b"") -> None:
        self.size = size
        self.time = 0
        self.below = np.frombuffer(below.ljust(size, b"\0")[:size], np.uint8)
        self.settle(ground)

    def settle(self, ground: bytes) -> None:
        """Nothing is in flight, and this is what is there."""
        base = np.zeros(self.size, np.uint8)
        base[: len(ground)] = np.frombuffer(ground, np.uint8)
        self.rows = [_Row(0, self.size, base, -1, -1)]
        self.allowed = np.zeros((128, self.size), bool)
        self.allowed[0] = True

    def begin(self, offset: int, length: int, value: int | None) -> int:
        """A write begins; None for a discard, which may show what is below or do nothing. The row's index."""
        self.time += 1
        row = _Row(offset, offset + length, 0 if value is None else value, self.time)
        if value is None:
            row.value, row.may_do_nothing = self.below[offset : offset + length], True
        self.rows.append(row)
        self.allowed[len(self.rows) - 1, row.start : row.end] = True
        return len(self.rows) - 1

    def end(self, index: int) -> None:
        """A write was acknowledged. One that failed or was cancelled never ends: it may show at any time."""
        self.time += 1
        row = self.rows[index]
        row.ended = self.time
        if row.may_do_nothing:
            return
        for other, earlier in enumerate(self.rows):
            if earlier.ended < row.began:
                self.allowed[other, row.start : row.end] = False

    def look(self, offset: int, length: int) -> tuple[int, NDArray[np.bool_]]:
        """A read begins."""
        self.time += 1
        return self.time, self.allowed[: len(self.rows), offset : offset + length].copy()

    def check(self, began: tuple[int, NDArray[np.bool_]], offset: int, data: bytes) -> None:
        """A read ended with this."""
        time, allowed = began
        seen = np.frombuffer(data, np.uint8)
        good = np.zeros(len(data), bool)
        for index, row in enumerate(self.rows):
            start, end = max(offset, row.start), min(offset + len(data), row.end)
            if start >= end:
                continue
            here = slice(start - offset, end - offset)
            value = row.value if isinstance(row.value, int) else row.value[start - row.start : end - row.start]
            matches = seen[here] == value
            if index < len(allowed):
                matches &= allowed[index, here]
            else:
                assert row.began > time
            good[here] |= matches
        if not good.all():
            at = int(np.argmin(good))
            raise AssertionError(f"byte {offset + at} shows {seen[at]:#x}, allowed: {self._values(offset + at)}")

    def _values(self, at: int) -> list[str]:
        return [
            f"{row.value if isinstance(row.value, int) else row.value[at - row.start]:#x}"
            f" ({row.start}-{row.end}, {row.began}-{row.ended})"
            for index, row in enumerate(self.rows)
            if row.start <= at < row.end and self.allowed[index, at]
        ]


@dataclass(slots=True)
class Mix:
    """How a storm is made up: relative weights, and what is allowed."""

    read: int = 6
    write: int = 8
    zero: int = 2
    discard: int = 2
    flush: int = 1
    resize: int = 0
    cancel: float = 0.0
    """Share of the requests that are cancelled on their way."""
    compressed: float = 0.0
    zeroes: float = 0.0
    """Share of the writes that write zeroes."""
    unit: int = 1
    """Offsets and lengths are multiples of it."""
    largest: int = 20_000


class Storm:
    """Rounds of concurrent random requests through one user of the graph."""

    def __init__(self, user: User, register: Register, seed: int, mix: Mix) -> None:
        self.user = user
        self.register = register
        self.numbers = random.Random(seed)
        self.mix = mix
        self.values = 0
        self.between: Callable[[], object] = lambda: None
        """Called when nothing is in flight."""

    async def run(self, rounds: int = 4, requests: int = 30) -> None:
        for _ in range(rounds):
            async with asyncio.TaskGroup() as group:
                for _ in range(requests):
                    group.create_task(self._one())
                    for _ in range(self.numbers.randrange(5)):
                        await asyncio.sleep(0)
            await self.settle()

    async def settle(self) -> None:
        """Nothing is in flight: read all twice and go on from there."""
        seen = await content(self.user)
        self.register.check(self.register.look(0, len(seen)), 0, seen)
        assert seen == await content(self.user), "what was read once is not read again"
        self.register.settle(seen)
        self.between()

    async def _one(self) -> None:
        names = ("read", "write", "zero", "discard", "flush", "resize")
        weights = [getattr(self.mix, name) for name in names]
        kind = self.numbers.choices(names, weights)[0]
        task = asyncio.ensure_future(getattr(self, f"_{kind}")())
        if self.numbers.random() < self.mix.cancel:
            for _ in range(self.numbers.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        if task.cancelled() or task.exception() is None:
            return
        raise task.exception()  # type: ignore[misc]

    def _range(self) -> tuple[int, int]:
        unit, size = self.mix.unit, self.user.size
        length = min(size, self.numbers.choice((1, 100, 512, 4096, self.mix.largest)))
        length = max(unit, self.numbers.randint(1, length) // unit * unit)
        places = (size - length) // unit
        # A few hot places, so that requests meet.
        offset = self.numbers.randint(0, places) * unit
        if self.numbers.random() < 0.6:
            offset = min(offset % (16384 // unit * unit), places * unit)
        return offset, length

    async def _read(self) -> None:
        offset, length = self._range()
        began = self.register.look(offset, length)
        into = bytearray(length)
        try:
            if self.numbers.random() < 0.5 or not self.user.read_now(offset, memoryview(into)):
                await self.user.read(offset, memoryview(into))
        except BlockError:
            assert self.mix.resize
            return
        self.register.check(began, offset, bytes(into))

    async def _write(self) -> None:
        offset, length = self._range()
        self.values = self.values % 230 + 1
        value = 0 if self.numbers.random() < self.mix.zeroes else self.values
        flags = FUA if self.numbers.random() < 0.1 else 0
        if self.numbers.random() < self.mix.compressed:
            flags |= COMPRESSED
        data = bytes([value]) * length
        row = self.register.begin(offset, length, value)
        try:
            if self.numbers.random() < 0.5 or not self.user.write_now(offset, data, flags):
                await self.user.write(offset, data, flags)
        except BlockError:
            assert self.mix.resize
            return
        self.register.end(row)

    async def _zero(self) -> None:
        offset, length = self._range()
        row = self.register.begin(offset, length, 0)
        try:
            await self.user.zero(offset, length, MAY_UNMAP if self.numbers.random() < 0.5 else 0)
        except BlockError:
            assert self.mix.resize
            return
        self.register.end(row)

    async def _discard(self) -> None:
        offset, length = self._range()
        rows = [self.register.begin(offset, length, None), self.register.begin(offset, length, 0)]
        self.register.rows[rows[1]].may_do_nothing = True
        try:
            await self.user.discard(offset, length)
        except BlockError:
            assert self.mix.resize
            return
        for row in rows:
            self.register.end(row)

    async def _flush(self) -> None:
        await self.user.flush()

    async def _resize(self) -> None:
        unit = max(512, self.mix.unit)
        size = self.numbers.randint(self.register.size // 2 // unit, self.register.size // unit) * unit
        start = min(size, self.user.size)
        # Whatever is cut off or comes new reads as zeroes, before and after everything beside it.
        row = self.register.begin(start, self.register.size - start, 0)
        self.register.rows[row].may_do_nothing = True
        await self.user.truncate(size)
        self.register.end(row)
