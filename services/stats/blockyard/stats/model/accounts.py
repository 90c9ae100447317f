"""What nodes did, as immutable figures that can be added and subtracted.

Counters of one epoch only grow. A new epoch (the node was opened again, its service restarted) begins at zero;
`ledger` adds epochs up so that nothing that is derived from here ever goes backwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Operation(StrEnum):
    """What a request does; the names of `blockyard.v1.RequestType`."""

    READ = "READ"
    WRITE = "WRITE"
    WRITE_ZEROES = "WRITE_ZEROES"
    DISCARD = "DISCARD"
    FLUSH = "FLUSH"
    TRUNCATE = "TRUNCATE"
    BLOCK_STATUS = "BLOCK_STATUS"
    COPY = "COPY"


@dataclass(frozen=True, slots=True)
class Latencies:
    """A histogram: counts[i] belongs to [bounds_ns[i-1], bounds_ns[i]); the last count has no upper bound."""

    bounds_ns: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return sum(self.counts)

    def plus(self, other: "Latencies") -> "Latencies":
        """Both together. Histograms of different shape cannot be added: the later one stands alone."""
        if not self.counts:
            return other
        if not other.counts:
            return self
        if self.bounds_ns != other.bounds_ns:
            return other
        return Latencies(self.bounds_ns, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    def minus(self, earlier: "Latencies") -> "Latencies":
        """What was added since `earlier`; never negative."""
        if self.bounds_ns != earlier.bounds_ns or not earlier.counts:
            return self
        pairs = zip(self.counts, earlier.counts, strict=True)
        return Latencies(self.bounds_ns, tuple(max(0, now - then) for now, then in pairs))

    def percentile_ns(self, fraction: float) -> int:
        """The latency that `fraction` of the requests did not exceed, linear within a bucket.

        0 without requests. In the last bucket, which has no upper bound, its lower one: an underestimate that is
        at least honest about being the scale's end.
        """
        wanted = fraction * self.count
        passed = 0.0
        for index, count in enumerate(self.counts):
            if count and passed + count >= wanted:
                lower = self.bounds_ns[index - 1] if index else 0
                if index == len(self.bounds_ns):
                    return lower
                return round(lower + (self.bounds_ns[index] - lower) * max(0.0, wanted - passed) / count)
            passed += count
        return 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests of one operation (the seed's nr_ops, nr_bytes, total_time_ns and their companions)."""

    operations: int = 0
    transferred_bytes: int = 0
    failed: int = 0
    invalid: int = 0
    merged: int = 0
    total_time_ns: int = 0
    latencies: Latencies = field(default=Latencies())
    throttled: int = 0
    """Requests that had to wait for their turn in a throttle group."""
    throttle_wait_ns: int = 0
    """For how long; part of the total time."""

    def plus(self, other: "Totals") -> "Totals":
        return Totals(
            self.operations + other.operations,
            self.transferred_bytes + other.transferred_bytes,
            self.failed + other.failed,
            self.invalid + other.invalid,
            self.merged + other.merged,
            self.total_time_ns + other.total_time_ns,
            self.latencies.plus(other.latencies),
            self.throttled + other.throttled,
            self.throttle_wait_ns + other.throttle_wait_ns,
        )

    def minus(self, earlier: "Totals") -> "Totals":
        """What was added since `earlier`; never negative."""
        return Totals(
            max(0, self.operations - earlier.operations),
            max(0, self.transferred_bytes - earlier.transferred_bytes),
            max(0, self.failed - earlier.failed),
            max(0, self.invalid - earlier.invalid),
            max(0, self.merged - earlier.merged),
            max(0, self.total_time_ns - earlier.total_time_ns),
            self.latencies.minus(earlier.latencies),
            max(0, self.throttled - earlier.throttled),
            max(0, self.throttle_wait_ns - earlier.throttle_wait_ns),
        )

    @property
    def mean_ns(self) -> int:
        return self.total_time_ns // self.operations if self.operations else 0

    def went_back(self, earlier: "Totals") -> bool:
        """Whether this cannot be a later reading of the same counters."""
        return self.operations < earlier.operations or self.transferred_bytes < earlier.transferred_bytes


NOTHING: Final = Totals()


@dataclass(frozen=True, slots=True)
class NodeAccount:
    """The account of one node at one instant (the seed's BlockAcctStats)."""

    node_name: str
    node_uid: str
    epoch: str
    driver: str
    operations: Mapping[Operation, Totals]
    idle_ns: int = 0
    write_highest_offset: int = 0
    """Bytes."""
    in_flight: int = 0
    serialising_in_flight: int = 0
    serialising_waits: int = 0
    sample_ns: int = 0
    """When the node service took it: nanoseconds since the Unix epoch."""

    def continues(self, earlier: "NodeAccount") -> bool:
        """Whether these are later readings of the counters of `earlier`."""
        if (self.epoch, self.node_uid) != (earlier.epoch, earlier.node_uid):
            return False
        return not any(
            self.operations.get(operation, NOTHING).went_back(totals)
            for operation, totals in earlier.operations.items()
        )
