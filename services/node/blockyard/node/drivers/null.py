"""Driver `null`: reads zeroes, forgets writes. For measuring what everything above it costs, with or without a
latency of its own (QEMU's block/null.c).
"""

from dataclasses import dataclass
from typing import Self

from blockyard.base.errors import InvalidArgument, NodeReadOnly, NoSpace, SizeTooLarge
from blockyard.base.units import GIB, MAX_SIZE
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import DriverContext, NodeInfo, ProtocolDriver
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping

MAX_LATENCY_NS = 60 * 10**9
"""A minute: longer than any deadline that a test of slowness needs."""


@dataclass(frozen=True, slots=True)
class NullOptions:
    """Options of driver `null`."""

    size: int = GIB
    latency_ns: int = 0
    """Every request takes this long."""
    read_zeroes: bool = True
    """Block status says ZERO; false says DATA, so that copies move bytes. Reads give zeroes in any case: a buffer
    that is left as it is would show another client's data."""


class NullDriver(ProtocolDriver):
    """Reads zeroes, forgets writes."""

    name = "null"
    fixed_options = frozenset({"size"})
    Options = NullOptions

    def __init__(self, options: NullOptions, context: DriverContext) -> None:
        self._context = context
        self._latency_ns = options.latency_ns
        self._kind = MapKind.ZERO if options.read_zeroes else MapKind.DATA
        self.size = options.size
        self.limits = Limits()

    @classmethod
    async def open(cls, options: NullOptions, context: DriverContext) -> Self:
        if options.size < 0:
            raise InvalidArgument("size", "0 or more", str(options.size))
        if options.size > MAX_SIZE:
            raise SizeTooLarge("size", options.size, MAX_SIZE)
        if not 0 <= options.latency_ns <= MAX_LATENCY_NS:
            raise InvalidArgument("latency_ns", f"0 to {MAX_LATENCY_NS}", str(options.latency_ns))
        return cls(options, context)

    def read_now(self, offset: int, into: memoryview) -> bool:
        if self._latency_ns:
            return False
        into[:] = bytes(len(into))
        return True

    async def read(self, offset: int, into: memoryview) -> None:
        await self._wait()
        into[:] = bytes(len(into))

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        if self._latency_ns:
            return False
        self._check(offset + len(data))
        return True

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        self._check(offset + len(data))
        await self._wait()

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        self._check(offset + length)
        await self._wait()
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self._wait()

    async def flush(self) -> None:
        await self._wait()

    async def map(self, offset: int, length: int) -> Mapping:
        return Mapping(self._kind, length, None, offset, True)

    async def info(self) -> NodeInfo:
        return NodeInfo(allocated_bytes=0, has_zero_init=True)

    async def _wait(self) -> None:
        if self._latency_ns:
            await self._context.clock.sleep(self._latency_ns / 1e9)

    def _check(self, end: int) -> None:
        if self._context.read_only:
            raise NodeReadOnly(self._context.node_name)
        if end > self.size:
            raise NoSpace(self._context.node_name, "write")
