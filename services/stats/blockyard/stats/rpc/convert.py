"""The model's figures as messages. Must not compute: what is told is told as it is."""

from collections.abc import Collection, Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from blockyard.stats.model.accounts import NodeAccount, Operation, Totals
from blockyard.stats.model.ledger import LedgerState
from blockyard.stats.model.rates import Rate
from blockyard.v1 import stats_pb2, types_pb2


def duration(nanoseconds: int) -> Duration:
    message = Duration()
    message.FromNanoseconds(nanoseconds)
    return message


def timestamp(nanoseconds: int) -> Timestamp:
    """Of nanoseconds since the Unix epoch."""
    message = Timestamp()
    message.FromNanoseconds(nanoseconds)
    return message


def request_type(operation: Operation) -> str:
    """The wire's name."""
    return f"REQUEST_TYPE_{operation}"


OPERATIONS: Final = {types_pb2.RequestType.Value(request_type(operation)): operation for operation in Operation}
"""The wire's number -> the model's name."""


def account(
    told: NodeAccount, operations: Mapping[Operation, Totals], only: Collection[Operation]
) -> types_pb2.BlockAcctStats:
    """A node's account with the figures of `operations`; `only` some of them, or all if it is empty."""
    return types_pb2.BlockAcctStats(
        node_name=told.node_name,
        node_uid=told.node_uid,
        epoch=told.epoch,
        driver=told.driver,
        operations=[
            operation_stats(operation, totals)
            for operation, totals in operations.items()
            if not only or operation in only
        ],
        idle_time=duration(told.idle_ns),
        write_highest_offset_bytes=told.write_highest_offset,
        in_flight=told.in_flight,
        serialising_in_flight=told.serialising_in_flight,
        serialising_waits=told.serialising_waits,
        sample_time=timestamp(told.sample_ns),
    )


def operation_stats(operation: Operation, totals: Totals) -> types_pb2.OperationStats:
    return types_pb2.OperationStats(
        type=request_type(operation),
        operations=totals.operations,
        transferred_bytes=totals.transferred_bytes,
        failed_operations=totals.failed,
        invalid_operations=totals.invalid,
        merged_operations=totals.merged,
        total_time=duration(totals.total_time_ns),
        throttled_operations=totals.throttled,
        throttle_wait_time=duration(totals.throttle_wait_ns),
        latency=types_pb2.Histogram(bounds_ns=totals.latencies.bounds_ns, counts=totals.latencies.counts),
    )


def rate(told: Rate) -> stats_pb2.OperationRate:
    return stats_pb2.OperationRate(
        node_name=told.node_name,
        type=request_type(told.operation),
        operations_per_second=told.operations_per_second,
        bytes_per_second=told.bytes_per_second,
        mean_latency=duration(told.mean_ns),
        p50_latency=duration(told.p50_ns),
        p99_latency=duration(told.p99_ns),
        failures_per_second=told.failures_per_second,
    )


def report_row(told: NodeAccount, operation: Operation, totals: Totals) -> stats_pb2.GetLatencyReportResponse.Row:
    percentile = totals.latencies.percentile_ns
    return stats_pb2.GetLatencyReportResponse.Row(
        node_name=told.node_name,
        driver=told.driver,
        type=request_type(operation),
        operations=totals.operations,
        total_time=duration(totals.total_time_ns),
        mean_latency=duration(totals.mean_ns),
        p50_latency=duration(percentile(0.5)),
        p90_latency=duration(percentile(0.9)),
        p99_latency=duration(percentile(0.99)),
        p999_latency=duration(percentile(0.999)),
    )


def source(state: LedgerState) -> stats_pb2.StatsSource:
    message = stats_pb2.StatsSource(
        address=state.address,
        instance_id=state.instance_id,
        connected=state.connected,
        reconnects=state.reconnects,
    )
    if state.heard_ns:
        message.last_sample_time.CopyFrom(timestamp(state.sample_ns))
    return message
