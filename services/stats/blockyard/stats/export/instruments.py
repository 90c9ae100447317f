"""What is exported, under which name and unit: one table for every exporter.

Figures are read from the ledgers' immutable states, hence from any thread. Only nodes that are open are exported,
with counters summed over epochs so that they never go backwards. Must not know an exporter's library.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from blockyard.rpc.measures import HistogramRow, NumberRow
from blockyard.stats.model.accounts import NodeAccount, Totals
from blockyard.stats.model.ledger import Entry, Ledger

SECONDS: Final = 1e-9
"""Of a nanosecond."""

NODE: Final = "blockyard.node.name"
DRIVER: Final = "blockyard.driver"
OPERATION: Final = "blockyard.operation"
SOURCE: Final = "blockyard.source"


@dataclass(frozen=True, slots=True)
class PerOperation:
    """A counter per node and operation."""

    name: str
    unit: str
    description: str
    read: Callable[[Totals], float]
    grows: bool = True


@dataclass(frozen=True, slots=True)
class PerNode:
    """A figure per node."""

    name: str
    unit: str
    description: str
    read: Callable[[NodeAccount], float]
    grows: bool = False


OPERATIONS: Final = (
    PerOperation("blockyard.io.operations", "{operation}", "Requests that ended well", lambda t: t.operations),
    PerOperation("blockyard.io.bytes", "By", "Bytes of those", lambda t: t.transferred_bytes),
    PerOperation("blockyard.io.errors", "{operation}", "Requests that failed", lambda t: t.failed),
    PerOperation("blockyard.io.invalid", "{operation}", "Requests refused as invalid", lambda t: t.invalid),
    PerOperation("blockyard.io.merged", "{operation}", "Requests merged into another", lambda t: t.merged),
    PerOperation(
        "blockyard.io.throttled", "{operation}", "Requests that a throttle held up", lambda t: t.throttled
    ),
    PerOperation("blockyard.io.throttle_wait", "s", "Time they waited", lambda t: t.throttle_wait_ns * SECONDS),
)
"""Counters of the seed's BlockAcctStats."""

NODES: Final = (
    PerNode("blockyard.io.in_flight", "{operation}", "Requests in flight", lambda a: a.in_flight),
    PerNode(
        "blockyard.io.serialising_in_flight",
        "{operation}",
        "Serialising requests in flight",
        lambda a: a.serialising_in_flight,
    ),
    PerNode("blockyard.io.idle_time", "s", "Since the last request ended", lambda a: a.idle_ns * SECONDS),
    PerNode(
        "blockyard.io.write_highest_offset", "By", "End of the highest write", lambda a: a.write_highest_offset
    ),
)
"""Gauges of the same."""

DURATION: Final = ("blockyard.io.duration", "Time from a request's start to its end, children included")
CONNECTED: Final = ("blockyard.stats.source.connected", "Whether the node service is heard")


def operation_rows(ledgers: Sequence[Ledger], instrument: PerOperation) -> Iterator[NumberRow]:
    for entry in open_entries(ledgers):
        for operation, totals in entry.grown.items():
            yield NumberRow(labels(entry, operation), instrument.read(totals))


def node_rows(ledgers: Sequence[Ledger], instrument: PerNode) -> Iterator[NumberRow]:
    for entry in open_entries(ledgers):
        yield NumberRow(labels(entry), instrument.read(entry.account))


def duration_rows(ledgers: Sequence[Ledger]) -> Iterator[HistogramRow]:
    for entry in open_entries(ledgers):
        for operation, totals in entry.grown.items():
            latencies = totals.latencies
            if latencies.counts:
                attributes = labels(entry, operation)
                yield HistogramRow(attributes, latencies.bounds_ns, latencies.counts, totals.total_time_ns)


def connected_rows(ledgers: Sequence[Ledger]) -> Iterator[NumberRow]:
    for ledger in ledgers:
        state = ledger.state
        yield NumberRow({SOURCE: state.address}, float(state.connected))


def open_entries(ledgers: Sequence[Ledger]) -> Iterable[Entry]:
    return (entry for ledger in ledgers for entry in ledger.state.entries.values() if not entry.closed_ns)


def labels(entry: Entry, operation: str = "") -> Mapping[str, str]:
    account = entry.account
    found = {NODE: account.node_name, DRIVER: account.driver}
    return found | {OPERATION: operation.lower()} if operation else found
