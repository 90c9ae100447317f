from blockyard.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OnCbwError(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_CBW_ERROR_UNSPECIFIED: _ClassVar[OnCbwError]
    ON_CBW_ERROR_BREAK_GUEST_WRITE: _ClassVar[OnCbwError]
    ON_CBW_ERROR_BREAK_SNAPSHOT: _ClassVar[OnCbwError]

class QuorumReadPattern(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUORUM_READ_PATTERN_UNSPECIFIED: _ClassVar[QuorumReadPattern]
    QUORUM_READ_PATTERN_QUORUM: _ClassVar[QuorumReadPattern]
    QUORUM_READ_PATTERN_FIFO: _ClassVar[QuorumReadPattern]
ON_CBW_ERROR_UNSPECIFIED: OnCbwError
ON_CBW_ERROR_BREAK_GUEST_WRITE: OnCbwError
ON_CBW_ERROR_BREAK_SNAPSHOT: OnCbwError
QUORUM_READ_PATTERN_UNSPECIFIED: QuorumReadPattern
QUORUM_READ_PATTERN_QUORUM: QuorumReadPattern
QUORUM_READ_PATTERN_FIFO: QuorumReadPattern

class NodeDefinition(_message.Message):
    __slots__ = ("node_name", "read_only", "auto_read_only", "force_share", "cache", "discard", "detect_zeroes", "labels", "executor", "ephemeral", "file", "memory", "null", "raw", "qcow2", "copy_before_write", "mirror_top", "throttle", "copy_on_read", "snapshot_access", "compress", "preallocate", "blkdebug", "blkverify", "quorum", "luks", "nbd", "generic")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    AUTO_READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    FORCE_SHARE_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    DETECT_ZEROES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    NULL_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    QCOW2_FIELD_NUMBER: _ClassVar[int]
    COPY_BEFORE_WRITE_FIELD_NUMBER: _ClassVar[int]
    MIRROR_TOP_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    COPY_ON_READ_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ACCESS_FIELD_NUMBER: _ClassVar[int]
    COMPRESS_FIELD_NUMBER: _ClassVar[int]
    PREALLOCATE_FIELD_NUMBER: _ClassVar[int]
    BLKDEBUG_FIELD_NUMBER: _ClassVar[int]
    BLKVERIFY_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    LUKS_FIELD_NUMBER: _ClassVar[int]
    NBD_FIELD_NUMBER: _ClassVar[int]
    GENERIC_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    read_only: bool
    auto_read_only: bool
    force_share: bool
    cache: _types_pb2.CacheOptions
    discard: _types_pb2.DiscardMode
    detect_zeroes: _types_pb2.DetectZeroes
    labels: _containers.ScalarMap[str, str]
    executor: str
    ephemeral: bool
    file: FileOptions
    memory: MemoryOptions
    null: NullOptions
    raw: RawOptions
    qcow2: Qcow2Options
    copy_before_write: CopyBeforeWriteOptions
    mirror_top: MirrorTopOptions
    throttle: ThrottleOptions
    copy_on_read: CopyOnReadOptions
    snapshot_access: SnapshotAccessOptions
    compress: CompressOptions
    preallocate: PreallocateOptions
    blkdebug: BlkdebugOptions
    blkverify: BlkverifyOptions
    quorum: QuorumOptions
    luks: LuksOptions
    nbd: NbdOptions
    generic: GenericOptions
    def __init__(self, node_name: _Optional[str] = ..., read_only: _Optional[bool] = ..., auto_read_only: _Optional[bool] = ..., force_share: _Optional[bool] = ..., cache: _Optional[_Union[_types_pb2.CacheOptions, _Mapping]] = ..., discard: _Optional[_Union[_types_pb2.DiscardMode, str]] = ..., detect_zeroes: _Optional[_Union[_types_pb2.DetectZeroes, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., executor: _Optional[str] = ..., ephemeral: _Optional[bool] = ..., file: _Optional[_Union[FileOptions, _Mapping]] = ..., memory: _Optional[_Union[MemoryOptions, _Mapping]] = ..., null: _Optional[_Union[NullOptions, _Mapping]] = ..., raw: _Optional[_Union[RawOptions, _Mapping]] = ..., qcow2: _Optional[_Union[Qcow2Options, _Mapping]] = ..., copy_before_write: _Optional[_Union[CopyBeforeWriteOptions, _Mapping]] = ..., mirror_top: _Optional[_Union[MirrorTopOptions, _Mapping]] = ..., throttle: _Optional[_Union[ThrottleOptions, _Mapping]] = ..., copy_on_read: _Optional[_Union[CopyOnReadOptions, _Mapping]] = ..., snapshot_access: _Optional[_Union[SnapshotAccessOptions, _Mapping]] = ..., compress: _Optional[_Union[CompressOptions, _Mapping]] = ..., preallocate: _Optional[_Union[PreallocateOptions, _Mapping]] = ..., blkdebug: _Optional[_Union[BlkdebugOptions, _Mapping]] = ..., blkverify: _Optional[_Union[BlkverifyOptions, _Mapping]] = ..., quorum: _Optional[_Union[QuorumOptions, _Mapping]] = ..., luks: _Optional[_Union[LuksOptions, _Mapping]] = ..., nbd: _Optional[_Union[NbdOptions, _Mapping]] = ..., generic: _Optional[_Union[GenericOptions, _Mapping]] = ...) -> None: ...

class NodeReference(_message.Message):
    __slots__ = ("node_name", "definition", "none")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    NONE_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    definition: NodeDefinition
    none: bool
    def __init__(self, node_name: _Optional[str] = ..., definition: _Optional[_Union[NodeDefinition, _Mapping]] = ..., none: _Optional[bool] = ...) -> None: ...

class FileOptions(_message.Message):
    __slots__ = ("filename", "locking", "temporary")
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    LOCKING_FIELD_NUMBER: _ClassVar[int]
    TEMPORARY_FIELD_NUMBER: _ClassVar[int]
    filename: str
    locking: str
    temporary: bool
    def __init__(self, filename: _Optional[str] = ..., locking: _Optional[str] = ..., temporary: _Optional[bool] = ...) -> None: ...

class MemoryOptions(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class NullOptions(_message.Message):
    __slots__ = ("size", "latency_ns", "read_zeroes")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_NS_FIELD_NUMBER: _ClassVar[int]
    READ_ZEROES_FIELD_NUMBER: _ClassVar[int]
    size: int
    latency_ns: int
    read_zeroes: bool
    def __init__(self, size: _Optional[int] = ..., latency_ns: _Optional[int] = ..., read_zeroes: _Optional[bool] = ...) -> None: ...

class NbdOptions(_message.Message):
    __slots__ = ("address", "export", "reconnect_delay_seconds", "open_timeout_seconds")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    address: str
    export: str
    reconnect_delay_seconds: int
    open_timeout_seconds: int
    def __init__(self, address: _Optional[str] = ..., export: _Optional[str] = ..., reconnect_delay_seconds: _Optional[int] = ..., open_timeout_seconds: _Optional[int] = ...) -> None: ...

class RawOptions(_message.Message):
    __slots__ = ("file", "offset", "size")
    FILE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    offset: int
    size: int
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class OverlapChecks(_message.Message):
    __slots__ = ("main_header", "active_l1", "active_l2", "refcount_table", "refcount_block", "snapshot_table", "inactive_l1", "inactive_l2", "bitmap_directory")
    MAIN_HEADER_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_L1_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_L2_FIELD_NUMBER: _ClassVar[int]
    REFCOUNT_TABLE_FIELD_NUMBER: _ClassVar[int]
    REFCOUNT_BLOCK_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_TABLE_FIELD_NUMBER: _ClassVar[int]
    INACTIVE_L1_FIELD_NUMBER: _ClassVar[int]
    INACTIVE_L2_FIELD_NUMBER: _ClassVar[int]
    BITMAP_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    main_header: bool
    active_l1: bool
    active_l2: bool
    refcount_table: bool
    refcount_block: bool
    snapshot_table: bool
    inactive_l1: bool
    inactive_l2: bool
    bitmap_directory: bool
    def __init__(self, main_header: _Optional[bool] = ..., active_l1: _Optional[bool] = ..., active_l2: _Optional[bool] = ..., refcount_table: _Optional[bool] = ..., refcount_block: _Optional[bool] = ..., snapshot_table: _Optional[bool] = ..., inactive_l1: _Optional[bool] = ..., inactive_l2: _Optional[bool] = ..., bitmap_directory: _Optional[bool] = ...) -> None: ...

class Qcow2Options(_message.Message):
    __slots__ = ("file", "backing", "lazy_refcounts", "l2_cache_size", "refcount_cache_size", "pass_discard_request", "overlap_check", "pass_discard_snapshot", "pass_discard_other", "cache_size", "l2_cache_entry_size", "repair", "cache_clean_interval", "overlap_checks", "data_file", "follow_data_file", "no_io", "encrypt", "snapshot")
    FILE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FIELD_NUMBER: _ClassVar[int]
    LAZY_REFCOUNTS_FIELD_NUMBER: _ClassVar[int]
    L2_CACHE_SIZE_FIELD_NUMBER: _ClassVar[int]
    REFCOUNT_CACHE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PASS_DISCARD_REQUEST_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_CHECK_FIELD_NUMBER: _ClassVar[int]
    PASS_DISCARD_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    PASS_DISCARD_OTHER_FIELD_NUMBER: _ClassVar[int]
    CACHE_SIZE_FIELD_NUMBER: _ClassVar[int]
    L2_CACHE_ENTRY_SIZE_FIELD_NUMBER: _ClassVar[int]
    REPAIR_FIELD_NUMBER: _ClassVar[int]
    CACHE_CLEAN_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_CHECKS_FIELD_NUMBER: _ClassVar[int]
    DATA_FILE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_DATA_FILE_FIELD_NUMBER: _ClassVar[int]
    NO_IO_FIELD_NUMBER: _ClassVar[int]
    ENCRYPT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    backing: NodeReference
    lazy_refcounts: bool
    l2_cache_size: int
    refcount_cache_size: int
    pass_discard_request: bool
    overlap_check: str
    pass_discard_snapshot: bool
    pass_discard_other: bool
    cache_size: int
    l2_cache_entry_size: int
    repair: bool
    cache_clean_interval: int
    overlap_checks: OverlapChecks
    data_file: NodeReference
    follow_data_file: bool
    no_io: bool
    encrypt: Qcow2Encryption
    snapshot: str
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., backing: _Optional[_Union[NodeReference, _Mapping]] = ..., lazy_refcounts: _Optional[bool] = ..., l2_cache_size: _Optional[int] = ..., refcount_cache_size: _Optional[int] = ..., pass_discard_request: _Optional[bool] = ..., overlap_check: _Optional[str] = ..., pass_discard_snapshot: _Optional[bool] = ..., pass_discard_other: _Optional[bool] = ..., cache_size: _Optional[int] = ..., l2_cache_entry_size: _Optional[int] = ..., repair: _Optional[bool] = ..., cache_clean_interval: _Optional[int] = ..., overlap_checks: _Optional[_Union[OverlapChecks, _Mapping]] = ..., data_file: _Optional[_Union[NodeReference, _Mapping]] = ..., follow_data_file: _Optional[bool] = ..., no_io: _Optional[bool] = ..., encrypt: _Optional[_Union[Qcow2Encryption, _Mapping]] = ..., snapshot: _Optional[str] = ...) -> None: ...

class Qcow2Encryption(_message.Message):
    __slots__ = ("format", "key_secret")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEY_SECRET_FIELD_NUMBER: _ClassVar[int]
    format: str
    key_secret: str
    def __init__(self, format: _Optional[str] = ..., key_secret: _Optional[str] = ...) -> None: ...

class CopyBeforeWriteOptions(_message.Message):
    __slots__ = ("file", "target", "bitmap_node", "bitmap_name", "on_cbw_error", "cbw_timeout", "min_cluster_size")
    FILE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    BITMAP_NODE_FIELD_NUMBER: _ClassVar[int]
    BITMAP_NAME_FIELD_NUMBER: _ClassVar[int]
    ON_CBW_ERROR_FIELD_NUMBER: _ClassVar[int]
    CBW_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MIN_CLUSTER_SIZE_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    target: NodeReference
    bitmap_node: str
    bitmap_name: str
    on_cbw_error: OnCbwError
    cbw_timeout: int
    min_cluster_size: int
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., target: _Optional[_Union[NodeReference, _Mapping]] = ..., bitmap_node: _Optional[str] = ..., bitmap_name: _Optional[str] = ..., on_cbw_error: _Optional[_Union[OnCbwError, str]] = ..., cbw_timeout: _Optional[int] = ..., min_cluster_size: _Optional[int] = ...) -> None: ...

class MirrorTopOptions(_message.Message):
    __slots__ = ("file", "target")
    FILE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    target: NodeReference
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., target: _Optional[_Union[NodeReference, _Mapping]] = ...) -> None: ...

class ThrottleOptions(_message.Message):
    __slots__ = ("file", "throttle_group")
    FILE_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_GROUP_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    throttle_group: str
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., throttle_group: _Optional[str] = ...) -> None: ...

class CopyOnReadOptions(_message.Message):
    __slots__ = ("file", "bottom")
    FILE_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    bottom: str
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., bottom: _Optional[str] = ...) -> None: ...

