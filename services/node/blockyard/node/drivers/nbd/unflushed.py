"""What a server has acknowledged and may still lose: writes since the last flush, kept to be sent again.

A server that is there again after a lost connection may be another process: what it had not flushed is gone, and
the next flush would succeed all the same. QEMU lets that happen. Here the writes are sent again first. Pure.
"""

from collections import deque
from typing import Final, NamedTuple

from blockyard.base.units import MIB

FLUSH_BYTES: Final = 64 * MIB
"""With so many kept the session flushes by itself, beside the requests."""
MAX_BYTES: Final = 128 * MIB
"""With so many kept, writes wait for that flush."""
ENTRY_BYTES: Final = 256
"""What an entry costs beside its data."""


class Entry(NamedTuple):
    """A request that was acknowledged."""

    number: int
    kind: int
    offset: int
    length: int
    flags: int
    data: bytes | None


class Unflushed:
    """In the order of the acknowledgements."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._number = 0
        self.bytes = 0

    def add(self, kind: int, offset: int, length: int, flags: int, data: bytes | None) -> None:
        self._number += 1
        self._entries.append(Entry(self._number, kind, offset, length, flags, data))
        self.bytes += _cost(data)

    def mark(self) -> int:
        """To be taken before a flush is sent; `settle` with it when the flush was acknowledged."""
        return self._number

    def settle(self, mark: int) -> None:
        """Everything up to the mark is on stable storage."""
        while self._entries and self._entries[0].number <= mark:
            self.bytes -= _cost(self._entries.popleft().data)

    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)


def _cost(data: bytes | None) -> int:
    return ENTRY_BYTES + len(data or b"")
