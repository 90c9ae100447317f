"""Counts and durations of calls in arrays of our own: 0.2 us a call where an SDK histogram takes 12.

`telemetry` shows them to whoever exports. Must not import OpenTelemetry or gRPC.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

CALL_BOUNDS_NS: Final = tuple(
    round(seconds * 1e9)
    for seconds in (
        *(0.0001, 0.00025, 0.0005, 0.001, 0.0025),
        *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    )
)
"""The buckets of the RPC conventions, and finer ones below: most of our calls end within a millisecond."""

MAX_SERIES: Final = 1024
"""Method and code pairs that are kept apart; the methods are ours and few, the codes seventeen."""


class Durations:
    """A histogram of nanoseconds: counts[i] belongs to [bounds[i-1], bounds[i])."""

    __slots__ = ("bounds", "count", "counts", "total_ns")

    def __init__(self, bounds: tuple[int, ...] = CALL_BOUNDS_NS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total_ns = 0

    def add(self, elapsed_ns: int) -> None:
        self.counts[bisect_right(self.bounds, elapsed_ns)] += 1
        self.count += 1
        self.total_ns += elapsed_ns


@dataclass(slots=True)
class CallAccounts:
    """What one side of a process did in calls."""

    ended: dict[tuple[str, str], Durations] = field(default_factory=dict)
    """By method (`pkg.Service/Method`) and canonical code."""
    running: int = 0

    def add(self, method: str, code: str, elapsed_ns: int) -> None:
        series = self.ended.get((method, code))
        if series is None:
            if len(self.ended) >= MAX_SERIES:
                method = "_OTHER"
            series = self.ended.setdefault((method, code), Durations())
        series.add(elapsed_ns)


class HistogramRow(NamedTuple):
    """One series of a histogram that is kept elsewhere, as exporters take it."""

    attributes: Mapping[str, str]
    bounds_ns: Sequence[int]
    counts: Sequence[int]
    total_ns: int


class NumberRow(NamedTuple):
    """One series of a counter or gauge that is kept elsewhere."""

    attributes: Mapping[str, str]
    value: float