class SnapshotAccessOptions(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ...) -> None: ...

class CompressOptions(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ...) -> None: ...

class PreallocateOptions(_message.Message):
    __slots__ = ("file", "prealloc_align", "prealloc_size")
    FILE_FIELD_NUMBER: _ClassVar[int]
    PREALLOC_ALIGN_FIELD_NUMBER: _ClassVar[int]
    PREALLOC_SIZE_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    prealloc_align: int
    prealloc_size: int
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., prealloc_align: _Optional[int] = ..., prealloc_size: _Optional[int] = ...) -> None: ...

class BlkdebugInjectError(_message.Message):
    __slots__ = ("event", "state", "iotype", "errno", "offset", "once", "immediately", "rate", "delay_ns", "corrupt")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IOTYPE_FIELD_NUMBER: _ClassVar[int]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ONCE_FIELD_NUMBER: _ClassVar[int]
    IMMEDIATELY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    DELAY_NS_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_FIELD_NUMBER: _ClassVar[int]
    event: str
    state: int
    iotype: str
    errno: int
    offset: int
    once: bool
    immediately: bool
    rate: float
    delay_ns: int
    corrupt: bool
    def __init__(self, event: _Optional[str] = ..., state: _Optional[int] = ..., iotype: _Optional[str] = ..., errno: _Optional[int] = ..., offset: _Optional[int] = ..., once: _Optional[bool] = ..., immediately: _Optional[bool] = ..., rate: _Optional[float] = ..., delay_ns: _Optional[int] = ..., corrupt: _Optional[bool] = ...) -> None: ...

