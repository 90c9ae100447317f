import datetime

from blockyard.v1 import copy_pb2 as _copy_pb2
from blockyard.v1 import drivers_pb2 as _drivers_pb2
from blockyard.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_UNDEFINED: _ClassVar[JobState]
    JOB_STATE_CREATED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_PAUSED: _ClassVar[JobState]
    JOB_STATE_READY: _ClassVar[JobState]
    JOB_STATE_STANDBY: _ClassVar[JobState]
    JOB_STATE_WAITING: _ClassVar[JobState]
    JOB_STATE_PENDING: _ClassVar[JobState]
    JOB_STATE_ABORTING: _ClassVar[JobState]
    JOB_STATE_CONCLUDED: _ClassVar[JobState]
    JOB_STATE_NULL: _ClassVar[JobState]

class JobOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_OUTCOME_UNSPECIFIED: _ClassVar[JobOutcome]
    JOB_OUTCOME_SUCCEEDED: _ClassVar[JobOutcome]
    JOB_OUTCOME_FAILED: _ClassVar[JobOutcome]
    JOB_OUTCOME_CANCELLED: _ClassVar[JobOutcome]

class JobVerb(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_VERB_UNSPECIFIED: _ClassVar[JobVerb]
    JOB_VERB_CANCEL: _ClassVar[JobVerb]
    JOB_VERB_PAUSE: _ClassVar[JobVerb]
    JOB_VERB_RESUME: _ClassVar[JobVerb]
    JOB_VERB_SET_SPEED: _ClassVar[JobVerb]
    JOB_VERB_COMPLETE: _ClassVar[JobVerb]
    JOB_VERB_FINALIZE: _ClassVar[JobVerb]
    JOB_VERB_DISMISS: _ClassVar[JobVerb]
    JOB_VERB_CHANGE: _ClassVar[JobVerb]

class CompleteAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPLETE_ACTION_UNSPECIFIED: _ClassVar[CompleteAction]
    COMPLETE_ACTION_PIVOT: _ClassVar[CompleteAction]
    COMPLETE_ACTION_DETACH: _ClassVar[CompleteAction]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_UNDEFINED: JobState
JOB_STATE_CREATED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_PAUSED: JobState
JOB_STATE_READY: JobState
JOB_STATE_STANDBY: JobState
JOB_STATE_WAITING: JobState
JOB_STATE_PENDING: JobState
JOB_STATE_ABORTING: JobState
JOB_STATE_CONCLUDED: JobState
JOB_STATE_NULL: JobState
JOB_OUTCOME_UNSPECIFIED: JobOutcome
JOB_OUTCOME_SUCCEEDED: JobOutcome
JOB_OUTCOME_FAILED: JobOutcome
JOB_OUTCOME_CANCELLED: JobOutcome
JOB_VERB_UNSPECIFIED: JobVerb
JOB_VERB_CANCEL: JobVerb
JOB_VERB_PAUSE: JobVerb
JOB_VERB_RESUME: JobVerb
JOB_VERB_SET_SPEED: JobVerb
JOB_VERB_COMPLETE: JobVerb
JOB_VERB_FINALIZE: JobVerb
JOB_VERB_DISMISS: JobVerb
JOB_VERB_CHANGE: JobVerb
COMPLETE_ACTION_UNSPECIFIED: CompleteAction
COMPLETE_ACTION_PIVOT: CompleteAction
COMPLETE_ACTION_DETACH: CompleteAction

class StreamOptions(_message.Message):
    __slots__ = ("node_name", "base_node_name", "backing_file", "on_error")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    ON_ERROR_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    base_node_name: str
    backing_file: str
    on_error: _types_pb2.OnError
    def __init__(self, node_name: _Optional[str] = ..., base_node_name: _Optional[str] = ..., backing_file: _Optional[str] = ..., on_error: _Optional[_Union[_types_pb2.OnError, str]] = ...) -> None: ...

class CommitOptions(_message.Message):
    __slots__ = ("node_name", "top_node_name", "base_node_name", "backing_file", "on_error")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TOP_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    ON_ERROR_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    top_node_name: str
    base_node_name: str
    backing_file: str
    on_error: _types_pb2.OnError
    def __init__(self, node_name: _Optional[str] = ..., top_node_name: _Optional[str] = ..., base_node_name: _Optional[str] = ..., backing_file: _Optional[str] = ..., on_error: _Optional[_Union[_types_pb2.OnError, str]] = ...) -> None: ...

class MirrorOptions(_message.Message):
    __slots__ = ("node_name", "target_node_name", "replaces_node_name", "sync", "copy_mode", "granularity_bytes", "buf_size_bytes", "unmap", "target_is_zero", "on_source_error", "on_target_error")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    REPLACES_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    COPY_MODE_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUF_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNMAP_FIELD_NUMBER: _ClassVar[int]
    TARGET_IS_ZERO_FIELD_NUMBER: _ClassVar[int]
    ON_SOURCE_ERROR_FIELD_NUMBER: _ClassVar[int]
    ON_TARGET_ERROR_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    target_node_name: str
    replaces_node_name: str
    sync: _copy_pb2.SyncMode
    copy_mode: _copy_pb2.CopyMode
    granularity_bytes: int
    buf_size_bytes: int
    unmap: bool
    target_is_zero: bool
    on_source_error: _types_pb2.OnError
    on_target_error: _types_pb2.OnError
    def __init__(self, node_name: _Optional[str] = ..., target_node_name: _Optional[str] = ..., replaces_node_name: _Optional[str] = ..., sync: _Optional[_Union[_copy_pb2.SyncMode, str]] = ..., copy_mode: _Optional[_Union[_copy_pb2.CopyMode, str]] = ..., granularity_bytes: _Optional[int] = ..., buf_size_bytes: _Optional[int] = ..., unmap: _Optional[bool] = ..., target_is_zero: _Optional[bool] = ..., on_source_error: _Optional[_Union[_types_pb2.OnError, str]] = ..., on_target_error: _Optional[_Union[_types_pb2.OnError, str]] = ...) -> None: ...

class BackupOptions(_message.Message):
    __slots__ = ("node_name", "target_node_name", "sync", "bitmap", "bitmap_mode", "compress", "on_cbw_error", "on_source_error", "on_target_error", "max_workers", "max_chunk_bytes", "target_is_zero")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    BITMAP_FIELD_NUMBER: _ClassVar[int]
    BITMAP_MODE_FIELD_NUMBER: _ClassVar[int]
    COMPRESS_FIELD_NUMBER: _ClassVar[int]
    ON_CBW_ERROR_FIELD_NUMBER: _ClassVar[int]
    ON_SOURCE_ERROR_FIELD_NUMBER: _ClassVar[int]
    ON_TARGET_ERROR_FIELD_NUMBER: _ClassVar[int]
    MAX_WORKERS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    TARGET_IS_ZERO_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    target_node_name: str
    sync: _copy_pb2.SyncMode
    bitmap: str
    bitmap_mode: _copy_pb2.BitmapMode
    compress: bool
    on_cbw_error: _drivers_pb2.OnCbwError
    on_source_error: _types_pb2.OnError
    on_target_error: _types_pb2.OnError
    max_workers: int
    max_chunk_bytes: int
    target_is_zero: bool
    def __init__(self, node_name: _Optional[str] = ..., target_node_name: _Optional[str] = ..., sync: _Optional[_Union[_copy_pb2.SyncMode, str]] = ..., bitmap: _Optional[str] = ..., bitmap_mode: _Optional[_Union[_copy_pb2.BitmapMode, str]] = ..., compress: _Optional[bool] = ..., on_cbw_error: _Optional[_Union[_drivers_pb2.OnCbwError, str]] = ..., on_source_error: _Optional[_Union[_types_pb2.OnError, str]] = ..., on_target_error: _Optional[_Union[_types_pb2.OnError, str]] = ..., max_workers: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ..., target_is_zero: _Optional[bool] = ...) -> None: ...

class JobProgress(_message.Message):
    __slots__ = ("done_bytes", "total_bytes", "copied_bytes", "zero_bytes", "skipped_bytes", "rate_bytes_per_second", "eta", "phase", "last_movement_time", "dirty_rate_bytes_per_second")
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    COPIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ZERO_BYTES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RATE_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ETA_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    LAST_MOVEMENT_TIME_FIELD_NUMBER: _ClassVar[int]
    DIRTY_RATE_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    done_bytes: int
    total_bytes: int
    copied_bytes: int
    zero_bytes: int
    skipped_bytes: int
    rate_bytes_per_second: int
    eta: _duration_pb2.Duration
    phase: str
    last_movement_time: _timestamp_pb2.Timestamp
    dirty_rate_bytes_per_second: int
    def __init__(self, done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., copied_bytes: _Optional[int] = ..., zero_bytes: _Optional[int] = ..., skipped_bytes: _Optional[int] = ..., rate_bytes_per_second: _Optional[int] = ..., eta: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., phase: _Optional[str] = ..., last_movement_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dirty_rate_bytes_per_second: _Optional[int] = ...) -> None: ...

class JobError(_message.Message):
    __slots__ = ("reason", "message", "advice", "metadata", "side", "error_time")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TIME_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    advice: str
    metadata: _containers.ScalarMap[str, str]
    side: _copy_pb2.CopySide
    error_time: _timestamp_pb2.Timestamp
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., advice: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., side: _Optional[_Union[_copy_pb2.CopySide, str]] = ..., error_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "stream", "commit", "mirror", "backup", "speed_bytes_per_second", "auto_finalize", "auto_dismiss", "filter_node_name", "state", "outcome", "progress", "error", "ignored_errors", "io_status", "user_paused", "allowed_verbs", "create_time", "start_time", "end_time", "etag", "trace_id", "labels", "node_names", "history")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    MIRROR_FIELD_NUMBER: _ClassVar[int]
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    SPEED_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    AUTO_FINALIZE_FIELD_NUMBER: _ClassVar[int]
    AUTO_DISMISS_FIELD_NUMBER: _ClassVar[int]
    FILTER_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IGNORED_ERRORS_FIELD_NUMBER: _ClassVar[int]
    IO_STATUS_FIELD_NUMBER: _ClassVar[int]
    USER_PAUSED_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_VERBS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NODE_NAMES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    stream: StreamOptions
    commit: CommitOptions
    mirror: MirrorOptions
    backup: BackupOptions
    speed_bytes_per_second: int
    auto_finalize: bool
    auto_dismiss: bool
    filter_node_name: str
    state: JobState
    outcome: JobOutcome
    progress: JobProgress
    error: JobError
    ignored_errors: int
    io_status: _types_pb2.IoStatus
    user_paused: bool
    allowed_verbs: _containers.RepeatedScalarFieldContainer[JobVerb]
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    etag: str
    trace_id: str
    labels: _containers.ScalarMap[str, str]
    node_names: _containers.RepeatedScalarFieldContainer[str]
    history: _containers.RepeatedCompositeFieldContainer[JobStep]
    def __init__(self, job_id: _Optional[str] = ..., stream: _Optional[_Union[StreamOptions, _Mapping]] = ..., commit: _Optional[_Union[CommitOptions, _Mapping]] = ..., mirror: _Optional[_Union[MirrorOptions, _Mapping]] = ..., backup: _Optional[_Union[BackupOptions, _Mapping]] = ..., speed_bytes_per_second: _Optional[int] = ..., auto_finalize: _Optional[bool] = ..., auto_dismiss: _Optional[bool] = ..., filter_node_name: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., outcome: _Optional[_Union[JobOutcome, str]] = ..., progress: _Optional[_Union[JobProgress, _Mapping]] = ..., error: _Optional[_Union[JobError, _Mapping]] = ..., ignored_errors: _Optional[int] = ..., io_status: _Optional[_Union[_types_pb2.IoStatus, str]] = ..., user_paused: _Optional[bool] = ..., allowed_verbs: _Optional[_Iterable[_Union[JobVerb, str]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ..., trace_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., node_names: _Optional[_Iterable[str]] = ..., history: _Optional[_Iterable[_Union[JobStep, _Mapping]]] = ...) -> None: ...

class JobStep(_message.Message):
    __slots__ = ("time", "state", "note", "trace_id")
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    state: JobState
    note: str
    trace_id: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[JobState, str]] = ..., note: _Optional[str] = ..., trace_id: _Optional[str] = ...) -> None: ...

