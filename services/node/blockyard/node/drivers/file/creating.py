"""Making files and changing their sizes, with preallocation.

Must not know requests. Long work goes to the pool in steps, so that other users take turns and a cancelled
creation ends soon.
"""

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import FileExists, InvalidArgument, SizeTooLarge
from blockyard.base.units import MAX_SIZE, MIB
from blockyard.node.drivers.file import locks, syscalls
from blockyard.node.interface.driver import DriverContext, Pool
from blockyard.node.interface.flags import Preallocation

STEP: Final = 64 * MIB
"""Zeroes that one turn on the pool writes: some 50 ms on a good disk."""
ZEROES: Final = bytes(MIB)
MAX_EXTENT_HINT: Final = 2**32 - 1
"""fsx_extsize is 32 bits wide (include/uapi/linux/fs.h)."""


@dataclass(frozen=True, slots=True)
class FileCreateOptions:
    """Options for a new file."""

    filename: str
    """Path beneath a storage root."""
    size: int = 0
    preallocation: Preallocation = Preallocation.OFF
    """off, falloc or full."""
    nocow: bool = False
    """Switch off copy-on-write for the file; ignored where the file system has none."""
    extent_size_hint_bytes: int = 0
    """0: none; ignored where the file system takes none."""
    overwrite: bool = False
    """Replace the content of a file that exists and that nobody uses."""


@dataclass(slots=True)
class _Made:
    """What there is to undo; filled in by a thread, so that a cancelled creation knows it too."""

    descriptor: int = -1
    is_new: bool = False


async def create(options: FileCreateOptions, context: DriverContext) -> None:
    """Make the file durably, or leave nothing."""
    _check_size(options.size)
    check_preallocation(options.preallocation)
    if not 0 <= options.extent_size_hint_bytes <= MAX_EXTENT_HINT:
        raise InvalidArgument(
            "extent_size_hint_bytes", f"0 to {MAX_EXTENT_HINT}", str(options.extent_size_hint_bytes)
        )
    made = _Made()
    try:
        await context.pool.run(_make, options, context, made)
        await resize(context.pool, made.descriptor, 0, options.size, Preallocation(options.preallocation))
        await context.pool.run(_make_durable, options, context, made.descriptor)
    except BaseException:
        if made.is_new:
            context.storage.unlink(options.filename)
        raise
    finally:
        if made.descriptor >= 0:
            os.close(made.descriptor)


def check_preallocation(mode: str) -> None:
    if mode not in (Preallocation.OFF, Preallocation.FALLOC, Preallocation.FULL):
        raise InvalidArgument("preallocation", "off, falloc or full", mode)


async def resize(pool: Pool, descriptor: int, old: int, new: int, mode: Preallocation) -> None:
    """Raises OSError; a growth that failed has changed nothing."""
    _check_size(new)
    if new < old and mode is not Preallocation.OFF:
        raise InvalidArgument("preallocation", "off when shrinking", mode)
    try:
        if mode is Preallocation.FALLOC and new > old:
            await pool.run(syscalls.fallocate, descriptor, 0, old, new - old)
        elif mode is Preallocation.FULL:
            for start in range(old, new, STEP):
                await pool.run(_write_zeroes, descriptor, start, min(STEP, new - start))
        await pool.run(os.ftruncate, descriptor, new)
    except BaseException:
        if new > old:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, old)
        raise


def _check_size(size: int) -> None:
    if size < 0:
        raise InvalidArgument("size", "0 or more", str(size))
    if size > MAX_SIZE:
        raise SizeTooLarge("size", size, MAX_SIZE)


def _make(options: FileCreateOptions, context: DriverContext, made: _Made) -> None:
    try:
        made.descriptor = context.storage.open(options.filename, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        made.is_new = True
    except FileExists:
        if not options.overwrite:
            raise
        made.descriptor = context.storage.open(options.filename, os.O_RDWR)
    descriptor = made.descriptor
    with contextlib.suppress(OSError):  # a file system without locks has no one to lock out either
        locks.take(descriptor, context.storage.display(options.filename), locks.WRITER)
    os.ftruncate(descriptor, 0)
    if options.nocow:
        _try(syscalls.set_nocow, descriptor)
    if options.extent_size_hint_bytes:
        _try(syscalls.set_extent_size_hint, descriptor, options.extent_size_hint_bytes)


def _try(setting: object, *args: int) -> None:
    assert callable(setting)
    try:
        setting(*args)
    except OSError as problem:
        if problem.errno not in (*syscalls.UNSUPPORTED, errno.EPERM):
            raise


def _make_durable(options: FileCreateOptions, context: DriverContext, descriptor: int) -> None:
    os.fsync(descriptor)
    context.storage.sync_directory(options.filename)


def _write_zeroes(descriptor: int, offset: int, length: int) -> None:
    end = offset + length
    while offset < end:
        offset += os.pwrite(descriptor, ZEROES[: end - offset], offset)
