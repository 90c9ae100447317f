"""The snapshot table: records of internal snapshots, read to know what they refer to.

Writing them is not done here; an image's table is kept as it is.
"""

import struct
from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import ImageCorrupt
from blockyard.base.ranges import align_up
from blockyard.node.formats.qcow2.limits import (
    MAX_HOST_OFFSET,
    MAX_L1_BYTES,
    MAX_SNAPSHOT_EXTRA_BYTES,
)

_RECORD: Final = struct.Struct(">QIHHIIQII")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One internal snapshot."""

    l1_offset: int
    l1_size: int
    """Entries."""
    identifier: str
    name: str
    date_s: int
    date_ns: int
    vm_clock_ns: int
    vm_state_bytes: int
    disk_size: int
    """Guest bytes when it was taken; -1 if the record does not say."""


def decode(
    data: bytes | bytearray | memoryview, count: int, cluster_size: int, image: str
) -> tuple[list[Snapshot], int]:
    """`count` records and how many bytes they fill. `data` may be longer than the table."""
    found: list[Snapshot] = []
    position = 0
    for number in range(count):
        if position + _RECORD.size > len(data):
            raise _truncated(image, number, len(data))
        l1_offset, l1_size, id_size, name_size, date_s, date_ns, clock, state, extra = _RECORD.unpack_from(
            data, position
        )
        if extra > MAX_SNAPSHOT_EXTRA_BYTES:
            raise ImageCorrupt(
                image, f"extra data of snapshot {number}", f"at most {MAX_SNAPSHOT_EXTRA_BYTES}", str(extra)
            )
        if l1_size * 8 > MAX_L1_BYTES or l1_offset % cluster_size or l1_offset >= MAX_HOST_OFFSET:
            raise ImageCorrupt(
                image,
                f"L1 table of snapshot {number}",
                f"aligned, at most {MAX_L1_BYTES} bytes",
                f"{l1_size} entries at {l1_offset:#x}",
            )
        start = position + _RECORD.size
        end = start + extra + id_size + name_size
        if end > len(data):
            raise _truncated(image, number, len(data))
        more = bytes(data[start : start + extra])
        identifier = bytes(data[start + extra : start + extra + id_size]).decode("utf-8", "replace")
        name = bytes(data[start + extra + id_size : end]).decode("utf-8", "replace")
        large_state = struct.unpack_from(">Q", more)[0] if extra >= 8 else state
        disk_size = struct.unpack_from(">Q", more, 8)[0] if extra >= 16 else -1
        found.append(Snapshot(l1_offset, l1_size, identifier, name, date_s, date_ns, clock, large_state, disk_size))
        position = align_up(end, 8)
    return found, position


def _truncated(image: str, number: int, length: int) -> ImageCorrupt:
    return ImageCorrupt(image, "snapshot table", f"record {number} inside it", f"an end after {length} bytes")
