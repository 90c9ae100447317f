"""The snapshot table: records of internal snapshots, to and from bytes, and the rules of their names.

A record that is read and written again keeps what its extra data says beyond what we know (spec, Snapshots).
"""

import re
import struct
from collections.abc import Iterable, Sequence
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
_EXTRA: Final = struct.Struct(">QQq")
"""Size of the VM state, size of the disk, instruction count (QCowSnapshotExtraData)."""
V3_EXTRA: Final = 16
"""Bytes of extra data that version 3 requires (spec, Snapshots)."""
_NUMBER: Final = re.compile(r"\s*\+?(\d{1,20})")


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
    icount: int = -1
    """Instructions executed then; -1 unknown."""
    extra: bytes = b""
    """Extra data as read; of a new record what `packed_extra` says."""


def packed_extra(vm_state_bytes: int, disk_size: int, icount: int) -> bytes:
    """Extra data of a new record, as QEMU writes it for both versions (qcow2_write_snapshots)."""
    return _EXTRA.pack(vm_state_bytes, disk_size, icount)


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
        identifier = _text(data[start + extra : start + extra + id_size])
        name = _text(data[start + extra + id_size : end])
        large_state = struct.unpack_from(">Q", more)[0] if extra >= 8 else state
        disk_size = struct.unpack_from(">Q", more, 8)[0] if extra >= 16 else -1
        icount = struct.unpack_from(">q", more, 16)[0] if extra >= 24 else -1
        found.append(
            Snapshot(
                l1_offset, l1_size, identifier, name, date_s, date_ns, clock, large_state, disk_size, icount, more
            )
        )
        position = align_up(end, 8)
    return found, position


def encode(snapshots: Iterable[Snapshot]) -> bytes:
    """The table. Every record begins at a multiple of 8."""
    table = bytearray()
    for item in snapshots:
        identifier, name = _bytes(item.identifier), _bytes(item.name)
        state = item.vm_state_bytes if item.vm_state_bytes < 1 << 32 else 0
        table += _RECORD.pack(
            item.l1_offset, item.l1_size, len(identifier), len(name), item.date_s, item.date_ns,
            item.vm_clock_ns, state, len(item.extra),
        )  # fmt: skip
        table += item.extra + identifier + name
        table += bytes(-len(table) % 8)
    return bytes(table)


def new_identifier(snapshots: Iterable[Snapshot]) -> str:
    """One more than the highest number that an identifier begins with (find_new_snapshot_id)."""
    return str(1 + max((_number(item.identifier) for item in snapshots), default=0))


def find(snapshots: Sequence[Snapshot], wanted: str) -> Snapshot | None:
    """The one with this identifier, else the first with this name (find_snapshot_by_id_or_name)."""
    return find_exactly(snapshots, wanted, "") or find_exactly(snapshots, "", wanted)


def find_exactly(snapshots: Sequence[Snapshot], identifier: str, name: str) -> Snapshot | None:
    """The first that has what is given of both; None for nothing given (find_snapshot_by_id_and_name)."""
    if not identifier and not name:
        return None
    for item in snapshots:
        if (not identifier or item.identifier == identifier) and (not name or item.name == name):
            return item
    return None


def _number(identifier: str) -> int:
    found = _NUMBER.match(identifier)
    return int(found[1]) if found else 0


def _text(data: bytes | bytearray | memoryview) -> str:
    """Bytes that are no UTF-8 survive a rewrite of the table."""
    return bytes(data).decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _truncated(image: str, number: int, length: int) -> ImageCorrupt:
    return ImageCorrupt(image, "snapshot table", f"record {number} inside it", f"an end after {length} bytes")