class BlkdebugSetState(_message.Message):
    __slots__ = ("event", "state", "new_state")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NEW_STATE_FIELD_NUMBER: _ClassVar[int]
    event: str
    state: int
    new_state: int
    def __init__(self, event: _Optional[str] = ..., state: _Optional[int] = ..., new_state: _Optional[int] = ...) -> None: ...

class BlkdebugOptions(_message.Message):
    __slots__ = ("image", "config", "align", "max_transfer", "opt_write_zero", "max_write_zero", "opt_discard", "max_discard", "inject_error", "set_state", "take_child_perms", "unshare_child_perms", "seed")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    ALIGN_FIELD_NUMBER: _ClassVar[int]
    MAX_TRANSFER_FIELD_NUMBER: _ClassVar[int]
    OPT_WRITE_ZERO_FIELD_NUMBER: _ClassVar[int]
    MAX_WRITE_ZERO_FIELD_NUMBER: _ClassVar[int]
    OPT_DISCARD_FIELD_NUMBER: _ClassVar[int]
    MAX_DISCARD_FIELD_NUMBER: _ClassVar[int]
    INJECT_ERROR_FIELD_NUMBER: _ClassVar[int]
    SET_STATE_FIELD_NUMBER: _ClassVar[int]
    TAKE_CHILD_PERMS_FIELD_NUMBER: _ClassVar[int]
    UNSHARE_CHILD_PERMS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    image: NodeReference
    config: str
    align: int
    max_transfer: int
    opt_write_zero: int
    max_write_zero: int
    opt_discard: int
    max_discard: int
    inject_error: _containers.RepeatedCompositeFieldContainer[BlkdebugInjectError]
    set_state: _containers.RepeatedCompositeFieldContainer[BlkdebugSetState]
    take_child_perms: _containers.RepeatedScalarFieldContainer[_types_pb2.Permission]
    unshare_child_perms: _containers.RepeatedScalarFieldContainer[_types_pb2.Permission]
    seed: int
    def __init__(self, image: _Optional[_Union[NodeReference, _Mapping]] = ..., config: _Optional[str] = ..., align: _Optional[int] = ..., max_transfer: _Optional[int] = ..., opt_write_zero: _Optional[int] = ..., max_write_zero: _Optional[int] = ..., opt_discard: _Optional[int] = ..., max_discard: _Optional[int] = ..., inject_error: _Optional[_Iterable[_Union[BlkdebugInjectError, _Mapping]]] = ..., set_state: _Optional[_Iterable[_Union[BlkdebugSetState, _Mapping]]] = ..., take_child_perms: _Optional[_Iterable[_Union[_types_pb2.Permission, str]]] = ..., unshare_child_perms: _Optional[_Iterable[_Union[_types_pb2.Permission, str]]] = ..., seed: _Optional[int] = ...) -> None: ...

