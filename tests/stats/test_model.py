"""Figures that can be checked on paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.stats.model.accounts import Latencies, NodeAccount, Operation, Totals
from blockyard.stats.model.history import SECOND_NS, TIERS, History
from blockyard.stats.model.ledger import MAX_CLOSED, MAX_NODES, Ledger
from blockyard.stats.model.rates import rates

READ = Operation.READ


def account(name: str = "top", operations: int = 0, epoch: str = "e1", **more) -> NodeAccount:
    counts = Latencies((1000,), (operations, 0))
    totals = Totals(operations=operations, transferred_bytes=operations * 4096, latencies=counts)
    return NodeAccount(name, name + epoch, epoch, "qcow2", {READ: totals}, **more)


def grown(ledger: Ledger, name: str = "top") -> int:
    return ledger.state.entries[name].grown[READ].operations


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        ((0, 0, 0), 0.5, 0),
        ((100, 0, 0), 0.5, 500),
        ((0, 100, 0), 0.5, 1500),
        ((50, 50, 0), 0.5, 1000),
        ((50, 50, 0), 0.99, 1980),
        ((0, 0, 10), 0.5, 2000),
        ((1, 0, 0), 1.0, 1000),
    ],
)
def test_a_percentile_is_linear_within_its_bucket(counts, fraction, expected) -> None:
    assert Latencies((1000, 2000), counts).percentile_ns(fraction) == expected


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=3), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_percentile_is_never_lower(counts, one, other) -> None:
    latencies = Latencies((10, 20), tuple(counts))
    low, high = sorted((one, other))
    assert latencies.percentile_ns(low) <= latencies.percentile_ns(high)


def test_histograms_of_different_shape_are_not_mixed() -> None:
    old, new = Latencies((10,), (1, 2)), Latencies((10, 20), (1, 1, 1))
    assert old.plus(new) == new and new.minus(old) == new


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["e1", "e2", "e3"])), max_size=30))
def test_what_is_summed_over_epochs_never_goes_backwards(steps) -> None:
    ledger, before = Ledger("node"), 0
    for now_ns, (operations, epoch) in enumerate(steps, 1):
        ledger.take("i", [account(operations=operations, epoch=epoch)], now_ns, now_ns * SECOND_NS)
        assert grown(ledger) >= before
        before = grown(ledger)
        for rate in rates(*ledger.history.window(SECOND_NS)):
            assert rate.operations_per_second >= 0


def test_a_new_epoch_adds_to_what_the_old_one_counted() -> None:
    ledger = Ledger("node")
    ledger.take("a", [account(operations=10)], 1, SECOND_NS)
    ledger.take("b", [account(operations=3, epoch="e2")], 2, 2 * SECOND_NS)
    assert grown(ledger) == 13
    assert ledger.state.entries["top"].account.operations[READ].operations == 3
    assert sum(ledger.state.entries["top"].grown[READ].latencies.counts) == 13


def test_counters_that_shrink_within_an_epoch_are_taken_for_a_new_one() -> None:
    ledger = Ledger("node")
    ledger.take("a", [account(operations=10)], 1, SECOND_NS)
    ledger.take("a", [account(operations=4)], 2, 2 * SECOND_NS)
    assert grown(ledger) == 14


def test_a_node_that_is_opened_again_goes_on_where_it_was() -> None:
    ledger = Ledger("node")
    ledger.take("a", [account(operations=10)], 1, SECOND_NS)
    ledger.take("a", [], 2, 2 * SECOND_NS)
    assert ledger.state.entries["top"].closed_ns == 2 * SECOND_NS
    ledger.take("a", [account(operations=1, epoch="e2")], 3, 3 * SECOND_NS)
    assert (grown(ledger), ledger.state.entries["top"].closed_ns) == (11, 0)


def test_closed_nodes_are_remembered_up_to_a_bound_the_latest_ones() -> None:
    ledger = Ledger("node")
    for index in range(MAX_CLOSED + 20):
        ledger.take("a", [account(f"n{index}")], 1, (index + 1) * SECOND_NS)
    assert len(ledger.state.entries) == MAX_CLOSED + 1
    assert "n0" not in ledger.state.entries and f"n{MAX_CLOSED + 10}" in ledger.state.entries


def test_a_source_with_too_many_nodes_is_cut_off_at_the_bound() -> None:
    ledger = Ledger("node")
    ledger.take("a", [account(f"n{index}") for index in range(MAX_NODES + 5)], 1, SECOND_NS)
    assert len(ledger.state.entries) == MAX_NODES


def test_a_day_of_samples_keeps_a_bounded_history_that_reaches_back_an_hour() -> None:
    history = History()
    for second in range(86_400):
        history.add(second * SECOND_NS, {})
    assert sum(len(kept) for _, kept in history._tiers) <= sum(tier.capacity for tier in TIERS)
    for window, coarseness in ((1, 1), (30, 1), (300, 10), (3600, 60)):
        earlier, later = history.window(window * SECOND_NS)
        assert window <= (later.at_ns - earlier.at_ns) / SECOND_NS < window + coarseness


def test_a_window_longer_than_the_history_is_all_there_is() -> None:
    history = History()
    assert history.window(SECOND_NS) is None
    for second in range(5):
        history.add(second * SECOND_NS, {})
    earlier, later = history.window(3600 * SECOND_NS)
    assert (earlier.at_ns, later.at_ns) == (0, 4 * SECOND_NS)


def test_idle_nodes_share_their_figures_between_snapshots() -> None:
    ledger = Ledger("node")
    for second in range(1, 4):
        ledger.take("a", [account(operations=10)], second, second * SECOND_NS)
    earlier, later = ledger.history.window(SECOND_NS)
    assert earlier.figures["top"] is later.figures["top"]
