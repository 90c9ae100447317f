"""What a file name says before anything is looked at: a protocol, a Windows drive, a pseudo name. Pure text.

Must not know storage roots, drivers or definitions.

Rules (QEMU's block.c). A name has a protocol if it contains a colon before the first slash (`path_has_protocol`),
so `./a:b` has none. A drive letter is no protocol (`is_windows_drive`); QEMU knows that on Windows only, but the
names come from anywhere. `file:` is taken off (`bdrv_parse_filename`), `json:` is a specification.
"""

import re
from typing import Final

DRIVERS_OF: Final[dict[str, str]] = {
    **dict.fromkeys(("nbd", "nbd+tcp", "nbd+unix", "nbds", "nbds+tcp", "nbds+unix"), "nbd"),
    **{name: name for name in ("http", "https", "ftp", "ftps", "ssh", "rbd", "nfs", "nvme")},
    **dict.fromkeys(("iscsi", "iser"), "iscsi"),
    **dict.fromkeys(("gluster", "gluster+tcp", "gluster+unix", "gluster+rdma"), "gluster"),
    **dict.fromkeys(("sheepdog", "sheepdog+tcp", "sheepdog+unix"), "sheepdog"),
    "fat": "vvfat",
    "host_device": "host_device",
    "host_cdrom": "host_cdrom",
    "blkreplay": "blkreplay",
    "vxhs": "vxhs",
}
"""Protocols in QEMU's file names (`protocol_name` of its drivers) and the driver that each needs and we lack."""

_PROTOCOL: Final = re.compile(r"[A-Za-z0-9+._\-]+(?=:)")
"""QEMU takes any text for a protocol; with other letters than these none has a driver, here or there."""
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_DEVICE: Final = re.compile(r"\\\\[.?]\\|//[.?]/")


def is_windows_drive(name: str) -> bool:
    r"""A whole drive: `c:`, or a device name such as `\\.\d:`, `//./cdrom`."""
    return (len(name) == 2 and _DRIVE.match(name) is not None) or _DEVICE.match(name) is not None


def is_windows_path(name: str) -> bool:
    r"""A drive, or a path on one: `c:\images\disk`."""
    return is_windows_drive(name) or _DRIVE.match(name) is not None


def protocol_of(name: str) -> str:
    """The protocol that a name begins with; empty for a path. It may be one that nobody knows."""
    if is_windows_path(name):
        return ""
    found = _PROTOCOL.match(name)
    return found[0] if found else ""
