"""Which metadata may reach the disk when: the crash-ordering rules of qcow2 as data. No I/O lives here.

Theory. Memory runs ahead of the disk. Everything that changed since the last write-back is noted in a
`Ledger`. A write-back seals the ledger into an `Epoch` and encodes the bytes of all its marks at that one
instant, then writes them phase by phase with a barrier (a flush of the file) between phases. What changes
meanwhile belongs to the next epoch, so nothing that was not covered by a barrier can slip into a later phase.

Invariants, at every instant and under any reordering or tearing (at 512 bytes) of unflushed writes:

1. A refcount increase is durable before an L2 or L1 entry that refers to the cluster is written.
2. Guest data, with the surroundings copied for it, is durable before the L2 entry that points to it is
   written: only committed allocations are in an epoch, and their data was written before `commit`.
3. A new L2 table is durable before the L1 entry that points to it is written.
4. A new refcount block is durable before its refcount table entry, and that before any mapping that relies on it.
5. A dropped cluster keeps its refcount, and is not allocated again, until the L2 or L1 entry that dropped it
   is durable. So a refcount block in memory never says less than the disk needs, and may be written at any time.
6. Growth of the refcount table or the L1 table: contents durable, then the header (one sector), flush, then
   the old table is dropped.
7. With lazy refcounts phases skip refcounts; the dirty bit is durable before the first mapping that relies on
   an unwritten refcount (it travels in the contents phase), and is cleared only after refcounts are durable.
8. A change of the backing reference: all mappings durable, then the header, then a flush.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Clusters = NDArray[np.int64]
"""Host cluster numbers; one may occur more than once (compressed neighbours share a cluster)."""


class Kind(IntEnum):
    """What a mark is about. The key of a mark in brackets."""

    BLOCK = 0
    """A refcount block [its index]; the range counts entries."""
    FRESH = 1
    """A new L2 table that no L1 entry on disk points to [L1 index]; always whole."""
    REFTABLE = 2
    """A sector of the refcount table [its number]."""
    TABLE = 3
    """An L2 table in place [L1 index]; the range counts entries."""
    L1 = 4
    """A sector of the L1 table [its number]."""


class Reason(IntEnum):
    """Why a cluster was dropped; decides whether the file below is asked to discard it."""

    REQUEST = 0
    SNAPSHOT = 1
    OTHER = 2


@dataclass(frozen=True, slots=True)
class Phase:
    """Marks that may be written together, and the barrier after them."""

    name: str
    kinds: tuple[Kind, ...]
    barrier: bool = True


EVENTS: Final = {
    Kind.BLOCK: "refblock_update_part",
    Kind.FRESH: "l2_alloc_write",
    Kind.REFTABLE: "refblock_alloc_hookup",
    Kind.TABLE: "l2_update",
    Kind.L1: "l1_update",
}
"""What QEMU calls the writing of each kind (qcow2-cache.c, qcow2-cluster.c, qcow2-refcount.c)."""


PHASES: Final = [
    Phase("contents", (Kind.BLOCK, Kind.FRESH)),
    Phase("refcount table", (Kind.REFTABLE,)),
    Phase("mappings", (Kind.TABLE, Kind.L1)),
]
"""In this order. The barrier after an empty phase is left out, except the one that covers guest data."""

REFCOUNT_KINDS: Final = (Kind.BLOCK, Kind.REFTABLE)

Span = tuple[int, int]
Marks = dict[int, Span]


@dataclass(slots=True)
class Epoch:
    """What one write-back carries."""

    marks: tuple[Marks, ...]
    drops: list[tuple[Reason, Clusters]]
    landed: bool = False
    """The contents are durable, so that L1 entries on disk may point to its new tables."""

    def has(self, kinds: tuple[Kind, ...]) -> bool:
        return any(self.marks[kind] for kind in kinds)

    def holds(self, kind: Kind, key: int) -> bool:
        return key in self.marks[kind]


def barriers(epoch: Epoch, final: bool) -> list[bool]:
    """For each phase whether a barrier follows it.

    Inner barriers are due when something later depends on what came before; the last when the caller wants
    durability (`final`) or when drops wait for it (invariant 5).
    """
    due: list[bool] = []
    for number, phase in enumerate(PHASES):
        later = any(epoch.has(other.kinds) for other in PHASES[number + 1 :])
        if number == 0:
            needed = later
        elif number < len(PHASES) - 1:
            needed = later and epoch.has(phase.kinds)
        else:
            needed = final or bool(epoch.drops)
        due.append(needed and phase.barrier)
    return due


@dataclass(slots=True)
class Ledger:
    """Everything that memory knows and the disk does not."""

    marks: tuple[Marks, ...] = field(default_factory=lambda: tuple({} for _ in Kind))
    drops: list[tuple[Reason, Clusters]] = field(default_factory=list)
    dropped: int = 0
    """Clusters in `drops`."""

    def mark(self, kind: Kind, key: int, low: int = 0, high: int = 0) -> None:
        """`[low, high)` of the thing differs from the disk."""
        marks = self.marks[kind]
        span = marks.get(key)
        if span is not None:
            low, high = min(low, span[0]), max(high, span[1])
        elif kind == Kind.TABLE and key in self.marks[Kind.FRESH]:
            return
        marks[key] = (low, high)

    def drop(self, reason: Reason, clusters: Clusters) -> None:
        """Nothing in memory refers to these (so many times) any more; the disk still may."""
        if len(clusters):
            self.drops.append((reason, clusters))
            self.dropped += len(clusters)

    def holds(self, kind: Kind, key: int) -> bool:
        return key in self.marks[kind]

    @property
    def is_empty(self) -> bool:
        return not self.drops and not any(self.marks)

    def seal(self, with_refcounts: bool) -> Epoch:
        """Take everything (refcounts only if asked: invariant 7) and begin anew."""
        taken: list[Marks] = []
        kept: list[Marks] = []
        for kind in Kind:
            stays = kind in REFCOUNT_KINDS and not with_refcounts
            taken.append({} if stays else self.marks[kind])
            kept.append(self.marks[kind] if stays else {})
        epoch = Epoch(tuple(taken), self.drops)
        self.marks, self.drops, self.dropped = tuple(kept), [], 0
        return epoch

    def reopen(self, epoch: Epoch) -> None:
        """The write-back failed: nothing of the epoch counts as written."""
        for key, (low, high) in epoch.marks[Kind.FRESH].items():
            if epoch.landed:
                # What was added since must wait for its own barrier: the table is new no more.
                self.mark(Kind.TABLE, key, low, high)
                continue
            self.marks[Kind.TABLE].pop(key, None)
            self.mark(Kind.FRESH, key, low, high)
        for kind in (Kind.BLOCK, Kind.REFTABLE, Kind.TABLE, Kind.L1):
            for key, (low, high) in epoch.marks[kind].items():
                self.mark(kind, key, low, high)
        self.drops = epoch.drops + self.drops
        self.dropped = sum(len(clusters) for _, clusters in self.drops)
