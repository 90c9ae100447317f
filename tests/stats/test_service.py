"""StatsService against a node that speaks: counters, windows, watches, reconnects, epochs, exports."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from blockyard.base.errors import InvalidArgument
from blockyard.stats.collect.source import MAX_BACKOFF_SECONDS
from blockyard.v1 import stats_pb2
from tests.support.accounting_node import READ, WRITE, SmallNode
from tests.support.eventually import eventually


async def query(yard, **fields):
    return await yard.stub.QueryStats(stats_pb2.QueryStatsRequest(**fields))


def window(seconds: int):
    return Duration(seconds=seconds)


async def test_accounts_are_told_as_the_node_said_them(yard) -> None:
    yard.node.count("top", READ, 7, 7 * 4096)
    await yard.told()
    reply = await query(yard)
    assert list(reply.stats) == list(yard.node.nodes.values())
    assert not reply.stale and reply.sample_time.ToNanoseconds() == yard.node.sample_ns


async def test_waits_for_throttles_are_told_as_well(yard) -> None:
    yard.node.count("top", READ, 7, 7 * 4096)
    yard.node.nodes["top"].operations[0].throttled_operations = 3
    yard.node.nodes["top"].operations[0].throttle_wait_time.FromNanoseconds(2_500_000_000)
    await yard.told()
    (stats,) = (await query(yard)).stats
    told = stats.operations[0]
    assert (told.throttled_operations, told.throttle_wait_time.ToNanoseconds()) == (3, 2_500_000_000)


async def test_accounts_can_be_limited_to_nodes_and_types(yard) -> None:
    for name in ("base", "top"):
        yard.node.count(name, WRITE, 1, 512)
    await yard.told()
    reply = await query(yard, node_names=["top"], types=[READ])
    assert [(stats.node_name, len(stats.operations)) for stats in reply.stats] == [("top", 0)]


async def test_a_window_tells_only_what_happened_in_it(yard) -> None:
    for total in (100, 110, 130):
        yard.node.count("top", READ, total, total * 4096)
        await yard.told(1.0)
    (stats,) = (await query(yard, window=window(1))).stats
    assert stats.operations[0].operations == 20
    assert sum(stats.operations[0].latency.counts) == 20
    (stats,) = (await query(yard, window=window(60))).stats
    assert stats.operations[0].operations == 30


@pytest.mark.parametrize("seconds", [0, -1, 3601, 2**40])
async def test_a_window_out_of_bounds_is_refused(yard, seconds) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await query(yard, window=window(seconds))
    assert caught.value.name == "window"


async def test_an_unknown_type_is_refused(yard) -> None:
    with pytest.raises(InvalidArgument):
        await query(yard, types=[99])


async def test_a_closed_node_is_remembered_and_told_when_asked_for(yard) -> None:
    yard.node.count("top", READ, 5)
    await yard.told()
    del yard.node.nodes["top"]
    await yard.told()
    assert not (await query(yard)).stats
    (stats,) = (await query(yard, include_closed=True)).stats
    assert stats.operations[0].operations == 5


async def test_a_watch_tells_rates_since_its_previous_message(yard) -> None:
    yard.node.count("top", READ, 100, 100 * 4096)
    await yard.told()
    watch = yard.stub.WatchStats(stats_pb2.WatchStatsRequest())
    assert not (await watch.read()).rates
    yard.node.count("top", READ, 300, 300 * 4096)
    await yard.told(0.5)
    await yard.clock.advance(0.5)
    (rate,) = (await watch.read()).rates
    assert (rate.operations_per_second, rate.bytes_per_second) == (400.0, 400.0 * 4096)
    assert rate.mean_latency.ToMicroseconds() == 500
    await yard.clock.advance(1.0)
    assert (await watch.read()).rates[0] == rate
    watch.cancel()


async def test_an_interval_out_of_bounds_is_refused(yard) -> None:
    with pytest.raises(InvalidArgument):
        await yard.stub.WatchStats(stats_pb2.WatchStatsRequest(interval=window(4000))).read()


async def test_the_latency_report_has_a_row_per_node_and_type(yard) -> None:
    yard.node.count("top", READ, 10)
    yard.node.count("base", WRITE, 4)
    await yard.told()
    report = await yard.stub.GetLatencyReport(stats_pb2.GetLatencyReportRequest())
    rows = [(row.node_name, row.driver, row.type, row.operations) for row in report.rows]
    assert rows == [("base", "qcow2", WRITE, 4), ("top", "qcow2", READ, 10)]
    assert report.rows[1].mean_latency.ToMicroseconds() == 500
    assert report.rows[1].p50_latency.ToNanoseconds() == 500_500
    assert report.rows[1].p999_latency.ToNanoseconds() > 990_000


async def test_a_source_that_goes_away_is_stale_and_found_again(yard) -> None:
    yard.node.count("top", READ, 10)
    await yard.told()
    assert not (await query(yard)).stale
    await yard.stop_node()
    await eventually(lambda: yard.clock.sleepers)
    reply = await query(yard)
    assert reply.stale and reply.stats[0].operations[0].operations == 10
    await yard.start_node(SmallNode("second"))
    yard.node.count("top", READ, 3, epoch="e2")
    while not yard.node.watchers:
        await yard.clock.advance(MAX_BACKOFF_SECONDS)
        await asyncio.sleep(0.005)
    await yard.told()
    (source,) = await yard.sources()
    assert (source.instance_id, source.connected, source.reconnects) == ("second", True, 1)
    (stats,) = (await query(yard)).stats
    assert (stats.epoch, stats.operations[0].operations) == ("e2", 3)
    (stats,) = (await query(yard, window=window(3600))).stats
    assert stats.operations[0].operations == 3


async def test_a_source_that_says_nothing_for_long_is_stale(yard) -> None:
    await yard.told()
    assert not (await query(yard)).stale
    await yard.clock.advance(10)
    assert (await query(yard)).stale


async def test_a_source_that_was_never_heard_is_listed_as_such(yard) -> None:
    (source,) = await yard.sources()
    assert (source.address, source.connected) == (str(yard.node_address), False)
    assert not source.HasField("last_sample_time")


async def test_the_node_is_asked_for_the_configured_interval(yard) -> None:
    await eventually(lambda: yard.node.intervals)
    assert yard.node.intervals == [1.0]
