"""The request side of driver `file`.

What must not live here: paths (the storage resolves them), the graph's accounting, alignment of clients' requests.

Theory (design, section 3). A read that the page cache can serve and a write that it can take cost about 1.5 us
inline and 50 us by way of the pool, so both are tried inline:
- reads with RWF_NOWAIT: the kernel says when it would block, and then nothing was waited for;
- buffered writes have no such flag on ext4, so they are measured: one that took longer than SLOW_WRITE_NS (the
  kernel throttles writers of dirty pages) sends all writes to the pool for PAUSE_NS.
With O_DIRECT every request waits for the device, so all go to the pool.

Invariants:
1. After a flush failed, every later flush fails: the kernel forgets the pages it could not write, and a second
   fsync would report success for lost data (QEMU's page_cache_inconsistent).
2. `size` only grows by requests; `truncate` alone shrinks it.
"""

import asyncio
import errno
import os
import stat
from contextlib import suppress
from typing import ClassVar, Final, NoReturn, Self

from blockyard.base.errors import (
    BlockError,
    FileReadOnly,
    InvalidArgument,
    IoError,
    NodeReadOnly,
    NoSpace,
    OperationUnsupported,
)
from blockyard.base.units import MIB
from blockyard.node.drivers.file import creating, ioctls, locks, opening, syscalls
from blockyard.node.drivers.file.inline import SLOW_NS, InlineWrites
from blockyard.node.drivers.file.opening import FileOptions
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import DriverContext, NodeInfo, ProtocolDriver
from blockyard.node.interface.flags import FUA, MAY_UNMAP, DiscardMode, Preallocation
from blockyard.node.interface.mapping import MapKind, Mapping

INLINE_WRITE_LIMIT: Final = 1 * MIB
"""Larger writes copy for 100 us and more, which other clients should not wait for."""

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOTHING: Final = (0, 0)


