"""A node as an export sees it, kept in memory, under the contract of `exports.source`. Its own tests hold it to it.

It can be told to serve nothing inline, to hold requests until a test lets them go, and to fail.
"""

import asyncio
from dataclasses import dataclass

from blockyard.base.errors import BlockError, NodeReadOnly, OperationUnsupported, RangeOutside, ResourceNotFound
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.flags import FUA, NO_FALLBACK, Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping

CLUSTER = 4096


@dataclass(frozen=True)
class MemoryExtent:
    """See `exports.source.StatusExtent`."""

    length: int
    allocated: bool
    data: bool
    zero: bool
    depth: int


class MemorySource:
    """Bytes in memory, allocated by clusters of 4 KiB; clusters below `backed` belong to a backing layer."""

    name = "root"
    may_hold = False
    present = True
    stopped = False
    block_sizes: tuple[int, int] | None = None
    node_name = "memory0"
    filename = ""

    def __init__(self, size: int, read_only: bool = False) -> None:
        self.content = bytearray(size)
        self.size = size
        self.read_only = read_only
        self.limits = Limits()
        self.allocated = bytearray(-(-size // CLUSTER))
        self.backed = 0
        self.dirty: dict[str, bytearray] = {}
        self.inline = True
        self.fast_zero = True
        self.gate: asyncio.Event | None = None
        """While set and not open, awaited requests wait for it."""
        self.failure: BlockError | None = None
        self.calls: list[tuple[str, int, int, int]] = []
        """(operation, offset, length, flags) in the order of arrival, inline or not; reads are left out."""
        self.awaited = 0

    # --- Child -----------------------------------------------------------------------------------------

    def read_now(self, offset: int, into: memoryview) -> bool:
        self._check(offset, len(into))
        if not self.inline:
            return False
        into[:] = self.content[offset : offset + len(into)]
        return True

    async def read(self, offset: int, into: memoryview) -> None:
        self._check(offset, len(into))
        await self._wait()
        into[:] = self.content[offset : offset + len(into)]

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        self._check(offset, len(data), writing=True)
        if not self.inline or flags & FUA:
            return False
        self._store(offset, data, flags)
        return True

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        self._check(offset, len(data), writing=True)
        await self._wait()
        self._store(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        self._check(offset, length, writing=True)
        await self._wait()
        if flags & NO_FALLBACK and not self.fast_zero:
            raise OperationUnsupported(self.node_name, "memory", "zero without writing")
        self.calls.append(("zero", offset, length, flags))
        self.content[offset : offset + length] = bytes(length)
        self._mark(offset, length, allocated=False)

    async def discard(self, offset: int, length: int) -> None:
        self._check(offset, length, writing=True)
        await self._wait()
        self.calls.append(("discard", offset, length, 0))
        self._mark(offset, length, allocated=False)
        start, end = -(-offset // CLUSTER) * CLUSTER, (offset + length) // CLUSTER * CLUSTER
        if end > start:
            self.content[start:end] = bytes(end - start)

    async def flush(self) -> None:
        await self._wait()
        self.calls.append(("flush", 0, 0, 0))

    async def truncate(
        self, size: int, preallocation: Preallocation = Preallocation.OFF, exact: bool = False
    ) -> None:
        self.content = self.content[:size] + bytes(max(0, size - self.size))
        self.allocated = bytearray(-(-size // CLUSTER))
        self.size = size

    async def map(self, offset: int, length: int) -> Mapping:
        return Mapping(MapKind.DATA, length, None, offset, True)

    # --- ExportSource ----------------------------------------------------------------------------------

    async def block_status(self, offset: int, length: int, max_extents: int) -> list[MemoryExtent]:
        await self._wait()
        extents: list[MemoryExtent] = []
        end = offset + length
        while offset < end and len(extents) < max_extents:
            stop = min(end, (offset // CLUSTER + 1) * CLUSTER)
            held = bool(self.allocated[offset // CLUSTER])
            backed = offset < self.backed
            extents.append(MemoryExtent(stop - offset, held, held, not held, int(backed)))
            offset = stop
        return extents

    def bitmaps(self) -> list[str]:
        return list(self.dirty)

    def bitmap_extents(self, name: str, offset: int, length: int, max_extents: int) -> list[tuple[int, bool]]:
        if name not in self.dirty:
            raise ResourceNotFound("bitmap", name)
        runs: list[tuple[int, bool]] = []
        end = offset + length
        while offset < end:
            stop = min(end, (offset // CLUSTER + 1) * CLUSTER)
            dirty = bool(self.dirty[name][offset // CLUSTER])
            if runs and runs[-1][1] is dirty:
                runs[-1] = (runs[-1][0] + stop - offset, dirty)
            elif len(runs) == max_extents:
                break
            else:
                runs.append((stop - offset, dirty))
            offset = stop
        return runs

    # --- tests' side -----------------------------------------------------------------------------------

    def add_bitmap(self, name: str) -> None:
        self.dirty[name] = bytearray(len(self.allocated))

    def hold(self) -> None:
        """Serve nothing inline, and let nothing awaited pass until `release`."""
        self.inline = False
        self.gate = asyncio.Event()

    def release(self) -> None:
        assert self.gate is not None
        self.gate.set()
        self.gate = None

    async def _wait(self) -> None:
        self.awaited += 1
        try:
            if self.gate is not None:
                await self.gate.wait()
            else:
                await asyncio.sleep(0)
        finally:
            self.awaited -= 1
        if self.failure is not None:
            raise self.failure

    def _check(self, offset: int, length: int, writing: bool = False) -> None:
        if offset < 0 or offset + length > self.size:
            raise RangeOutside(self.node_name, offset, length, self.size)
        if writing and self.read_only:
            raise NodeReadOnly(self.node_name)
        if self.failure is not None:
            raise self.failure

    def _store(self, offset: int, data: Buffer, flags: int) -> None:
        self.calls.append(("write", offset, len(data), flags))
        self.content[offset : offset + len(data)] = data
        self._mark(offset, len(data), allocated=True)

    def _mark(self, offset: int, length: int, allocated: bool) -> None:
        # Whole clusters only are dropped; every touched one is dirty.
        first, last = offset // CLUSTER, (offset + length - 1) // CLUSTER
        for index in range(first, last + 1):
            whole = index * CLUSTER >= offset and (index + 1) * CLUSTER <= offset + length
            if allocated or whole:
                self.allocated[index] = allocated
            for bitmap in self.dirty.values():
                bitmap[index] = 1
