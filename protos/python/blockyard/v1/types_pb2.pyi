import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChildRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHILD_ROLE_UNSPECIFIED: _ClassVar[ChildRole]
    CHILD_ROLE_FILE: _ClassVar[ChildRole]
    CHILD_ROLE_BACKING: _ClassVar[ChildRole]
    CHILD_ROLE_FILTERED: _ClassVar[ChildRole]
    CHILD_ROLE_TARGET: _ClassVar[ChildRole]
    CHILD_ROLE_DATA_FILE: _ClassVar[ChildRole]

class DiscardMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISCARD_MODE_UNSPECIFIED: _ClassVar[DiscardMode]
    DISCARD_MODE_IGNORE: _ClassVar[DiscardMode]
    DISCARD_MODE_UNMAP: _ClassVar[DiscardMode]

class DetectZeroes(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DETECT_ZEROES_UNSPECIFIED: _ClassVar[DetectZeroes]
    DETECT_ZEROES_OFF: _ClassVar[DetectZeroes]
    DETECT_ZEROES_ON: _ClassVar[DetectZeroes]
    DETECT_ZEROES_UNMAP: _ClassVar[DetectZeroes]

class Preallocation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREALLOCATION_UNSPECIFIED: _ClassVar[Preallocation]
    PREALLOCATION_OFF: _ClassVar[Preallocation]
    PREALLOCATION_METADATA: _ClassVar[Preallocation]
    PREALLOCATION_FALLOC: _ClassVar[Preallocation]
    PREALLOCATION_FULL: _ClassVar[Preallocation]

class RequestType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_TYPE_UNSPECIFIED: _ClassVar[RequestType]
    REQUEST_TYPE_READ: _ClassVar[RequestType]
    REQUEST_TYPE_WRITE: _ClassVar[RequestType]
    REQUEST_TYPE_WRITE_ZEROES: _ClassVar[RequestType]
    REQUEST_TYPE_DISCARD: _ClassVar[RequestType]
    REQUEST_TYPE_FLUSH: _ClassVar[RequestType]
    REQUEST_TYPE_TRUNCATE: _ClassVar[RequestType]
    REQUEST_TYPE_BLOCK_STATUS: _ClassVar[RequestType]
    REQUEST_TYPE_COPY: _ClassVar[RequestType]

class WaitReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_REASON_UNSPECIFIED: _ClassVar[WaitReason]
    WAIT_REASON_OVERLAP: _ClassVar[WaitReason]
    WAIT_REASON_DRAINED: _ClassVar[WaitReason]
    WAIT_REASON_THROTTLED: _ClassVar[WaitReason]
    WAIT_REASON_LOCK: _ClassVar[WaitReason]
    WAIT_REASON_STOPPED: _ClassVar[WaitReason]
    WAIT_REASON_SUSPENDED: _ClassVar[WaitReason]

class Permission(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PERMISSION_UNSPECIFIED: _ClassVar[Permission]
    PERMISSION_CONSISTENT_READ: _ClassVar[Permission]
    PERMISSION_WRITE: _ClassVar[Permission]
    PERMISSION_WRITE_UNCHANGED: _ClassVar[Permission]
    PERMISSION_RESIZE: _ClassVar[Permission]

class IoStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IO_STATUS_UNSPECIFIED: _ClassVar[IoStatus]
    IO_STATUS_OK: _ClassVar[IoStatus]
    IO_STATUS_FAILED: _ClassVar[IoStatus]
    IO_STATUS_NOSPACE: _ClassVar[IoStatus]

class OnError(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_ERROR_UNSPECIFIED: _ClassVar[OnError]
    ON_ERROR_REPORT: _ClassVar[OnError]
    ON_ERROR_IGNORE: _ClassVar[OnError]
    ON_ERROR_ENOSPC: _ClassVar[OnError]
    ON_ERROR_STOP: _ClassVar[OnError]
    ON_ERROR_AUTO: _ClassVar[OnError]

class ChangeType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_TYPE_UNSPECIFIED: _ClassVar[ChangeType]
    CHANGE_TYPE_INITIAL: _ClassVar[ChangeType]
    CHANGE_TYPE_ADDED: _ClassVar[ChangeType]
    CHANGE_TYPE_MODIFIED: _ClassVar[ChangeType]
    CHANGE_TYPE_REMOVED: _ClassVar[ChangeType]
    CHANGE_TYPE_BOOKMARK: _ClassVar[ChangeType]
CHILD_ROLE_UNSPECIFIED: ChildRole
CHILD_ROLE_FILE: ChildRole
CHILD_ROLE_BACKING: ChildRole
CHILD_ROLE_FILTERED: ChildRole
CHILD_ROLE_TARGET: ChildRole
CHILD_ROLE_DATA_FILE: ChildRole
DISCARD_MODE_UNSPECIFIED: DiscardMode
DISCARD_MODE_IGNORE: DiscardMode
DISCARD_MODE_UNMAP: DiscardMode
DETECT_ZEROES_UNSPECIFIED: DetectZeroes
DETECT_ZEROES_OFF: DetectZeroes
DETECT_ZEROES_ON: DetectZeroes
DETECT_ZEROES_UNMAP: DetectZeroes
PREALLOCATION_UNSPECIFIED: Preallocation
PREALLOCATION_OFF: Preallocation
PREALLOCATION_METADATA: Preallocation
PREALLOCATION_FALLOC: Preallocation
PREALLOCATION_FULL: Preallocation
REQUEST_TYPE_UNSPECIFIED: RequestType
REQUEST_TYPE_READ: RequestType
REQUEST_TYPE_WRITE: RequestType
REQUEST_TYPE_WRITE_ZEROES: RequestType
REQUEST_TYPE_DISCARD: RequestType
REQUEST_TYPE_FLUSH: RequestType
REQUEST_TYPE_TRUNCATE: RequestType
REQUEST_TYPE_BLOCK_STATUS: RequestType
REQUEST_TYPE_COPY: RequestType
WAIT_REASON_UNSPECIFIED: WaitReason
WAIT_REASON_OVERLAP: WaitReason
WAIT_REASON_DRAINED: WaitReason
WAIT_REASON_THROTTLED: WaitReason
WAIT_REASON_LOCK: WaitReason
WAIT_REASON_STOPPED: WaitReason
WAIT_REASON_SUSPENDED: WaitReason
PERMISSION_UNSPECIFIED: Permission
PERMISSION_CONSISTENT_READ: Permission
PERMISSION_WRITE: Permission
PERMISSION_WRITE_UNCHANGED: Permission
PERMISSION_RESIZE: Permission
IO_STATUS_UNSPECIFIED: IoStatus
IO_STATUS_OK: IoStatus
IO_STATUS_FAILED: IoStatus
IO_STATUS_NOSPACE: IoStatus
ON_ERROR_UNSPECIFIED: OnError
ON_ERROR_REPORT: OnError
ON_ERROR_IGNORE: OnError
ON_ERROR_ENOSPC: OnError
ON_ERROR_STOP: OnError
ON_ERROR_AUTO: OnError
CHANGE_TYPE_UNSPECIFIED: ChangeType
CHANGE_TYPE_INITIAL: ChangeType
CHANGE_TYPE_ADDED: ChangeType
CHANGE_TYPE_MODIFIED: ChangeType
CHANGE_TYPE_REMOVED: ChangeType
CHANGE_TYPE_BOOKMARK: ChangeType

class ByteRange(_message.Message):
    __slots__ = ("offset_bytes", "length_bytes")
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    offset_bytes: int
    length_bytes: int
    def __init__(self, offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ...) -> None: ...

class CacheOptions(_message.Message):
    __slots__ = ("direct", "no_flush")
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    NO_FLUSH_FIELD_NUMBER: _ClassVar[int]
    direct: bool
    no_flush: bool
    def __init__(self, direct: _Optional[bool] = ..., no_flush: _Optional[bool] = ...) -> None: ...

class BlockLimits(_message.Message):
    __slots__ = ("request_alignment_bytes", "max_transfer_bytes", "opt_transfer_bytes", "max_discard_bytes", "discard_alignment_bytes", "max_write_zeroes_bytes", "write_zeroes_alignment_bytes", "min_mem_alignment_bytes", "opt_mem_alignment_bytes", "max_iov", "max_hw_transfer_bytes", "max_hw_iov")
    REQUEST_ALIGNMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TRANSFER_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPT_TRANSFER_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DISCARD_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISCARD_ALIGNMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_WRITE_ZEROES_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITE_ZEROES_ALIGNMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MIN_MEM_ALIGNMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPT_MEM_ALIGNMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IOV_FIELD_NUMBER: _ClassVar[int]
    MAX_HW_TRANSFER_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_HW_IOV_FIELD_NUMBER: _ClassVar[int]
    request_alignment_bytes: int
    max_transfer_bytes: int
    opt_transfer_bytes: int
    max_discard_bytes: int
    discard_alignment_bytes: int
    max_write_zeroes_bytes: int
    write_zeroes_alignment_bytes: int
    min_mem_alignment_bytes: int
    opt_mem_alignment_bytes: int
    max_iov: int
    max_hw_transfer_bytes: int
    max_hw_iov: int
    def __init__(self, request_alignment_bytes: _Optional[int] = ..., max_transfer_bytes: _Optional[int] = ..., opt_transfer_bytes: _Optional[int] = ..., max_discard_bytes: _Optional[int] = ..., discard_alignment_bytes: _Optional[int] = ..., max_write_zeroes_bytes: _Optional[int] = ..., write_zeroes_alignment_bytes: _Optional[int] = ..., min_mem_alignment_bytes: _Optional[int] = ..., opt_mem_alignment_bytes: _Optional[int] = ..., max_iov: _Optional[int] = ..., max_hw_transfer_bytes: _Optional[int] = ..., max_hw_iov: _Optional[int] = ...) -> None: ...

class TrackedRequest(_message.Message):
    __slots__ = ("request_id", "node_name", "type", "range", "serialising", "overlap_range", "owner", "trace_id", "waiting_for", "blocking", "age", "parent_request_id", "wait_reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    SERIALISING_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_RANGE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    BLOCKING_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    PARENT_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    node_name: str
    type: RequestType
    range: ByteRange
    serialising: bool
    overlap_range: ByteRange
    owner: str
    trace_id: str
    waiting_for: int
    blocking: _containers.RepeatedScalarFieldContainer[int]
    age: _duration_pb2.Duration
    parent_request_id: int
    wait_reason: WaitReason
    def __init__(self, request_id: _Optional[int] = ..., node_name: _Optional[str] = ..., type: _Optional[_Union[RequestType, str]] = ..., range: _Optional[_Union[ByteRange, _Mapping]] = ..., serialising: _Optional[bool] = ..., overlap_range: _Optional[_Union[ByteRange, _Mapping]] = ..., owner: _Optional[str] = ..., trace_id: _Optional[str] = ..., waiting_for: _Optional[int] = ..., blocking: _Optional[_Iterable[int]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., parent_request_id: _Optional[int] = ..., wait_reason: _Optional[_Union[WaitReason, str]] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("bounds_ns", "counts")
    BOUNDS_NS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    bounds_ns: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, bounds_ns: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class IntervalStats(_message.Message):
    __slots__ = ("interval", "min_latency", "max_latency", "avg_latency", "avg_queue_depth")
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MIN_LATENCY_FIELD_NUMBER: _ClassVar[int]
    MAX_LATENCY_FIELD_NUMBER: _ClassVar[int]
    AVG_LATENCY_FIELD_NUMBER: _ClassVar[int]
    AVG_QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    interval: _duration_pb2.Duration
    min_latency: _duration_pb2.Duration
    max_latency: _duration_pb2.Duration
    avg_latency: _duration_pb2.Duration
    avg_queue_depth: float
    def __init__(self, interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., min_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., avg_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., avg_queue_depth: _Optional[float] = ...) -> None: ...

class OperationStats(_message.Message):
    __slots__ = ("type", "operations", "transferred_bytes", "failed_operations", "invalid_operations", "merged_operations", "total_time", "latency", "intervals", "throttled_operations", "throttle_wait_time")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    TRANSFERRED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAILED_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    INVALID_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    MERGED_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TIME_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    INTERVALS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_WAIT_TIME_FIELD_NUMBER: _ClassVar[int]
    type: RequestType
    operations: int
    transferred_bytes: int
    failed_operations: int
    invalid_operations: int
    merged_operations: int
    total_time: _duration_pb2.Duration
    latency: Histogram
    intervals: _containers.RepeatedCompositeFieldContainer[IntervalStats]
    throttled_operations: int
    throttle_wait_time: _duration_pb2.Duration
    def __init__(self, type: _Optional[_Union[RequestType, str]] = ..., operations: _Optional[int] = ..., transferred_bytes: _Optional[int] = ..., failed_operations: _Optional[int] = ..., invalid_operations: _Optional[int] = ..., merged_operations: _Optional[int] = ..., total_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latency: _Optional[_Union[Histogram, _Mapping]] = ..., intervals: _Optional[_Iterable[_Union[IntervalStats, _Mapping]]] = ..., throttled_operations: _Optional[int] = ..., throttle_wait_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BlockAcctStats(_message.Message):
    __slots__ = ("node_name", "node_uid", "epoch", "operations", "idle_time", "write_highest_offset_bytes", "in_flight", "serialising_in_flight", "serialising_waits", "sample_time", "driver")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_UID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIME_FIELD_NUMBER: _ClassVar[int]
    WRITE_HIGHEST_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SERIALISING_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SERIALISING_WAITS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    node_uid: str
    epoch: str
    operations: _containers.RepeatedCompositeFieldContainer[OperationStats]
    idle_time: _duration_pb2.Duration
    write_highest_offset_bytes: int
    in_flight: int
    serialising_in_flight: int
    serialising_waits: int
    sample_time: _timestamp_pb2.Timestamp
    driver: str
    def __init__(self, node_name: _Optional[str] = ..., node_uid: _Optional[str] = ..., epoch: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[OperationStats, _Mapping]]] = ..., idle_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., write_highest_offset_bytes: _Optional[int] = ..., in_flight: _Optional[int] = ..., serialising_in_flight: _Optional[int] = ..., serialising_waits: _Optional[int] = ..., sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., driver: _Optional[str] = ...) -> None: ...

class BlockChild(_message.Message):
    __slots__ = ("name", "node_name", "role", "frozen_reason", "permissions", "shared_permissions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    FROZEN_REASON_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    SHARED_PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    node_name: str
    role: ChildRole
    frozen_reason: str
    permissions: _containers.RepeatedScalarFieldContainer[Permission]
    shared_permissions: _containers.RepeatedScalarFieldContainer[Permission]
    def __init__(self, name: _Optional[str] = ..., node_name: _Optional[str] = ..., role: _Optional[_Union[ChildRole, str]] = ..., frozen_reason: _Optional[str] = ..., permissions: _Optional[_Iterable[_Union[Permission, str]]] = ..., shared_permissions: _Optional[_Iterable[_Union[Permission, str]]] = ...) -> None: ...

class Holder(_message.Message):
    __slots__ = ("kind", "name", "edge", "hold_time", "permissions", "shared_permissions")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EDGE_FIELD_NUMBER: _ClassVar[int]
    HOLD_TIME_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    SHARED_PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    edge: str
    hold_time: _timestamp_pb2.Timestamp
    permissions: _containers.RepeatedScalarFieldContainer[Permission]
    shared_permissions: _containers.RepeatedScalarFieldContainer[Permission]
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., edge: _Optional[str] = ..., hold_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., permissions: _Optional[_Iterable[_Union[Permission, str]]] = ..., shared_permissions: _Optional[_Iterable[_Union[Permission, str]]] = ...) -> None: ...

class OpBlocker(_message.Message):
    __slots__ = ("operation", "reason", "owner")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    operation: str
    reason: str
    owner: str
    def __init__(self, operation: _Optional[str] = ..., reason: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("name", "node_name", "logical_block_size_bytes", "physical_block_size_bytes", "write_cache", "on_read_error", "on_write_error", "io_status", "removable", "tray_open", "locked", "writable", "stopped", "waiting_requests", "labels", "etag", "create_time", "trayless", "eject_requested", "users")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_BLOCK_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PHYSICAL_BLOCK_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITE_CACHE_FIELD_NUMBER: _ClassVar[int]
    ON_READ_ERROR_FIELD_NUMBER: _ClassVar[int]
    ON_WRITE_ERROR_FIELD_NUMBER: _ClassVar[int]
    IO_STATUS_FIELD_NUMBER: _ClassVar[int]
    REMOVABLE_FIELD_NUMBER: _ClassVar[int]
    TRAY_OPEN_FIELD_NUMBER: _ClassVar[int]
    LOCKED_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TRAYLESS_FIELD_NUMBER: _ClassVar[int]
    EJECT_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    node_name: str
    logical_block_size_bytes: int
    physical_block_size_bytes: int
    write_cache: bool
    on_read_error: OnError
    on_write_error: OnError
    io_status: IoStatus
    removable: bool
    tray_open: bool
    locked: bool
    writable: bool
    stopped: bool
    waiting_requests: int
    labels: _containers.ScalarMap[str, str]
    etag: str
    create_time: _timestamp_pb2.Timestamp
    trayless: bool
    eject_requested: bool
    users: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., node_name: _Optional[str] = ..., logical_block_size_bytes: _Optional[int] = ..., physical_block_size_bytes: _Optional[int] = ..., write_cache: _Optional[bool] = ..., on_read_error: _Optional[_Union[OnError, str]] = ..., on_write_error: _Optional[_Union[OnError, str]] = ..., io_status: _Optional[_Union[IoStatus, str]] = ..., removable: _Optional[bool] = ..., tray_open: _Optional[bool] = ..., locked: _Optional[bool] = ..., writable: _Optional[bool] = ..., stopped: _Optional[bool] = ..., waiting_requests: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., trayless: _Optional[bool] = ..., eject_requested: _Optional[bool] = ..., users: _Optional[_Iterable[str]] = ...) -> None: ...

class DirtyBitmap(_message.Message):
    __slots__ = ("name", "node_name", "granularity_bytes", "dirty_bytes", "recording", "busy", "persistent", "inconsistent", "owner")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIRTY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    PERSISTENT_FIELD_NUMBER: _ClassVar[int]
    INCONSISTENT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    name: str
    node_name: str
    granularity_bytes: int
    dirty_bytes: int
    recording: bool
    busy: bool
    persistent: bool
    inconsistent: bool
    owner: str
    def __init__(self, name: _Optional[str] = ..., node_name: _Optional[str] = ..., granularity_bytes: _Optional[int] = ..., dirty_bytes: _Optional[int] = ..., recording: _Optional[bool] = ..., busy: _Optional[bool] = ..., persistent: _Optional[bool] = ..., inconsistent: _Optional[bool] = ..., owner: _Optional[str] = ...) -> None: ...

class ThrottleState(_message.Message):
    __slots__ = ("group", "queued_reads", "queued_writes", "throttled_operations", "wait_time")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    QUEUED_READS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_WRITES_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    WAIT_TIME_FIELD_NUMBER: _ClassVar[int]
    group: str
    queued_reads: int
    queued_writes: int
    throttled_operations: int
    wait_time: _duration_pb2.Duration
    def __init__(self, group: _Optional[str] = ..., queued_reads: _Optional[int] = ..., queued_writes: _Optional[int] = ..., throttled_operations: _Optional[int] = ..., wait_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BlockDriverState(_message.Message):
    __slots__ = ("node_name", "uid", "etag", "driver", "size_bytes", "read_only", "auto_read_only", "cache", "discard", "detect_zeroes", "encrypted", "scsi_generic", "copy_on_read", "executor", "filename", "exact_filename", "full_open_options", "backing_file", "backing_format", "children", "holders", "in_flight", "serialising_in_flight", "tracked_requests", "throttle", "stats", "limits", "growable", "zero_beyond_eof", "attachments", "dirty_bitmaps", "op_blockers", "jobs", "explicit_options", "effective_options", "quiesce_counter", "implicit", "active", "write_generation", "flushed_generation", "write_highest_offset_bytes", "write_threshold_bytes", "cluster_size_bytes", "subcluster_size_bytes", "allocated_bytes", "dirty", "corrupt", "variable_length", "has_zero_init", "vm_state_offset_bytes", "format_specific", "labels", "create_time", "inherits_from")
    class FormatSpecificEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: OptionValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[OptionValue, _Mapping]] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    AUTO_READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    DETECT_ZEROES_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTED_FIELD_NUMBER: _ClassVar[int]
    SCSI_GENERIC_FIELD_NUMBER: _ClassVar[int]
    COPY_ON_READ_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    EXACT_FILENAME_FIELD_NUMBER: _ClassVar[int]
    FULL_OPEN_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FORMAT_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SERIALISING_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    TRACKED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    GROWABLE_FIELD_NUMBER: _ClassVar[int]
    ZERO_BEYOND_EOF_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    DIRTY_BITMAPS_FIELD_NUMBER: _ClassVar[int]
    OP_BLOCKERS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    EXPLICIT_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    QUIESCE_COUNTER_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    WRITE_GENERATION_FIELD_NUMBER: _ClassVar[int]
    FLUSHED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    WRITE_HIGHEST_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITE_THRESHOLD_BYTES_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SUBCLUSTER_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    HAS_ZERO_INIT_FIELD_NUMBER: _ClassVar[int]
    VM_STATE_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    INHERITS_FROM_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    uid: str
    etag: str
    driver: str
    size_bytes: int
    read_only: bool
    auto_read_only: bool
    cache: CacheOptions
    discard: DiscardMode
    detect_zeroes: DetectZeroes
    encrypted: bool
    scsi_generic: bool
    copy_on_read: int
    executor: str
    filename: str
    exact_filename: str
    full_open_options: str
    backing_file: str
    backing_format: str
    children: _containers.RepeatedCompositeFieldContainer[BlockChild]
    holders: _containers.RepeatedCompositeFieldContainer[Holder]
    in_flight: int
    serialising_in_flight: int
    tracked_requests: _containers.RepeatedCompositeFieldContainer[TrackedRequest]
    throttle: ThrottleState
    stats: BlockAcctStats
    limits: BlockLimits
    growable: bool
    zero_beyond_eof: bool
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    dirty_bitmaps: _containers.RepeatedCompositeFieldContainer[DirtyBitmap]
    op_blockers: _containers.RepeatedCompositeFieldContainer[OpBlocker]
    jobs: _containers.RepeatedScalarFieldContainer[str]
    explicit_options: str
    effective_options: str
    quiesce_counter: int
    implicit: bool
    active: bool
    write_generation: int
    flushed_generation: int
    write_highest_offset_bytes: int
    write_threshold_bytes: int
    cluster_size_bytes: int
    subcluster_size_bytes: int
    allocated_bytes: int
    dirty: bool
    corrupt: bool
    variable_length: bool
    has_zero_init: bool
    vm_state_offset_bytes: int
    format_specific: _containers.MessageMap[str, OptionValue]
    labels: _containers.ScalarMap[str, str]
    create_time: _timestamp_pb2.Timestamp
    inherits_from: str
    def __init__(self, node_name: _Optional[str] = ..., uid: _Optional[str] = ..., etag: _Optional[str] = ..., driver: _Optional[str] = ..., size_bytes: _Optional[int] = ..., read_only: _Optional[bool] = ..., auto_read_only: _Optional[bool] = ..., cache: _Optional[_Union[CacheOptions, _Mapping]] = ..., discard: _Optional[_Union[DiscardMode, str]] = ..., detect_zeroes: _Optional[_Union[DetectZeroes, str]] = ..., encrypted: _Optional[bool] = ..., scsi_generic: _Optional[bool] = ..., copy_on_read: _Optional[int] = ..., executor: _Optional[str] = ..., filename: _Optional[str] = ..., exact_filename: _Optional[str] = ..., full_open_options: _Optional[str] = ..., backing_file: _Optional[str] = ..., backing_format: _Optional[str] = ..., children: _Optional[_Iterable[_Union[BlockChild, _Mapping]]] = ..., holders: _Optional[_Iterable[_Union[Holder, _Mapping]]] = ..., in_flight: _Optional[int] = ..., serialising_in_flight: _Optional[int] = ..., tracked_requests: _Optional[_Iterable[_Union[TrackedRequest, _Mapping]]] = ..., throttle: _Optional[_Union[ThrottleState, _Mapping]] = ..., stats: _Optional[_Union[BlockAcctStats, _Mapping]] = ..., limits: _Optional[_Union[BlockLimits, _Mapping]] = ..., growable: _Optional[bool] = ..., zero_beyond_eof: _Optional[bool] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ..., dirty_bitmaps: _Optional[_Iterable[_Union[DirtyBitmap, _Mapping]]] = ..., op_blockers: _Optional[_Iterable[_Union[OpBlocker, _Mapping]]] = ..., jobs: _Optional[_Iterable[str]] = ..., explicit_options: _Optional[str] = ..., effective_options: _Optional[str] = ..., quiesce_counter: _Optional[int] = ..., implicit: _Optional[bool] = ..., active: _Optional[bool] = ..., write_generation: _Optional[int] = ..., flushed_generation: _Optional[int] = ..., write_highest_offset_bytes: _Optional[int] = ..., write_threshold_bytes: _Optional[int] = ..., cluster_size_bytes: _Optional[int] = ..., subcluster_size_bytes: _Optional[int] = ..., allocated_bytes: _Optional[int] = ..., dirty: _Optional[bool] = ..., corrupt: _Optional[bool] = ..., variable_length: _Optional[bool] = ..., has_zero_init: _Optional[bool] = ..., vm_state_offset_bytes: _Optional[int] = ..., format_specific: _Optional[_Mapping[str, OptionValue]] = ..., labels: _Optional[_Mapping[str, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., inherits_from: _Optional[str] = ...) -> None: ...

class OptionValue(_message.Message):
    __slots__ = ("int_value", "string_value", "bool_value", "bytes_value", "list_value", "map_value", "double_value")
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    LIST_VALUE_FIELD_NUMBER: _ClassVar[int]
    MAP_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    int_value: int
    string_value: str
    bool_value: bool
    bytes_value: bytes
    list_value: OptionList
    map_value: OptionMap
    double_value: float
    def __init__(self, int_value: _Optional[int] = ..., string_value: _Optional[str] = ..., bool_value: _Optional[bool] = ..., bytes_value: _Optional[bytes] = ..., list_value: _Optional[_Union[OptionList, _Mapping]] = ..., map_value: _Optional[_Union[OptionMap, _Mapping]] = ..., double_value: _Optional[float] = ...) -> None: ...

class OptionList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[OptionValue]
    def __init__(self, values: _Optional[_Iterable[_Union[OptionValue, _Mapping]]] = ...) -> None: ...

class OptionMap(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: OptionValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[OptionValue, _Mapping]] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.MessageMap[str, OptionValue]
    def __init__(self, values: _Optional[_Mapping[str, OptionValue]] = ...) -> None: ...
