"""An account counts requests, bytes, failures, time and intervals per type."""

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.node.core.accounting import COPY, READ, TYPES, WRITE, Account, IntervalFigures

SECOND_NS = 10**9


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_a_request_that_ends_well_counts_once_with_its_bytes_and_time(clock: VirtualClock):
    account = Account(clock)
    account.record(READ, 4096, 2_000)
    account.record(READ, 512, 1_000)
    reads = account.operations[READ]
    assert (reads.operations, reads.transferred_bytes, reads.total_time_ns) == (2, 4608, 3_000)
    assert reads.latency.total == 2
    assert account.operations[WRITE].operations == 0


def test_a_failure_takes_time_but_moves_no_bytes(clock: VirtualClock):
    account = Account(clock)
    account.fail(WRITE, 5_000)
    writes = account.operations[WRITE]
    assert (writes.operations, writes.failed, writes.transferred_bytes) == (0, 1, 0)
    assert writes.total_time_ns == 5_000


def test_invalid_and_merged_requests_have_counters_of_their_own(clock: VirtualClock):
    account = Account(clock)
    account.refuse(COPY)
    account.merge(WRITE, 3)
    assert account.operations[COPY].invalid == 1
    assert account.operations[WRITE].merged == 3


def test_every_type_of_the_api_has_an_account(clock: VirtualClock):
    account = Account(clock)
    for number, kind in enumerate(TYPES, 1):
        assert kind == number
        account.record(kind, 1, 1)


async def test_idle_time_runs_since_the_last_request_ended(clock: VirtualClock):
    account = Account(clock)
    await clock.advance(2)
    assert account.idle_ns == 2 * SECOND_NS
    account.record(READ, 1, 1)
    await clock.advance(0.5)
    assert account.idle_ns == SECOND_NS // 2


def test_a_reset_begins_a_new_epoch_at_zero(clock: VirtualClock):
    account = Account(clock, [SECOND_NS])
    account.record(READ, 1, 1)
    account.reset()
    assert account.epoch == 1
    assert account.operations[READ].operations == 0
    account.record(READ, 1, 1)


async def test_an_interval_shows_figures_only_when_it_has_closed(clock: VirtualClock):
    account = Account(clock, [SECOND_NS])
    account.record(READ, 1, 100_000_000)
    account.record(READ, 1, 400_000_000)
    assert account.intervals(READ) == [IntervalFigures(SECOND_NS, 0, 0, 0, 0.0)]
    await clock.advance(1)
    assert account.intervals(READ) == [IntervalFigures(SECOND_NS, 100_000_000, 400_000_000, 250_000_000, 0.5)]


async def test_a_request_after_the_end_of_an_interval_belongs_to_the_next(clock: VirtualClock):
    account = Account(clock, [SECOND_NS])
    account.record(READ, 1, 300_000_000)
    await clock.advance(1.5)
    account.record(READ, 1, 700_000_000)
    assert account.intervals(READ)[0].max_latency_ns == 300_000_000
    await clock.advance(0.5)
    assert account.intervals(READ)[0].min_latency_ns == 700_000_000


async def test_an_interval_without_requests_is_empty(clock: VirtualClock):
    account = Account(clock, [SECOND_NS])
    account.record(READ, 1, 300_000_000)
    await clock.advance(2.5)
    assert account.intervals(READ) == [IntervalFigures(SECOND_NS, 0, 0, 0, 0.0)]


async def test_several_interval_lengths_are_kept_side_by_side(clock: VirtualClock):
    account = Account(clock, [SECOND_NS, 10 * SECOND_NS])
    account.record(READ, 1, 1_000)
    await clock.advance(10)
    short, long = account.intervals(READ)
    assert (short.max_latency_ns, long.max_latency_ns) == (0, 1_000)


def test_no_intervals_are_kept_unless_asked_for(clock: VirtualClock):
    account = Account(clock, [SECOND_NS])
    account.keep_intervals([])
    assert account.intervals(READ) == []