class FileDriver(ProtocolDriver):
    """A regular file or block device of the host, beneath a storage root."""

    name = "file"
    fixed_options = frozenset({"filename", "locking"})
    Options = FileOptions
    CreateOptions: ClassVar[type[creating.FileCreateOptions]] = creating.FileCreateOptions

    def __init__(self, options: FileOptions, context: DriverContext, descriptor: int) -> None:
        self._options = options
        self._filename = context.storage.display(options.filename) if options.filename else "a temporary file"
        self._now_ns = context.clock.monotonic_ns
        self._lost_errno = 0
        status = os.fstat(descriptor)
        self._is_device = not stat.S_ISREG(status.st_mode)
        self._is_generic = stat.S_ISCHR(status.st_mode)
        self._take_up(context, descriptor)

    def _take_up(self, context: DriverContext, descriptor: int) -> None:
        """Begin in a mode, with nothing remembered of the file."""
        self._context = context
        self._pool = context.pool
        self._descriptor = descriptor
        self._inline_reads = not context.direct
        self._inline_writes = InlineWrites(not context.direct and not context.read_only)
        self._punches = context.discard is DiscardMode.UNMAP
        self._zeroes = True
        self._finds_holes = True
        self._known_data = _NOTHING
        self.size = opening.size_of(descriptor)
        self.limits = opening.limits(descriptor, context.direct)

    @classmethod
    async def open(cls, options: FileOptions, context: DriverContext) -> Self:
        opening.check(options, context)
        opened: list[int] = []
        try:
            await context.pool.run(opening.open_file, options, context, opened)
            return cls(options, context, opened[0])
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise

    async def reconfigure(self, context: DriverContext) -> None:
        """See `Reconfigurable`. The file is open, and locked, at every moment."""
        opening.check(self._options, context)
        opened: list[int] = []
        try:
            await self._pool.run(opening.change, self._descriptor, self._options, self._context, context, opened)
        except BaseException as problem:
            self._stay(context, opened)
            if isinstance(problem, OSError):
                self._fail(problem, "reopen")
            raise
        old = self._descriptor
        self._take_up(context, opened[0])
        await self._close(old)

    def _stay(self, refused: DriverContext, opened: list[int]) -> None:
        """The change failed, or its caller left when it had been made."""
        for descriptor in opened:
            os.close(descriptor)
        present, wanted = (opening.lock_mode(self._options, item) for item in (self._context, refused))
        with suppress(OSError):  # a file system without locks
            locks.fall_back(self._descriptor, self._filename, present, wanted)

    @classmethod
    async def create(cls, options: creating.FileCreateOptions, context: DriverContext) -> None:
        """See `creating.create`."""
        try:
            await creating.create(options, context)
        except OSError as problem:
            raise _error(problem, context.node_name, "create", options.filename) from problem

    async def close(self) -> None:
        await self._close(self._descriptor)

    async def _close(self, descriptor: int) -> None:
        # Closing may wait for the disk (NFS writes back, a device flushes), and must happen whoever gives up.
        closing = asyncio.ensure_future(self._pool.run(os.close, descriptor))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise

    # --- reading ----------------------------------------------------------------------------------------

    def read_now(self, offset: int, into: memoryview) -> bool:
        if not self._inline_reads:
            return False
        try:
            return os.preadv(self._descriptor, (into,), offset, os.RWF_NOWAIT) == len(into)
        except BlockingIOError:
            return False
        except OSError as problem:
            # Any other error comes again, and is raised, on the way through the pool.
            if problem.errno in syscalls.UNSUPPORTED:
                self._inline_reads = False
            return False

    async def read(self, offset: int, into: memoryview) -> None:
        try:
            await self._pool.run(_read_fully, self._descriptor, offset, into)
        except OSError as problem:
            self._fail(problem, "read")

    # --- writing ----------------------------------------------------------------------------------------

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        length = len(data)
        if flags & FUA or length > INLINE_WRITE_LIMIT:
            return False
        started_ns = self._now_ns()
        inline = self._inline_writes
        if started_ns < inline.from_ns:
            return False
        sleeps = syscalls.thread_sleeps() if inline.watching(started_ns) else None
        try:
            written = os.pwrite(self._descriptor, data, offset)
            if written != length:
                _write_fully(self._descriptor, offset + written, memoryview(data)[written:], 0)
        except OSError as problem:
            self._fail(problem, "write")
        if (now_ns := self._now_ns()) - started_ns > SLOW_NS:
            inline.was_slow(now_ns, None if sleeps is None else syscalls.thread_sleeps() - sleeps)
        if offset + length > self.size:
            self.size = offset + length
        return True

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        self._check_writable()
        durable = flags & FUA and not self._context.no_flush
        try:
            await self._pool.run(
                _write_fully, self._descriptor, offset, memoryview(data), os.RWF_DSYNC if durable else 0
            )
        except OSError as problem:
            self._fail(problem, "write")
        self.grown(offset + len(data))

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        self._check_writable()
        if not self._zeroes:
            return False
        end = offset + length
        self._known_data = _NOTHING
        try:
            self._zeroes = await self._pool.run(
                _zero, self._descriptor, offset, length, end > self.size, bool(flags & MAY_UNMAP and self._punches)
            )
        except OSError as problem:
            self._fail(problem, "zero")
        if not self._zeroes:
            return False
        self.grown(end)
        if flags & FUA:
            await self.flush()
        return True

    async def discard(self, offset: int, length: int) -> None:
        self._check_writable()
        if not self._punches:
            return
        mode = syscalls.FALLOC_PUNCH_HOLE | syscalls.FALLOC_KEEP_SIZE
        self._known_data = _NOTHING
        try:
            await self._pool.run(syscalls.fallocate, self._descriptor, mode, offset, length)
        except OSError as problem:
            if problem.errno not in syscalls.UNSUPPORTED:
                self._fail(problem, "discard")
            self._punches = False

    async def flush(self) -> None:
        if self._context.no_flush or self._context.read_only:
            return
        if self._lost_errno:
            raise IoError(
                self._context.node_name, "flush", self._lost_errno, "an earlier flush failed, data was lost"
            )
        try:
            await self._pool.run(self._sync)
        except OSError as problem:
            self._fail(problem, "flush")

    def _sync(self) -> None:
        """In a worker thread. A failure is noted here: the caller may have left, and the kernel tells it once."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as problem:
            if not self._context.direct:
                self._lost_errno = problem.errno or errno.EIO
            raise

    # --- size and status --------------------------------------------------------------------------------

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """See `Resizable.truncate`. A device keeps its size; `exact = False` accepts one that is large enough."""
        self._check_writable()
        creating.check_preallocation(preallocation)
        if self._is_device:
            if size > self.size or (exact and size != self.size):
                raise self._unsupported("change the size of a device")
            return
        if self._context.direct and preallocation is Preallocation.FULL:
            raise InvalidArgument("preallocation", "off or falloc with cache.direct", preallocation)
        self._known_data = _NOTHING
        try:
            await creating.resize(self._pool, self._descriptor, self.size, size, preallocation)
        except OSError as problem:
            self._fail(problem, "truncate")
        self.size = size

    async def map(self, offset: int, length: int) -> Mapping:
        # tmpfs looks for the next hole page by page to the end of the file: 8 ms a look-up at 1 GiB. So what is
        # known to be data is remembered until a hole may have been made (QEMU's bdrv_bsc).
        start, end = self._known_data
        if start <= offset < end:
            return Mapping(MapKind.DATA, min(length, end - offset), None, offset, True)
        kind = MapKind.DATA
        if self._finds_holes:
            try:
                kind, run = await self._pool.run(_status, self._descriptor, offset, length)
            except OSError as problem:
                if problem.errno not in syscalls.UNSUPPORTED:
                    self._fail(problem, "map")
                self._finds_holes = False
            else:
                if kind is MapKind.DATA:
                    self._known_data = (offset, offset + run)
                length = min(length, run)
        return Mapping(kind, length, None, offset, True)

    async def info(self) -> NodeInfo:
        status = await self._pool.run(os.fstat, self._descriptor)
        return NodeInfo(
            # st_blocks counts 512 bytes whatever the file system's block is (stat(2)).
            allocated_bytes=status.st_blocks * 512,
            has_zero_init=not self._is_device,
            # A device may be another medium tomorrow, and a file that others write may grow.
            variable_length=self._is_device or self._context.force_share,
            scsi_generic=self._is_generic,
            filename=self._filename,
        )

    async def refresh_size(self) -> int:
        """See `Refreshable`."""
        self.size = await self._pool.run(opening.size_of, self._descriptor)
        return self.size

    @classmethod
    def probe_device(cls, mode: int) -> int:
        """See `ProbesDevices`. Everything else that storage opens is a file without a driver of its own."""
        return 100 if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else 50 if stat.S_ISCHR(mode) else 0

    async def ioctl(self, request: int, argument: bytearray) -> int:
        """See `PassesIoctl`."""
        if ioctls.known(request, argument).changes:
            self._check_writable()
        try:
            return await self._pool.run(ioctls.send, self._descriptor, request, argument)
        except OSError as problem:
            self._fail(problem, "ioctl")

    def descriptor(self) -> int:
        """See `Copies`."""
        return -1 if self._context.direct else self._descriptor

    def grown(self, end: int) -> None:
        """See `Copies`."""
        if end > self.size:
            self.size = end

    # --- errors -----------------------------------------------------------------------------------------

    def _check_writable(self) -> None:
        if self._context.read_only:
            raise NodeReadOnly(self._context.node_name)

    def _unsupported(self, operation: str) -> OperationUnsupported:
        return OperationUnsupported(self._context.node_name, self.name, operation)

    def _fail(self, problem: OSError, operation: str) -> NoReturn:
        raise _error(problem, self._context.node_name, operation, self._filename) from problem


def _error(problem: OSError, node_name: str, operation: str, filename: str) -> BlockError:
    code = problem.errno or errno.EIO
    if code in _NO_ROOM:
        return NoSpace(node_name, operation)
    if code == errno.EROFS:
        return FileReadOnly(filename)
    return IoError(node_name, operation, code, os.strerror(code))


# --- in a worker thread -----------------------------------------------------------------------------------


def _read_fully(descriptor: int, offset: int, into: memoryview) -> None:
    done, length = 0, len(into)
    while done < length:
        count = os.preadv(descriptor, (into[done:],), offset + done)
        done += count
        # O_DIRECT cannot go on at the odd place where the file ends; plain reads end there with 0.
        if count == 0 or (done < length and offset + done >= os.fstat(descriptor).st_size > 0):
            into[done:] = bytes(length - done)
            return


def _write_fully(descriptor: int, offset: int, data: memoryview, flags: int) -> None:
    while data:
        written = os.pwritev(descriptor, (data,), offset, flags)
        offset += written
        data = data[written:]


def _zero(descriptor: int, offset: int, length: int, grows: bool, may_unmap: bool) -> bool:
    """Whether the file system could do it. A range past the end is allocated: only so does the file grow."""
    keep = 0 if grows else syscalls.FALLOC_KEEP_SIZE
    punch = syscalls.FALLOC_PUNCH_HOLE | syscalls.FALLOC_KEEP_SIZE
    plans = [(syscalls.FALLOC_ZERO_RANGE | keep,), (punch, keep)]
    if may_unmap and not grows:
        plans.insert(0, (punch,))
    for plan in plans:
        try:
            for mode in plan:
                syscalls.fallocate(descriptor, mode, offset, length)
        except OSError as problem:
            if problem.errno not in syscalls.UNSUPPORTED:
                raise
        else:
            return True
    return False


def _status(descriptor: int, offset: int, length: int) -> tuple[MapKind, int]:
    """DATA or ZERO, and how many bytes are so: of those asked for, or for DATA also beyond."""
    end = offset + length
    try:
        data = os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as problem:
        if problem.errno != errno.ENXIO:
            raise
        return MapKind.ZERO, length  # nothing but a hole up to the end of the file
    if data > offset:
        return MapKind.ZERO, min(data, end) - offset
    hole = os.lseek(descriptor, offset, os.SEEK_HOLE)
    # Someone may have changed the file between the two calls.
    return MapKind.DATA, hole - offset if hole > offset else length
