"""Which metadata is kept safe from being written over: QEMU's overlap checks, by structure. Pure.

QEMU looks before every write (qcow2_check_metadata_overlap), so what it looks at has a price, and options choose.
Here the look is taken where an image's word is first believed (see `guard`), at no cost per request; the options
say what is looked at all the same, for an image that must be written where its own metadata says it may not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Final


class Structure(IntEnum):
    """Kinds of metadata (QCow2MetadataOverlap)."""

    MAIN_HEADER = 0
    ACTIVE_L1 = 1
    ACTIVE_L2 = 2
    REFCOUNT_TABLE = 3
    REFCOUNT_BLOCK = 4
    SNAPSHOT_TABLE = 5
    INACTIVE_L1 = 6
    INACTIVE_L2 = 7
    BITMAP_DIRECTORY = 8

    @property
    def words(self) -> str:
        """As QEMU calls it in its messages (metadata_ol_names)."""
        return self.name.lower().replace("_", " ").replace("l1", "L1 table").replace("l2", "L2 table")


_CONSTANT: Final = frozenset(
    {
        Structure.MAIN_HEADER,
        Structure.ACTIVE_L1,
        Structure.REFCOUNT_TABLE,
        Structure.SNAPSHOT_TABLE,
        Structure.BITMAP_DIRECTORY,
    }
)
_CACHED: Final = _CONSTANT | {Structure.ACTIVE_L2, Structure.REFCOUNT_BLOCK, Structure.INACTIVE_L1}
ALL: Final = frozenset(Structure)
TEMPLATES: Final[Mapping[str, frozenset[Structure]]] = {
    "none": frozenset(),
    "constant": _CONSTANT,
    "cached": _CACHED,
    "all": ALL,
}
"""QCOW2_OL_CONSTANT, QCOW2_OL_CACHED (the default) and QCOW2_OL_ALL (block/qcow2.h)."""


@dataclass(frozen=True, slots=True)
class OverlapChecks:
    """Single structures; left out: as the template `overlap_check` says."""

    main_header: bool | None = None
    """The header."""
    active_l1: bool | None = None
    """The disk's L1 table."""
    active_l2: bool | None = None
    """The disk's L2 tables."""
    refcount_table: bool | None = None
    """The refcount table."""
    refcount_block: bool | None = None
    """Refcount blocks."""
    snapshot_table: bool | None = None
    """The table of internal snapshots."""
    inactive_l1: bool | None = None
    """L1 tables of internal snapshots."""
    inactive_l2: bool | None = None
    """L2 tables of internal snapshots: their L1 tables are read when the image is opened."""
    bitmap_directory: bool | None = None
    """The directory of persistent bitmaps."""


AS_THE_TEMPLATE: Final = OverlapChecks()


def checked(template: str, single: OverlapChecks) -> frozenset[Structure]:
    """What is looked at."""
    chosen = set(TEMPLATES[template])
    for item in fields(single):
        wanted = getattr(single, item.name)
        if wanted is not None:
            (chosen.add if wanted else chosen.discard)(Structure[item.name.upper()])
    return frozenset(chosen)
