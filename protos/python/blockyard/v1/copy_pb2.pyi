import datetime

from blockyard.v1 import drivers_pb2 as _drivers_pb2
from blockyard.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CopyKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COPY_KIND_UNSPECIFIED: _ClassVar[CopyKind]
    COPY_KIND_MIRROR: _ClassVar[CopyKind]
    COPY_KIND_BACKUP: _ClassVar[CopyKind]
    COPY_KIND_STREAM: _ClassVar[CopyKind]
    COPY_KIND_COMMIT: _ClassVar[CopyKind]

class SyncMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SYNC_MODE_UNSPECIFIED: _ClassVar[SyncMode]
    SYNC_MODE_FULL: _ClassVar[SyncMode]
    SYNC_MODE_TOP: _ClassVar[SyncMode]
    SYNC_MODE_NONE: _ClassVar[SyncMode]
    SYNC_MODE_BITMAP: _ClassVar[SyncMode]

class CopyMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COPY_MODE_UNSPECIFIED: _ClassVar[CopyMode]
    COPY_MODE_BACKGROUND: _ClassVar[CopyMode]
    COPY_MODE_WRITE_BLOCKING: _ClassVar[CopyMode]

class BitmapMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BITMAP_MODE_UNSPECIFIED: _ClassVar[BitmapMode]
    BITMAP_MODE_ON_SUCCESS: _ClassVar[BitmapMode]
    BITMAP_MODE_NEVER: _ClassVar[BitmapMode]
    BITMAP_MODE_ALWAYS: _ClassVar[BitmapMode]

class FinishAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_ACTION_UNSPECIFIED: _ClassVar[FinishAction]
    FINISH_ACTION_ABORT: _ClassVar[FinishAction]
    FINISH_ACTION_COMPLETE: _ClassVar[FinishAction]
    FINISH_ACTION_PIVOT: _ClassVar[FinishAction]
    FINISH_ACTION_DETACH: _ClassVar[FinishAction]

class CopySide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COPY_SIDE_UNSPECIFIED: _ClassVar[CopySide]
    COPY_SIDE_SOURCE: _ClassVar[CopySide]
    COPY_SIDE_TARGET: _ClassVar[CopySide]
COPY_KIND_UNSPECIFIED: CopyKind
COPY_KIND_MIRROR: CopyKind
COPY_KIND_BACKUP: CopyKind
COPY_KIND_STREAM: CopyKind
COPY_KIND_COMMIT: CopyKind
SYNC_MODE_UNSPECIFIED: SyncMode
SYNC_MODE_FULL: SyncMode
SYNC_MODE_TOP: SyncMode
SYNC_MODE_NONE: SyncMode
SYNC_MODE_BITMAP: SyncMode
COPY_MODE_UNSPECIFIED: CopyMode
COPY_MODE_BACKGROUND: CopyMode
COPY_MODE_WRITE_BLOCKING: CopyMode
BITMAP_MODE_UNSPECIFIED: BitmapMode
BITMAP_MODE_ON_SUCCESS: BitmapMode
BITMAP_MODE_NEVER: BitmapMode
BITMAP_MODE_ALWAYS: BitmapMode
FINISH_ACTION_UNSPECIFIED: FinishAction
FINISH_ACTION_ABORT: FinishAction
FINISH_ACTION_COMPLETE: FinishAction
FINISH_ACTION_PIVOT: FinishAction
FINISH_ACTION_DETACH: FinishAction
COPY_SIDE_UNSPECIFIED: CopySide
COPY_SIDE_SOURCE: CopySide
COPY_SIDE_TARGET: CopySide

class CreateCopySessionRequest(_message.Message):
    __slots__ = ("session_id", "owner", "fencing_token", "kind", "source_node_name", "target_node_name", "base_node_name", "sync", "bitmap", "bitmap_mode", "copy_mode", "granularity_bytes", "target_is_zero", "unmap", "compress", "on_cbw_error", "filter_node_name", "backing_file", "replaces_node_name", "validate_only", "domain")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    BITMAP_FIELD_NUMBER: _ClassVar[int]
    BITMAP_MODE_FIELD_NUMBER: _ClassVar[int]
    COPY_MODE_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    TARGET_IS_ZERO_FIELD_NUMBER: _ClassVar[int]
    UNMAP_FIELD_NUMBER: _ClassVar[int]
    COMPRESS_FIELD_NUMBER: _ClassVar[int]
    ON_CBW_ERROR_FIELD_NUMBER: _ClassVar[int]
    FILTER_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    REPLACES_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    owner: str
    fencing_token: int
    kind: CopyKind
    source_node_name: str
    target_node_name: str
    base_node_name: str
    sync: SyncMode
    bitmap: str
    bitmap_mode: BitmapMode
    copy_mode: CopyMode
    granularity_bytes: int
    target_is_zero: bool
    unmap: bool
    compress: bool
    on_cbw_error: _drivers_pb2.OnCbwError
    filter_node_name: str
    backing_file: str
    replaces_node_name: str
    validate_only: bool
    domain: str
    def __init__(self, session_id: _Optional[str] = ..., owner: _Optional[str] = ..., fencing_token: _Optional[int] = ..., kind: _Optional[_Union[CopyKind, str]] = ..., source_node_name: _Optional[str] = ..., target_node_name: _Optional[str] = ..., base_node_name: _Optional[str] = ..., sync: _Optional[_Union[SyncMode, str]] = ..., bitmap: _Optional[str] = ..., bitmap_mode: _Optional[_Union[BitmapMode, str]] = ..., copy_mode: _Optional[_Union[CopyMode, str]] = ..., granularity_bytes: _Optional[int] = ..., target_is_zero: _Optional[bool] = ..., unmap: _Optional[bool] = ..., compress: _Optional[bool] = ..., on_cbw_error: _Optional[_Union[_drivers_pb2.OnCbwError, str]] = ..., filter_node_name: _Optional[str] = ..., backing_file: _Optional[str] = ..., replaces_node_name: _Optional[str] = ..., validate_only: _Optional[bool] = ..., domain: _Optional[str] = ...) -> None: ...

