"""What happened, in one order for everything: writes to files, changes of a directory, and marks of the test.

What must not live here: what may survive a crash (`timeline`) and how states are made (`states`, `disk`).
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Op(StrEnum):
    """What one entry did."""

    WRITE = "write"
    ZERO = "zero"
    DISCARD = "discard"
    TRUNCATE = "truncate"
    FLUSH = "flush"
    CREATE = "create"
    RENAME = "rename"
    UNLINK = "unlink"
    MARK = "mark"


DIRECTORY = ""
"""The file name of entries that change the directory; its FLUSH is the directory's fsync."""
CHANGES = (Op.WRITE, Op.ZERO, Op.DISCARD, Op.TRUNCATE, Op.CREATE, Op.RENAME, Op.UNLINK)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event. `index` is its place in the log."""

    index: int
    op: Op
    file: str = DIRECTORY
    offset: int = 0
    """For TRUNCATE the new size."""
    length: int = 0
    data: bytes = b""
    covers: int = 0
    """FLUSH: entries of the file before this index were complete when the flush began ..."""
    missing: frozenset[int] = frozenset()
    """... except these, which were in flight."""
    only: int = -1
    """FLUSH: made this one entry durable and no other (the end of a FUA write)."""
    name: str = ""
    """CREATE, RENAME, UNLINK: the name; MARK: its kind."""
    target: str = ""
    """RENAME: the new name."""
    detail: dict[str, Any] = field(default_factory=dict)
    """MARK: whatever the test says."""

    @property
    def end(self) -> int:
        return self.offset + self.length


class Log:
    """Append-only. Files are known by the name they had first; renames are entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.base: dict[str, bytes] = {}
        """Files that were there, durably, before the first entry."""

    def __len__(self) -> int:
        return len(self.entries)

    def append(self, op: Op, file: str = DIRECTORY, **facts: Any) -> int:
        """The index of the new entry."""
        self.entries.append(Entry(len(self.entries), op, file, **facts))
        return len(self.entries) - 1

    def mark(self, kind: str, **detail: Any) -> int:
        """Something the world outside was told: "acked", "job completed" ..."""
        return self.append(Op.MARK, name=kind, detail=detail)

    def create(self, name: str) -> None:
        """A new, empty file appears in the directory."""
        self.append(Op.CREATE, name=name)

    def rename(self, name: str, target: str) -> None:
        self.append(Op.RENAME, name=name, target=target)

    def unlink(self, name: str) -> None:
        self.append(Op.UNLINK, name=name)

    def sync_directory(self) -> None:
        self.append(Op.FLUSH, covers=len(self.entries))

    def files(self) -> list[str]:
        """Every file there ever was."""
        created = [entry.name for entry in self.entries if entry.op is Op.CREATE]
        return list(dict.fromkeys([*self.base, *created]))

    def barriers(self) -> list[int]:
        """Flushes that made something durable that was not durable before: those whose loss may matter."""
        found: list[int] = []
        pending: dict[str, bool] = {}
        for entry in self.entries:
            if entry.op in CHANGES:
                pending[entry.file] = True
            elif entry.op is Op.FLUSH and pending.get(entry.file):
                found.append(entry.index)
                pending[entry.file] = bool(entry.missing) or entry.only >= 0
        return found

    def without_barrier(self, index: int) -> "Log":
        """The same history on a disk that ignored one flush (a mutant that a good test run must kill)."""
        assert self.entries[index].op is Op.FLUSH, self.entries[index]
        twin = Log()
        twin.base = self.base
        twin.entries = list(self.entries)
        twin.entries[index] = replace(self.entries[index], covers=0, only=-1)
        return twin

    def without_barriers(self) -> "Log":
        """The same history on a disk that ignored every flush."""
        twin = self
        for index in self.barriers():
            twin = twin.without_barrier(index)
        return twin
