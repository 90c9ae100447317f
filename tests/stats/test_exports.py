"""The one table, as Prometheus and OpenTelemetry see it."""

import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from blockyard.base.errors import InvalidArgument, PeerUnavailable
from blockyard.rpc.address import Address
from blockyard.stats.export import instruments, otel
from blockyard.stats.export.prometheus import scraped
from blockyard.stats.model.accounts import Latencies, NodeAccount, Operation, Totals
from blockyard.stats.model.ledger import Ledger


def ledger() -> Ledger:
    totals = Totals(10, 40960, 1, 2, 3, 5_000_000, Latencies((1_000_000, 2_000_000), (7, 2, 1)), 4, 1_500_000_000)
    account = NodeAccount("top", "u", "e", "qcow2", {Operation.READ: totals}, idle_ns=500_000_000, in_flight=4)
    found = Ledger("unix:/node.sock")
    found.connected()
    found.take("i", [account], 1, 1)
    return found


def scrape(ledgers) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    with scraped(Address.parse("127.0.0.1:0"), ledgers) as address:
        text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


LABELS = (("driver", "qcow2"), ("node_name", "top"))


def test_a_scrape_shows_every_instrument_with_labels() -> None:
    samples = scrape([ledger()])
    per_operation = (("driver", "qcow2"), ("node_name", "top"), ("operation", "read"))
    assert samples["blockyard_io_operations_total"] == {per_operation: 10}
    assert samples["blockyard_io_bytes_total"] == {per_operation: 40960}
    assert samples["blockyard_io_errors_total"] == {per_operation: 1}
    assert samples["blockyard_io_throttled_total"] == {per_operation: 4}
    assert samples["blockyard_io_throttle_wait_seconds_total"] == {per_operation: 1.5}
    assert samples["blockyard_io_in_flight"] == {LABELS: 4}
    assert samples["blockyard_io_idle_time_seconds"] == {LABELS: 0.5}
    assert samples["blockyard_stats_source_connected"] == {(("source", "unix:/node.sock"),): 1}


def test_a_scrape_shows_latencies_as_a_cumulative_histogram_in_seconds() -> None:
    samples = scrape([ledger()])
    buckets = samples["blockyard_io_duration_seconds_bucket"]
    by_bound = {dict(labels)["le"]: value for labels, value in buckets.items()}
    assert by_bound == {"0.001": 7, "0.002": 9, "+Inf": 10}
    assert list(samples["blockyard_io_duration_seconds_count"].values()) == [10]
    assert list(samples["blockyard_io_duration_seconds_sum"].values()) == [0.005]


def test_a_scrape_without_nodes_is_empty_and_valid() -> None:
    assert "blockyard_io_operations_total" not in scrape([Ledger("unix:/node.sock")])


def test_a_closed_node_is_exported_no_more() -> None:
    gone = ledger()
    gone.take("i", [], 2, 2)
    assert "blockyard_io_operations_total" not in scrape([gone])


def test_the_endpoint_is_gone_afterwards() -> None:
    with scraped(Address.parse("127.0.0.1:0"), []) as address:
        pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=10)


def test_a_wrong_or_taken_address_is_told() -> None:
    with pytest.raises(InvalidArgument), scraped(Address.parse("unix:/x"), []):
        pass
    with (
        scraped(Address.parse("127.0.0.1:0"), []) as taken,
        pytest.raises(PeerUnavailable, match=str(taken)),
        scraped(taken, []),
    ):
        pass


def test_opentelemetry_is_given_the_same_table() -> None:
    class Recording:
        """Stands where telemetry stands; keeps what it is told to observe."""

        def __init__(self) -> None:
            self.rows = {}

        def observe(self, name, unit, description, *, grows, rows):
            self.rows[name] = list(rows())

        def observe_histogram(self, name, description, rows):
            self.rows[name] = list(rows())

    recording = Recording()
    otel.register(recording, [ledger()])
    named = {each.name for each in (*instruments.OPERATIONS, *instruments.NODES)}
    assert set(recording.rows) == named | {instruments.DURATION[0], instruments.CONNECTED[0]}
    (row,) = recording.rows["blockyard.io.operations"]
    assert row.value == 10 and row.attributes[instruments.OPERATION] == "read"
