"""Opening one relative path beneath one directory, so that nothing can lead outside.

What must not live here: which roots there are, what kinds of file are welcome, our error catalogue (`rooted`).

Theory. A check of a path followed by an open of the same path can be raced: between the two, a component becomes
a symbolic link. So the kernel resolves and checks in one step: `openat2` with RESOLVE_BENEATH (no step leaves the
directory), RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS (no link is followed at all). Where a kernel before 5.6
or a seccomp filter lacks the call, `walk` opens one component after the other with O_NOFOLLOW, each relative to
the descriptor of the one before; a descriptor cannot be swapped for a link. Both refuse the same paths.

Components come validated: never empty, `.`, `..` or with `/` in them.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from typing import Final

Opener = Callable[[int, Sequence[str], int, int], int]
"""(directory descriptor, components, flags, mode) -> descriptor; raises OSError."""

# include/uapi/linux/openat2.h; the number is the same on every architecture that has the unified table.
SYS_OPENAT2: Final = 437
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

RACE_RETRIES: Final = 64
"""openat2 answers EAGAIN when a rename runs beside it (openat2(2)); one retry is usual, a storm is an attack."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc: Final = ctypes.CDLL(None, use_errno=True)


def openat2(directory: int, components: Sequence[str], flags: int, mode: int) -> int:
    """Open beneath `directory` in one system call."""
    path = os.fsencode("/".join(components))
    how = _OpenHow(
        flags | os.O_CLOEXEC,
        mode if flags & os.O_CREAT else 0,
        RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    )
    for _ in range(RACE_RETRIES):
        descriptor = _libc.syscall(SYS_OPENAT2, directory, path, ctypes.byref(how), ctypes.sizeof(how))
        if descriptor >= 0:
            return int(descriptor)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code))


def walk(directory: int, components: Sequence[str], flags: int, mode: int) -> int:
    """The same, one component at a time."""
    current = directory
    component = ""
    try:
        for component in components[:-1]:
            # O_PATH with O_NOFOLLOW would open a link itself; O_DIRECTORY makes that ENOTDIR.
            following = os.open(
                component, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current
            )
            if current != directory:
                os.close(current)
            current = following
        component = components[-1]
        return os.open(component, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=current)
    except NotADirectoryError as problem:
        if _is_link(component, current):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from problem
        raise
    finally:
        if current != directory:
            os.close(current)


def _is_link(component: str, directory: int) -> bool:
    """Only to word a refusal as openat2 would; the refusal itself stands already."""
    try:
        os.readlink(component, dir_fd=directory)
    except OSError:
        return False
    return True


def best_opener(directory: int) -> Opener:
    """`openat2` if this kernel and sandbox have it, else `walk`."""
    try:
        os.close(openat2(directory, (".",), os.O_PATH | os.O_DIRECTORY, 0))
    except OSError as problem:
        # A seccomp filter answers ENOSYS or EPERM; either means the call is not to be had.
        if problem.errno not in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
            raise
        return walk
    return openat2
