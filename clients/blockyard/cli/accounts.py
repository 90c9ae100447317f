"""How people see accounts of requests. Pure functions and columns, as in `describe`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from blockyard.cli import units
from blockyard.cli.describe import nanoseconds
from blockyard.cli.output import Column
from blockyard.client.words import to_word
from blockyard.v1.stats_pb2 import GetLatencyReportResponse, OperationRate
from blockyard.v1.types_pb2 import BlockAcctStats, OperationStats, RequestType

Operation = tuple[BlockAcctStats, OperationStats]
Row = GetLatencyReportResponse.Row


def operations(accounts: Iterable[BlockAcctStats]) -> Iterator[Operation]:
    """One row per node and kind of request."""
    for account in accounts:
        for operation in account.operations:
            yield account, operation


def mean_ns(operation: OperationStats) -> float:
    """Mean latency; 0 without requests."""
    return nanoseconds(operation.total_time) / operation.operations if operation.operations else 0.0


OPERATIONS: Final[Sequence[Column]] = (
    Column("NODE", lambda row: row[0].node_name),
    Column("DRIVER", lambda row: row[0].driver),
    Column("REQUEST", lambda row: to_word(RequestType, row[1].type)),
    Column("COUNT", lambda row: units.count(row[1].operations), right=True),
    Column("BYTES", lambda row: units.size(row[1].transferred_bytes), right=True),
    Column("MEAN", lambda row: units.short_time(mean_ns(row[1])) if row[1].operations else "", right=True),
    Column("FAILED", lambda row: units.count(row[1].failed_operations), right=True),
)

LATENCIES: Final[Sequence[Column]] = (
    Column("NODE", lambda row: row.node_name),
    Column("DRIVER", lambda row: row.driver),
    Column("REQUEST", lambda row: to_word(RequestType, row.type)),
    Column("COUNT", lambda row: units.count(row.operations), right=True),
    Column("TOTAL", lambda row: units.short_time(nanoseconds(row.total_time)), right=True),
    Column("MEAN", lambda row: units.short_time(nanoseconds(row.mean_latency)), right=True),
    Column("P50", lambda row: units.short_time(nanoseconds(row.p50_latency)), right=True),
    Column("P90", lambda row: units.short_time(nanoseconds(row.p90_latency)), right=True),
    Column("P99", lambda row: units.short_time(nanoseconds(row.p99_latency)), right=True),
    Column("P99.9", lambda row: units.short_time(nanoseconds(row.p999_latency)), right=True),
)


def by_total(rows: Iterable[Row]) -> list[Row]:
    """The most expensive first."""
    return sorted(rows, key=lambda row: nanoseconds(row.total_time), reverse=True)


_RATES: Final = "{:<20}  {:<12}  {:>10}  {:>12}  {:>9}  {:>9}  {:>9}  {:>8}"


def rate_header() -> str:
    """The line above the rates."""
    return _RATES.format("NODE", "REQUEST", "PER SECOND", "BYTES", "MEAN", "P50", "P99", "FAILED").rstrip()


def rate_line(rate: OperationRate) -> str:
    """One node and kind of request in one interval."""
    times = [
        units.short_time(nanoseconds(item)) for item in (rate.mean_latency, rate.p50_latency, rate.p99_latency)
    ]
    return _RATES.format(
        rate.node_name,
        to_word(RequestType, rate.type),
        units.count(rate.operations_per_second),
        units.rate(rate.bytes_per_second),
        *times,
        f"{rate.failures_per_second:.1f}/s" if rate.failures_per_second else "-",
    ).rstrip()
