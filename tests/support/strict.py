"""A protocol driver over memory that holds its caller to the contract, and is as slow and uneven as a disk.

It asserts what `Limits` promises (alignment, transfer size, memory alignment, ranges), refuses the inline forms as
its random numbers say, and moves bytes in two parts with other tasks between them.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Self

import numpy as np

from blockyard.base.errors import IoError
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import DriverContext, ProtocolDriver
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping

ROOM = 4 << 20
"""The array behind every node of this driver; tests stay far below it."""


@dataclass(frozen=True, slots=True)
class StrictOptions:
    """Options of the test driver `strict`."""

    size: int = 0
    alignment: int = 1
    memory_alignment: int = 1
    max_transfer: int = 0
    zero_alignment: int = 1
    max_zeroes: int = 0
    discard_alignment: int = 1
    max_discard: int = 0
    can_zero: bool = True
    atomic: int = 1
    """Bytes that are read or written whole, as a disk's sectors are; aligned."""
    inline: float = 0.5
    """Share of requests that are served without waiting."""
    seed: int = 1


class StrictDriver(ProtocolDriver):
    """Memory that is strict about what it is asked."""

    name = "strict"
    Options = StrictOptions

    def __init__(self, options: StrictOptions) -> None:
        self.options = options
        self.size = options.size
        self.bytes = bytearray(ROOM)
        self.numbers = random.Random(options.seed)
        self.limits = Limits(
            request_alignment=options.alignment,
            min_mem_alignment=options.memory_alignment,
            max_transfer=options.max_transfer,
            zero_alignment=options.zero_alignment,
            max_zeroes=options.max_zeroes,
            discard_alignment=options.discard_alignment,
            max_discard=options.max_discard,
        )
        self.failures: dict[str, int] = {}
        """How many of the next requests of a kind fail."""
        self.flushes = 0
        self.zeroed: list[tuple[int, int]] = []
        """Ranges that it was asked to zero."""
        self.is_closed = False
        self.inside = 0
        self.hold: asyncio.Event | None = None
        """While set and not fired, requests that wait do so for it."""

    @classmethod
    async def open(cls, options: StrictOptions, context: DriverContext) -> Self:
        return cls(options)

    async def close(self) -> None:
        assert not self.inside, "closed while a request is inside"
        assert not self.is_closed, "closed twice"
        self.is_closed = True

    def read_now(self, offset: int, into: memoryview) -> bool:
        self._check(offset, into)
        if self._waits():
            return False
        self._meet("read")
        into[:] = self.bytes[offset : offset + len(into)]
        return True

    async def read(self, offset: int, into: memoryview) -> None:
        self._check(offset, into)
        await self._pause()
        self._meet("read")
        middle = self._middle(offset, len(into))
        into[:middle] = self.bytes[offset : offset + middle]
        await self._pause()
        into[middle:] = self.bytes[offset + middle : offset + len(into)]

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        self._check(offset, data)
        if self._waits():
            return False
        self._meet("write")
        self.bytes[offset : offset + len(data)] = data
        self.size = max(self.size, offset + len(data))
        return True

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        view = memoryview(data)
        self._check(offset, view)
        await self._pause()
        middle = self._middle(offset, len(view))
        self.bytes[offset : offset + middle] = view[:middle]
        await self._pause()
        self._meet("write")
        self.bytes[offset + middle : offset + len(view)] = view[middle:]
        self.size = max(self.size, offset + len(view))

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        end = offset + length
        self._check_unit(self.options.zero_alignment, offset, length)
        assert not self.options.max_zeroes or length <= self.options.max_zeroes
        self.zeroed.append((offset, length))
        await self._pause()
        self._meet("zero")
        if not self.options.can_zero or self.numbers.random() < 0.2:
            return False
        self.bytes[offset:end] = bytes(length)
        self.size = max(self.size, end)
        return True

    async def discard(self, offset: int, length: int) -> None:
        self._check_unit(self.options.discard_alignment, offset, length)
        assert not self.options.max_discard or length <= self.options.max_discard
        await self._pause()
        self._meet("discard")
        if self.numbers.random() < 0.5:
            self.bytes[offset : offset + length] = bytes(length)

    async def flush(self) -> None:
        await self._pause()
        self._meet("flush")
        self.flushes += 1

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        await self._pause()
        self._meet("truncate")
        if size < self.size:
            self.bytes[size : self.size] = bytes(self.size - size)
        self.size = size

    async def map(self, offset: int, length: int) -> Mapping:
        assert not self.is_closed
        await self._pause()
        return Mapping(MapKind.DATA, length, None, offset, True)

    def _check_unit(self, unit: int, offset: int, length: int) -> None:
        """Of a request without a buffer: whole units of its kind and of all requests, or up to the end."""
        end = offset + length
        assert length > 0
        for each in (unit, self.options.alignment):
            assert offset % each == 0 and (end % each == 0 or end == self.size), (offset, length, each)

    def _middle(self, offset: int, length: int) -> int:
        """Where a request is split for others to come between."""
        middle, unit = self.numbers.randrange(length + 1), self.options.atomic
        return max(0, (offset + middle) // unit * unit - offset)

    def _check(self, offset: int, buffer: Buffer) -> None:
        assert not self.is_closed, "a request to a closed driver"
        unit = self.options.alignment
        assert offset % unit == 0 and len(buffer) % unit == 0, (offset, len(buffer))
        assert not self.options.max_transfer or len(buffer) <= self.options.max_transfer, len(buffer)
        assert offset >= 0
        assert offset + len(buffer) <= ROOM
        if self.options.memory_alignment > 1 and len(buffer):
            address = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
            assert address % self.options.memory_alignment == 0, "a buffer that is not aligned"

    def _waits(self) -> bool:
        return self.hold is not None or self.numbers.random() >= self.options.inline

    def _meet(self, kind: str) -> None:
        if self.failures.get(kind, 0):
            self.failures[kind] -= 1
            raise IoError("strict", kind, 5, "as the test asked")

    async def _pause(self) -> None:
        self.inside += 1
        try:
            if self.hold is not None:
                await self.hold.wait()
            for _ in range(self.numbers.randrange(4)):
                await asyncio.sleep(0)
        finally:
            self.inside -= 1
