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
from dataclasses import dataclass
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
from blockyard.node.drivers.file import creating, locks, syscalls
from blockyard.node.drivers.file.inline import SLOW_NS, InlineWrites
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import DriverContext, NodeInfo, ProtocolDriver
from blockyard.node.interface.flags import FUA, MAY_UNMAP, DiscardMode, Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping

INLINE_WRITE_LIMIT: Final = 1 * MIB
"""Larger writes copy for 100 us and more, which other clients should not wait for."""

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOTHING: Final = (0, 0)
_LOCKING: Final = ("", "auto", "on", "off")


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Options of driver `file`."""

    filename: str
    """Path beneath a storage root: relative to the first root, or absolute beneath any."""
    locking: str = "auto"
    """Locks against other processes as QEMU takes them: auto (where the file system has them), on, off."""


class FileDriver(ProtocolDriver):
    """A regular file or block device of the host, beneath a storage root."""

    name = "file"
    Options = FileOptions
    CreateOptions: ClassVar[type[creating.FileCreateOptions]] = creating.FileCreateOptions

    def __init__(self, options: FileOptions, context: DriverContext, descriptor: int) -> None:
        self._context = context
        self._pool = context.pool
        self._descriptor = descriptor
        self._filename = context.storage.display(options.filename)
        self._now_ns = context.clock.monotonic_ns
        self._is_device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
        self._inline_reads = not context.direct
        self._inline_writes = InlineWrites(not context.direct and not context.read_only)
        self._punches = context.discard is DiscardMode.UNMAP
        self._zeroes = True
        self._finds_holes = True
        self._lost_errno = 0
        self.size = os.lseek(descriptor, 0, os.SEEK_END)
        self._known_data = _NOTHING
        self.limits = _limits(descriptor, context.direct)

    @classmethod
    async def open(cls, options: FileOptions, context: DriverContext) -> Self:
        if options.locking not in _LOCKING:
            raise InvalidArgument("locking", "auto, on or off", options.locking)
        if context.force_share and not context.read_only:
            raise InvalidArgument("force_share", "a read-only node", "a node for writing")
        opened: list[int] = []
        try:
            await context.pool.run(_open, options, context, opened)
            return cls(options, context, opened[0])
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise

    @classmethod
    async def create(cls, options: creating.FileCreateOptions, context: DriverContext) -> None:
        """See `creating.create`."""
        try:
            await creating.create(options, context)
        except OSError as problem:
            raise _error(problem, context.node_name, "create", options.filename) from problem

    async def close(self) -> None:
        # Closing may wait for the disk (NFS writes back, a device flushes), and must happen whoever gives up.
        closing = asyncio.ensure_future(self._pool.run(os.close, self._descriptor))
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
            filename=self._filename,
        )

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


def _open(options: FileOptions, context: DriverContext, opened: list[int]) -> None:
    flags = os.O_RDONLY if context.read_only else os.O_RDWR
    try:
        descriptor = context.storage.open(options.filename, flags | (os.O_DIRECT if context.direct else 0))
    except IoError as problem:
        if context.direct and problem.errno == errno.EINVAL:
            raise InvalidArgument("cache.direct", "a file system that has O_DIRECT", "one without") from problem
        raise
    opened.append(descriptor)
    if options.locking == "off" or context.force_share:
        return
    try:
        locks.lock(descriptor, context.storage.display(options.filename), writing=not context.read_only)
    except OSError as problem:
        if options.locking == "on":
            raise InvalidArgument("locking", "auto or off: the file system has no locks", "on") from problem


def _limits(descriptor: int, direct: bool) -> Limits:
    limits = Limits()
    if direct:
        needed = syscalls.direct_limits(descriptor)
        limits.request_alignment = needed.offset
        limits.min_mem_alignment = needed.memory
        limits.opt_mem_alignment = max(limits.opt_mem_alignment, needed.memory)
        limits.zero_alignment = limits.discard_alignment = needed.offset
    return limits


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
