"""Buffers at addresses that a driver insists on (`Limits.min_mem_alignment`): O_DIRECT wants them so."""

import mmap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from blockyard.node.interface.child import Buffer


def is_aligned(data: "Buffer", alignment: int) -> bool:
    """Whether a buffer lies at a multiple of the alignment in memory."""
    address: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0] if len(data) else 0
    return address % alignment == 0


def aligned(length: int, alignment: int) -> memoryview:
    """A fresh buffer that does. It is unmapped when the last view of it is gone."""
    room = mmap.mmap(-1, max(1, length) + (alignment if alignment > mmap.PAGESIZE else 0))
    whole = memoryview(room)
    address: int = np.frombuffer(whole, np.uint8).__array_interface__["data"][0]
    start = -address % alignment
    return whole[start : start + length]
