import datetime

from blockyard.v1 import drivers_pb2 as _drivers_pb2
from blockyard.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SecretFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SECRET_FORMAT_UNSPECIFIED: _ClassVar[SecretFormat]
    SECRET_FORMAT_RAW: _ClassVar[SecretFormat]
    SECRET_FORMAT_BASE64: _ClassVar[SecretFormat]
SECRET_FORMAT_UNSPECIFIED: SecretFormat
SECRET_FORMAT_RAW: SecretFormat
SECRET_FORMAT_BASE64: SecretFormat

class Overlay(_message.Message):
    __slots__ = ("node_name", "filename", "overlay_node_name", "existing", "backing_naming", "backing_file", "qcow2")
    class BackingNaming(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BACKING_NAMING_UNSPECIFIED: _ClassVar[Overlay.BackingNaming]
        BACKING_NAMING_RELATIVE: _ClassVar[Overlay.BackingNaming]
        BACKING_NAMING_ABSOLUTE: _ClassVar[Overlay.BackingNaming]
    BACKING_NAMING_UNSPECIFIED: Overlay.BackingNaming
    BACKING_NAMING_RELATIVE: Overlay.BackingNaming
    BACKING_NAMING_ABSOLUTE: Overlay.BackingNaming
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    BACKING_NAMING_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    QCOW2_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    filename: str
    overlay_node_name: str
    existing: bool
    backing_naming: Overlay.BackingNaming
    backing_file: str
    qcow2: _drivers_pb2.Qcow2CreateOptions
    def __init__(self, node_name: _Optional[str] = ..., filename: _Optional[str] = ..., overlay_node_name: _Optional[str] = ..., existing: _Optional[bool] = ..., backing_naming: _Optional[_Union[Overlay.BackingNaming, str]] = ..., backing_file: _Optional[str] = ..., qcow2: _Optional[_Union[_drivers_pb2.Qcow2CreateOptions, _Mapping]] = ...) -> None: ...

class CreateOverlaysRequest(_message.Message):
    __slots__ = ("overlays", "request_id")
    OVERLAYS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    overlays: _containers.RepeatedCompositeFieldContainer[Overlay]
    request_id: str
    def __init__(self, overlays: _Optional[_Iterable[_Union[Overlay, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateOverlaysResponse(_message.Message):
    __slots__ = ("nodes", "pause", "skew")
    NODES_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    SKEW_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.BlockDriverState]
    pause: _duration_pb2.Duration
    skew: _duration_pb2.Duration
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.BlockDriverState, _Mapping]]] = ..., pause: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., skew: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class PointInTime(_message.Message):
    __slots__ = ("node_name", "snapshot")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    snapshot: str
    def __init__(self, node_name: _Optional[str] = ..., snapshot: _Optional[str] = ...) -> None: ...

class SnapshotExtent(_message.Message):
    __slots__ = ("offset_bytes", "length_bytes", "zero")
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    ZERO_FIELD_NUMBER: _ClassVar[int]
    offset_bytes: int
    length_bytes: int
    zero: bool
    def __init__(self, offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., zero: _Optional[bool] = ...) -> None: ...

class StreamAllocatedExtentsRequest(_message.Message):
    __slots__ = ("point", "offset_bytes", "length_bytes", "max_results")
    POINT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    point: PointInTime
    offset_bytes: int
    length_bytes: int
    max_results: int
    def __init__(self, point: _Optional[_Union[PointInTime, _Mapping]] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., max_results: _Optional[int] = ...) -> None: ...

class StreamAllocatedExtentsResponse(_message.Message):
    __slots__ = ("extents", "next_offset_bytes", "size_bytes")
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    extents: _containers.RepeatedCompositeFieldContainer[SnapshotExtent]
    next_offset_bytes: int
    size_bytes: int
    def __init__(self, extents: _Optional[_Iterable[_Union[SnapshotExtent, _Mapping]]] = ..., next_offset_bytes: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class StreamChangedExtentsRequest(_message.Message):
    __slots__ = ("base", "target", "offset_bytes", "length_bytes", "max_results")
    BASE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    base: PointInTime
    target: PointInTime
    offset_bytes: int
    length_bytes: int
    max_results: int
    def __init__(self, base: _Optional[_Union[PointInTime, _Mapping]] = ..., target: _Optional[_Union[PointInTime, _Mapping]] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., max_results: _Optional[int] = ...) -> None: ...

class StreamChangedExtentsResponse(_message.Message):
    __slots__ = ("extents", "next_offset_bytes", "size_bytes")
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    extents: _containers.RepeatedCompositeFieldContainer[SnapshotExtent]
    next_offset_bytes: int
    size_bytes: int
    def __init__(self, extents: _Optional[_Iterable[_Union[SnapshotExtent, _Mapping]]] = ..., next_offset_bytes: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("id", "name", "node_name", "vm_state_bytes", "create_time", "vm_clock", "icount", "size_bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    VM_STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    VM_CLOCK_FIELD_NUMBER: _ClassVar[int]
    ICOUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    node_name: str
    vm_state_bytes: int
    create_time: _timestamp_pb2.Timestamp
    vm_clock: _duration_pb2.Duration
    icount: int
    size_bytes: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., node_name: _Optional[str] = ..., vm_state_bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., vm_clock: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., icount: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class CreateSnapshotRequest(_message.Message):
    __slots__ = ("snapshot", "request_id")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    request_id: str
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class RevertToSnapshotRequest(_message.Message):
    __slots__ = ("node_name", "snapshot")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    snapshot: str
    def __init__(self, node_name: _Optional[str] = ..., snapshot: _Optional[str] = ...) -> None: ...

class RevertToSnapshotResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteSnapshotRequest(_message.Message):
    __slots__ = ("node_name", "id", "name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    id: str
    name: str
    def __init__(self, node_name: _Optional[str] = ..., id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ListSnapshotsRequest(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...

class ListSnapshotsResponse(_message.Message):
    __slots__ = ("snapshots",)
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[Snapshot]
    def __init__(self, snapshots: _Optional[_Iterable[_Union[Snapshot, _Mapping]]] = ...) -> None: ...

class OpenSnapshotRequest(_message.Message):
    __slots__ = ("node_name", "snapshot", "new_node_name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    NEW_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    snapshot: str
    new_node_name: str
    def __init__(self, node_name: _Optional[str] = ..., snapshot: _Optional[str] = ..., new_node_name: _Optional[str] = ...) -> None: ...

class SaveVmStateRequest(_message.Message):
    __slots__ = ("node_name", "data")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    data: bytes
    def __init__(self, node_name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class SaveVmStateResponse(_message.Message):
    __slots__ = ("written_bytes",)
    WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    written_bytes: int
    def __init__(self, written_bytes: _Optional[int] = ...) -> None: ...

class LoadVmStateRequest(_message.Message):
    __slots__ = ("node_name", "snapshot", "length_bytes")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    snapshot: str
    length_bytes: int
    def __init__(self, node_name: _Optional[str] = ..., snapshot: _Optional[str] = ..., length_bytes: _Optional[int] = ...) -> None: ...

class LoadVmStateResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class CreateAttachmentRequest(_message.Message):
    __slots__ = ("attachment", "request_id", "validate_only")
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    attachment: _types_pb2.Attachment
    request_id: str
    validate_only: bool
    def __init__(self, attachment: _Optional[_Union[_types_pb2.Attachment, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class GetAttachmentRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListAttachmentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAttachmentsResponse(_message.Message):
    __slots__ = ("attachments",)
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    attachments: _containers.RepeatedCompositeFieldContainer[_types_pb2.Attachment]
    def __init__(self, attachments: _Optional[_Iterable[_Union[_types_pb2.Attachment, _Mapping]]] = ...) -> None: ...

class UpdateAttachmentRequest(_message.Message):
    __slots__ = ("attachment", "update_mask")
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    attachment: _types_pb2.Attachment
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, attachment: _Optional[_Union[_types_pb2.Attachment, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class DeleteAttachmentRequest(_message.Message):
    __slots__ = ("name", "allow_missing", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    allow_missing: bool
    etag: str
    def __init__(self, name: _Optional[str] = ..., allow_missing: _Optional[bool] = ..., etag: _Optional[str] = ...) -> None: ...

class DeleteAttachmentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChangeMediumRequest(_message.Message):
    __slots__ = ("name", "action", "node_name", "force", "request_id")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTION_UNSPECIFIED: _ClassVar[ChangeMediumRequest.Action]
        ACTION_OPEN_TRAY: _ClassVar[ChangeMediumRequest.Action]
        ACTION_CLOSE_TRAY: _ClassVar[ChangeMediumRequest.Action]
        ACTION_INSERT: _ClassVar[ChangeMediumRequest.Action]
        ACTION_REMOVE: _ClassVar[ChangeMediumRequest.Action]
        ACTION_CHANGE: _ClassVar[ChangeMediumRequest.Action]
        ACTION_LOCK: _ClassVar[ChangeMediumRequest.Action]
        ACTION_UNLOCK: _ClassVar[ChangeMediumRequest.Action]
    ACTION_UNSPECIFIED: ChangeMediumRequest.Action
    ACTION_OPEN_TRAY: ChangeMediumRequest.Action
    ACTION_CLOSE_TRAY: ChangeMediumRequest.Action
    ACTION_INSERT: ChangeMediumRequest.Action
    ACTION_REMOVE: ChangeMediumRequest.Action
    ACTION_CHANGE: ChangeMediumRequest.Action
    ACTION_LOCK: ChangeMediumRequest.Action
    ACTION_UNLOCK: ChangeMediumRequest.Action
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    action: ChangeMediumRequest.Action
    node_name: str
    force: bool
    request_id: str
    def __init__(self, name: _Optional[str] = ..., action: _Optional[_Union[ChangeMediumRequest.Action, str]] = ..., node_name: _Optional[str] = ..., force: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class ResetIoStatusRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ThrottleLimit(_message.Message):
    __slots__ = ("avg", "max", "burst_length")
    AVG_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    BURST_LENGTH_FIELD_NUMBER: _ClassVar[int]
    avg: int
    max: int
    burst_length: _duration_pb2.Duration
    def __init__(self, avg: _Optional[int] = ..., max: _Optional[int] = ..., burst_length: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ThrottleGroup(_message.Message):
    __slots__ = ("name", "iops_total", "iops_read", "iops_write", "bps_total", "bps_read", "bps_write", "iops_size_bytes", "node_names", "queued_operations", "throttled_operations", "wait_time", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IOPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    IOPS_READ_FIELD_NUMBER: _ClassVar[int]
    IOPS_WRITE_FIELD_NUMBER: _ClassVar[int]
    BPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BPS_READ_FIELD_NUMBER: _ClassVar[int]
    BPS_WRITE_FIELD_NUMBER: _ClassVar[int]
    IOPS_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NODE_NAMES_FIELD_NUMBER: _ClassVar[int]
    QUEUED_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    WAIT_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    iops_total: ThrottleLimit
    iops_read: ThrottleLimit
    iops_write: ThrottleLimit
    bps_total: ThrottleLimit
    bps_read: ThrottleLimit
    bps_write: ThrottleLimit
    iops_size_bytes: int
    node_names: _containers.RepeatedScalarFieldContainer[str]
    queued_operations: int
    throttled_operations: int
    wait_time: _duration_pb2.Duration
    etag: str
    def __init__(self, name: _Optional[str] = ..., iops_total: _Optional[_Union[ThrottleLimit, _Mapping]] = ..., iops_read: _Optional[_Union[ThrottleLimit, _Mapping]] = ..., iops_write: _Optional[_Union[ThrottleLimit, _Mapping]] = ..., bps_total: _Optional[_Union[ThrottleLimit, _Mapping]] = ..., bps_read: _Optional[_Union[ThrottleLimit, _Mapping]] = ..., bps_write: _Optional[_Union[ThrottleLimit, _Mapping]] = ..., iops_size_bytes: _Optional[int] = ..., node_names: _Optional[_Iterable[str]] = ..., queued_operations: _Optional[int] = ..., throttled_operations: _Optional[int] = ..., wait_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class CreateThrottleGroupRequest(_message.Message):
    __slots__ = ("group", "request_id")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    group: ThrottleGroup
    request_id: str
    def __init__(self, group: _Optional[_Union[ThrottleGroup, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetThrottleGroupRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListThrottleGroupsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListThrottleGroupsResponse(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[ThrottleGroup]
    def __init__(self, groups: _Optional[_Iterable[_Union[ThrottleGroup, _Mapping]]] = ...) -> None: ...

class UpdateThrottleGroupRequest(_message.Message):
    __slots__ = ("group", "update_mask")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    group: ThrottleGroup
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, group: _Optional[_Union[ThrottleGroup, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class DeleteThrottleGroupRequest(_message.Message):
    __slots__ = ("name", "allow_missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    allow_missing: bool
    def __init__(self, name: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DeleteThrottleGroupResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Executor(_message.Message):
    __slots__ = ("name", "threads", "node_names", "running", "waiting")
    NAME_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    NODE_NAMES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    name: str
    threads: int
    node_names: _containers.RepeatedScalarFieldContainer[str]
    running: int
    waiting: int
    def __init__(self, name: _Optional[str] = ..., threads: _Optional[int] = ..., node_names: _Optional[_Iterable[str]] = ..., running: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class CreateExecutorRequest(_message.Message):
    __slots__ = ("executor",)
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    executor: Executor
    def __init__(self, executor: _Optional[_Union[Executor, _Mapping]] = ...) -> None: ...

class GetExecutorRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListExecutorsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListExecutorsResponse(_message.Message):
    __slots__ = ("executors",)
    EXECUTORS_FIELD_NUMBER: _ClassVar[int]
    executors: _containers.RepeatedCompositeFieldContainer[Executor]
    def __init__(self, executors: _Optional[_Iterable[_Union[Executor, _Mapping]]] = ...) -> None: ...

class DeleteExecutorRequest(_message.Message):
    __slots__ = ("name", "allow_missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    allow_missing: bool
    def __init__(self, name: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DeleteExecutorResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Secret(_message.Message):
    __slots__ = ("name", "file", "format")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    name: str
    file: str
    format: SecretFormat
    def __init__(self, name: _Optional[str] = ..., file: _Optional[str] = ..., format: _Optional[_Union[SecretFormat, str]] = ...) -> None: ...

class CreateSecretRequest(_message.Message):
    __slots__ = ("name", "value", "file", "format", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    file: str
    format: SecretFormat
    request_id: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ..., file: _Optional[str] = ..., format: _Optional[_Union[SecretFormat, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ListSecretsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSecretsResponse(_message.Message):
    __slots__ = ("secrets",)
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    secrets: _containers.RepeatedCompositeFieldContainer[Secret]
    def __init__(self, secrets: _Optional[_Iterable[_Union[Secret, _Mapping]]] = ...) -> None: ...

class DeleteSecretRequest(_message.Message):
    __slots__ = ("name", "allow_missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    allow_missing: bool
    def __init__(self, name: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DeleteSecretResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
