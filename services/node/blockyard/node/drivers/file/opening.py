"""Opening the file: descriptor, access mode and locks, and their change while it is open. All in worker threads.

Must not know requests. Paths are the storage's to resolve.

Theory (QEMU's `raw_reconfigure_getfd` and `raw_check_perm`). Access mode and O_DIRECT belong to an open file
description, so another mode needs another one: the file is opened a second time, the locks are raised on the first
and copied to the second, and only then the first is closed. The path may name another file by then; that is seen.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import InvalidArgument, IoError, MissingOption, OperationUnsupported
from blockyard.node.drivers.file import locks, syscalls
from blockyard.node.interface.driver import DriverContext
from blockyard.node.interface.limits import Limits

LOCKING: Final = ("", "auto", "on", "off")


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Options of driver `file`."""

    filename: str = ""
    """Path beneath a storage root: relative to the first root, or absolute beneath any. Required, but for a
    temporary file."""
    locking: str = "auto"
    """Locks against other processes as QEMU takes them: auto (where the file system has them), on, off."""
    temporary: bool = False
    """A file without a name in the service's temporary directory, empty at first and gone at close."""


def check(options: FileOptions, context: DriverContext) -> None:
    """Raises InvalidArgument or MissingOption for what cannot be, whatever the file is."""
    if options.locking not in LOCKING:
        raise InvalidArgument("locking", "auto, on or off", options.locking)
    if context.force_share and not context.read_only:
        raise InvalidArgument("force_share", "read_only as well: only a reader can accept a torn view", "a writer")
    if options.temporary:
        if options.filename:
            raise InvalidArgument("filename", "none for a temporary file", repr(options.filename[:64]))
        if context.read_only and not context.inactive:
            raise InvalidArgument("temporary", "a node for writing: the file is empty", "a read-only node")
    elif not options.filename:
        raise MissingOption("driver file", "filename")


def open_file(options: FileOptions, context: DriverContext, opened: list[int]) -> None:
    """Open and lock. What was opened is in `opened`, for the caller to close, also if this fails or is given up."""
    opened.append(_descriptor(options, context))
    mode = lock_mode(options, context)
    if mode is not locks.NOTHING:
        with _where_there_are_any(options):
            locks.take(opened[0], context.storage.display(options.filename), mode)


def change(
    descriptor: int, options: FileOptions, present: DriverContext, wanted: DriverContext, opened: list[int]
) -> None:
    """A second descriptor for another mode, with its locks; the first one keeps its own until it is closed.

    Raises FileReadOnly, FileBusy, IoError ...; then the first one is as it was.
    """
    if options.temporary:
        raise OperationUnsupported(wanted.node_name, "file", "open a temporary file again")
    opened.append(_descriptor(options, wanted))
    before, after = os.fstat(descriptor), os.fstat(opened[0])
    if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
        raise IoError(wanted.node_name, "reopen", errno.ESTALE, "its path names another file now")
    path = wanted.storage.display(options.filename)
    old, new = lock_mode(options, present), lock_mode(options, wanted)
    with _where_there_are_any(options):
        locks.raise_to(descriptor, path, old, new)
        try:
            locks.copy_to(opened[0], path, new)
        except BaseException:
            locks.fall_back(descriptor, path, old, new)
            raise


def lock_mode(options: FileOptions, context: DriverContext) -> locks.Mode:
    """What a file in this mode holds against others."""
    if options.locking == "off" or options.temporary or context.inactive:
        return locks.NOTHING
    if context.force_share:
        return locks.SHARING
    return locks.READER if context.read_only else locks.WRITER


def limits(descriptor: int, direct: bool) -> Limits:
    """What requests must keep to."""
    found = Limits()
    if direct:
        needed = syscalls.direct_limits(descriptor)
        found.request_alignment = needed.offset
        found.min_mem_alignment = needed.memory
        found.opt_mem_alignment = max(found.opt_mem_alignment, needed.memory)
        found.zero_alignment = found.discard_alignment = needed.offset
    return found


def size_of(descriptor: int) -> int:
    """Bytes of a file or block device; a SCSI generic device has none."""
    return 0 if stat.S_ISCHR(os.fstat(descriptor).st_mode) else os.lseek(descriptor, 0, os.SEEK_END)


def _descriptor(options: FileOptions, context: DriverContext) -> int:
    direct = os.O_DIRECT if context.direct else 0
    try:
        if options.temporary:
            return context.storage.open_temporary(direct)
        return context.storage.open(options.filename, direct | (os.O_RDONLY if context.read_only else os.O_RDWR))
    except IoError as problem:
        if context.direct and problem.errno == errno.EINVAL:
            raise InvalidArgument("cache.direct", "a file system that has O_DIRECT", "one without") from problem
        raise


@contextmanager
def _where_there_are_any(options: FileOptions) -> Iterator[None]:
    """Locks, that is: a file system without them is an error with `locking = on`, and nothing with `auto`."""
    try:
        yield
    except OSError as problem:
        if options.locking == "on":
            raise InvalidArgument("locking", "auto or off: the file system has no locks", "on") from problem