class BlkverifyOptions(_message.Message):
    __slots__ = ("test", "raw")
    TEST_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    test: NodeReference
    raw: NodeReference
    def __init__(self, test: _Optional[_Union[NodeReference, _Mapping]] = ..., raw: _Optional[_Union[NodeReference, _Mapping]] = ...) -> None: ...

class QuorumOptions(_message.Message):
    __slots__ = ("children", "vote_threshold", "blkverify", "rewrite_corrupted", "read_pattern")
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    VOTE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    BLKVERIFY_FIELD_NUMBER: _ClassVar[int]
    REWRITE_CORRUPTED_FIELD_NUMBER: _ClassVar[int]
    READ_PATTERN_FIELD_NUMBER: _ClassVar[int]
    children: _containers.RepeatedCompositeFieldContainer[NodeReference]
    vote_threshold: int
    blkverify: bool
    rewrite_corrupted: bool
    read_pattern: QuorumReadPattern
    def __init__(self, children: _Optional[_Iterable[_Union[NodeReference, _Mapping]]] = ..., vote_threshold: _Optional[int] = ..., blkverify: _Optional[bool] = ..., rewrite_corrupted: _Optional[bool] = ..., read_pattern: _Optional[_Union[QuorumReadPattern, str]] = ...) -> None: ...

