"""Locks against other processes, as QEMU takes them, so that either refuses what the other holds.

Must not know requests or drivers.

Theory (QEMU's block/file-posix.c, `raw_handle_perm_lock`). Permissions are single bytes of the file under shared
OFD locks: byte 100 + p says "I use permission p", byte 200 + p says "I do not let others use p". Everyone first
takes its own bytes, then tests whether someone else holds the contrary ones: nobody waits, and of two who race at
least one gives way. Nothing is read or written at these offsets.

OFD locks belong to the open file description: two nodes of one process exclude each other too, by whatever path
they came, and a descriptor is not disturbed when another one of the same file is closed.

Invariant: while a file changes from one mode to another, the bytes of the old mode or of the new one are held at
every moment. `raise_to` adds the new ones to the descriptor that is open and looks for who is against it; then
`copy_to` puts them on the descriptor that takes its place, without a look, for its own other half would be found.
"""

import errno
import fcntl
import os
import struct
from typing import Final, NamedTuple

from blockyard.base.errors import FileBusy
from blockyard.node.interface.permissions import CONSISTENT_READ, NAMES, RESIZE, WRITE

USED_BASE: Final = 100
"""RAW_LOCK_PERM_BASE"""
REFUSED_BASE: Final = 200
"""RAW_LOCK_SHARED_BASE"""


class Mode(NamedTuple):
    """Two sets of permissions (BLK_PERM_*): what is used, and what others may not use meanwhile."""

    used: int
    refused: int

    def bytes(self) -> frozenset[int]:
        """The bytes of the file that say so."""
        sets = ((USED_BASE, self.used), (REFUSED_BASE, self.refused))
        return frozenset(base + bit.bit_length() - 1 for base, held in sets for bit in NAMES if held & bit)


NOTHING: Final = Mode(0, 0)
"""Nobody is excluded and nobody is asked: a node that was handed over."""
SHARING: Final = Mode(CONSISTENT_READ, 0)
"""A reader that accepts a torn view (force_share)."""
READER: Final = Mode(CONSISTENT_READ, WRITE | RESIZE)
"""Nobody else may change what an image's owner, reader or writer, has read (bdrv_default_perms_for_storage)."""
WRITER: Final = Mode(CONSISTENT_READ | WRITE | RESIZE, WRITE | RESIZE)

_FLOCK: Final = struct.Struct("=hh4xqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, process."""


def take(descriptor: int, path: str, mode: Mode) -> None:
    """Hold the file until the descriptor is closed. Raises FileBusy, or OSError where there are no such locks."""
    _set(descriptor, path, mode.bytes(), fcntl.F_RDLCK)
    _look(descriptor, path, mode)


def raise_to(descriptor: int, path: str, present: Mode, wanted: Mode) -> None:
    """Hold the bytes of both modes. Raises FileBusy or OSError; then the descriptor holds those of `present`."""
    added = wanted.bytes() - present.bytes()
    try:
        _set(descriptor, path, added, fcntl.F_RDLCK)
        _look(descriptor, path, wanted)
    except BaseException:
        _set(descriptor, path, added, fcntl.F_UNLCK)
        raise


def copy_to(descriptor: int, path: str, mode: Mode) -> None:
    """Hold the bytes by another descriptor of the same file, whose holder looked around already."""
    _set(descriptor, path, mode.bytes(), fcntl.F_RDLCK)


def fall_back(descriptor: int, path: str, present: Mode, wanted: Mode) -> None:
    """Give back what `raise_to` added."""
    _set(descriptor, path, wanted.bytes() - present.bytes(), fcntl.F_UNLCK)


def _look(descriptor: int, path: str, mode: Mode) -> None:
    for bit, name in NAMES.items():
        at = bit.bit_length() - 1
        if mode.used & bit and _held_elsewhere(descriptor, REFUSED_BASE + at):
            raise FileBusy(path, f"it does not share {name!r}")
        if mode.refused & bit and _held_elsewhere(descriptor, USED_BASE + at):
            raise FileBusy(path, f"it uses {name!r}")


def _set(descriptor: int, path: str, places: frozenset[int], kind: int) -> None:
    for place in sorted(places):
        request = _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.EACCES):
                raise FileBusy(path, "it holds an exclusive lock") from problem
            raise


def _held_elsewhere(descriptor: int, place: int) -> bool:
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, request))[0]
    return kind != fcntl.F_UNLCK
