"""The smallest reader of a qcow2 file there can be, and none of the product's code in it.

Reads flat images (no backing file, nothing compressed or encrypted) as their headers say, straight from the file
that a closed image left behind. QEMU, docs/interop/qcow2.txt: header, "Cluster mapping".
"""

import os
import struct
from pathlib import Path
from typing import Final

OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
COMPRESSED: Final = 1 << 62
ZERO: Final = 1


class PlainQcow2:
    """A closed, flat qcow2 file. Raises ValueError for what it does not read."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        head = os.pread(self._file, 104, 0)
        magic, version, backing, _, cluster_bits, self.size, crypt, l1_size, l1_offset = struct.unpack(
            ">4sIQIIQIIQ", head[:48]
        )
        incompatible = struct.unpack(">Q", head[72:80])[0] if version == 3 else 0
        if magic != b"QFI\xfb" or backing or crypt or incompatible:
            raise ValueError(
                f"{path}: no flat, clean qcow2 image (backing at {backing}, features {incompatible:#x})"
            )
        self._cluster = 1 << cluster_bits
        self._l1 = struct.unpack(f">{l1_size}Q", os.pread(self._file, 8 * l1_size, l1_offset))
        self._l2: tuple[int, tuple[int, ...]] = (-1, ())

    def close(self) -> None:
        os.close(self._file)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the guest's disk."""
        parts = []
        while length > 0:
            inside = offset % self._cluster
            count = min(length, self._cluster - inside)
            place = self._place(offset // self._cluster)
            data = os.pread(self._file, count, place + inside) if place else b""
            parts.append(data + bytes(count - len(data)))
            offset, length = offset + count, length - count
        return b"".join(parts)

    def _place(self, cluster: int) -> int:
        """Where a cluster lies in the file; 0 if it reads as zeroes."""
        entries = self._cluster // 8
        table = self._l1[cluster // entries] & OFFSET_MASK
        if not table:
            return 0
        if self._l2[0] != table:
            self._l2 = (table, struct.unpack(f">{entries}Q", os.pread(self._file, self._cluster, table)))
        entry = self._l2[1][cluster % entries]
        if entry & COMPRESSED:
            raise ValueError(f"cluster {cluster} is compressed")
        return 0 if entry & ZERO else entry & OFFSET_MASK
