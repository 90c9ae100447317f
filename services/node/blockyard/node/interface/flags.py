"""Request flags and option enums, in QEMU's words.

Request flags are plain ints: an `IntFlag` test costs more than the look-up it guards (0.4 us against 0.03).
"""

from enum import StrEnum
from typing import Final

FUA: Final = 1
"""The data is on stable storage before the request ends (BDRV_REQ_FUA)."""
COMPRESSED: Final = 2
"""Store compressed if the format can (BDRV_REQ_WRITE_COMPRESSED)."""
MAY_UNMAP: Final = 4
"""Zeroes may be made by deallocating (BDRV_REQ_MAY_UNMAP)."""
NO_FALLBACK: Final = 8
"""Fail rather than write zero buffers (BDRV_REQ_NO_FALLBACK, NBD's fast zero)."""
WRITE_UNCHANGED: Final = 16
"""The guest-visible content does not change; dirty bitmaps are not marked (BDRV_REQ_WRITE_UNCHANGED)."""


class Preallocation(StrEnum):
    """How much of a new area is allocated ahead (QEMU's PreallocMode)."""

    OFF = "off"
    METADATA = "metadata"
    FALLOC = "falloc"
    FULL = "full"


class DiscardMode(StrEnum):
    """Whether a discard reaches the file below."""

    IGNORE = "ignore"
    UNMAP = "unmap"


class DetectZeroes(StrEnum):
    """Whether written zeroes become write-zeroes requests (QEMU's BlockdevDetectZeroesOptions)."""

    OFF = "off"
    ON = "on"
    UNMAP = "unmap"
    """They may be made by deallocating."""


class Role(StrEnum):
    """What a child is to its parent (QEMU's BdrvChildRole, the common combinations)."""

    FILE = "file"
    """Data and metadata of a format; the primary child."""
    BACKING = "backing"
    """Where unallocated ranges are read (BDRV_CHILD_COW)."""
    FILTERED = "filtered"
    """The child whose data a filter passes on."""
    TARGET = "target"
    """Where a filter writes copies."""
    DATA = "data-file"
    """Guest data kept apart from metadata."""
