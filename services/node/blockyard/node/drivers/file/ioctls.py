"""ioctl(2) for clients: only requests whose argument is known, so that no client's bytes become our pointers.

Must not know requests of the graph. Runs in worker threads and raises OSError or errors of the catalogue.

Theory. An ioctl's argument is whatever its driver takes it for. One that holds addresses would let a client read
and write this process; one that is longer than the client's bytes would be written past their end. So there is a
table: each request with the size of its argument, all of them flat. SG_IO holds three addresses, and is passed on
as one piece: the header, then command, sense and data in the lengths that the header says, and the addresses are
ours.

The numbers are those of asm-generic/ioctl.h (x86, ARM, RISC-V, s390).
"""

import array
import fcntl
import struct
import sys
from typing import Final, NamedTuple

from blockyard.base.errors import InvalidArgument

MAX_ARGUMENT_BYTES: Final = 4096
"""As `_IOC_SIZEMASK` allows a quarter of; a page is what SCSI commands about a device's state need."""
SG_TIMEOUT_MAX_MS: Final = 60_000
"""The kernel's own default. The command holds a thread of the pool so long."""


class Ioctl(NamedTuple):
    """A request that may be passed on."""

    name: str
    size: int
    """Bytes of its argument."""
    changes: bool = False
    """It changes something for others: only a node for writing passes it on."""
    by_value: bool = False
    """The argument is a number of 4 bytes, in the machine's order, and no structure."""


def _plain(kind: int, number: int) -> int:
    return kind << 8 | number


def _reads(kind: str | int, number: int, size: int) -> int:
    return 2 << 30 | size << 16 | (ord(kind) if isinstance(kind, str) else kind) << 8 | number


def _writes(kind: str, number: int, size: int) -> int:
    return 1 << 30 | size << 16 | ord(kind) << 8 | number


SG_IO: Final = 0x2285

IOCTLS: Final[dict[int, Ioctl]] = {
    # include/uapi/linux/fs.h
    _plain(0x12, 94): Ioctl("BLKROGET", 4),
    _plain(0x12, 96): Ioctl("BLKGETSIZE", 8),
    _plain(0x12, 104): Ioctl("BLKSSZGET", 4),
    _reads(0x12, 114, 8): Ioctl("BLKGETSIZE64", 8),
    _plain(0x12, 120): Ioctl("BLKIOMIN", 4),
    _plain(0x12, 121): Ioctl("BLKIOOPT", 4),
    _plain(0x12, 122): Ioctl("BLKALIGNOFF", 4),
    _plain(0x12, 123): Ioctl("BLKPBSZGET", 4),
    _plain(0x12, 126): Ioctl("BLKROTATIONAL", 2),
    _reads(0x12, 128, 8): Ioctl("BLKGETDISKSEQ", 8),
    _plain(0x00, 2): Ioctl("FIGETBSZ", 4),
    _reads("f", 1, 8): Ioctl("FS_IOC_GETFLAGS", 8),
    _reads("v", 1, 8): Ioctl("FS_IOC_GETVERSION", 8),
    _reads("X", 31, 28): Ioctl("FS_IOC_FSGETXATTR", 28),
    # include/uapi/linux/hdreg.h, scsi/sg.h, scsi/scsi.h
    0x0301: Ioctl("HDIO_GETGEO", 16),
    0x2272: Ioctl("SG_GET_RESERVED_SIZE", 4),
    0x2276: Ioctl("SG_GET_SCSI_ID", 32),
    0x2282: Ioctl("SG_GET_VERSION_NUM", 4),
    0x5382: Ioctl("SCSI_IOCTL_GET_IDLUN", 8),
    0x5386: Ioctl("SCSI_IOCTL_GET_BUS_NUMBER", 4),
    # include/uapi/linux/cdrom.h
    0x5309: Ioctl("CDROMEJECT", 0),
    0x5319: Ioctl("CDROMCLOSETRAY", 0),
    0x5326: Ioctl("CDROM_DRIVE_STATUS", 4, by_value=True),
    0x5329: Ioctl("CDROM_LOCKDOOR", 4, by_value=True),
    0x5331: Ioctl("CDROM_GET_CAPABILITY", 0),
    # include/uapi/linux/pr.h: persistent reservations
    _writes("p", 200, 24): Ioctl("IOC_PR_REGISTER", 24, changes=True),
    _writes("p", 201, 16): Ioctl("IOC_PR_RESERVE", 16, changes=True),
    _writes("p", 202, 16): Ioctl("IOC_PR_RELEASE", 16, changes=True),
    _writes("p", 203, 24): Ioctl("IOC_PR_PREEMPT", 24, changes=True),
    _writes("p", 204, 24): Ioctl("IOC_PR_PREEMPT_ABORT", 24, changes=True),
    _writes("p", 205, 16): Ioctl("IOC_PR_CLEAR", 16, changes=True),
    # The kernel looks itself whether a command may go through a descriptor for reading.
    SG_IO: Ioctl("SG_IO", 88),
}

