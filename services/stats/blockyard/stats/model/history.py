"""What all counters were, back to an hour, in a bounded number of snapshots.

Theory. Cumulative counters need no sums over a window, only its two ends. So snapshots are kept densely for the
last minute and ever more sparsely before; a window begins at the youngest snapshot that is at least as old as was
asked, or at the oldest there is. Snapshots share the figures of nodes that were idle between them.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from blockyard.stats.model.accounts import NOTHING, Operation, Totals

SECOND_NS: Final = 1_000_000_000
MAX_WINDOW_NS: Final = 3600 * SECOND_NS

Figures = Mapping[str, Mapping[Operation, Totals]]
"""By node name."""


class Snapshot(NamedTuple):
    """All counters at one instant."""

    at_ns: int
    """Monotonic."""
    figures: Figures


@dataclass(frozen=True, slots=True)
class Tier:
    """How far apart snapshots are, and how many."""

    spacing_ns: int
    capacity: int


TIERS: Final = (Tier(0, 64), Tier(10 * SECOND_NS, 64), Tier(60 * SECOND_NS, 64))
"""Every sample for a minute (at one a second), every 10 s for ten minutes, every minute for an hour."""


class History:
    """Snapshots of one source."""

    def __init__(self) -> None:
        self._tiers = [(tier, deque[Snapshot](maxlen=tier.capacity)) for tier in TIERS]

    def add(self, at_ns: int, figures: Figures) -> None:
        snapshot = Snapshot(at_ns, figures)
        for tier, kept in self._tiers:
            if not kept or at_ns - kept[-1].at_ns >= tier.spacing_ns:
                kept.append(snapshot)

    @property
    def latest(self) -> Snapshot | None:
        dense = self._tiers[0][1]
        return dense[-1] if dense else None

    def before(self, at_ns: int) -> Snapshot | None:
        """The youngest snapshot taken at `at_ns` or before it; None if all are younger."""
        candidates = (
            snapshot
            for _, kept in self._tiers
            for snapshot in [next((each for each in reversed(kept) if each.at_ns <= at_ns), None)]
            if snapshot
        )
        return max(candidates, key=lambda snapshot: snapshot.at_ns, default=None)

    def window(self, length_ns: int) -> tuple[Snapshot, Snapshot] | None:
        """The ends of the latest window of at least `length_ns`, or of all there is; None without a sample."""
        latest = self.latest
        if latest is None:
            return None
        oldest = min((kept[0] for _, kept in self._tiers if kept), key=lambda snapshot: snapshot.at_ns)
        return self.before(latest.at_ns - length_ns) or oldest, latest


def growth(earlier: Mapping[Operation, Totals], later: Mapping[Operation, Totals]) -> dict[Operation, Totals]:
    """What was added between two readings, operation by operation."""
    return {operation: totals.minus(earlier.get(operation, NOTHING)) for operation, totals in later.items()}
