"""What a guest wrote, to the byte: which seed stands behind each 512-byte unit, and what content that means.

Theory. The content of a unit is a function of (seed, number of the unit), so a stale, torn or misplaced unit never
looks right. Units with seed 0 were never written and hold what the original image holds. A copy of the seeds is the
disk at an instant; comparing means computing what must be there and looking.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from blockyard.base.units import MIB

UNIT: Final = 512
ZEROED: Final = 2**62
"""The seed of units that were written as zeroes."""
WINDOW: Final = 4 * MIB
"""Bytes compared at once."""

_WORDS: Final = UNIT // 8
_COLUMNS: Final = np.arange(_WORDS, dtype=np.uint64)
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_STIR: Final = np.uint64(0xC2B2AE3D27D4EB4F)

Reader = Callable[[int, int], Awaitable[bytes]]
Seeds = npt.NDArray[np.uint64]


def pattern(offset: int, length: int, seed: int) -> bytes:
    """What a write of this range with this seed holds."""
    first, count = offset // UNIT, length // UNIT
    return _content(
        np.arange(first, first + count, dtype=np.uint64), np.full(count, seed, dtype=np.uint64)
    ).tobytes()


def _content(units: Seeds, seeds: Seeds) -> Seeds:
    # A row per unit, a word per column. Wrapping multiplication is meant.
    words = units[:, None] * np.uint64(_WORDS) + _COLUMNS
    words *= _SPREAD
    words ^= (seeds * _STIR)[:, None]
    words[seeds == ZEROED] = 0
    return words


class Ledger:
    """The writes to a disk of `size` bytes, a multiple of the unit."""

    def __init__(self, size: int) -> None:
        assert size % UNIT == 0, size
        self.size = size
        self.seeds: Seeds = np.zeros(size // UNIT, dtype=np.uint64)

    def note(self, offset: int, length: int, seed: int) -> None:
        """A write with this seed was acknowledged."""
        self.seeds[offset // UNIT : (offset + length) // UNIT] = seed

    def snapshot(self) -> Seeds:
        """The disk at this instant."""
        return self.seeds.copy()

    @property
    def written_bytes(self) -> int:
        """Bytes that differ from the original image."""
        return int(np.count_nonzero(self.seeds)) * UNIT


def expected(seeds: Seeds, offset: int, original: bytes) -> bytes:
    """What a range must hold, given what the original image holds there."""
    part = seeds[offset // UNIT : (offset + len(original)) // UNIT]
    written = np.flatnonzero(part)
    if not len(written):
        return original
    rows = np.frombuffer(original, dtype=np.uint64).reshape(-1, _WORDS).copy()
    rows[written] = _content(written.astype(np.uint64) + np.uint64(offset // UNIT), part[written])
    return rows.tobytes()


async def first_difference(seeds: Seeds, original: Reader, found: Reader) -> int:
    """Offset of the first byte that is not what it must be; -1 if every byte is."""
    size = len(seeds) * UNIT
    for offset in range(0, size, WINDOW):
        length = min(WINDOW, size - offset)
        wanted = expected(seeds, offset, await original(offset, length))
        got = await found(offset, length)
        if got != wanted:
            if len(got) != len(wanted):
                return offset + min(len(got), len(wanted))
            differs = np.frombuffer(got, dtype=np.uint8) != np.frombuffer(wanted, dtype=np.uint8)
            return offset + int(np.argmax(differs))
    return -1
