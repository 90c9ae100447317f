"""The active L1 table: in memory as a whole (at most 32 MiB), written back by sectors."""

import numpy as np

from blockyard.node.drivers.qcow2.ordering import Kind, Ledger
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.limits import SECTOR

_PER_SECTOR = SECTOR // 8


class L1:
    """`view` is for scalar reads; changes go through `set`."""

    def __init__(self, entries: tables.Table, ledger: Ledger) -> None:
        self.ledger = ledger
        self.replace(entries)

    def replace(self, entries: tables.Table) -> None:
        self.entries = entries
        self.view = tables.scalars(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def set(self, index: int, entry: int) -> None:
        self.view[index] = entry
        self.ledger.mark(Kind.L1, index // _PER_SECTOR)

    def encode_sector(self, number: int) -> tuple[int, bytes]:
        """(Byte in the table, bytes) of one sector."""
        return number * SECTOR, tables.encode(self.entries[number * _PER_SECTOR : (number + 1) * _PER_SECTOR])

    def empty_run(self, index: int, limit: int) -> int:
        """How many entries from `index`, at most `limit`, have no L2 table."""
        position, end = index, min(index + limit, len(self.entries))
        step = 64
        while position < end:
            window = self.entries[position : min(position + step, end)] & np.uint64(tables.OFFSET)
            hit = int(window.argmax()) if len(window) else 0
            if window[hit]:
                return position - index + int((window != 0).argmax())
            position += len(window)
            step = min(step * 8, 1 << 20)
        # Guest space past the table's end (none in a valid image) has no tables either.
        return limit if end < index + limit else end - index