_SG_HEADER: Final = struct.Struct("=iiBBHIQQQII")
"""struct sg_io_hdr up to `flags`: interface, direction, command's and sense's length, iovecs, data's length, the
three addresses, timeout, flags. 88 bytes in all."""
_SG_USER_POINTER: Final = slice(56, 64)
_SG_ADDRESSES: Final = slice(16, 40)
_SG_FLAGS_ALLOWED: Final = 0x30
"""SG_FLAG_Q_AT_TAIL and _HEAD. Direct and mapped transfers go elsewhere than the argument."""


def known(request: int, argument: bytes | bytearray) -> Ioctl:
    """The row of the request. Raises InvalidArgument for one that is none, or whose argument is not its size."""
    found = IOCTLS.get(request)
    if found is None:
        names = ", ".join(item.name for item in IOCTLS.values())
        raise InvalidArgument("request", f"one whose argument is known to hold no addresses: {names}", hex(request))
    size = _sg_size(argument) if request == SG_IO else found.size
    if len(argument) != size or size > MAX_ARGUMENT_BYTES:
        raise InvalidArgument(
            "argument", f"{size} bytes for {found.name}, at most {MAX_ARGUMENT_BYTES}", f"{len(argument)}"
        )
    return found


def send(descriptor: int, request: int, argument: bytearray) -> int:
    """Pass on what `known` accepted; the argument holds afterwards what the kernel left there. Raises OSError."""
    found = IOCTLS[request]
    if request == SG_IO:
        return _send_scsi(descriptor, argument)
    result: int
    if found.by_value or not found.size:
        result = fcntl.ioctl(descriptor, request, int.from_bytes(argument, sys.byteorder, signed=True))
    else:
        result = fcntl.ioctl(descriptor, request, argument, True)
    return result


def _sg_size(argument: bytes | bytearray) -> int:
    """What the header says of itself: header, command, sense, data. Raises InvalidArgument."""
    whole = IOCTLS[SG_IO].size
    if len(argument) < whole:
        return whole
    interface, _, command, sense, vectors, data, _, _, _, timeout, flags = _SG_HEADER.unpack_from(argument)
    for name, right, expected, value in (
        ("interface_id", interface == ord("S"), "'S'", interface),
        ("iovec_count", vectors == 0, "0", vectors),
        ("timeout", timeout <= SG_TIMEOUT_MAX_MS, f"at most {SG_TIMEOUT_MAX_MS} ms", timeout),
        ("flags", not flags & ~_SG_FLAGS_ALLOWED, f"none but {_SG_FLAGS_ALLOWED:#x}", flags),
    ):
        if not right:
            raise InvalidArgument(f"argument.{name}", expected, str(value))
    return whole + int(command) + int(sense) + int(data)


def _send_scsi(descriptor: int, argument: bytearray) -> int:
    # The array is what the kernel reads and writes: it stays where it is as long as it is referred to.
    piece = array.array("B", argument)
    start, _ = piece.buffer_info()
    command_bytes, sense_bytes = argument[8], argument[9]
    command = start + IOCTLS[SG_IO].size
    sense = command + command_bytes
    with memoryview(piece) as view:
        view[_SG_ADDRESSES] = struct.pack("=QQQ", sense + sense_bytes, command, sense)
        view[_SG_USER_POINTER] = bytes(8)
        try:
            result: int = fcntl.ioctl(descriptor, SG_IO, start)
        finally:
            view[_SG_ADDRESSES] = bytes(24)
        argument[:] = view
    return result
