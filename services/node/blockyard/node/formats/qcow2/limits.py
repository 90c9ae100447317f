"""Bounds of every count, size and offset in a qcow2 image, checked before anything is allocated.

The values are those QEMU enforces (block/qcow2.h, block/qcow2.c:qcow2_do_open), so that no image QEMU can
use is refused and no image can make us reserve more than QEMU would.
"""

from typing import Final

from blockyard.base.units import KIB, MIB

MIN_CLUSTER_BITS: Final = 9
MAX_CLUSTER_BITS: Final = 21
"""512 B to 2 MiB (MIN_CLUSTER_BITS, MAX_CLUSTER_BITS)."""

MIN_EXTENDED_CLUSTER_BITS: Final = 14
"""A subcluster is a sector at least: 32 of them (QCOW_EXTL2_SUBCLUSTERS_PER_CLUSTER) of 512 bytes."""

MAX_REFCOUNT_ORDER: Final = 6
"""Refcounts are 1 << order bits wide (spec, refcount_order)."""

MAX_L1_BYTES: Final = 32 * MIB
"""QCOW_MAX_L1_SIZE."""

MAX_REFCOUNT_TABLE_BYTES: Final = 8 * MIB
"""QCOW_MAX_REFTABLE_SIZE."""

MAX_SNAPSHOTS: Final = 65536
"""QCOW_MAX_SNAPSHOTS."""

MAX_SNAPSHOT_TABLE_BYTES: Final = 64 * MIB
"""QCOW_MAX_SNAPSHOTS_SIZE."""

MAX_SNAPSHOT_EXTRA_BYTES: Final = KIB
"""QCOW_MAX_SNAPSHOT_EXTRA_DATA."""

MAX_BACKING_NAME: Final = 1023
"""spec, backing_file_size."""

MAX_HOST_OFFSET: Final = 1 << 56
"""Offsets in tables occupy bits 9 to 55 (spec, L1 and L2 entries)."""

MAX_BITMAPS: Final = 65535
"""QCOW2_MAX_BITMAPS."""

MAX_BITMAP_DIRECTORY_BYTES: Final = 64 * MIB
"""QCOW2_MAX_BITMAP_DIRECTORY_SIZE (1024 * QCOW2_MAX_BITMAPS)."""

MAX_BITMAP_TABLE_BYTES: Final = 0x8000000 * 8
"""BME_MAX_TABLE_SIZE entries of 8 bytes; a table is read piece by piece."""

MAX_BITMAP_BYTES: Final = 512 * MIB
"""BME_MAX_PHYS_SIZE: bits of one bitmap."""

SECTOR: Final = 512
"""What a disk writes whole or not at all; also the unit of compressed lengths (spec, L2 entries)."""
