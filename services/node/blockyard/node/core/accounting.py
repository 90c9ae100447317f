"""The account of a node: what its requests did and how long they took (the seed's BlockAcctStats).

What must not live here: names of nodes, exporters, rates (the stats service takes differences).

Theory. It is written once per request, so it is plain integers in plain attributes; readers take a snapshot.
As in QEMU's block/accounting.c a failed request's latency counts in `total_time_ns`, in the histogram and in the
intervals, so a mean latency is `total_time_ns / (operations + failed)`; one refused as invalid has no latency.

Intervals (the seed's timed statistics) are kept only where someone asked for them: each has a length and gives the
figures of the latest one that closed.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from blockyard.base.clock import Clock
from blockyard.node.core.histogram import EDGES_NS, Histogram

# Types of requests. The numbers are those of RequestType in types.proto.
READ: Final = 1
WRITE: Final = 2
WRITE_ZEROES: Final = 3
DISCARD: Final = 4
FLUSH: Final = 5
TRUNCATE: Final = 6
BLOCK_STATUS: Final = 7
COPY: Final = 8
TYPES: Final = range(READ, COPY + 1)
WORDS: Final = ("", "read", "write", "write-zeroes", "discard", "flush", "truncate", "block-status", "copy")
"""By type; for events."""

MAX_INTERVALS: Final = 8
"""Per account: each costs every request about 0.3 us."""


class OperationAccount:
    """What requests of one type did."""

    __slots__ = (
        *("failed", "invalid", "latency", "merged", "operations", "throttle_wait_ns", "throttled"),
        *("total_time_ns", "transferred_bytes"),
    )

    def __init__(self) -> None:
        self.operations = 0
        """Requests that ended well (nr_ops)."""
        self.transferred_bytes = 0
        """Bytes of those (nr_bytes)."""
        self.failed = 0
        self.invalid = 0
        """Refused before anything was done (invalid_ops)."""
        self.merged = 0
        """Served as part of another (merged)."""
        self.total_time_ns = 0
        self.throttled = 0
        """Requests that had to wait for their turn in a throttle group."""
        self.throttle_wait_ns = 0
        """What they waited there, in `total_time_ns` too."""
        self.latency = Histogram()


@dataclass(frozen=True, slots=True)
class IntervalFigures:
    """Of one type of request over one closed interval; all 0 if there was none."""

    length_ns: int
    min_latency_ns: int
    max_latency_ns: int
    avg_latency_ns: int
    avg_queue_depth: float
    """Mean number of requests in flight, by Little's law: time spent by all, over time passed."""


class _Interval:
    """One running interval of one type, and the figures of the one before."""

    __slots__ = ("_count", "_end_ns", "_latest", "_length_ns", "_max_ns", "_min_ns", "_sum_ns")

    def __init__(self, length_ns: int, now_ns: int) -> None:
        self._length_ns = length_ns
        self._end_ns = now_ns + length_ns
        self._latest = IntervalFigures(length_ns, 0, 0, 0, 0.0)
        self._begin()

    def _begin(self) -> None:
        self._count = self._sum_ns = self._max_ns = self._min_ns = 0

    def record(self, elapsed_ns: int, now_ns: int) -> None:
        if now_ns >= self._end_ns:
            self._close(now_ns)
        if elapsed_ns < self._min_ns or not self._count:
            self._min_ns = elapsed_ns
        if elapsed_ns > self._max_ns:
            self._max_ns = elapsed_ns
        self._count += 1
        self._sum_ns += elapsed_ns

    def latest(self, now_ns: int) -> IntervalFigures:
        if now_ns >= self._end_ns:
            self._close(now_ns)
        return self._latest

    def _close(self, now_ns: int) -> None:
        overdue = (now_ns - self._end_ns) // self._length_ns
        if overdue:
            self._begin()  # the latest interval to close saw no request at all
        self._latest = IntervalFigures(
            self._length_ns,
            self._min_ns,
            self._max_ns,
            self._sum_ns // self._count if self._count else 0,
            self._sum_ns / self._length_ns,
        )
        self._end_ns += (overdue + 1) * self._length_ns
        self._begin()


class Account:
    """A node's account. Counters only grow while `epoch` stays the same."""

    __slots__ = ("_intervals", "_now_ns", "epoch", "last_ended_ns", "operations")

    def __init__(self, clock: Clock, interval_lengths_ns: Iterable[int] = ()) -> None:
        self._now_ns = clock.monotonic_ns
        self.epoch = 0
        """Grows with every reset."""
        self.last_ended_ns = self._now_ns()
        self.operations: tuple[OperationAccount, ...] = ()
        """By type; index 0 is no type and stays empty."""
        self._intervals: tuple[tuple[_Interval, ...], ...] = ()
        self._begin()
        self.keep_intervals(interval_lengths_ns)

    def record(self, operation: int, length: int, elapsed_ns: int) -> None:
        """A request ended well just now."""
        now_ns = self._now_ns()
        self.ended(operation, length, now_ns - elapsed_ns, now_ns)

    def ended(self, operation: int, length: int, started_ns: int, now_ns: int) -> None:
        """As `record`, for callers who have just read the clock. About 0.3 us."""
        elapsed_ns = now_ns - started_ns
        account = self.operations[operation]
        account.operations += 1
        account.transferred_bytes += length
        account.total_time_ns += elapsed_ns
        account.latency.counts[bisect_right(EDGES_NS, elapsed_ns)] += 1
        self.last_ended_ns = now_ns
        if self._intervals:
            for interval in self._intervals[operation]:
                interval.record(elapsed_ns, now_ns)

    def fail(self, operation: int, elapsed_ns: int) -> None:
        """A request ended with an error."""
        self.record(operation, 0, elapsed_ns)
        account = self.operations[operation]
        account.operations -= 1
        account.failed += 1

    def refuse(self, operation: int) -> None:
        """A request was invalid and nothing was done."""
        self.operations[operation].invalid += 1

    def waited(self, operation: int, waited_ns: int) -> None:
        """A request had to wait for its turn in a throttle group."""
        account = self.operations[operation]
        account.throttled += 1
        account.throttle_wait_ns += waited_ns

    def merge(self, operation: int, count: int) -> None:
        """`count` requests were served as part of another."""
        self.operations[operation].merged += count

    @property
    def idle_ns(self) -> int:
        """Since the last request ended (block_acct_idle_time_ns)."""
        return self._now_ns() - self.last_ended_ns

    def keep_intervals(self, lengths_ns: Iterable[int]) -> None:
        """Keep figures over intervals of these lengths from now on; none stops it (block_acct_add_interval)."""
        lengths = tuple(lengths_ns)
        assert len(lengths) <= MAX_INTERVALS and all(length > 0 for length in lengths), lengths
        now_ns = self._now_ns()
        self._intervals = (
            tuple(tuple(_Interval(length, now_ns) for length in lengths) for _ in self.operations)
            if lengths
            else ()
        )

    def intervals(self, operation: int) -> list[IntervalFigures]:
        """The latest closed interval of each length that is kept."""
        if not self._intervals:
            return []
        now_ns = self._now_ns()
        return [interval.latest(now_ns) for interval in self._intervals[operation]]

    def reset(self) -> None:
        """Begin again from zero, in a new epoch. Intervals go on."""
        self.epoch += 1
        self._begin()

    def _begin(self) -> None:
        self.operations = tuple(OperationAccount() for _ in range(COPY + 1))
