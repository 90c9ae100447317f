"""Refcount blocks: arrays of 1 to 64 bit counters between disk and memory.

In memory one element per counter in the smallest native type that holds it. On disk counters of less than
a byte are packed from the least significant bit up, wider ones are big-endian (spec, Host cluster management).
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Counters = NDArray[Any]
"""Elements are unsigned; which type says `dtype_of`."""

_WIDE: Final = {3: ">u1", 4: ">u2", 5: ">u4", 6: ">u8"}
_NATIVE: Final = {0: np.uint8, 1: np.uint8, 2: np.uint8, 3: np.uint8, 4: np.uint16, 5: np.uint32, 6: np.uint64}


def dtype_of(order: int) -> type[Any]:
    """The element type for refcounts of 1 << order bits."""
    return _NATIVE[order]


def decode(data: bytes | bytearray | memoryview, order: int) -> Counters:
    """An own, writable array with one element per counter."""
    if order >= 3:
        return np.frombuffer(data, dtype=_WIDE[order]).astype(_NATIVE[order])
    raw = np.frombuffer(data, dtype=np.uint8)
    width = 1 << order
    if width == 1:
        return np.unpackbits(raw, bitorder="little")
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    mask = np.uint8((1 << width) - 1)
    return ((raw[:, None] >> shifts) & mask).reshape(-1)


def encode(counters: Counters, order: int) -> bytes:
    """Inverse of `decode`; the count of elements must fill whole bytes."""
    if order >= 3:
        return counters.astype(_WIDE[order]).tobytes()
    width = 1 << order
    assert len(counters) * width % 8 == 0
    if width == 1:
        return np.packbits(counters, bitorder="little").tobytes()
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    groups = counters.astype(np.uint8).reshape(-1, 8 // width) << shifts
    packed: Counters = np.bitwise_or.reduce(groups, axis=1)
    return packed.astype(np.uint8).tobytes()
