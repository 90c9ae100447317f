"""Where guest bytes are: the answer of every driver to `map`.

A mapping describes the first `length` bytes of the range that was asked for; the caller asks again for the rest.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from blockyard.node.interface.child import Child


class MapKind(IntEnum):
    """What backs a range."""

    DATA = 0
    """Plain bytes at `offset` of `child` (of the node's own storage if `child` is None)."""
    ZERO = 1
    """Reads as zeroes here, whatever a backing file holds."""
    BACKING = 2
    """Not allocated here: the backing child decides; zeroes without one or past its end."""
    ENCODED = 3
    """Only the driver can read it (compressed): ask `FormatDriver.read_encoded`."""


class Mapping(NamedTuple):
    """The first `length` > 0 bytes of a range that was asked for.

    Invariants: `length` never exceeds what was asked; all of it is of one kind and contiguous in `child`.
    """

    kind: MapKind
    length: int
    child: "Child | None" = None
    offset: int = 0
    """Bytes into `child`; for ZERO the preallocated place if `writable`."""
    writable: bool = False
    """DATA may be overwritten in place: not shared, not compressed, no metadata to change."""


class Allocation(NamedTuple):
    """Room reserved for a write, not yet visible to readers.

    The request path fills all of `[start, start + length)` at `offset` of `child` (old content around the
    new data, read through the node itself), then calls `commit`, or `abandon` if the write failed.
    """

    start: int
    """Guest offset, aligned to the driver's allocation unit."""
    length: int
    """Bytes, a multiple of the allocation unit (the last unit may reach past the node's end)."""
    child: "Child"
    offset: int
    """Where the range lives in `child`, contiguous."""
    token: object
    """The driver's own."""
    keep_around: bool = True
    """False if the surroundings of the data already read as wanted and need no filling
    (a fresh, zeroed place and no old content)."""
