"""Locks against other processes, as QEMU takes them, so that either refuses what the other holds.

Must not know requests or drivers.

Theory (QEMU's block/file-posix.c, `raw_apply_lock_bytes` and `raw_check_lock_bytes`). Permissions are single bytes
of the file under shared OFD locks: byte 100 + p says "I use permission p", byte 200 + p says "I do not let others
use p". Everyone first takes its own bytes, then tests whether someone else holds the contrary ones: nobody waits,
and of two who race at least one gives way. Nothing is read or written at these offsets.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import Final

from blockyard.base.errors import FileBusy

USED_BASE: Final = 100
"""RAW_LOCK_PERM_BASE"""
REFUSED_BASE: Final = 200
"""RAW_LOCK_SHARED_BASE"""

# BLK_PERM_* of include/block/block-common.h, as bit numbers.
CONSISTENT_READ: Final = 0
WRITE: Final = 1
RESIZE: Final = 3
_NAMES: Final = {CONSISTENT_READ: "consistent read", WRITE: "write", RESIZE: "resize"}

_READER_USES: Final = (CONSISTENT_READ,)
_WRITER_USES: Final = (CONSISTENT_READ, WRITE, RESIZE)
_REFUSED: Final = (WRITE, RESIZE)
"""What an image's owner, reader or writer, does not let others do (bdrv_default_perms_for_storage)."""

_FLOCK: Final = struct.Struct("=hh4xqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, process."""


def lock(descriptor: int, path: str, writing: bool) -> None:
    """Hold the file until the descriptor is closed. Raises FileBusy, or OSError where there are no such locks."""
    used = _WRITER_USES if writing else _READER_USES
    for byte in (*_bytes(USED_BASE, used), *_bytes(REFUSED_BASE, _REFUSED)):
        _take(descriptor, path, byte)
    for permission in used:
        if _held_elsewhere(descriptor, REFUSED_BASE + permission):
            raise FileBusy(path, f"it does not share {_NAMES[permission]!r}")
    for permission in _REFUSED:
        if _held_elsewhere(descriptor, USED_BASE + permission):
            raise FileBusy(path, f"it uses {_NAMES[permission]!r}")


def _bytes(base: int, permissions: Sequence[int]) -> list[int]:
    return [base + permission for permission in permissions]


def _take(descriptor: int, path: str, byte: int) -> None:
    request = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except OSError as problem:
        if problem.errno in (errno.EAGAIN, errno.EACCES):
            raise FileBusy(path, "it holds an exclusive lock") from problem
        raise


def _held_elsewhere(descriptor: int, byte: int) -> bool:
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, request))[0]
    return kind != fcntl.F_UNLCK
