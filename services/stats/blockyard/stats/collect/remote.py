"""`NodeService.WatchAccounting` as the model's figures. Must not decide when to connect (`source`).

What comes over the wire is bounded before it is kept: operations by the model's own names, buckets by MAX_BUCKETS.
"""

from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

from google.protobuf.duration_pb2 import Duration

from blockyard.rpc.channel import Channel
from blockyard.stats.model.accounts import Latencies, NodeAccount, Operation, Totals
from blockyard.v1 import types_pb2
from blockyard.v1.node_pb2 import WatchAccountingRequest
from blockyard.v1.node_pb2_grpc import NodeServiceStub

MAX_BUCKETS: Final = 128
"""Of one histogram; a longer one is dropped, its totals are kept."""

OPERATIONS: Final = {types_pb2.RequestType.Value(f"REQUEST_TYPE_{operation}"): operation for operation in Operation}
"""The wire's number -> the model's name."""


class Reading(NamedTuple):
    """All accounts of a source at one instant."""

    instance_id: str
    accounts: list[NodeAccount]
    sample_ns: int


async def readings(channel: Channel, interval_seconds: float) -> AsyncGenerator[Reading, None]:
    """What a node service says, until it ends the stream. Raises errors of the catalogue."""
    interval = Duration()
    interval.FromNanoseconds(round(interval_seconds * 1e9))
    stub = NodeServiceStub(channel)  # type: ignore[no-untyped-call]
    call = stub.WatchAccounting(WatchAccountingRequest(interval=interval))
    try:
        async for reply in call:
            accounts = [account_of(stats) for stats in reply.stats]
            yield Reading(reply.instance_id, accounts, reply.sample_time.ToNanoseconds())
    finally:
        call.cancel()


def account_of(stats: types_pb2.BlockAcctStats) -> NodeAccount:
    """One node's account. Operations that this version does not know are left out."""
    return NodeAccount(
        node_name=stats.node_name,
        node_uid=stats.node_uid,
        epoch=stats.epoch,
        driver=stats.driver,
        operations={
            OPERATIONS[each.type]: _totals_of(each) for each in stats.operations if each.type in OPERATIONS
        },
        idle_ns=stats.idle_time.ToNanoseconds(),
        write_highest_offset=stats.write_highest_offset_bytes,
        in_flight=stats.in_flight,
        serialising_in_flight=stats.serialising_in_flight,
        serialising_waits=stats.serialising_waits,
        sample_ns=stats.sample_time.ToNanoseconds(),
    )


def _totals_of(stats: types_pb2.OperationStats) -> Totals:
    return Totals(
        operations=stats.operations,
        transferred_bytes=stats.transferred_bytes,
        failed=stats.failed_operations,
        invalid=stats.invalid_operations,
        merged=stats.merged_operations,
        total_time_ns=stats.total_time.ToNanoseconds(),
        throttled=stats.throttled_operations,
        throttle_wait_ns=stats.throttle_wait_time.ToNanoseconds(),
        latencies=_latencies_of(stats.latency),
    )


def _latencies_of(histogram: types_pb2.Histogram) -> Latencies:
    bounds, counts = tuple(histogram.bounds_ns), tuple(histogram.counts)
    fits = len(counts) == len(bounds) + 1 <= MAX_BUCKETS and list(bounds) == sorted(set(bounds))
    return Latencies(bounds, counts) if fits else Latencies()
