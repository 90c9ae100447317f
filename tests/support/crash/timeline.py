"""What a crash at a point of the log leaves for certain, and what it may leave.

The persistence model (research on disks and file systems; ALICE, CrashMonkey): after a crash at `cut`, that is,
before entry `cut` happened, a file holds
- every change that a flush of that file covered and that ended before `cut` (durable), and
- any selection of its other changes before `cut`, one of them perhaps in part (volatile).
Files know nothing of each other's flushes. Changes of the directory persist in their order. A change that became
durable before an older one is not undone by the older one when that arrives late.
"""

import bisect
from typing import Final

from tests.support.crash.log import CHANGES, DIRECTORY, Entry, Log, Op

NEVER: Final = 1 << 62


class Timeline:
    """The log, indexed by durability."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.changes = [entry.index for entry in log.entries if entry.op in CHANGES]
        self.durable_at = self._durability()
        """By entry: the first cut at which it is durable."""
        self.by_durability = sorted(self.changes, key=lambda index: (self.durable_at[index], index))
        self._overtakers = self._find_overtakers()

    def _durability(self) -> list[int]:
        durable_at = [NEVER] * len(self.log)
        pending: dict[str, list[int]] = {}
        for entry in self.log.entries:
            waiting = pending.setdefault(entry.file, [])
            if entry.op in CHANGES:
                waiting.append(entry.index)
            elif entry.op is Op.FLUSH:
                left = []
                for index in waiting:
                    if index == entry.only or (index < entry.covers and index not in entry.missing):
                        durable_at[index] = entry.index + 1
                    else:
                        left.append(index)
                pending[entry.file] = left
        return durable_at

    def _find_overtakers(self) -> list[int]:
        """Changes that were durable before an older change of the same file."""
        latest: dict[str, int] = {}
        found = []
        for index in self.changes:
            file = self.log.entries[index].file
            if self.durable_at[index] < latest.get(file, 0):
                found.append(index)
            latest[file] = max(latest.get(file, 0), self.durable_at[index])
        return found

    def cuts(self) -> list[int]:
        """Every point worth a crash: after each change or flush and the marks that follow it."""
        events = [entry.index for entry in self.log.entries if entry.op is not Op.MARK]
        return [*events[1:], len(self.log)] if events else []

    def volatile(self, cut: int) -> list[int]:
        """Changes before `cut` that a crash there may lose, in their order."""
        return [
            index for index in self.changes[: bisect.bisect_left(self.changes, cut)] if self.durable_at[index] > cut
        ]

    def shadows(self, entry: Entry, cut: int) -> list[Entry]:
        """Durable changes that must not be undone when the older `entry` arrives late."""
        return [
            self.log.entries[index]
            for index in self._overtakers
            if index > entry.index
            and self.durable_at[index] <= cut
            and self.log.entries[index].file == entry.file != DIRECTORY
        ]