class CreateJobRequest(_message.Message):
    __slots__ = ("job", "request_id", "validate_only")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    job: Job
    request_id: str
    validate_only: bool
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchJobsRequest(_message.Message):
    __slots__ = ("job_id", "start_revision")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    START_REVISION_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    start_revision: int
    def __init__(self, job_id: _Optional[str] = ..., start_revision: _Optional[int] = ...) -> None: ...

class WatchJobsResponse(_message.Message):
    __slots__ = ("change", "job", "revision")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    change: _types_pb2.ChangeType
    job: Job
    revision: int
    def __init__(self, change: _Optional[_Union[_types_pb2.ChangeType, str]] = ..., job: _Optional[_Union[Job, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class PauseJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("job_id", "force")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    force: bool
    def __init__(self, job_id: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class CompleteJobRequest(_message.Message):
    __slots__ = ("job_id", "action")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    action: CompleteAction
    def __init__(self, job_id: _Optional[str] = ..., action: _Optional[_Union[CompleteAction, str]] = ...) -> None: ...

class FinalizeJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class DismissJobRequest(_message.Message):
    __slots__ = ("job_id", "allow_missing")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    allow_missing: bool
    def __init__(self, job_id: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DismissJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetJobSpeedRequest(_message.Message):
    __slots__ = ("job_id", "speed_bytes_per_second")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SPEED_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    speed_bytes_per_second: int
    def __init__(self, job_id: _Optional[str] = ..., speed_bytes_per_second: _Optional[int] = ...) -> None: ...

class ChangeJobRequest(_message.Message):
    __slots__ = ("job_id", "copy_mode")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    COPY_MODE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    copy_mode: _copy_pb2.CopyMode
    def __init__(self, job_id: _Optional[str] = ..., copy_mode: _Optional[_Union[_copy_pb2.CopyMode, str]] = ...) -> None: ...

class DescribeStateMachineRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeStateMachineResponse(_message.Message):
    __slots__ = ("rows",)
    class Row(_message.Message):
        __slots__ = ("state", "next_states", "verbs")
        STATE_FIELD_NUMBER: _ClassVar[int]
        NEXT_STATES_FIELD_NUMBER: _ClassVar[int]
        VERBS_FIELD_NUMBER: _ClassVar[int]
        state: JobState
        next_states: _containers.RepeatedScalarFieldContainer[JobState]
        verbs: _containers.RepeatedScalarFieldContainer[JobVerb]
        def __init__(self, state: _Optional[_Union[JobState, str]] = ..., next_states: _Optional[_Iterable[_Union[JobState, str]]] = ..., verbs: _Optional[_Iterable[_Union[JobVerb, str]]] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[DescribeStateMachineResponse.Row]
    def __init__(self, rows: _Optional[_Iterable[_Union[DescribeStateMachineResponse.Row, _Mapping]]] = ...) -> None: ...
