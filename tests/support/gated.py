"""A file whose requests a test holds back, lets through, or fails: races become a fixed order of events.

A `Gate` catches requests of one kind on one file. The request that it catches waits, before or after its work,
until the gate is opened, and then goes on or fails. Nothing here sleeps.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from blockyard.base.errors import BlockError
from blockyard.node.drivers import catalogue
from blockyard.node.drivers.file.driver import FileDriver
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.mapping import Mapping


class Gate:
    """Holds the requests it catches until it is opened."""

    def __init__(
        self, filename: str, operation: str, *, after: bool, error: BlockError | None, at: int | None
    ) -> None:
        self.filename = filename
        self.operation = operation
        self.after = after
        self.at = at
        self.error = error
        self.caught = 0
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Let everyone through, now and later."""
        self._opened.set()

    def catches(self, filename: str, operation: str, after: bool, offset: int, length: int) -> bool:
        named = filename == self.filename and operation == self.operation and after == self.after
        return named and (self.at is None or offset <= self.at < offset + length)

    async def pass_(self) -> None:
        self.caught += 1
        self.reached.set()
        await self._opened.wait()
        if self.error is not None:
            raise self.error


class Gates:
    """All gates of a test."""

    def __init__(self) -> None:
        self.gates: list[Gate] = []
        self.seen: list[tuple[str, str]] = []
        """(file, operation) of every request that went to a file, in order."""

    def hold(self, filename: str, operation: str, *, after: bool = False, at: int | None = None) -> Gate:
        """Catch requests (of those that touch the byte `at`, if given) until the gate is opened."""
        gate = Gate(filename, operation, after=after, error=None, at=at)
        self.gates.append(gate)
        return gate

    def fail(self, filename: str, operation: str, error: BlockError, *, at: int | None = None) -> Gate:
        """Fail requests until `heal`."""
        gate = Gate(filename, operation, after=False, error=error, at=at)
        gate.open()
        self.gates.append(gate)
        return gate

    def heal(self, gate: Gate) -> None:
        self.gates.remove(gate)
        gate.error = None
        gate.open()

    async def pass_(self, filename: str, operation: str, after: bool, offset: int = 0, length: int = 1) -> None:
        if not after:
            self.seen.append((filename, operation))
        for gate in list(self.gates):
            if gate.catches(filename, operation, after, offset, length):
                await gate.pass_()

    @contextmanager
    def registered(self) -> Iterator[None]:
        """While it lasts the catalogue has the driver `gated`, with the options of `file`."""
        GatedFile.gates = self
        catalogue.add_driver(GatedFile)
        try:
            yield
        finally:
            catalogue.remove_driver(GatedFile.name)
            for gate in self.gates:
                gate.open()


class GatedFile(FileDriver):
    """A file whose requests all wait, so that a gate can catch them; the kernel copies nothing behind its back."""

    name = "gated"
    gates: ClassVar[Gates]

    def read_now(self, offset: int, into: memoryview) -> bool:
        return False

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        return False

    def descriptor(self) -> int:
        return -1

    async def read(self, offset: int, into: memoryview) -> None:
        await self._pass("read", False, offset, len(into))
        await super().read(offset, into)
        await self._pass("read", True, offset, len(into))

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        await self._pass("write", False, offset, len(data))
        await super().write(offset, data, flags)
        await self._pass("write", True, offset, len(data))

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        await self._pass("zero", False, offset, length)
        done = await super().zero(offset, length, flags)
        await self._pass("zero", True, offset, length)
        return done

    async def discard(self, offset: int, length: int) -> None:
        await self._pass("discard", False, offset, length)
        await super().discard(offset, length)
        await self._pass("discard", True, offset, length)

    async def flush(self) -> None:
        await self._pass("flush", False)
        await super().flush()
        await self._pass("flush", True)

    async def map(self, offset: int, length: int) -> Mapping:
        await self._pass("map", False, offset, length)
        return await super().map(offset, length)

    async def _pass(self, operation: str, after: bool, offset: int = 0, length: int = 1) -> None:
        await self.gates.pass_(self._filename, operation, after, offset, length)
