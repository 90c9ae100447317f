"""`RecordingDriver`: a protocol driver whose file lives in memory and whose every change goes to a shared `Log`.

What must not live here: replay. Content in memory is what a running system sees; what a crash leaves is computed
from the log alone.

A write is in flight for a few turns of the loop, so that a driver that flushes without waiting for its own writes
is caught: such a flush does not cover them.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Self

from blockyard.base.errors import FileNotFound, NodeReadOnly, SizeTooLarge
from blockyard.base.units import MIB
from blockyard.node.drivers import catalogue
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import DriverContext, NodeInfo, ProtocolDriver
from blockyard.node.interface.flags import FUA, Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping
from tests.support.crash.log import Log, Op
from tests.support.ground import DriverChild, Ground

MAX_DELAY_TURNS = 3
MAX_CONTENT = 256 * MIB
"""Of one file: everything is in memory, and written out for each worker."""


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """Options of driver `recording`."""

    filename: str


class RecordingDriver(ProtocolDriver):
    """A file of a `Recorder`, in memory, every change logged."""

    name = "recording"
    Options = RecordingOptions
    recorder: ClassVar["Recorder"]

    def __init__(self, options: RecordingOptions, context: DriverContext) -> None:
        self._context = context
        self._file = options.filename
        self._content = self.recorder.contents[options.filename]
        self._in_flight: set[int] = set()
        self.limits = Limits()

    @classmethod
    async def open(cls, options: RecordingOptions, context: DriverContext) -> Self:
        if options.filename not in cls.recorder.contents:
            raise FileNotFound(options.filename)
        return cls(options, context)

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self._content)

    async def read(self, offset: int, into: memoryview) -> None:
        await self._delay()
        into[:] = self._content[offset : offset + len(into)].ljust(len(into), b"\0")

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        plain = bytes(data)
        with self._logged(Op.WRITE, offset=offset, length=len(plain), data=plain) as index:
            self._grow(offset)
            self._content[offset : offset + len(plain)] = plain
            await self._delay()
        self._end(index, flags)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        with self._logged(Op.ZERO, offset=offset, length=length) as index:
            self._grow(offset + length)
            self._content[offset : offset + length] = bytes(length)
            await self._delay()
        self._end(index, flags)
        return True

    async def discard(self, offset: int, length: int) -> None:
        length = min(length, len(self._content) - offset)
        with self._logged(Op.DISCARD, offset=offset, length=length):
            self._content[offset : offset + length] = bytes(length)
            await self._delay()

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        if not 0 <= size <= MAX_CONTENT:
            raise SizeTooLarge("size", size, MAX_CONTENT)
        with self._logged(Op.TRUNCATE, offset=size):
            del self._content[size:]
            self._grow(size)
            await self._delay()

    async def flush(self) -> None:
        covers, missing = len(self.recorder.log), frozenset(self._in_flight)
        await self._delay()
        self.recorder.log.append(Op.FLUSH, self._file, covers=covers, missing=missing)

    async def map(self, offset: int, length: int) -> Mapping:
        return Mapping(MapKind.DATA, length, None, offset, True)

    async def info(self) -> NodeInfo:
        return NodeInfo(allocated_bytes=len(self._content), has_zero_init=True, filename=self._file)

    @contextmanager
    def _logged(self, op: Op, **facts: object) -> Iterator[int]:
        if self._context.read_only:
            raise NodeReadOnly(self._context.node_name)
        index = self.recorder.log.append(op, self._file, **facts)
        self._in_flight.add(index)
        try:
            yield index
        finally:
            self._in_flight.discard(index)

    def _end(self, index: int, flags: int) -> None:
        if flags & FUA:
            self.recorder.log.append(Op.FLUSH, self._file, only=index)

    def _grow(self, size: int) -> None:
        if size > len(self._content):
            self._content.extend(bytes(size - len(self._content)))

    async def _delay(self) -> None:
        for _ in range(self.recorder.numbers.randrange(MAX_DELAY_TURNS + 1)):
            await asyncio.sleep(0)


class Recorder:
    """Files under one log. `driver` is the driver class of these files and of no others."""

    def __init__(self, seed: int = 0) -> None:
        self.log = Log()
        self.contents: dict[str, bytearray] = {}
        self.numbers = random.Random(seed)

        class Recording(RecordingDriver):
            """A file of this recorder."""

            recorder = self

        self.driver = Recording

    def add(self, name: str, content: bytes = b"") -> None:
        """A file that is there, durably, before anything is recorded."""
        assert not self.log.entries, "files that are there come before the first entry"
        self.log.base[name] = content
        self.contents[name] = bytearray(content)

    def create(self, name: str) -> None:
        """A new file; it survives a crash only after `log.sync_directory()`."""
        self.log.create(name)
        self.contents[name] = bytearray()

    async def child(self, ground: Ground, name: str, edge: str = "file", read_only: bool = False) -> DriverChild:
        """One of the files as a child for a driver under test."""
        context = ground.context(read_only=read_only, node_name=name)
        return DriverChild(await self.driver.open(RecordingOptions(name), context), context, edge, name)

    @contextmanager
    def registered(self) -> Iterator[None]:
        """While it lasts the catalogue has the driver `recording`, for definitions opened by the graph."""
        catalogue.add_driver(self.driver)
        try:
            yield
        finally:
            catalogue.remove_driver("recording")
