"""Driver `memory`: bytes in this process, sparse, lost at close.

What must not live here: anything that blocks; every request is served inline.

Theory. Content is a table of equal chunks; a chunk that was never written, or was zeroed or discarded whole, does
not exist and reads as zeroes. So a terabyte costs nothing until it is written, and holes are known exactly.
"""

from dataclasses import dataclass
from typing import Final, Self

from blockyard.base.errors import InvalidArgument, NodeReadOnly, NoSpace, SizeTooLarge
from blockyard.base.units import GIB, KIB, MAX_SIZE
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import DriverContext, NodeInfo, ProtocolDriver
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping

CHUNK: Final = 64 * KIB
MEMORY_LIMIT: Final = 4 * GIB
"""What the chunks of one node may take; a write that needs more gets NoSpace."""
STATUS_CHUNKS: Final = 16 * KIB
"""Chunks that one `map` looks at: 1 GiB, about 1 ms."""
_ZEROES: Final = bytes(CHUNK)


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """Options of driver `memory`."""

    size: int = 0
    """Bytes to begin with; writes past the end grow the node."""


class MemoryDriver(ProtocolDriver):
    """Bytes in memory, lost at close."""

    name = "memory"
    forgets = True
    reopens = False
    Options = MemoryOptions

    def __init__(self, options: MemoryOptions, context: DriverContext) -> None:
        self._node_name = context.node_name
        self._context = context
        self._chunks: dict[int, bytearray] = {}
        self.size = options.size
        self.limits = Limits()

    @classmethod
    async def open(cls, options: MemoryOptions, context: DriverContext) -> Self:
        _check_size(options.size)
        return cls(options, context)

    async def close(self) -> None:
        self._chunks.clear()

    def read_now(self, offset: int, into: memoryview) -> bool:
        done, length = 0, len(into)
        while done < length:
            index, start = divmod(offset + done, CHUNK)
            count = min(CHUNK - start, length - done)
            chunk = self._chunks.get(index)
            into[done : done + count] = _ZEROES[:count] if chunk is None else chunk[start : start + count]
            done += count
        return True

    async def read(self, offset: int, into: memoryview) -> None:
        self.read_now(offset, into)

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        if self._context.read_only:
            raise NodeReadOnly(self._node_name)
        view, done, length = memoryview(data), 0, len(data)
        while done < length:
            index, start = divmod(offset + done, CHUNK)
            count = min(CHUNK - start, length - done)
            chunk = self._chunks.get(index)
            if chunk is None:
                chunk = self._new_chunk(index)
            chunk[start : start + count] = view[done : done + count]
            done += count
        self.size = max(self.size, offset + length)
        return True

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        self.write_now(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        if self._context.read_only:
            raise NodeReadOnly(self._node_name)
        self._drop(offset, offset + length)
        self.size = max(self.size, offset + length)
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self.zero(offset, min(length, self.size - offset), 0)

    async def flush(self) -> None:
        return

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """See `Resizable.truncate`. Memory is taken when it is written, so only `off` makes sense."""
        if self._context.read_only:
            raise NodeReadOnly(self._node_name)
        if preallocation is not Preallocation.OFF:
            raise InvalidArgument("preallocation", "off", preallocation)
        _check_size(size)
        if size < self.size:
            self._drop(size, self.size)
        self.size = size

    async def map(self, offset: int, length: int) -> Mapping:
        first, start = divmod(offset, CHUNK)
        last = min((offset + length - 1) // CHUNK, first + STATUS_CHUNKS - 1)
        is_there = first in self._chunks
        index = first + 1
        while index <= last and (index in self._chunks) is is_there:
            index += 1
        found = min(length, (index - first) * CHUNK - start)
        return Mapping(MapKind.DATA if is_there else MapKind.ZERO, found, None, offset, True)

    async def info(self) -> NodeInfo:
        return NodeInfo(allocated_bytes=len(self._chunks) * CHUNK, has_zero_init=True)

    def _new_chunk(self, index: int) -> bytearray:
        if len(self._chunks) >= MEMORY_LIMIT // CHUNK:
            raise NoSpace(self._node_name, "write")
        try:
            chunk = self._chunks[index] = bytearray(CHUNK)
        except MemoryError as problem:
            raise NoSpace(self._node_name, "write") from problem
        return chunk

    def _drop(self, start: int, end: int) -> None:
        """Make a range read as zeroes; whole chunks go away."""
        if start >= end:
            return
        first, last = start // CHUNK, (end - 1) // CHUNK
        if last - first > len(self._chunks):
            touched = [index for index in self._chunks if first <= index <= last]
        else:
            touched = [index for index in range(first, last + 1) if index in self._chunks]
        for index in touched:
            low, high = max(start - index * CHUNK, 0), min(end - index * CHUNK, CHUNK)
            if high - low == CHUNK:
                del self._chunks[index]
            else:
                self._chunks[index][low:high] = _ZEROES[: high - low]


def _check_size(size: int) -> None:
    if size < 0:
        raise InvalidArgument("size", "0 or more", str(size))
    if size > MAX_SIZE:
        raise SizeTooLarge("size", size, MAX_SIZE)