class CopySession(_message.Message):
    __slots__ = ("session_id", "owner", "fencing_token", "kind", "source_node_name", "target_node_name", "filter_node_name", "copy_mode", "granularity_bytes", "size_bytes", "remaining_bytes", "copied_bytes", "zero_bytes", "skipped_bytes", "finished", "snapshot_broken", "domain")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    FILTER_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    COPY_MODE_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REMAINING_BYTES_FIELD_NUMBER: _ClassVar[int]
    COPIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ZERO_BYTES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_BROKEN_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    owner: str
    fencing_token: int
    kind: CopyKind
    source_node_name: str
    target_node_name: str
    filter_node_name: str
    copy_mode: CopyMode
    granularity_bytes: int
    size_bytes: int
    remaining_bytes: int
    copied_bytes: int
    zero_bytes: int
    skipped_bytes: int
    finished: FinishAction
    snapshot_broken: bool
    domain: str
    def __init__(self, session_id: _Optional[str] = ..., owner: _Optional[str] = ..., fencing_token: _Optional[int] = ..., kind: _Optional[_Union[CopyKind, str]] = ..., source_node_name: _Optional[str] = ..., target_node_name: _Optional[str] = ..., filter_node_name: _Optional[str] = ..., copy_mode: _Optional[_Union[CopyMode, str]] = ..., granularity_bytes: _Optional[int] = ..., size_bytes: _Optional[int] = ..., remaining_bytes: _Optional[int] = ..., copied_bytes: _Optional[int] = ..., zero_bytes: _Optional[int] = ..., skipped_bytes: _Optional[int] = ..., finished: _Optional[_Union[FinishAction, str]] = ..., snapshot_broken: _Optional[bool] = ..., domain: _Optional[str] = ...) -> None: ...

class GetCopySessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class ListCopySessionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCopySessionsResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[CopySession]
    def __init__(self, sessions: _Optional[_Iterable[_Union[CopySession, _Mapping]]] = ...) -> None: ...

class RunCopyRequest(_message.Message):
    __slots__ = ("session_id", "fencing_token", "order_id", "max_bytes", "range", "wait")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    fencing_token: int
    order_id: int
    max_bytes: int
    range: _types_pb2.ByteRange
    wait: _duration_pb2.Duration
    def __init__(self, session_id: _Optional[str] = ..., fencing_token: _Optional[int] = ..., order_id: _Optional[int] = ..., max_bytes: _Optional[int] = ..., range: _Optional[_Union[_types_pb2.ByteRange, _Mapping]] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RunCopyResponse(_message.Message):
    __slots__ = ("order_id", "copied_bytes", "zero_bytes", "skipped_bytes", "remaining_bytes", "dirtied_bytes", "cursor_bytes", "failed_side", "failed_range", "reason", "error_message")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    COPIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ZERO_BYTES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    REMAINING_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIRTIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CURSOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAILED_SIDE_FIELD_NUMBER: _ClassVar[int]
    FAILED_RANGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    copied_bytes: int
    zero_bytes: int
    skipped_bytes: int
    remaining_bytes: int
    dirtied_bytes: int
    cursor_bytes: int
    failed_side: CopySide
    failed_range: _types_pb2.ByteRange
    reason: str
    error_message: str
    def __init__(self, order_id: _Optional[int] = ..., copied_bytes: _Optional[int] = ..., zero_bytes: _Optional[int] = ..., skipped_bytes: _Optional[int] = ..., remaining_bytes: _Optional[int] = ..., dirtied_bytes: _Optional[int] = ..., cursor_bytes: _Optional[int] = ..., failed_side: _Optional[_Union[CopySide, str]] = ..., failed_range: _Optional[_Union[_types_pb2.ByteRange, _Mapping]] = ..., reason: _Optional[str] = ..., error_message: _Optional[str] = ...) -> None: ...

class SetCopyModeRequest(_message.Message):
    __slots__ = ("session_id", "fencing_token", "copy_mode")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    COPY_MODE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    fencing_token: int
    copy_mode: CopyMode
    def __init__(self, session_id: _Optional[str] = ..., fencing_token: _Optional[int] = ..., copy_mode: _Optional[_Union[CopyMode, str]] = ...) -> None: ...

class FinishCopySessionRequest(_message.Message):
    __slots__ = ("session_id", "fencing_token", "action")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    fencing_token: int
    action: FinishAction
    def __init__(self, session_id: _Optional[str] = ..., fencing_token: _Optional[int] = ..., action: _Optional[_Union[FinishAction, str]] = ...) -> None: ...

class AdoptCopySessionRequest(_message.Message):
    __slots__ = ("session_id", "fencing_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    fencing_token: int
    def __init__(self, session_id: _Optional[str] = ..., fencing_token: _Optional[int] = ...) -> None: ...
