"""Persistent dirty bitmaps: the directory, its records, and the tables that say where the bits are.

A directory is a sequence of records padded to 8 bytes; a record names a table; an entry of a table is a cluster of
bits, or says that such a cluster would be all zeroes or all ones. A directory that was decoded encodes to the same
bytes, with what we do not understand in it (spec, Bitmaps).
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from blockyard.base.errors import ImageCorrupt
from blockyard.base.ranges import align_up
from blockyard.node.formats.qcow2.limits import MAX_BITMAP_BYTES, MAX_BITMAP_TABLE_BYTES, MAX_HOST_OFFSET
from blockyard.node.formats.qcow2.tables import OFFSET, Table

_RECORD: Final = struct.Struct(">QIIBBHI")
_FLAGS_AT: Final = 12
"""Of a record. Records begin at multiples of 8, so the flags lie in one sector: a disk writes them whole."""

IN_USE: Final = 1 << 0
"""Software keeps it in memory, or did not store it properly: its bits say nothing."""
AUTO: Final = 1 << 1
"""It records every write of the virtual disk."""
EXTRA_COMPATIBLE: Final = 1 << 2
"""Who does not know its extra data may use it nonetheless."""
_KNOWN_FLAGS: Final = IN_USE | AUTO | EXTRA_COMPATIBLE
DIRTY_TRACKING: Final = 1
"""The only type there is."""
MIN_GRANULARITY_BITS: Final = 9
MAX_GRANULARITY_BITS: Final = 26
"""Ours; BME_MAX_GRANULARITY_BITS is 31, but BdrvDirtyBitmaps are of 64 MiB at most for jobs."""
MAX_NAME_BYTES: Final = 1023
"""BME_MAX_NAME_SIZE."""

ALL_ONES: Final = 1
"""A table entry without an offset that stands for a cluster of ones."""
_ENTRY_RESERVED: Final = (1 << 64) - 1 - OFFSET - ALL_ONES


@dataclass(frozen=True, slots=True)
class StoredBitmap:
    """One record of the directory (spec, Bitmap directory)."""

    table_offset: int
    table_size: int
    """Entries."""
    flags: int
    granularity_bits: int
    name: str
    """Bytes that are no UTF-8 are surrogates in it."""
    kind: int = DIRTY_TRACKING
    extra: bytes = b""

    @property
    def encoded_name(self) -> bytes:
        return self.name.encode("utf-8", "surrogateescape")

    @property
    def size(self) -> int:
        """Bytes of the record."""
        return align_up(_RECORD.size + len(self.extra) + len(self.encoded_name), 8)

    @property
    def in_use(self) -> bool:
        return bool(self.flags & IN_USE)

    @property
    def auto(self) -> bool:
        return bool(self.flags & AUTO)

    def flagged(self, flag: int, wanted: bool) -> "StoredBitmap":
        """The same with one flag set or not."""
        return replace(self, flags=self.flags | flag if wanted else self.flags & ~flag)


def decode_directory(
    data: bytes | bytearray | memoryview, count: int, cluster_size: int, image: str
) -> list[StoredBitmap]:
    """The records, which fill the data. Raises ImageCorrupt for one that is not whole, or whose table can be
    nowhere."""
    found: list[StoredBitmap] = []
    position = 0
    for number in range(count):
        if position + _RECORD.size > len(data):
            raise _corrupt(image, number, f"an end after {len(data)} bytes")
        offset, size, flags, kind, granularity, name_size, extra = _RECORD.unpack_from(data, position)
        extra_at = position + _RECORD.size
        name_at = extra_at + extra
        if name_at + name_size > len(data):
            raise _corrupt(image, number, f"{extra} bytes of extra data, {name_size} of name")
        if offset % cluster_size or offset >= MAX_HOST_OFFSET or size * 8 > MAX_BITMAP_TABLE_BYTES:
            raise _corrupt(image, number, f"a table of {size} entries at {offset:#x}")
        name = bytes(data[name_at : name_at + name_size]).decode("utf-8", "surrogateescape")
        found.append(
            StoredBitmap(offset, size, flags, granularity, name, kind, bytes(data[extra_at : extra_at + extra]))
        )
        position = name_at + name_size + 7 & ~7
    if position != len(data):
        raise ImageCorrupt(image, "bitmap directory", f"{len(data)} bytes of records", f"{position}")
    return found


def encode_directory(records: Iterable[StoredBitmap]) -> bytes:
    """The directory. Its records keep their places when only flags change."""
    parts: list[bytes] = []
    for record in records:
        name = record.encoded_name
        fixed = _RECORD.pack(
            record.table_offset,
            record.table_size,
            record.flags,
            record.kind,
            record.granularity_bits,
            len(name),
            len(record.extra),
        )
        parts.append((fixed + record.extra + name).ljust(record.size, b"\0"))
    return b"".join(parts)


def unusable(record: StoredBitmap, size: int, cluster_size: int) -> str:
    """Why a bitmap of a disk of `size` bytes cannot be used, for people; empty if it can (check_dir_entry)."""
    length = record.table_size * cluster_size
    checks = (
        (record.flags & ~_KNOWN_FLAGS, f"flags {record.flags:#x} of a later version"),
        (record.extra and not record.flags & EXTRA_COMPATIBLE, "extra data of a later version"),
        (record.kind != DIRTY_TRACKING, f"type {record.kind}"),
        (not MIN_GRANULARITY_BITS <= record.granularity_bits <= MAX_GRANULARITY_BITS, "its granularity"),
        (not is_name(record.encoded_name), "its name"),
        (length > MAX_BITMAP_BYTES, f"{length} bytes of bits"),
        (
            not record.in_use and record.table_size != table_entries(size, record.granularity_bits, cluster_size),
            f"a table of {record.table_size} entries",
        ),
    )
    return next((str(reason) for fails, reason in checks if fails), "")


def table_entries(size: int, granularity_bits: int, cluster_size: int) -> int:
    """Entries of the table of a bitmap for a disk of `size` bytes."""
    granules = -(-size >> granularity_bits)
    return -(-granules // (cluster_size * 8))


def bad_entry(entries: Table, cluster_size: int, end: int) -> int:
    """The first entry of a table that cannot be: unaligned, past the file's `end`, or with reserved bits; or -1."""
    places = entries & np.uint64(OFFSET)
    wrong = (entries & np.uint64(_ENTRY_RESERVED)) != 0
    wrong |= (places % np.uint64(cluster_size) != 0) | (places >= np.uint64(max(1, end)))
    wrong |= (places != 0) & ((entries & np.uint64(ALL_ONES)) != 0)
    return int(wrong.argmax()) if wrong.any() else -1


def is_name(name: bytes) -> bool:
    """Whether it is one that people can say."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return 1 <= len(name) <= MAX_NAME_BYTES and b"\0" not in name


def _corrupt(image: str, number: int, found: str) -> ImageCorrupt:
    return ImageCorrupt(image, "bitmap directory", f"record {number} whole and within limits", found)
