"""The activity log of one node: which regions may hold writes that no durable bitmap knows of. No I/O lives here.

A file of one header sector and of slots of 8 bytes, each the number of a hot region plus 1, or 0. The log is
written in place: a disk writes a sector whole or not at all, so a slot says the old region or the new one.
"""

import struct
from typing import Final

from blockyard.base.units import MIB

REGION: Final = 4 * MIB
"""Bytes that become hot together (DRBD's al-extent is as large): sequential writes pay one sync for so many."""
REGION_SHIFT: Final = REGION.bit_length() - 1
DEFAULT_HOT_BYTES: Final = 256 * MIB
MIN_SLOTS: Final = 4
MAX_SLOTS: Final = 4096
"""16 GiB hot: a log of 33 KiB, which every node with guarded bitmaps has."""

_SLOTS_AT: Final = 512
_HEADER: Final = struct.Struct("<8s16sBBxxxxxx")
_MAGIC: Final = b"blkyheat"
_SLOT: Final = struct.Struct("<Q")


def slots_for(hot_bytes: int, granularity: int = 0) -> int:
    """How many regions may be hot at once, for a bound in bytes and the coarsest bitmap: a region that is hot
    counts as at least one of its granules."""
    return min(MAX_SLOTS, max(MIN_SLOTS, hot_bytes // max(REGION, granularity)))


def length_for(slots: int) -> int:
    """Bytes of the file."""
    return _SLOTS_AT + slots * _SLOT.size


class HeatLog:
    """The file in memory. What is set here is durable after a sync of the file, which is the caller's."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.slots = (len(view) - _SLOTS_AT) // _SLOT.size

    @property
    def is_valid(self) -> bool:
        magic, _, _, shift = _HEADER.unpack_from(self._view)
        return bool(magic == _MAGIC and shift == REGION_SHIFT)

    @property
    def boot(self) -> bytes:
        """Of the machine's life in which it was written."""
        boot: bytes = _HEADER.unpack_from(self._view)[1]
        return boot

    @property
    def is_clean(self) -> bool:
        """Everything was durable when it was left."""
        return bool(_HEADER.unpack_from(self._view)[2])

    def begin(self, boot: bytes, *, clean: bool) -> None:
        """Write the header, and no region is hot."""
        self._view[_SLOTS_AT:] = bytes(len(self._view) - _SLOTS_AT)
        _HEADER.pack_into(self._view, 0, _MAGIC, boot, clean, REGION_SHIFT)

    def set(self, slot: int, region: int) -> None:
        _SLOT.pack_into(self._view, _SLOTS_AT + slot * _SLOT.size, region + 1)

    def clear(self, slot: int) -> None:
        _SLOT.pack_into(self._view, _SLOTS_AT + slot * _SLOT.size, 0)

    def regions(self) -> list[int]:
        """The hot ones."""
        found = {number for (number,) in _SLOT.iter_unpack(self._view[_SLOTS_AT : length_for(self.slots)])}
        return sorted(number - 1 for number in found if number)
