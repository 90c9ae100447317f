"""System calls that the standard library lacks: fallocate with modes, statx's direct I/O limits, file attributes.

Must not know drivers or errors of the catalogue: everything raises OSError. ctypes releases the GIL meanwhile.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

# include/uapi/linux/falloc.h
FALLOC_KEEP_SIZE: Final = 0x01
FALLOC_PUNCH_HOLE: Final = 0x02
FALLOC_ZERO_RANGE: Final = 0x10

UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL)
"""How file systems and old kernels say that they do not have a call or a mode."""

# include/uapi/linux/stat.h
_STATX_DIOALIGN: Final = 0x2000
_AT_EMPTY_PATH: Final = 0x1000
_STATX_SIZE: Final = 256
_DIOALIGN_FIELDS: Final = struct.Struct("=II")
_DIOALIGN_OFFSET: Final = 152

# include/uapi/linux/fs.h
_FS_IOC_GETFLAGS: Final = 0x80086601
_FS_IOC_SETFLAGS: Final = 0x40086602
_FS_NOCOW_FL: Final = 0x00800000
_FS_IOC_FSGETXATTR: Final = 0x801C581F
_FS_IOC_FSSETXATTR: Final = 0x401C5820
_FS_XFLAG_EXTSIZE: Final = 0x00000800
_FSXATTR: Final = struct.Struct("=IIIII8x")

PROBED_ALIGNMENTS: Final = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
"""Up to the largest that `Limits.request_alignment` allows."""
SAFE_ALIGNMENT: Final = max(4096, mmap.PAGESIZE)
"""Where probing tells nothing: what every disk takes (QEMU's MAX_BLOCKSIZE)."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class DirectLimits(NamedTuple):
    """What O_DIRECT asks of a request."""

    memory: int
    offset: int


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    while _libc.fallocate(descriptor, mode, offset, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def direct_limits(descriptor: int) -> DirectLimits:
    """What the kernel says (statx, since 6.1), else what reads at rising alignments show."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    if _libc.statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_DIOALIGN, buffer) == 0:
        mask = int.from_bytes(buffer.raw[:4], "little" if struct.pack("=H", 1)[0] else "big")
        memory, offset = _DIOALIGN_FIELDS.unpack_from(buffer, _DIOALIGN_OFFSET)
        if mask & _STATX_DIOALIGN and memory and offset:
            return DirectLimits(memory, offset)
    return _probed(descriptor)


def probed_limits(takes: Callable[[int, int], bool]) -> DirectLimits:
    """What reads show (QEMU's raw_probe_alignment). `takes(place, length)`: whether a read at offset 0 of the file
    works, of so many bytes, into memory so far behind a multiple of the largest alignment.

    A read of one byte works where the answer says nothing: of an empty file, of a hole of some file systems. Then
    the safe value is taken.
    """
    offset = _least(lambda alignment: takes(0, alignment))
    memory = _least(lambda alignment: takes(alignment, max(offset, SAFE_ALIGNMENT)))
    return DirectLimits(memory, offset)


def _least(works: Callable[[int], bool]) -> int:
    if works(1):
        return SAFE_ALIGNMENT
    return next((each for each in PROBED_ALIGNMENTS if works(each)), PROBED_ALIGNMENTS[-1])


def _probed(descriptor: int) -> DirectLimits:
    most = PROBED_ALIGNMENTS[-1]
    with mmap.mmap(-1, 4 * most) as page, memoryview(page) as view:
        start = -ctypes.addressof(ctypes.c_char.from_buffer(page)) % most

        def takes(place: int, length: int) -> bool:
            with view[start + place : start + place + length] as part:
                try:
                    os.preadv(descriptor, [part], 0)
                except OSError as problem:
                    if problem.errno != errno.EINVAL:
                        raise
                    return False
                return True

        return probed_limits(takes)


def set_nocow(descriptor: int) -> None:
    """Switch copy-on-write off for an empty file (btrfs). Raises OSError where that is unknown."""
    flags = bytearray(8)
    fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
    value = struct.unpack_from("=i", flags)[0] | _FS_NOCOW_FL
    fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("=i4x", value))


def set_extent_size_hint(descriptor: int, size: int) -> None:
    """Ask the file system to allocate in pieces of `size` bytes (XFS). Raises OSError where that is unknown."""
    attributes = bytearray(_FSXATTR.size)
    fcntl.ioctl(descriptor, _FS_IOC_FSGETXATTR, attributes)
    flags, _, extents, project, cow = _FSXATTR.unpack(attributes)
    fcntl.ioctl(
        descriptor,
        _FS_IOC_FSSETXATTR,
        _FSXATTR.pack(flags | _FS_XFLAG_EXTSIZE, size, extents, project, cow),
    )


def thread_sleeps() -> int:
    """How often this thread gave up the processor to wait for something (voluntary context switches)."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
