from blockyard.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OnCbwError(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_CBW_ERROR_UNSPECIFIED: _ClassVar[OnCbwError]
    ON_CBW_ERROR_BREAK_GUEST_WRITE: _ClassVar[OnCbwError]
    ON_CBW_ERROR_BREAK_SNAPSHOT: _ClassVar[OnCbwError]
ON_CBW_ERROR_UNSPECIFIED: OnCbwError
ON_CBW_ERROR_BREAK_GUEST_WRITE: OnCbwError
ON_CBW_ERROR_BREAK_SNAPSHOT: OnCbwError

class NodeDefinition(_message.Message):
    __slots__ = ("node_name", "read_only", "auto_read_only", "force_share", "cache", "discard", "detect_zeroes", "labels", "executor", "file", "memory", "null", "raw", "qcow2", "copy_before_write", "mirror_top", "generic")
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
    FILE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    NULL_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    QCOW2_FIELD_NUMBER: _ClassVar[int]
    COPY_BEFORE_WRITE_FIELD_NUMBER: _ClassVar[int]
    MIRROR_TOP_FIELD_NUMBER: _ClassVar[int]
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
    file: FileOptions
    memory: MemoryOptions
    null: NullOptions
    raw: RawOptions
    qcow2: Qcow2Options
    copy_before_write: CopyBeforeWriteOptions
    mirror_top: MirrorTopOptions
    generic: GenericOptions
    def __init__(self, node_name: _Optional[str] = ..., read_only: _Optional[bool] = ..., auto_read_only: _Optional[bool] = ..., force_share: _Optional[bool] = ..., cache: _Optional[_Union[_types_pb2.CacheOptions, _Mapping]] = ..., discard: _Optional[_Union[_types_pb2.DiscardMode, str]] = ..., detect_zeroes: _Optional[_Union[_types_pb2.DetectZeroes, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., executor: _Optional[str] = ..., file: _Optional[_Union[FileOptions, _Mapping]] = ..., memory: _Optional[_Union[MemoryOptions, _Mapping]] = ..., null: _Optional[_Union[NullOptions, _Mapping]] = ..., raw: _Optional[_Union[RawOptions, _Mapping]] = ..., qcow2: _Optional[_Union[Qcow2Options, _Mapping]] = ..., copy_before_write: _Optional[_Union[CopyBeforeWriteOptions, _Mapping]] = ..., mirror_top: _Optional[_Union[MirrorTopOptions, _Mapping]] = ..., generic: _Optional[_Union[GenericOptions, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("filename", "locking")
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    LOCKING_FIELD_NUMBER: _ClassVar[int]
    filename: str
    locking: str
    def __init__(self, filename: _Optional[str] = ..., locking: _Optional[str] = ...) -> None: ...

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

class RawOptions(_message.Message):
    __slots__ = ("file", "offset", "size")
    FILE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    offset: int
    size: int
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Qcow2Options(_message.Message):
    __slots__ = ("file", "backing", "lazy_refcounts", "l2_cache_size", "refcount_cache_size", "pass_discard_request", "overlap_check", "pass_discard_snapshot", "pass_discard_other", "cache_size", "l2_cache_entry_size", "repair")
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
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., backing: _Optional[_Union[NodeReference, _Mapping]] = ..., lazy_refcounts: _Optional[bool] = ..., l2_cache_size: _Optional[int] = ..., refcount_cache_size: _Optional[int] = ..., pass_discard_request: _Optional[bool] = ..., overlap_check: _Optional[str] = ..., pass_discard_snapshot: _Optional[bool] = ..., pass_discard_other: _Optional[bool] = ..., cache_size: _Optional[int] = ..., l2_cache_entry_size: _Optional[int] = ..., repair: _Optional[bool] = ...) -> None: ...

class CopyBeforeWriteOptions(_message.Message):
    __slots__ = ("file", "target")
    FILE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    target: NodeReference
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., target: _Optional[_Union[NodeReference, _Mapping]] = ...) -> None: ...

class MirrorTopOptions(_message.Message):
    __slots__ = ("file", "target")
    FILE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    file: NodeReference
    target: NodeReference
    def __init__(self, file: _Optional[_Union[NodeReference, _Mapping]] = ..., target: _Optional[_Union[NodeReference, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("version", "cluster_size_bytes", "refcount_bits", "lazy_refcounts", "preallocation", "compression_type", "backing_file", "backing_format")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REFCOUNT_BITS_FIELD_NUMBER: _ClassVar[int]
    LAZY_REFCOUNTS_FIELD_NUMBER: _ClassVar[int]
    PREALLOCATION_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_TYPE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FORMAT_FIELD_NUMBER: _ClassVar[int]
    version: str
    cluster_size_bytes: int
    refcount_bits: int
    lazy_refcounts: bool
    preallocation: _types_pb2.Preallocation
    compression_type: str
    backing_file: str
    backing_format: str
    def __init__(self, version: _Optional[str] = ..., cluster_size_bytes: _Optional[int] = ..., refcount_bits: _Optional[int] = ..., lazy_refcounts: _Optional[bool] = ..., preallocation: _Optional[_Union[_types_pb2.Preallocation, str]] = ..., compression_type: _Optional[str] = ..., backing_file: _Optional[str] = ..., backing_format: _Optional[str] = ...) -> None: ...
