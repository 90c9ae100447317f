"""Driver `preallocate`: the file below grows ahead of what is written, by large pieces of zeroes, for file systems
where growing costs much and writing inside does not (QEMU's block/preallocate.c).

Theory. Only who may write and resize can make the file grow past its end, a format above as a rule; while there is
such a user, and nobody else may write or resize the file, the filter knows its end and keeps it ahead. Its own size
is that of the data. What was made ahead is cut off when the last such user goes, and at close. After a crash only
zeroes too many are behind the data.

Invariants, while `_active` or a tail is left
1. `zero_start <= file_end` and `data_end <= file_end`, or the file could not be grown ahead.
2. What lies from `zero_start` on reads as zeroes, and no write is in flight there.
3. Nothing is written past `file_end` without `_growing`, but where growing has failed before.
"""

import asyncio
from dataclasses import dataclass
from typing import Final, Self

from blockyard.base.errors import BlockError, InvalidArgument, OperationUnsupported
from blockyard.base.ranges import align_up
from blockyard.base.units import MIB, SECTOR, TIB
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import DriverContext, FilterDriver
from blockyard.node.interface.flags import NO_FALLBACK, Preallocation, Role
from blockyard.node.interface.permissions import RESIZE, WRITE, Permissions

MAX_AHEAD: Final = TIB
"""More than any file system allocates well at once."""
_BOTH: Final = WRITE | RESIZE


@dataclass(frozen=True, slots=True)
class PreallocateOptions:
    """Options of driver `preallocate`."""

    prealloc_align: int = MIB
    """The file grows to a multiple of this; itself a multiple of 512 and of what the file's requests need."""
    prealloc_size: int = 128 * MIB
    """How far the file grows ahead of a write; at most 1 TiB."""


class PreallocateDriver(FilterDriver):
    """Grows the file below ahead of writes."""

    name = "preallocate"
    Options = PreallocateOptions

    def __init__(self, options: PreallocateOptions, context: DriverContext) -> None:
        self.file: Child = context.children["file"]
        self._options = options
        self._context = context
        self._active = False
        """Somebody above writes and resizes."""
        self._growing = asyncio.Lock()
        self._cutting: asyncio.Task[None] | None = None
        self._cannot_zero = False
        self._data_end = self._zero_start = self._file_end = 0

    @classmethod
    async def open(cls, options: PreallocateOptions, context: DriverContext) -> Self:
        unit = max(SECTOR, context.children["file"].limits.request_alignment)
        if options.prealloc_align <= 0 or options.prealloc_align % unit or options.prealloc_align > MAX_AHEAD:
            expected = f"a multiple of {unit}, at most {MAX_AHEAD}"
            raise InvalidArgument("prealloc_align", expected, str(options.prealloc_align))
        if not 0 <= options.prealloc_size <= MAX_AHEAD:
            raise InvalidArgument("prealloc_size", f"0 to {MAX_AHEAD}", str(options.prealloc_size))
        return cls(options, context)

    async def close(self) -> None:
        self._active = False
        if self._cutting is not None:
            await self._cutting
        await self._cut()

    async def reconfigure(self, context: DriverContext) -> None:
        """See `Reconfigurable`. Who takes the file over, or only reads it, finds nothing behind its data."""
        if context.read_only or context.inactive:
            await self.close()
        self._context = context

    @property
    def size(self) -> int:  # type: ignore[override]
        return self._data_end if self._active or self._has_tail else self.file.size

    @property
    def _has_tail(self) -> bool:
        return self._file_end > self._data_end

    # --- who may grow the file ---------------------------------------------------------------------------

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """While the end of the file is ours to know, nobody else moves it."""
        if writable and (above.used & _BOTH == _BOTH or self._has_tail):
            return Permissions(above.used | _BOTH, above.shared & ~_BOTH)
        return above

    def permitted(self, above: Permissions) -> None:
        """See `FollowsPermissions`. The tail is cut by a task of its own when the last user that grows has gone."""
        context = self._context
        grows = above.used & _BOTH == _BOTH and not (context.read_only or context.inactive)
        if grows and not self._active and not self._has_tail:
            self._data_end = self._zero_start = self._file_end = self.file.size
        elif self._active and not grows and self._has_tail:
            self._cutting = asyncio.create_task(self._cut_and_tell())
        self._active = grows

    async def _cut_and_tell(self) -> None:
        await self._cut()
        self._context.repermit()

    async def _cut(self) -> None:
        """Take back what was made ahead and is not used. A failure leaves zeroes behind the data, and an event."""
        async with self._growing:
            if self._active or not self._has_tail:
                return
            try:
                await self.file.truncate(self._data_end, exact=True)
            except BlockError as problem:
                self._context.report("preallocation-kept", {"error": str(problem)})
            self._file_end = self._data_end

    # --- requests ----------------------------------------------------------------------------------------

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        end = offset + len(data)
        if not self._active or end <= self._zero_start:
            return self.file.write_now(offset, data, flags)
        if end > self._file_end and not self._cannot_zero:
            return False
        if not self.file.write_now(offset, data, flags):
            return False
        self._wrote(end)
        return True

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        end = offset + len(data)
        if self._active and end > self._zero_start:
            if end > self._file_end:
                await self._grow(end)
            # Before the write: what comes meanwhile must not take its place for zeroes.
            self._wrote(end)
        await self.file.write(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        end = offset + length
        if self._active and end > self._data_end:
            ahead = end <= self._file_end or await self._grow(end)
            if ahead and offset >= self._zero_start and not flags & ~NO_FALLBACK:
                self._data_end = max(self._data_end, end)
                return True
            self._wrote(end)
        await self.file.zero(offset, length, flags)
        return True

    def _wrote(self, end: int) -> None:
        """Bytes up to `end` are data now, or on their way."""
        self._data_end = max(self._data_end, end)
        self._zero_start = max(self._zero_start, end)
        self._file_end = max(self._file_end, end)

    async def _grow(self, end: int) -> bool:
        """Let the file reach beyond `end`, by zeroes that cost no writing; whether that was done."""
        async with self._growing:
            if end <= self._file_end or self._cannot_zero:
                return end <= self._file_end
            limits = self.file.limits
            start = align_up(self._file_end, max(limits.request_alignment, limits.zero_alignment))
            stop = align_up(end + self._options.prealloc_size, self._options.prealloc_align)
            try:
                await self.file.zero(start, stop - start, NO_FALLBACK)
            except OperationUnsupported:
                self._cannot_zero = True
                return False
            except BlockError:
                return False  # no room so far ahead: the write itself may find some
            self._file_end = stop
            return True

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """See `Resizable.truncate`. Space that was made ahead counts as what `falloc` asks for."""
        if not self._active:
            await self.file.truncate(size, preallocation, exact)
            return
        async with self._growing:
            if self._data_end < size <= self._file_end and preallocation is Preallocation.FALLOC:
                self._data_end = size
                return
            if self._has_tail and size > self._data_end:
                # Or the file would shrink, and new space would not be made as it is asked for.
                await self.file.truncate(self._data_end, exact=True)
                self._file_end = self._zero_start = self._data_end
            await self.file.truncate(size, preallocation, exact)
            self._data_end = self._zero_start = size
            self._file_end = self.file.size
