import datetime

from blockyard.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueryStatsRequest(_message.Message):
    __slots__ = ("node_names", "types", "window", "include_closed")
    NODE_NAMES_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_CLOSED_FIELD_NUMBER: _ClassVar[int]
    node_names: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[_types_pb2.RequestType]
    window: _duration_pb2.Duration
    include_closed: bool
    def __init__(self, node_names: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[_Union[_types_pb2.RequestType, str]]] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., include_closed: _Optional[bool] = ...) -> None: ...

class QueryStatsResponse(_message.Message):
    __slots__ = ("stats", "sample_time", "stale")
    STATS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    stats: _containers.RepeatedCompositeFieldContainer[_types_pb2.BlockAcctStats]
    sample_time: _timestamp_pb2.Timestamp
    stale: bool
    def __init__(self, stats: _Optional[_Iterable[_Union[_types_pb2.BlockAcctStats, _Mapping]]] = ..., sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stale: _Optional[bool] = ...) -> None: ...

class WatchStatsRequest(_message.Message):
    __slots__ = ("node_names", "interval")
    NODE_NAMES_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    node_names: _containers.RepeatedScalarFieldContainer[str]
    interval: _duration_pb2.Duration
    def __init__(self, node_names: _Optional[_Iterable[str]] = ..., interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class OperationRate(_message.Message):
    __slots__ = ("node_name", "type", "operations_per_second", "bytes_per_second", "mean_latency", "p50_latency", "p99_latency", "failures_per_second")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    MEAN_LATENCY_FIELD_NUMBER: _ClassVar[int]
    P50_LATENCY_FIELD_NUMBER: _ClassVar[int]
    P99_LATENCY_FIELD_NUMBER: _ClassVar[int]
    FAILURES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    type: _types_pb2.RequestType
    operations_per_second: float
    bytes_per_second: float
    mean_latency: _duration_pb2.Duration
    p50_latency: _duration_pb2.Duration
    p99_latency: _duration_pb2.Duration
    failures_per_second: float
    def __init__(self, node_name: _Optional[str] = ..., type: _Optional[_Union[_types_pb2.RequestType, str]] = ..., operations_per_second: _Optional[float] = ..., bytes_per_second: _Optional[float] = ..., mean_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p50_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p99_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., failures_per_second: _Optional[float] = ...) -> None: ...

class WatchStatsResponse(_message.Message):
    __slots__ = ("stats", "rates", "sample_time", "stale")
    STATS_FIELD_NUMBER: _ClassVar[int]
    RATES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    stats: _containers.RepeatedCompositeFieldContainer[_types_pb2.BlockAcctStats]
    rates: _containers.RepeatedCompositeFieldContainer[OperationRate]
    sample_time: _timestamp_pb2.Timestamp
    stale: bool
    def __init__(self, stats: _Optional[_Iterable[_Union[_types_pb2.BlockAcctStats, _Mapping]]] = ..., rates: _Optional[_Iterable[_Union[OperationRate, _Mapping]]] = ..., sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stale: _Optional[bool] = ...) -> None: ...

class ListSourcesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsSource(_message.Message):
    __slots__ = ("address", "instance_id", "connected", "last_sample_time", "reconnects")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    LAST_SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    RECONNECTS_FIELD_NUMBER: _ClassVar[int]
    address: str
    instance_id: str
    connected: bool
    last_sample_time: _timestamp_pb2.Timestamp
    reconnects: int
    def __init__(self, address: _Optional[str] = ..., instance_id: _Optional[str] = ..., connected: _Optional[bool] = ..., last_sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reconnects: _Optional[int] = ...) -> None: ...

class ListSourcesResponse(_message.Message):
    __slots__ = ("sources",)
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedCompositeFieldContainer[StatsSource]
    def __init__(self, sources: _Optional[_Iterable[_Union[StatsSource, _Mapping]]] = ...) -> None: ...

class GetLatencyReportRequest(_message.Message):
    __slots__ = ("node_names", "window")
    NODE_NAMES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    node_names: _containers.RepeatedScalarFieldContainer[str]
    window: _duration_pb2.Duration
    def __init__(self, node_names: _Optional[_Iterable[str]] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetLatencyReportResponse(_message.Message):
    __slots__ = ("rows",)
    class Row(_message.Message):
        __slots__ = ("node_name", "driver", "type", "operations", "total_time", "mean_latency", "p50_latency", "p90_latency", "p99_latency", "p999_latency")
        NODE_NAME_FIELD_NUMBER: _ClassVar[int]
        DRIVER_FIELD_NUMBER: _ClassVar[int]
        TYPE_FIELD_NUMBER: _ClassVar[int]
        OPERATIONS_FIELD_NUMBER: _ClassVar[int]
        TOTAL_TIME_FIELD_NUMBER: _ClassVar[int]
        MEAN_LATENCY_FIELD_NUMBER: _ClassVar[int]
        P50_LATENCY_FIELD_NUMBER: _ClassVar[int]
        P90_LATENCY_FIELD_NUMBER: _ClassVar[int]
        P99_LATENCY_FIELD_NUMBER: _ClassVar[int]
        P999_LATENCY_FIELD_NUMBER: _ClassVar[int]
        node_name: str
        driver: str
        type: _types_pb2.RequestType
        operations: int
        total_time: _duration_pb2.Duration
        mean_latency: _duration_pb2.Duration
        p50_latency: _duration_pb2.Duration
        p90_latency: _duration_pb2.Duration
        p99_latency: _duration_pb2.Duration
        p999_latency: _duration_pb2.Duration
        def __init__(self, node_name: _Optional[str] = ..., driver: _Optional[str] = ..., type: _Optional[_Union[_types_pb2.RequestType, str]] = ..., operations: _Optional[int] = ..., total_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mean_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p50_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p90_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p99_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p999_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[GetLatencyReportResponse.Row]
    def __init__(self, rows: _Optional[_Iterable[_Union[GetLatencyReportResponse.Row, _Mapping]]] = ...) -> None: ...
