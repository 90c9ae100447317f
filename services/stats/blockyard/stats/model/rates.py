"""Work per second between two snapshots."""

from dataclasses import dataclass

from blockyard.stats.model.accounts import NOTHING, Operation
from blockyard.stats.model.history import SECOND_NS, Snapshot


@dataclass(frozen=True, slots=True)
class Rate:
    """One node and operation in one interval."""

    node_name: str
    operation: Operation
    operations_per_second: float
    bytes_per_second: float
    failures_per_second: float
    mean_ns: int
    p50_ns: int
    p99_ns: int


def rates(earlier: Snapshot, later: Snapshot) -> list[Rate]:
    """By node and operation, for operations that ever occurred. A node that is new since counts from zero."""
    seconds = (later.at_ns - earlier.at_ns) / SECOND_NS
    if seconds <= 0:
        return []
    found = []
    for node_name, operations in later.figures.items():
        known = earlier.figures.get(node_name, {})
        for operation, totals in operations.items():
            done = totals if operation not in known else totals.minus(known.get(operation, NOTHING))
            found.append(
                Rate(
                    node_name,
                    operation,
                    done.operations / seconds,
                    done.transferred_bytes / seconds,
                    done.failed / seconds,
                    done.mean_ns,
                    done.latencies.percentile_ns(0.5),
                    done.latencies.percentile_ns(0.99),
                )
            )
    return found
