"""L1 and L2 entries: what their bits mean, and arrays of them between disk and memory.

In memory a table is a native-endian uint64 array; scalar reads go through a memoryview of format 'Q' (a
numpy scalar costs more than a whole look-up). On disk it is big-endian.
"""

import sys
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockyard.node.formats.qcow2.limits import SECTOR

Table = NDArray[np.uint64]

ENTRY_BYTES: Final = 8
COPIED: Final = 1 << 63
"""The refcount of what is pointed to is exactly 1: it may be written in place (spec, L1 and L2 entries)."""
COMPRESSED: Final = 1 << 62
ZERO: Final = 1 << 0
"""Version 3 only: reads as zeroes; the offset is then a preallocated cluster or 0."""
OFFSET: Final = 0x00FF_FFFF_FFFF_FE00
"""Bits 9 to 55 of L1 and standard L2 entries."""
L2_RESERVED: Final = 0x3F00_0000_0000_01FE
L1_RESERVED: Final = 0x7F00_0000_0000_01FF
REFCOUNT_TABLE_RESERVED: Final = 0x1FF
REFCOUNT_TABLE_OFFSET: Final = 0xFFFF_FFFF_FFFF_FE00


class CompressedPlace(NamedTuple):
    """Where a compressed cluster's bytes are: from `offset`, over `length` bytes to a sector's end."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def scalars(entries: Table) -> memoryview:
    """The same memory as plain integers."""
    return memoryview(entries.data) if len(entries) else memoryview(b"").cast("Q")


def decode(data: bytes | bytearray | memoryview) -> Table:
    """An own, writable native array out of big-endian bytes. A bytearray is taken over and becomes that array."""
    if isinstance(data, bytearray):
        entries: Table = np.frombuffer(data, dtype=np.uint64)
        return entries if sys.byteorder == "big" else entries.byteswap(inplace=True)
    return np.frombuffer(data, dtype=">u8").astype(np.uint64)


def encode(entries: Table) -> bytes:
    return entries.astype(">u8").tobytes()


def compressed_shift(cluster_bits: int) -> int:
    """Number of the first bit of the sector count in a compressed entry (spec: x = 62 - (bits - 8))."""
    return 62 - (cluster_bits - 8)


def decode_compressed(entry: int, cluster_bits: int) -> CompressedPlace:
    """Length is what the entry's sector count covers; the compressed stream ends somewhere in its last sector."""
    shift = compressed_shift(cluster_bits)
    offset = entry & ((1 << shift) - 1)
    additional = (entry & (COMPRESSED - 1)) >> shift
    return CompressedPlace(offset, (additional + 1) * SECTOR - offset % SECTOR)


def encode_compressed(offset: int, length: int, cluster_bits: int) -> int:
    """The entry for `length` compressed bytes at `offset`."""
    shift = compressed_shift(cluster_bits)
    assert 0 <= offset < 1 << min(shift, 56), offset
    additional = (offset + length - 1) // SECTOR - offset // SECTOR
    assert additional < 1 << (62 - shift), length
    return COMPRESSED | additional << shift | offset


def compressed_clusters(entries: Table, cluster_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last host cluster numbers that each of an array of compressed entries touches."""
    shift = np.uint64(compressed_shift(cluster_bits))
    offsets = entries & ((np.uint64(1) << shift) - np.uint64(1))
    additional = (entries & np.uint64(COMPRESSED - 1)) >> shift
    last = (offsets // np.uint64(SECTOR) + additional) * np.uint64(SECTOR)
    bits = np.uint64(cluster_bits)
    return (offsets >> bits).astype(np.int64), (last >> bits).astype(np.int64)
