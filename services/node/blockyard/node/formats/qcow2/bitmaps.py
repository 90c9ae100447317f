"""The bitmap directory and bitmap tables: read to know which clusters persistent bitmaps occupy."""

import struct
from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import ImageCorrupt
from blockyard.base.ranges import align_up
from blockyard.node.formats.qcow2.limits import MAX_BITMAP_TABLE_BYTES, MAX_HOST_OFFSET

_RECORD: Final = struct.Struct(">QIIBBHI")


@dataclass(frozen=True, slots=True)
class StoredBitmap:
    """One record of the directory (spec, Bitmap directory)."""

    table_offset: int
    table_size: int
    """Entries."""
    flags: int
    granularity_bits: int
    name: str


def decode_directory(
    data: bytes | bytearray | memoryview, count: int, cluster_size: int, image: str
) -> list[StoredBitmap]:
    found: list[StoredBitmap] = []
    position = 0
    for number in range(count):
        if position + _RECORD.size > len(data):
            raise _corrupt(image, number, f"an end after {len(data)} bytes")
        offset, size, flags, _, granularity, name_size, extra = _RECORD.unpack_from(data, position)
        name_at = position + _RECORD.size + extra
        if name_at + name_size > len(data):
            raise _corrupt(image, number, f"{extra} bytes of extra data, {name_size} of name")
        if offset % cluster_size or offset >= MAX_HOST_OFFSET or size * 8 > MAX_BITMAP_TABLE_BYTES:
            raise _corrupt(image, number, f"a table of {size} entries at {offset:#x}")
        name = bytes(data[name_at : name_at + name_size]).decode("utf-8", "replace")
        found.append(StoredBitmap(offset, size, flags, granularity, name))
        position = align_up(name_at + name_size, 8)
    return found


def _corrupt(image: str, number: int, found: str) -> ImageCorrupt:
    return ImageCorrupt(image, "bitmap directory", f"record {number} whole and within limits", found)
