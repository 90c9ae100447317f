import datetime

from blockyard.v1 import control_pb2 as _control_pb2
from blockyard.v1 import types_pb2 as _types_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateBitmapRequest(_message.Message):
    __slots__ = ("node_name", "name", "granularity_bytes", "persistent", "disabled", "request_id")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PERSISTENT_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    name: str
    granularity_bytes: int
    persistent: bool
    disabled: bool
    request_id: str
    def __init__(self, node_name: _Optional[str] = ..., name: _Optional[str] = ..., granularity_bytes: _Optional[int] = ..., persistent: _Optional[bool] = ..., disabled: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetBitmapRequest(_message.Message):
    __slots__ = ("node_name", "name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    name: str
    def __init__(self, node_name: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ListBitmapsRequest(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...

class ListBitmapsResponse(_message.Message):
    __slots__ = ("bitmaps",)
    BITMAPS_FIELD_NUMBER: _ClassVar[int]
    bitmaps: _containers.RepeatedCompositeFieldContainer[_types_pb2.DirtyBitmap]
    def __init__(self, bitmaps: _Optional[_Iterable[_Union[_types_pb2.DirtyBitmap, _Mapping]]] = ...) -> None: ...

class DeleteBitmapRequest(_message.Message):
    __slots__ = ("node_name", "name", "allow_missing")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    name: str
    allow_missing: bool
    def __init__(self, node_name: _Optional[str] = ..., name: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DeleteBitmapResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClearBitmapRequest(_message.Message):
    __slots__ = ("node_name", "name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    name: str
    def __init__(self, node_name: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class SetBitmapRecordingRequest(_message.Message):
    __slots__ = ("node_name", "name", "recording")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    name: str
    recording: bool
    def __init__(self, node_name: _Optional[str] = ..., name: _Optional[str] = ..., recording: _Optional[bool] = ...) -> None: ...

class BitmapReference(_message.Message):
    __slots__ = ("node_name", "name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    name: str
    def __init__(self, node_name: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class MergeBitmapsRequest(_message.Message):
    __slots__ = ("target", "sources")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    target: BitmapReference
    sources: _containers.RepeatedCompositeFieldContainer[BitmapReference]
    def __init__(self, target: _Optional[_Union[BitmapReference, _Mapping]] = ..., sources: _Optional[_Iterable[_Union[BitmapReference, _Mapping]]] = ...) -> None: ...

class StreamDirtyExtentsRequest(_message.Message):
    __slots__ = ("node_name", "name", "offset_bytes", "length_bytes", "max_results")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    name: str
    offset_bytes: int
    length_bytes: int
    max_results: int
    def __init__(self, node_name: _Optional[str] = ..., name: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., max_results: _Optional[int] = ...) -> None: ...

class StreamDirtyExtentsResponse(_message.Message):
    __slots__ = ("extents", "size_bytes")
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    extents: _containers.RepeatedCompositeFieldContainer[_types_pb2.ByteRange]
    size_bytes: int
    def __init__(self, extents: _Optional[_Iterable[_Union[_types_pb2.ByteRange, _Mapping]]] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class HashBitmapRequest(_message.Message):
    __slots__ = ("node_name", "name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    name: str
    def __init__(self, node_name: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class HashBitmapResponse(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("node_name", "consumer", "name", "create_time", "expire_time", "holders", "persistent", "inconsistent", "sequence", "granularity_bytes", "changed_bytes")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    PERSISTENT_FIELD_NUMBER: _ClassVar[int]
    INCONSISTENT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHANGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    consumer: str
    name: str
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    holders: _containers.RepeatedScalarFieldContainer[str]
    persistent: bool
    inconsistent: bool
    sequence: int
    granularity_bytes: int
    changed_bytes: int
    def __init__(self, node_name: _Optional[str] = ..., consumer: _Optional[str] = ..., name: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., holders: _Optional[_Iterable[str]] = ..., persistent: _Optional[bool] = ..., inconsistent: _Optional[bool] = ..., sequence: _Optional[int] = ..., granularity_bytes: _Optional[int] = ..., changed_bytes: _Optional[int] = ...) -> None: ...

class CheckpointReference(_message.Message):
    __slots__ = ("node_name", "consumer", "name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    consumer: str
    name: str
    def __init__(self, node_name: _Optional[str] = ..., consumer: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class CreateCheckpointRequest(_message.Message):
    __slots__ = ("checkpoint", "request_id")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    checkpoint: Checkpoint
    request_id: str
    def __init__(self, checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetCheckpointRequest(_message.Message):
    __slots__ = ("checkpoint",)
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointReference
    def __init__(self, checkpoint: _Optional[_Union[CheckpointReference, _Mapping]] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ("node_name", "consumer")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    consumer: str
    def __init__(self, node_name: _Optional[str] = ..., consumer: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ...) -> None: ...

class DeleteCheckpointRequest(_message.Message):
    __slots__ = ("checkpoint", "allow_missing")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointReference
    allow_missing: bool
    def __init__(self, checkpoint: _Optional[_Union[CheckpointReference, _Mapping]] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DeleteCheckpointResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HoldCheckpointRequest(_message.Message):
    __slots__ = ("checkpoint", "holder", "release")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointReference
    holder: str
    release: bool
    def __init__(self, checkpoint: _Optional[_Union[CheckpointReference, _Mapping]] = ..., holder: _Optional[str] = ..., release: _Optional[bool] = ...) -> None: ...

class SetCheckpointExpiryRequest(_message.Message):
    __slots__ = ("checkpoint", "expire_time")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointReference
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, checkpoint: _Optional[_Union[CheckpointReference, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StreamCheckpointDeltaRequest(_message.Message):
    __slots__ = ("base", "target", "offset_bytes", "length_bytes", "max_results")
    BASE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    base: CheckpointReference
    target: CheckpointReference
    offset_bytes: int
    length_bytes: int
    max_results: int
    def __init__(self, base: _Optional[_Union[CheckpointReference, _Mapping]] = ..., target: _Optional[_Union[CheckpointReference, _Mapping]] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., max_results: _Optional[int] = ...) -> None: ...