class LuksOptions(_message.Message):
    __slots__ = ("file", "header", "key_secret", "no_io")
    FILE_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    KEY_SECRET_FIELD_NUMBER: _ClassVar[int]
    NO_IO_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    header: NodeReference
    key_secret: str
    no_io: bool
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., header: _Optional[_Union[NodeReference, _Mapping]] = ..., key_secret: _Optional[str] = ..., no_io: _Optional[bool] = ...) -> None: ...

class GenericOptions(_message.Message):
    __slots__ = ("driver", "options", "children")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.OptionValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.OptionValue, _Mapping]] = ...) -> None: ...
    class ChildrenEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: NodeReference
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[NodeReference, _Mapping]] = ...) -> None: ...
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    driver: str
    options: _containers.MessageMap[str, _types_pb2.OptionValue]
    children: _containers.MessageMap[str, NodeReference]
    def __init__(self, driver: _Optional[str] = ..., options: _Optional[_Mapping[str, _types_pb2.OptionValue]] = ..., children: _Optional[_Mapping[str, NodeReference]] = ...) -> None: ...

class RawCreateOptions(_message.Message):
    __slots__ = ("preallocation", "nocow", "extent_size_hint_bytes")
    PREALLOCATION_FIELD_NUMBER: _ClassVar[int]
    NOCOW_FIELD_NUMBER: _ClassVar[int]
    EXTENT_SIZE_HINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    preallocation: _types_pb2.Preallocation
    nocow: bool
    extent_size_hint_bytes: int
    def __init__(self, preallocation: _Optional[_Union[_types_pb2.Preallocation, str]] = ..., nocow: _Optional[bool] = ..., extent_size_hint_bytes: _Optional[int] = ...) -> None: ...

class Qcow2CreateOptions(_message.Message):
    __slots__ = ("version", "cluster_size_bytes", "refcount_bits", "lazy_refcounts", "preallocation", "compression_type", "backing_file", "backing_format", "extended_l2", "data_file", "data_file_raw", "encrypt")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REFCOUNT_BITS_FIELD_NUMBER: _ClassVar[int]
    LAZY_REFCOUNTS_FIELD_NUMBER: _ClassVar[int]
    PREALLOCATION_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_TYPE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FORMAT_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_L2_FIELD_NUMBER: _ClassVar[int]
    DATA_FILE_FIELD_NUMBER: _ClassVar[int]
    DATA_FILE_RAW_FIELD_NUMBER: _ClassVar[int]
    ENCRYPT_FIELD_NUMBER: _ClassVar[int]
    version: str
    cluster_size_bytes: int
    refcount_bits: int
    lazy_refcounts: bool
    preallocation: _types_pb2.Preallocation
    compression_type: str
    backing_file: str
    backing_format: str
    extended_l2: bool
    data_file: str
    data_file_raw: bool
    encrypt: Qcow2CreateEncryption
    def __init__(self, version: _Optional[str] = ..., cluster_size_bytes: _Optional[int] = ..., refcount_bits: _Optional[int] = ..., lazy_refcounts: _Optional[bool] = ..., preallocation: _Optional[_Union[_types_pb2.Preallocation, str]] = ..., compression_type: _Optional[str] = ..., backing_file: _Optional[str] = ..., backing_format: _Optional[str] = ..., extended_l2: _Optional[bool] = ..., data_file: _Optional[str] = ..., data_file_raw: _Optional[bool] = ..., encrypt: _Optional[_Union[Qcow2CreateEncryption, _Mapping]] = ...) -> None: ...

