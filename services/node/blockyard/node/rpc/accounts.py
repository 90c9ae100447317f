"""Accounts of nodes as the wire shows them. Cumulative figures only; rates are the reader's."""

from typing import Final

from google.protobuf.duration_pb2 import Duration

from blockyard.node.core.accounting import TYPES, Account, OperationAccount
from blockyard.node.core.histogram import EDGES_NS
from blockyard.node.graph.node import Node
from blockyard.v1 import types_pb2

_NS: Final = 1_000_000_000


def account_stats(node: Node, wall_ns: int = 0) -> types_pb2.BlockAcctStats:
    """A node's account now; `wall_ns` is when the figures are taken.

    A node object never counts again from zero but by a reset, so its uid is the rest of the epoch.
    """
    account, tracker = node.account, node.tracker
    stats = types_pb2.BlockAcctStats(
        node_name=node.name,
        node_uid=node.uid,
        epoch=f"{node.uid}.{account.epoch}",
        operations=[
            _operation(account, kind, done)
            for kind in TYPES
            if (done := account.operations[kind]).operations or done.failed or done.invalid or done.throttled
        ],
        idle_time=duration(account.idle_ns),
        write_highest_offset_bytes=node.write_highest,
        in_flight=len(tracker.requests),
        serialising_in_flight=tracker.serialising,
        serialising_waits=tracker.waits,
        driver=node.driver.name,
    )
    stats.sample_time.FromNanoseconds(wall_ns or node.clock.wall_ns())
    return stats


def _operation(account: Account, kind: int, done: OperationAccount) -> types_pb2.OperationStats:
    return types_pb2.OperationStats(
        type=kind,  # type: ignore[arg-type]
        operations=done.operations,
        transferred_bytes=done.transferred_bytes,
        failed_operations=done.failed,
        invalid_operations=done.invalid,
        merged_operations=done.merged,
        total_time=duration(done.total_time_ns),
        latency=types_pb2.Histogram(bounds_ns=EDGES_NS, counts=done.latency.counts),
        intervals=[
            types_pb2.IntervalStats(
                interval=duration(figures.length_ns),
                min_latency=duration(figures.min_latency_ns),
                max_latency=duration(figures.max_latency_ns),
                avg_latency=duration(figures.avg_latency_ns),
                avg_queue_depth=figures.avg_queue_depth,
            )
            for figures in account.intervals(kind)
        ],
        throttled_operations=done.throttled,
        throttle_wait_time=duration(done.throttle_wait_ns),
    )


def duration(nanoseconds: int) -> Duration:
    """Of any length."""
    seconds, rest = divmod(nanoseconds, _NS)
    return Duration(seconds=seconds, nanos=rest)
