"""Where drivers stand in tests without the graph: a storage root, a pool, a clock, and children over drivers.

`Ground` opens drivers by name and closes everything it opened. `DriverChild` is the smallest request path there can
be: it resolves mappings and fills allocations one request at a time, splits and pads nothing.
"""

import asyncio
from pathlib import Path
from typing import Any

from blockyard.base.clock import Clock, SystemClock
from blockyard.base.errors import ResourceNotFound
from blockyard.base.ranges import ByteRange
from blockyard.node.core.pool import FairPool
from blockyard.node.drivers import catalogue
from blockyard.node.graph.throttling import ThrottleGroups
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import (
    Driver,
    DriverContext,
    FilterDriver,
    FormatDriver,
    ProtocolDriver,
    Resizable,
)
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping
from blockyard.node.interface.options import options_from
from blockyard.node.interface.snapshots import OffersSnapshot
from blockyard.node.storage import RootedStorage


class DriverChild:
    """A `Child` over one open driver."""

    def __init__(self, driver: Driver, context: DriverContext, name: str = "file", filename: str = "") -> None:
        # Any: which of the three bases it has is looked at where it matters.
        self.driver: Any = driver
        self.context = context
        self.name = name
        self.filename = filename
        self._writing = asyncio.Lock()

    @property
    def node_name(self) -> str:
        return self.context.node_name

    @property
    def size(self) -> int:
        size: int = self.driver.size
        return size

    @property
    def read_only(self) -> bool:
        return self.context.read_only

    @property
    def plain(self) -> bool:
        return True

    @property
    def compresses(self) -> bool:
        return bool(self.driver.compresses)

    @property
    def limits(self) -> Limits:
        limits: Limits = self.driver.limits
        return limits

    def read_now(self, offset: int, into: memoryview) -> bool:
        if isinstance(self.driver, FormatDriver) or offset + len(into) > self.size:
            return False
        return bool(self.driver.read_now(offset, into))

    async def read(self, offset: int, into: memoryview) -> None:
        inside = max(0, min(len(into), self.size - offset))
        into[inside:] = bytes(len(into) - inside)
        into = into[:inside]
        if not isinstance(self.driver, FormatDriver):
            if inside:
                await self.driver.read(offset, into)
            return
        while into:
            mapping = await self.driver.map(offset, len(into))
            assert 0 < mapping.length <= len(into), mapping
            await self._read_mapped(mapping, offset, into[: mapping.length])
            offset += mapping.length
            into = into[mapping.length :]

    async def _read_mapped(self, mapping: Mapping, offset: int, into: memoryview) -> None:
        backing = self.context.children.get("backing")
        if mapping.kind is MapKind.DATA:
            assert mapping.child is not None
            await mapping.child.read(mapping.offset, into)
        elif mapping.kind is MapKind.ENCODED:
            await self.driver.read_encoded(offset, into)
        elif mapping.kind is MapKind.BACKING and backing is not None:
            await backing.read(offset, into)
        else:
            into[:] = bytes(len(into))

    def populated_now(self, offset: int, length: int) -> bool:
        """What is below in these tests has no backing chain."""
        return True

    async def populate(self, offset: int, length: int, bottom: str = "") -> int:
        return 0

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        if isinstance(self.driver, FormatDriver):
            return False
        return bool(self.driver.write_now(offset, data, flags))

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        if not isinstance(self.driver, FormatDriver):
            await self.driver.write(offset, data, flags)
            return
        view = memoryview(data)
        async with self._writing:
            while view:
                done = await self._write_some(offset, view, flags)
                offset += done
                view = view[done:]

    async def _write_some(self, offset: int, data: memoryview, flags: int) -> int:
        assert isinstance(self.driver, FormatDriver)
        mapping = await self.driver.map(offset, len(data))
        if mapping.kind is MapKind.DATA and mapping.writable:
            assert mapping.child is not None
            await mapping.child.write(mapping.offset, data[: mapping.length], flags)
            return mapping.length
        room = await self.driver.allocate(offset, len(data), flags)
        assert room.start <= offset < room.start + room.length
        try:
            content = memoryview(bytearray(room.length))
            if room.keep_around:
                await self.read(room.start, content)
            start = offset - room.start
            done = min(len(data), room.length - start)
            content[start : start + done] = data[:done]
            await room.child.write(room.offset, content, flags)
        except BaseException:
            await self.driver.abandon(room)
            raise
        await self.driver.commit(room)
        return done

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        middle = ByteRange(offset, length).narrowed(self.limits.zero_alignment)
        if not middle.length or not await self.driver.zero(middle.offset, middle.length, flags):
            middle = ByteRange(offset, 0)
        if middle.offset > offset:
            await self.write(offset, bytes(middle.offset - offset), flags)
        if middle.end < offset + length:
            await self.write(middle.end, bytes(offset + length - middle.end), flags)

    async def discard(self, offset: int, length: int) -> None:
        middle = ByteRange(offset, length).narrowed(self.limits.discard_alignment)
        if middle.length:
            await self.driver.discard(middle.offset, middle.length)

    async def flush(self) -> None:
        await self.driver.flush()

    async def truncate(
        self, size: int, preallocation: Preallocation = Preallocation.OFF, exact: bool = False
    ) -> None:
        assert isinstance(self.driver, Resizable)
        await self.driver.truncate(size, preallocation, exact)

    @property
    def listens(self) -> bool:
        listens: bool = self.driver.listens
        return listens

    async def debug_event(self, event: str) -> None:
        await self.driver.debug_event(event)

    async def map(self, offset: int, length: int) -> Mapping:
        assert isinstance(self.driver, ProtocolDriver | FormatDriver | FilterDriver)
        return await self.driver.map(offset, length)

    async def reads_as_zeroes(self, offset: int, length: int) -> tuple[bool, int]:
        mapping = await self.map(offset, length)
        return mapping.kind is MapKind.ZERO, mapping.length

    @property
    def snapshot_size(self) -> int:
        return self.driver.snapshot_size if isinstance(self.driver, OffersSnapshot) else -1

    async def read_snapshot(self, offset: int, into: memoryview) -> None:
        await self.driver.read_snapshot(offset, into)

    async def map_snapshot(self, offset: int, length: int) -> Mapping:
        mapping: Mapping = await self.driver.map_snapshot(offset, length)
        return mapping

    async def discard_snapshot(self, offset: int, length: int) -> None:
        await self.driver.discard_snapshot(offset, length)

    async def content(self, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a range, of everything by default."""
        buffer = bytearray(self.size - offset if length is None else length)
        await self.read(offset, memoryview(buffer))
        return bytes(buffer)


class HeldSecrets:
    """Secrets by name, as a test has them."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.heavy = asyncio.Lock()

    async def value(self, name: str) -> bytes:
        if name not in self.values:
            raise ResourceNotFound("secret", name)
        return self.values[name]


class Ground:
    """Opens drivers over one directory. Close it, and everything that was opened is closed, last first."""

    def __init__(self, root: Path, clock: Clock | None = None, threads: int = 2) -> None:
        self.root = root
        self.clock = clock or SystemClock()
        self.storage = RootedStorage([root])
        self.pool = FairPool(threads)
        self.throttling = ThrottleGroups(self.clock)
        self.secrets = HeldSecrets()
        self._open: list[DriverChild] = []
        self._count = 0

    def context(self, children: dict[str, Child] | None = None, **settings: Any) -> DriverContext:
        self._count += 1
        return DriverContext(
            node_name=settings.pop("node_name", f"node{self._count}"),
            read_only=settings.pop("read_only", False),
            children=children or {},
            pool=self.pool.share("test"),
            storage=self.storage,
            clock=self.clock,
            throttling=self.throttling,
            secrets=self.secrets,
            **settings,
        )

    async def open(
        self,
        driver: str,
        options: dict[str, object] | None = None,
        children: dict[str, Child] | None = None,
        name: str = "file",
        **settings: Any,
    ) -> DriverChild:
        """A child named `name` over a freshly opened driver; `settings` are fields of DriverContext."""
        found = catalogue.driver_class(driver)
        context = self.context(children, **settings)
        opened = await found.open(options_from(f"driver {driver}", found.Options, options or {}), context)
        child = DriverChild(opened, context, name, str((options or {}).get("filename", "")))
        self._open.append(child)
        return child

    async def create(
        self, driver: str, options: dict[str, object], children: dict[str, Child] | None = None
    ) -> None:
        found: Any = catalogue.driver_class(driver)
        await found.create(options_from(f"driver {driver}", found.CreateOptions, options), self.context(children))

    async def close(self, child: DriverChild) -> None:
        self._open.remove(child)
        await child.driver.close()

    async def close_all(self) -> None:
        """Close what is open, but keep the ground."""
        while self._open:
            await self._open.pop().driver.close()

    async def leave(self) -> None:
        await self.close_all()
        await self.pool.close()
        self.storage.close()
