"""Histograms count latencies in shared buckets and answer percentiles within a bucket's width."""

import itertools
import random

import pytest

from blockyard.node.core.histogram import BUCKETS, EDGES_NS, Histogram


def test_edges_rise_from_a_microsecond_to_a_minute_by_less_than_double():
    assert EDGES_NS[0] == 1_000
    assert EDGES_NS[-1] == 60_000_000_000
    assert all(low < high <= low * 2 for low, high in itertools.pairwise(EDGES_NS))


@pytest.mark.parametrize(
    ("latency_ns", "bucket"),
    [(0, 0), (999, 0), (1_000, 1), (1_499, 1), (60_000_000_000, BUCKETS - 1), (1 << 62, BUCKETS - 1)],
)
def test_a_bucket_begins_at_its_edge(latency_ns: int, bucket: int):
    histogram = Histogram()
    histogram.record(latency_ns)
    assert histogram.snapshot().index(1) == bucket


def test_merging_adds_and_a_difference_takes_away():
    first, second = Histogram(), Histogram()
    first.record(5_000)
    second.record(5_000)
    second.record(9_000_000)
    earlier = Histogram(first.snapshot())
    first.merge(second)
    assert first.total == 3
    assert first.since(earlier).counts == second.counts


def test_a_snapshot_does_not_change_any_more():
    histogram = Histogram()
    taken = histogram.snapshot()
    histogram.record(1)
    assert sum(taken) == 0


def test_histograms_of_other_edges_are_refused():
    with pytest.raises(AssertionError):
        Histogram([0] * (BUCKETS - 1))


def test_an_empty_histogram_has_no_percentiles():
    assert Histogram().percentile(99) == 0


@pytest.mark.parametrize("percent", [0, 1, 50, 90, 99, 99.9, 100])
def test_a_percentile_is_right_within_the_width_of_a_bucket(percent: float):
    numbers = random.Random(1)
    latencies = sorted(round(numbers.lognormvariate(12, 2)) for _ in range(20_000))
    histogram = Histogram()
    for latency in latencies:
        histogram.record(latency)
    exact = latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))]
    assert exact / 1.7 - 1_000 <= histogram.percentile(percent) <= exact * 1.7 + 1_000


def test_a_percentile_past_the_last_edge_is_that_edge():
    histogram = Histogram()
    histogram.record(1 << 62)
    assert histogram.percentile(50) == EDGES_NS[-1]
