"""The table as a Prometheus scrape endpoint, by prometheus-client's text format and HTTP server.

Names follow the OpenTelemetry mapping: dots become underscores, units are words at the end, counters end in
`_total`. The library serves from threads of its own; it sees immutable states only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from blockyard.base.errors import InvalidArgument, PeerUnavailable
from blockyard.rpc.address import Address
from blockyard.rpc.measures import HistogramRow, NumberRow
from blockyard.stats.export import instruments
from blockyard.stats.model.ledger import Ledger

UNIT_WORDS: Final = {"By": "bytes", "s": "seconds", "{operation}": "", "1": ""}


class Accounts(Collector):
    """Reads the ledgers at every scrape."""

    def __init__(self, ledgers: Sequence[Ledger]) -> None:
        self._ledgers = ledgers

    def collect(self) -> Iterator[Metric]:
        for each in instruments.OPERATIONS:
            yield _numbers(each, instruments.operation_rows(self._ledgers, each))
        for one in instruments.NODES:
            yield _numbers(one, instruments.node_rows(self._ledgers, one))
        name, description = instruments.CONNECTED
        gauge = instruments.PerNode(name, "1", description, lambda account: 0.0)
        yield _numbers(gauge, instruments.connected_rows(self._ledgers))
        yield _durations(instruments.duration_rows(self._ledgers))


@contextmanager
def scraped(address: Address, ledgers: Sequence[Ledger]) -> Iterator[Address]:
    """Serve `/metrics` on a TCP address until the block is left; gives the address as bound.

    Raises InvalidArgument for a unix socket, PeerUnavailable if the address cannot be bound.
    """
    if address.is_unix:
        raise InvalidArgument("prometheus_listen", "host:port", str(address))
    registry = CollectorRegistry()
    registry.register(Accounts(ledgers))
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise PeerUnavailable("prometheus listener", str(address), str(error)) from error
    try:
        yield address.with_port(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _numbers(instrument: instruments.PerOperation | instruments.PerNode, rows: Iterable[NumberRow]) -> Metric:
    family: Any = CounterMetricFamily if instrument.grows else GaugeMetricFamily
    told = list(rows)
    metric: Any = family(metric_name(instrument.name, instrument.unit), instrument.description, labels=_keys(told))
    for row in told:
        metric.add_metric(list(row.attributes.values()), row.value)
    found: Metric = metric
    return found


def _durations(rows: Iterable[HistogramRow]) -> Metric:
    name, description = instruments.DURATION
    told = list(rows)
    metric = HistogramMetricFamily(metric_name(name, "s"), description, labels=_keys(told))
    for row in told:
        reached, buckets = 0, []
        for bound_ns, count in zip(row.bounds_ns, row.counts, strict=False):
            reached += count
            buckets.append((str(bound_ns * instruments.SECONDS), float(reached)))
        buckets.append(("+Inf", float(sum(row.counts))))
        metric.add_metric(list(row.attributes.values()), buckets, row.total_ns * instruments.SECONDS)
    return metric


def metric_name(name: str, unit: str) -> str:
    """`blockyard.io.bytes`, By -> `blockyard_io_bytes`; `blockyard.io.duration`, s -> `..._duration_seconds`."""
    plain = name.replace(".", "_")
    word = UNIT_WORDS[unit]
    return plain if not word or plain.endswith(word) else f"{plain}_{word}"


def _keys(rows: Sequence[HistogramRow] | Sequence[NumberRow]) -> list[str]:
    keys: Mapping[str, str] = rows[0].attributes if rows else {}
    return [key.removeprefix("blockyard.").replace(".", "_") for key in keys]