class Qcow2CreateEncryption(_message.Message):
    __slots__ = ("format", "key_secret", "cipher_alg", "cipher_mode", "ivgen_alg", "ivgen_hash_alg", "hash_alg", "iter_time")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEY_SECRET_FIELD_NUMBER: _ClassVar[int]
    CIPHER_ALG_FIELD_NUMBER: _ClassVar[int]
    CIPHER_MODE_FIELD_NUMBER: _ClassVar[int]
    IVGEN_ALG_FIELD_NUMBER: _ClassVar[int]
    IVGEN_HASH_ALG_FIELD_NUMBER: _ClassVar[int]
    HASH_ALG_FIELD_NUMBER: _ClassVar[int]
    ITER_TIME_FIELD_NUMBER: _ClassVar[int]
    format: str
    key_secret: str
    cipher_alg: str
    cipher_mode: str
    ivgen_alg: str
    ivgen_hash_alg: str
    hash_alg: str
    iter_time: int
    def __init__(self, format: _Optional[str] = ..., key_secret: _Optional[str] = ..., cipher_alg: _Optional[str] = ..., cipher_mode: _Optional[str] = ..., ivgen_alg: _Optional[str] = ..., ivgen_hash_alg: _Optional[str] = ..., hash_alg: _Optional[str] = ..., iter_time: _Optional[int] = ...) -> None: ...

class LuksCreateOptions(_message.Message):
    __slots__ = ("key_secret", "cipher_alg", "cipher_mode", "ivgen_alg", "ivgen_hash_alg", "hash_alg", "iter_time", "version", "sector_size", "pbkdf", "pbkdf_memory", "pbkdf_parallel", "label", "detached_header", "preallocation")
    KEY_SECRET_FIELD_NUMBER: _ClassVar[int]
    CIPHER_ALG_FIELD_NUMBER: _ClassVar[int]
    CIPHER_MODE_FIELD_NUMBER: _ClassVar[int]
    IVGEN_ALG_FIELD_NUMBER: _ClassVar[int]
    IVGEN_HASH_ALG_FIELD_NUMBER: _ClassVar[int]
    HASH_ALG_FIELD_NUMBER: _ClassVar[int]
    ITER_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SECTOR_SIZE_FIELD_NUMBER: _ClassVar[int]
    PBKDF_FIELD_NUMBER: _ClassVar[int]
    PBKDF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    PBKDF_PARALLEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    DETACHED_HEADER_FIELD_NUMBER: _ClassVar[int]
    PREALLOCATION_FIELD_NUMBER: _ClassVar[int]
    key_secret: str
    cipher_alg: str
    cipher_mode: str
    ivgen_alg: str
    ivgen_hash_alg: str
    hash_alg: str
    iter_time: int
    version: str
    sector_size: int
    pbkdf: str
    pbkdf_memory: int
    pbkdf_parallel: int
    label: str
    detached_header: bool
    preallocation: _types_pb2.Preallocation
    def __init__(self, key_secret: _Optional[str] = ..., cipher_alg: _Optional[str] = ..., cipher_mode: _Optional[str] = ..., ivgen_alg: _Optional[str] = ..., ivgen_hash_alg: _Optional[str] = ..., hash_alg: _Optional[str] = ..., iter_time: _Optional[int] = ..., version: _Optional[str] = ..., sector_size: _Optional[int] = ..., pbkdf: _Optional[str] = ..., pbkdf_memory: _Optional[int] = ..., pbkdf_parallel: _Optional[int] = ..., label: _Optional[str] = ..., detached_header: _Optional[bool] = ..., preallocation: _Optional[_Union[_types_pb2.Preallocation, str]] = ...) -> None: ...
