"""Extended L2 entries: 32 subclusters to a cluster, and the two bits of state that each of them has.

The second word of an entry holds, for subcluster `n`, bit `n` (allocated: its bytes are in the host cluster) and
bit `32 + n` (reads as zeroes); neither means that the backing file shows (spec, Extended L2 Entries). Both at once,
or "allocated" without a host cluster, cannot be. A compressed cluster has none of the bits. Here they are masks of
32 bits, lowest bit first; scalars are for single entries, arrays for tables.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.tables import COMPRESSED, COPIED, OFFSET, Table

PER_CLUSTER: Final = 32
"""QCOW_EXTL2_SUBCLUSTERS_PER_CLUSTER."""
ALL: Final = (1 << PER_CLUSTER) - 1
HAS_PLACE: Final = COPIED | OFFSET
"""A sound entry with any of these has a host cluster; COPIED alone: the first cluster of an external data file."""

_ALL: Final = np.uint64(ALL)
_SHIFT: Final = np.uint64(PER_CLUSTER)
_ONE: Final = np.uint64(1)


def mask_of(low: int, high: int) -> int:
    """Subclusters `[low, high)`."""
    return (1 << high) - (1 << low)


def ones_from(mask: int, low: int) -> int:
    """How many subclusters from `low` on are in a mask without a gap."""
    absent = ~(mask >> low)
    return (absent & -absent).bit_length() - 1


def masks_of(low: int, high: int, count: int) -> Table:
    """For each of `count` clusters the mask of its part of `[low, high)`, counted from the first one's first."""
    masks: Table = np.full(count, _ALL)
    last = count - 1
    masks[0] = masks[0] & np.uint64(mask_of(low, PER_CLUSTER))
    masks[last] = masks[last] & np.uint64(mask_of(0, high - last * PER_CLUSTER))
    return masks


def is_sound(entry: int, bitmap: int) -> bool:
    """Whether the bits can be, for an entry that is not compressed."""
    allocated = bitmap & ALL
    return not allocated & (bitmap >> PER_CLUSTER) and not (allocated and not entry & HAS_PLACE)


def with_written(bitmaps: Table, masks: Table) -> Table:
    """The same with these subclusters allocated."""
    changed: Table = (bitmaps | masks) & ~(masks << _SHIFT)
    return changed


def with_zeroed(bitmaps: Table, masks: Table) -> Table:
    """The same with these subclusters reading as zeroes."""
    changed: Table = (bitmaps & ~masks) | (masks << _SHIFT)
    return changed


def allocated(bitmaps: Table) -> Table:
    """Masks of what is allocated."""
    masks: Table = bitmaps & _ALL
    return masks


def full_of(bitmaps: Table, entries: Table, *, is_zero: bool) -> NDArray[np.bool_]:
    """Which plain clusters have all of one state, zero or else nothing at all."""
    wanted = _ALL << _SHIFT if is_zero else np.uint64(0)
    full: NDArray[np.bool_] = (bitmaps == wanted) & ((entries & np.uint64(COMPRESSED)) == 0)
    return full


def faults(entries: Table, bitmaps: Table) -> NDArray[np.bool_]:
    """Entries whose bits cannot be (check_refcounts_l2)."""
    packed = (entries & np.uint64(COMPRESSED)) != 0
    here = bitmaps & _ALL
    both = (here & (bitmaps >> _SHIFT)) != 0
    nowhere = (here != 0) & ((entries & np.uint64(HAS_PLACE)) == 0)
    found: NDArray[np.bool_] = np.where(packed, bitmaps != 0, both | nowhere)
    return found


def unfolded(entries: Table, bitmaps: Table, subcluster_bits: int) -> Table:
    """The table as if each subcluster were a cluster with an entry of the plain kind."""
    numbers = np.arange(PER_CLUSTER, dtype=np.uint64)
    here = ((bitmaps[:, None] >> numbers) & _ONE) != 0
    zero = ((bitmaps[:, None] >> (numbers + _SHIFT)) & _ONE) != 0
    places = (entries & np.uint64(OFFSET))[:, None] + (numbers << np.uint64(subcluster_bits))
    plain = np.where(here, places, np.where(zero, np.uint64(tables.ZERO), np.uint64(0)))
    packed = ((entries & np.uint64(COMPRESSED)) != 0)[:, None]
    words: Table = np.where(packed, entries[:, None], plain).reshape(-1)
    return words


def split(words: Table) -> tuple[Table, Table]:
    """Descriptors and bitmaps, each an own array, of a table as it is on disk."""
    return words[0::2].copy(), words[1::2].copy()


def encode(entries: Table, bitmaps: Table) -> bytes:
    """Inverse of `split`, as bytes."""
    words = np.empty(2 * len(entries), np.uint64)
    words[0::2], words[1::2] = entries, bitmaps
    return tables.encode(words)
