"""Latency histograms: our own bucket array, because an SDK histogram costs 12 us a record and this one 0.1.

What must not live here: units other than nanoseconds, names of metrics, exporters.

Theory. The edges are the same for every histogram, so that any two can be added. They run from 1 us to 60 s with
six steps a decade (1, 1.5, 2, 3, 5, 7): neighbours differ by at most 1.67, which bounds the error of a percentile,
and `bisect` finds a bucket in six comparisons. Bucket i holds EDGES_NS[i - 1] <= latency < EDGES_NS[i]; the first
begins at 0, the last has no end.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

_STEPS: Final = (1000, 1500, 2000, 3000, 5000, 7000)
_LAST_NS: Final = 60 * 10**9

EDGES_NS: Final[tuple[int, ...]] = (
    *(edge for decade in range(8) for step in _STEPS if (edge := step * 10**decade) < _LAST_NS),
    _LAST_NS,
)
BUCKETS: Final = len(EDGES_NS) + 1


class Histogram:
    """Counts by latency. `counts` may be incremented directly where a call is too dear:
    `counts[bisect_right(EDGES_NS, latency_ns)] += 1`.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Iterable[int] | None = None) -> None:
        self.counts = [0] * BUCKETS if counts is None else list(counts)
        assert len(self.counts) == BUCKETS, "histograms share their edges"

    def record(self, latency_ns: int) -> None:
        self.counts[bisect_right(EDGES_NS, latency_ns)] += 1

    @property
    def total(self) -> int:
        return sum(self.counts)

    def merge(self, other: "Histogram") -> None:
        """Add what `other` counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def since(self, earlier: "Histogram") -> "Histogram":
        """What was counted after `earlier`, a snapshot of this one."""
        return Histogram(now - then for now, then in zip(self.counts, earlier.counts, strict=True))

    def snapshot(self) -> list[int]:
        """A copy of the counts; its bounds are EDGES_NS."""
        return self.counts.copy()

    def percentile(self, percent: float) -> int:
        """Latency in ns below which `percent` of the records lie, interpolated in its bucket; 0 without records.

        In the bucket without an end it is that bucket's begin: a lower bound.
        """
        assert 0 <= percent <= 100
        total = self.total
        if not total:
            return 0
        wanted = total * percent / 100
        below = 0
        for index, reached in enumerate(accumulate(self.counts)):
            if reached >= wanted and reached > below:
                start = EDGES_NS[index - 1] if index else 0
                if index == len(EDGES_NS):
                    return start
                share = (wanted - below) / (reached - below)
                return round(start + share * (EDGES_NS[index] - start))
            below = reached
        raise AssertionError("the last bucket reaches the total")
