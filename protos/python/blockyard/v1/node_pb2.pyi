import datetime

from blockyard.v1 import bitmap_pb2 as _bitmap_pb2
from blockyard.v1 import control_pb2 as _control_pb2
from blockyard.v1 import copy_pb2 as _copy_pb2
from blockyard.v1 import drivers_pb2 as _drivers_pb2
from blockyard.v1 import export_pb2 as _export_pb2
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

class NodeView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_VIEW_UNSPECIFIED: _ClassVar[NodeView]
    NODE_VIEW_BASIC: _ClassVar[NodeView]
    NODE_VIEW_FULL: _ClassVar[NodeView]
NODE_VIEW_UNSPECIFIED: NodeView
NODE_VIEW_BASIC: NodeView
NODE_VIEW_FULL: NodeView

class CreateImageRequest(_message.Message):
    __slots__ = ("filename", "size_bytes", "raw", "qcow2", "generic", "luks", "overwrite", "request_id", "validate_only")
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    QCOW2_FIELD_NUMBER: _ClassVar[int]
    GENERIC_FIELD_NUMBER: _ClassVar[int]
    LUKS_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    filename: str
    size_bytes: int
    raw: _drivers_pb2.RawCreateOptions
    qcow2: _drivers_pb2.Qcow2CreateOptions
    generic: _drivers_pb2.GenericOptions
    luks: _drivers_pb2.LuksCreateOptions
    overwrite: bool
    request_id: str
    validate_only: bool
    def __init__(self, filename: _Optional[str] = ..., size_bytes: _Optional[int] = ..., raw: _Optional[_Union[_drivers_pb2.RawCreateOptions, _Mapping]] = ..., qcow2: _Optional[_Union[_drivers_pb2.Qcow2CreateOptions, _Mapping]] = ..., generic: _Optional[_Union[_drivers_pb2.GenericOptions, _Mapping]] = ..., luks: _Optional[_Union[_drivers_pb2.LuksCreateOptions, _Mapping]] = ..., overwrite: _Optional[bool] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class CreateImageResponse(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: ImageInfo
    def __init__(self, image: _Optional[_Union[ImageInfo, _Mapping]] = ...) -> None: ...

class ImageInfo(_message.Message):
    __slots__ = ("filename", "format", "size_bytes", "allocated_bytes", "cluster_size_bytes", "backing_file", "backing_format", "dirty", "corrupt", "encrypted", "format_specific")
    class FormatSpecificEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.OptionValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.OptionValue, _Mapping]] = ...) -> None: ...
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FORMAT_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTED_FIELD_NUMBER: _ClassVar[int]
    FORMAT_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    filename: str
    format: str
    size_bytes: int
    allocated_bytes: int
    cluster_size_bytes: int
    backing_file: str
    backing_format: str
    dirty: bool
    corrupt: bool
    encrypted: bool
    format_specific: _containers.MessageMap[str, _types_pb2.OptionValue]
    def __init__(self, filename: _Optional[str] = ..., format: _Optional[str] = ..., size_bytes: _Optional[int] = ..., allocated_bytes: _Optional[int] = ..., cluster_size_bytes: _Optional[int] = ..., backing_file: _Optional[str] = ..., backing_format: _Optional[str] = ..., dirty: _Optional[bool] = ..., corrupt: _Optional[bool] = ..., encrypted: _Optional[bool] = ..., format_specific: _Optional[_Mapping[str, _types_pb2.OptionValue]] = ...) -> None: ...

class GetImageInfoRequest(_message.Message):
    __slots__ = ("filename", "format", "backing_chain")
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    BACKING_CHAIN_FIELD_NUMBER: _ClassVar[int]
    filename: str
    format: str
    backing_chain: bool
    def __init__(self, filename: _Optional[str] = ..., format: _Optional[str] = ..., backing_chain: _Optional[bool] = ...) -> None: ...

class GetImageInfoResponse(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[ImageInfo]
    def __init__(self, images: _Optional[_Iterable[_Union[ImageInfo, _Mapping]]] = ...) -> None: ...

class ProbeImageRequest(_message.Message):
    __slots__ = ("filename",)
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    filename: str
    def __init__(self, filename: _Optional[str] = ...) -> None: ...

class ProbeImageResponse(_message.Message):
    __slots__ = ("guesses", "protocol_guesses", "kind")
    class Guess(_message.Message):
        __slots__ = ("driver", "score")
        DRIVER_FIELD_NUMBER: _ClassVar[int]
        SCORE_FIELD_NUMBER: _ClassVar[int]
        driver: str
        score: int
        def __init__(self, driver: _Optional[str] = ..., score: _Optional[int] = ...) -> None: ...
    GUESSES_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_GUESSES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    guesses: _containers.RepeatedCompositeFieldContainer[ProbeImageResponse.Guess]
    protocol_guesses: _containers.RepeatedCompositeFieldContainer[ProbeImageResponse.Guess]
    kind: str
    def __init__(self, guesses: _Optional[_Iterable[_Union[ProbeImageResponse.Guess, _Mapping]]] = ..., protocol_guesses: _Optional[_Iterable[_Union[ProbeImageResponse.Guess, _Mapping]]] = ..., kind: _Optional[str] = ...) -> None: ...

class CheckImageRequest(_message.Message):
    __slots__ = ("filename", "format", "repair")
    class Repair(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REPAIR_UNSPECIFIED: _ClassVar[CheckImageRequest.Repair]
        REPAIR_NONE: _ClassVar[CheckImageRequest.Repair]
        REPAIR_LEAKS: _ClassVar[CheckImageRequest.Repair]
        REPAIR_ALL: _ClassVar[CheckImageRequest.Repair]
    REPAIR_UNSPECIFIED: CheckImageRequest.Repair
    REPAIR_NONE: CheckImageRequest.Repair
    REPAIR_LEAKS: CheckImageRequest.Repair
    REPAIR_ALL: CheckImageRequest.Repair
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    REPAIR_FIELD_NUMBER: _ClassVar[int]
    filename: str
    format: str
    repair: CheckImageRequest.Repair
    def __init__(self, filename: _Optional[str] = ..., format: _Optional[str] = ..., repair: _Optional[_Union[CheckImageRequest.Repair, str]] = ...) -> None: ...

class CheckImageResponse(_message.Message):
    __slots__ = ("corruptions", "leaks", "check_errors", "corruptions_fixed", "leaks_fixed", "image_end_offset_bytes", "total_clusters", "allocated_clusters", "fragmented_clusters", "compressed_clusters", "findings")
    CORRUPTIONS_FIELD_NUMBER: _ClassVar[int]
    LEAKS_FIELD_NUMBER: _ClassVar[int]
    CHECK_ERRORS_FIELD_NUMBER: _ClassVar[int]
    CORRUPTIONS_FIXED_FIELD_NUMBER: _ClassVar[int]
    LEAKS_FIXED_FIELD_NUMBER: _ClassVar[int]
    IMAGE_END_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    FRAGMENTED_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    COMPRESSED_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    corruptions: int
    leaks: int
    check_errors: int
    corruptions_fixed: int
    leaks_fixed: int
    image_end_offset_bytes: int
    total_clusters: int
    allocated_clusters: int
    fragmented_clusters: int
    compressed_clusters: int
    findings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, corruptions: _Optional[int] = ..., leaks: _Optional[int] = ..., check_errors: _Optional[int] = ..., corruptions_fixed: _Optional[int] = ..., leaks_fixed: _Optional[int] = ..., image_end_offset_bytes: _Optional[int] = ..., total_clusters: _Optional[int] = ..., allocated_clusters: _Optional[int] = ..., fragmented_clusters: _Optional[int] = ..., compressed_clusters: _Optional[int] = ..., findings: _Optional[_Iterable[str]] = ...) -> None: ...

class MeasureImageRequest(_message.Message):
    __slots__ = ("node_name", "size_bytes", "target")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    size_bytes: int
    target: CreateImageRequest
    def __init__(self, node_name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., target: _Optional[_Union[CreateImageRequest, _Mapping]] = ...) -> None: ...

class MeasureImageResponse(_message.Message):
    __slots__ = ("required_bytes", "fully_allocated_bytes")
    REQUIRED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FULLY_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    required_bytes: int
    fully_allocated_bytes: int
    def __init__(self, required_bytes: _Optional[int] = ..., fully_allocated_bytes: _Optional[int] = ...) -> None: ...

class AmendImageRequest(_message.Message):
    __slots__ = ("node_name", "options", "force", "validate_only")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.OptionValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.OptionValue, _Mapping]] = ...) -> None: ...
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    options: _containers.MessageMap[str, _types_pb2.OptionValue]
    force: bool
    validate_only: bool
    def __init__(self, node_name: _Optional[str] = ..., options: _Optional[_Mapping[str, _types_pb2.OptionValue]] = ..., force: _Optional[bool] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class OperationProgress(_message.Message):
    __slots__ = ("phase", "done", "total")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    phase: str
    done: int
    total: int
    def __init__(self, phase: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class AmendImageResponse(_message.Message):
    __slots__ = ("node", "progress")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.BlockDriverState
    progress: OperationProgress
    def __init__(self, node: _Optional[_Union[_types_pb2.BlockDriverState, _Mapping]] = ..., progress: _Optional[_Union[OperationProgress, _Mapping]] = ...) -> None: ...

class RebaseImageRequest(_message.Message):
    __slots__ = ("node_name", "backing_node_name", "backing_file", "backing_format", "unsafe")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BACKING_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FORMAT_FIELD_NUMBER: _ClassVar[int]
    UNSAFE_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    backing_node_name: str
    backing_file: str
    backing_format: str
    unsafe: bool
    def __init__(self, node_name: _Optional[str] = ..., backing_node_name: _Optional[str] = ..., backing_file: _Optional[str] = ..., backing_format: _Optional[str] = ..., unsafe: _Optional[bool] = ...) -> None: ...

class RebaseImageResponse(_message.Message):
    __slots__ = ("node", "progress", "copied_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    COPIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.BlockDriverState
    progress: OperationProgress
    copied_bytes: int
    def __init__(self, node: _Optional[_Union[_types_pb2.BlockDriverState, _Mapping]] = ..., progress: _Optional[_Union[OperationProgress, _Mapping]] = ..., copied_bytes: _Optional[int] = ...) -> None: ...

class CheckNodeRequest(_message.Message):
    __slots__ = ("node_name", "repair")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    REPAIR_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    repair: CheckImageRequest.Repair
    def __init__(self, node_name: _Optional[str] = ..., repair: _Optional[_Union[CheckImageRequest.Repair, str]] = ...) -> None: ...

class CheckNodeResponse(_message.Message):
    __slots__ = ("report", "progress")
    REPORT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    report: CheckImageResponse
    progress: OperationProgress
    def __init__(self, report: _Optional[_Union[CheckImageResponse, _Mapping]] = ..., progress: _Optional[_Union[OperationProgress, _Mapping]] = ...) -> None: ...

class CompareNodesRequest(_message.Message):
    __slots__ = ("first_node_name", "second_node_name", "strict", "offset_bytes", "length_bytes")
    FIRST_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SECOND_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    first_node_name: str
    second_node_name: str
    strict: bool
    offset_bytes: int
    length_bytes: int
    def __init__(self, first_node_name: _Optional[str] = ..., second_node_name: _Optional[str] = ..., strict: _Optional[bool] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ...) -> None: ...

class CompareNodesResponse(_message.Message):
    __slots__ = ("result", "progress")
    class Result(_message.Message):
        __slots__ = ("identical", "difference", "offset_bytes", "first_size_bytes", "second_size_bytes", "compared_bytes")
        class Difference(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            DIFFERENCE_UNSPECIFIED: _ClassVar[CompareNodesResponse.Result.Difference]
            DIFFERENCE_CONTENT: _ClassVar[CompareNodesResponse.Result.Difference]
            DIFFERENCE_ALLOCATION: _ClassVar[CompareNodesResponse.Result.Difference]
            DIFFERENCE_SIZE: _ClassVar[CompareNodesResponse.Result.Difference]
        DIFFERENCE_UNSPECIFIED: CompareNodesResponse.Result.Difference
        DIFFERENCE_CONTENT: CompareNodesResponse.Result.Difference
        DIFFERENCE_ALLOCATION: CompareNodesResponse.Result.Difference
        DIFFERENCE_SIZE: CompareNodesResponse.Result.Difference
        IDENTICAL_FIELD_NUMBER: _ClassVar[int]
        DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
        OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
        FIRST_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
        SECOND_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
        COMPARED_BYTES_FIELD_NUMBER: _ClassVar[int]
        identical: bool
        difference: CompareNodesResponse.Result.Difference
        offset_bytes: int
        first_size_bytes: int
        second_size_bytes: int
        compared_bytes: int
        def __init__(self, identical: _Optional[bool] = ..., difference: _Optional[_Union[CompareNodesResponse.Result.Difference, str]] = ..., offset_bytes: _Optional[int] = ..., first_size_bytes: _Optional[int] = ..., second_size_bytes: _Optional[int] = ..., compared_bytes: _Optional[int] = ...) -> None: ...
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    result: CompareNodesResponse.Result
    progress: OperationProgress
    def __init__(self, result: _Optional[_Union[CompareNodesResponse.Result, _Mapping]] = ..., progress: _Optional[_Union[OperationProgress, _Mapping]] = ...) -> None: ...

class ChecksumImageRequest(_message.Message):
    __slots__ = ("node_name", "snapshot", "chunk_bytes", "filename", "overwrite")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    snapshot: str
    chunk_bytes: int
    filename: str
    overwrite: bool
    def __init__(self, node_name: _Optional[str] = ..., snapshot: _Optional[str] = ..., chunk_bytes: _Optional[int] = ..., filename: _Optional[str] = ..., overwrite: _Optional[bool] = ...) -> None: ...

class ChecksumImageResponse(_message.Message):
    __slots__ = ("result", "progress")
    class Result(_message.Message):
        __slots__ = ("checksum", "size_bytes", "chunk_bytes", "zero_chunks", "hashed_bytes", "file_bytes")
        CHECKSUM_FIELD_NUMBER: _ClassVar[int]
        SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
        CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
        ZERO_CHUNKS_FIELD_NUMBER: _ClassVar[int]
        HASHED_BYTES_FIELD_NUMBER: _ClassVar[int]
        FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
        checksum: str
        size_bytes: int
        chunk_bytes: int
        zero_chunks: int
        hashed_bytes: int
        file_bytes: int
        def __init__(self, checksum: _Optional[str] = ..., size_bytes: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., zero_chunks: _Optional[int] = ..., hashed_bytes: _Optional[int] = ..., file_bytes: _Optional[int] = ...) -> None: ...
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    result: ChecksumImageResponse.Result
    progress: OperationProgress
    def __init__(self, result: _Optional[_Union[ChecksumImageResponse.Result, _Mapping]] = ..., progress: _Optional[_Union[OperationProgress, _Mapping]] = ...) -> None: ...

class ScrubImageRequest(_message.Message):
    __slots__ = ("node_name", "snapshot", "filename")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    snapshot: str
    filename: str
    def __init__(self, node_name: _Optional[str] = ..., snapshot: _Optional[str] = ..., filename: _Optional[str] = ...) -> None: ...

class ScrubImageResponse(_message.Message):
    __slots__ = ("result", "progress")
    class Extent(_message.Message):
        __slots__ = ("offset_bytes", "length_bytes", "damage", "node_name", "host_offset_bytes", "detail")
        class Damage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            DAMAGE_UNSPECIFIED: _ClassVar[ScrubImageResponse.Extent.Damage]
            DAMAGE_CHANGED: _ClassVar[ScrubImageResponse.Extent.Damage]
            DAMAGE_UNREADABLE: _ClassVar[ScrubImageResponse.Extent.Damage]
        DAMAGE_UNSPECIFIED: ScrubImageResponse.Extent.Damage
        DAMAGE_CHANGED: ScrubImageResponse.Extent.Damage
        DAMAGE_UNREADABLE: ScrubImageResponse.Extent.Damage
        OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
        LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
        DAMAGE_FIELD_NUMBER: _ClassVar[int]
        NODE_NAME_FIELD_NUMBER: _ClassVar[int]
        HOST_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
        DETAIL_FIELD_NUMBER: _ClassVar[int]
        offset_bytes: int
        length_bytes: int
        damage: ScrubImageResponse.Extent.Damage
        node_name: str
        host_offset_bytes: int
        detail: str
        def __init__(self, offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., damage: _Optional[_Union[ScrubImageResponse.Extent.Damage, str]] = ..., node_name: _Optional[str] = ..., host_offset_bytes: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...
    class Result(_message.Message):
        __slots__ = ("intact", "extents", "damaged_bytes", "checked_bytes", "expected_checksum", "checksum", "truncated")
        INTACT_FIELD_NUMBER: _ClassVar[int]
        EXTENTS_FIELD_NUMBER: _ClassVar[int]
        DAMAGED_BYTES_FIELD_NUMBER: _ClassVar[int]
        CHECKED_BYTES_FIELD_NUMBER: _ClassVar[int]
        EXPECTED_CHECKSUM_FIELD_NUMBER: _ClassVar[int]
        CHECKSUM_FIELD_NUMBER: _ClassVar[int]
        TRUNCATED_FIELD_NUMBER: _ClassVar[int]
        intact: bool
        extents: _containers.RepeatedCompositeFieldContainer[ScrubImageResponse.Extent]
        damaged_bytes: int
        checked_bytes: int
        expected_checksum: str
        checksum: str
        truncated: bool
        def __init__(self, intact: _Optional[bool] = ..., extents: _Optional[_Iterable[_Union[ScrubImageResponse.Extent, _Mapping]]] = ..., damaged_bytes: _Optional[int] = ..., checked_bytes: _Optional[int] = ..., expected_checksum: _Optional[str] = ..., checksum: _Optional[str] = ..., truncated: _Optional[bool] = ...) -> None: ...
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    result: ScrubImageResponse.Result
    progress: OperationProgress
    def __init__(self, result: _Optional[_Union[ScrubImageResponse.Result, _Mapping]] = ..., progress: _Optional[_Union[OperationProgress, _Mapping]] = ...) -> None: ...

class CompactImageRequest(_message.Message):
    __slots__ = ("node_name", "detect_zeroes")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    DETECT_ZEROES_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    detect_zeroes: bool
    def __init__(self, node_name: _Optional[str] = ..., detect_zeroes: _Optional[bool] = ...) -> None: ...

class CompactImageResponse(_message.Message):
    __slots__ = ("result", "progress")
    class Result(_message.Message):
        __slots__ = ("before_bytes", "after_bytes", "leaked_clusters", "zeroed_bytes", "moved_bytes")
        BEFORE_BYTES_FIELD_NUMBER: _ClassVar[int]
        AFTER_BYTES_FIELD_NUMBER: _ClassVar[int]
        LEAKED_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
        ZEROED_BYTES_FIELD_NUMBER: _ClassVar[int]
        MOVED_BYTES_FIELD_NUMBER: _ClassVar[int]
        before_bytes: int
        after_bytes: int
        leaked_clusters: int
        zeroed_bytes: int
        moved_bytes: int
        def __init__(self, before_bytes: _Optional[int] = ..., after_bytes: _Optional[int] = ..., leaked_clusters: _Optional[int] = ..., zeroed_bytes: _Optional[int] = ..., moved_bytes: _Optional[int] = ...) -> None: ...
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    result: CompactImageResponse.Result
    progress: OperationProgress
    def __init__(self, result: _Optional[_Union[CompactImageResponse.Result, _Mapping]] = ..., progress: _Optional[_Union[OperationProgress, _Mapping]] = ...) -> None: ...

class OpenNodeRequest(_message.Message):
    __slots__ = ("definition", "request_id", "validate_only")
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    definition: _drivers_pb2.NodeDefinition
    request_id: str
    validate_only: bool
    def __init__(self, definition: _Optional[_Union[_drivers_pb2.NodeDefinition, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class GetNodeRequest(_message.Message):
    __slots__ = ("node_name", "view")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    view: NodeView
    def __init__(self, node_name: _Optional[str] = ..., view: _Optional[_Union[NodeView, str]] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "view", "explicit_only", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    EXPLICIT_ONLY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    view: NodeView
    explicit_only: bool
    labels: _containers.ScalarMap[str, str]
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., view: _Optional[_Union[NodeView, str]] = ..., explicit_only: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "next_page_token")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.BlockDriverState]
    next_page_token: str
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.BlockDriverState, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CloseNodeRequest(_message.Message):
    __slots__ = ("node_name", "etag", "allow_missing", "request_id", "validate_only")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    etag: str
    allow_missing: bool
    request_id: str
    validate_only: bool
    def __init__(self, node_name: _Optional[str] = ..., etag: _Optional[str] = ..., allow_missing: _Optional[bool] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class CloseNodeResponse(_message.Message):
    __slots__ = ("closed",)
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    closed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, closed: _Optional[_Iterable[str]] = ...) -> None: ...

class GetGraphRequest(_message.Message):
    __slots__ = ("root",)
    ROOT_FIELD_NUMBER: _ClassVar[int]
    root: str
    def __init__(self, root: _Optional[str] = ...) -> None: ...

class GetGraphResponse(_message.Message):
    __slots__ = ("nodes", "edges", "revision")
    class Edge(_message.Message):
        __slots__ = ("parent", "child", "holder")
        PARENT_FIELD_NUMBER: _ClassVar[int]
        CHILD_FIELD_NUMBER: _ClassVar[int]
        HOLDER_FIELD_NUMBER: _ClassVar[int]
        parent: str
        child: _types_pb2.BlockChild
        holder: _types_pb2.Holder
        def __init__(self, parent: _Optional[str] = ..., child: _Optional[_Union[_types_pb2.BlockChild, _Mapping]] = ..., holder: _Optional[_Union[_types_pb2.Holder, _Mapping]] = ...) -> None: ...
    NODES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.BlockDriverState]
    edges: _containers.RepeatedCompositeFieldContainer[GetGraphResponse.Edge]
    revision: int
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.BlockDriverState, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[GetGraphResponse.Edge, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchNodesRequest(_message.Message):
    __slots__ = ("start_revision", "node_names")
    START_REVISION_FIELD_NUMBER: _ClassVar[int]
    NODE_NAMES_FIELD_NUMBER: _ClassVar[int]
    start_revision: int
    node_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, start_revision: _Optional[int] = ..., node_names: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchNodesResponse(_message.Message):
    __slots__ = ("change", "node", "revision", "event", "attachment")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    change: _types_pb2.ChangeType
    node: _types_pb2.BlockDriverState
    revision: int
    event: NodeEvent
    attachment: _types_pb2.Attachment
    def __init__(self, change: _Optional[_Union[_types_pb2.ChangeType, str]] = ..., node: _Optional[_Union[_types_pb2.BlockDriverState, _Mapping]] = ..., revision: _Optional[int] = ..., event: _Optional[_Union[NodeEvent, _Mapping]] = ..., attachment: _Optional[_Union[_types_pb2.Attachment, _Mapping]] = ...) -> None: ...

class NodeEvent(_message.Message):
    __slots__ = ("kind", "node_name", "event_time", "details")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    node_name: str
    event_time: _timestamp_pb2.Timestamp
    details: _containers.ScalarMap[str, str]
    def __init__(self, kind: _Optional[str] = ..., node_name: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., details: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ReopenNodesRequest(_message.Message):
    __slots__ = ("definitions", "validate_only")
    DEFINITIONS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    definitions: _containers.RepeatedCompositeFieldContainer[_drivers_pb2.NodeDefinition]
    validate_only: bool
    def __init__(self, definitions: _Optional[_Iterable[_Union[_drivers_pb2.NodeDefinition, _Mapping]]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class ReopenNodesResponse(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.BlockDriverState]
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.BlockDriverState, _Mapping]]] = ...) -> None: ...

class ResizeNodeRequest(_message.Message):
    __slots__ = ("node_name", "size_bytes", "preallocation", "allow_shrink", "validate_only")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREALLOCATION_FIELD_NUMBER: _ClassVar[int]
    ALLOW_SHRINK_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    size_bytes: int
    preallocation: _types_pb2.Preallocation
    allow_shrink: bool
    validate_only: bool
    def __init__(self, node_name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., preallocation: _Optional[_Union[_types_pb2.Preallocation, str]] = ..., allow_shrink: _Optional[bool] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class InsertOverlayRequest(_message.Message):
    __slots__ = ("node_name", "overlay_node_name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    overlay_node_name: str
    def __init__(self, node_name: _Optional[str] = ..., overlay_node_name: _Optional[str] = ...) -> None: ...

class ListCatalogueRequest(_message.Message):
    __slots__ = ("failed_only",)
    FAILED_ONLY_FIELD_NUMBER: _ClassVar[int]
    failed_only: bool
    def __init__(self, failed_only: _Optional[bool] = ...) -> None: ...

class ListCatalogueResponse(_message.Message):
    __slots__ = ("entries", "location")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[CatalogueEntry]
    location: str
    def __init__(self, entries: _Optional[_Iterable[_Union[CatalogueEntry, _Mapping]]] = ..., location: _Optional[str] = ...) -> None: ...

class CatalogueEntry(_message.Message):
    __slots__ = ("kind", "name", "definition", "failure", "reason")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    definition: str
    failure: str
    reason: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., definition: _Optional[str] = ..., failure: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RestoreCatalogueEntryRequest(_message.Message):
    __slots__ = ("kind", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ForgetCatalogueEntryRequest(_message.Message):
    __slots__ = ("kind", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ForgetCatalogueEntryResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SendIoctlRequest(_message.Message):
    __slots__ = ("node_name", "request", "argument")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    request: int
    argument: bytes
    def __init__(self, node_name: _Optional[str] = ..., request: _Optional[int] = ..., argument: _Optional[bytes] = ...) -> None: ...

class SendIoctlResponse(_message.Message):
    __slots__ = ("result", "argument")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    result: int
    argument: bytes
    def __init__(self, result: _Optional[int] = ..., argument: _Optional[bytes] = ...) -> None: ...

class InsertFilterRequest(_message.Message):
    __slots__ = ("node_name", "filter")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    filter: _drivers_pb2.NodeDefinition
    def __init__(self, node_name: _Optional[str] = ..., filter: _Optional[_Union[_drivers_pb2.NodeDefinition, _Mapping]] = ...) -> None: ...

class RemoveFilterRequest(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...

class RemoveFilterResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.BlockDriverState
    def __init__(self, node: _Optional[_Union[_types_pb2.BlockDriverState, _Mapping]] = ...) -> None: ...

class ReplaceNodeRequest(_message.Message):
    __slots__ = ("node_name", "replacement_node_name")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    REPLACEMENT_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    replacement_node_name: str
    def __init__(self, node_name: _Optional[str] = ..., replacement_node_name: _Optional[str] = ...) -> None: ...

class ChangeBackingFileRequest(_message.Message):
    __slots__ = ("node_name", "backing_file", "backing_format")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILE_FIELD_NUMBER: _ClassVar[int]
    BACKING_FORMAT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    backing_file: str
    backing_format: str
    def __init__(self, node_name: _Optional[str] = ..., backing_file: _Optional[str] = ..., backing_format: _Optional[str] = ...) -> None: ...

class AddChildRequest(_message.Message):
    __slots__ = ("node_name", "child", "validate_only")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    child: _drivers_pb2.NodeReference
    validate_only: bool
    def __init__(self, node_name: _Optional[str] = ..., child: _Optional[_Union[_drivers_pb2.NodeReference, _Mapping]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class RemoveChildRequest(_message.Message):
    __slots__ = ("node_name", "child", "validate_only")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    child: str
    validate_only: bool
    def __init__(self, node_name: _Optional[str] = ..., child: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class MakeEmptyRequest(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...

class MakeEmptyResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.BlockDriverState
    def __init__(self, node: _Optional[_Union[_types_pb2.BlockDriverState, _Mapping]] = ...) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("node_name", "lease")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    lease: _duration_pb2.Duration
    def __init__(self, node_name: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DrainNodeResponse(_message.Message):
    __slots__ = ("drain_id",)
    DRAIN_ID_FIELD_NUMBER: _ClassVar[int]
    drain_id: str
    def __init__(self, drain_id: _Optional[str] = ...) -> None: ...

class UndrainNodeRequest(_message.Message):
    __slots__ = ("drain_id",)
    DRAIN_ID_FIELD_NUMBER: _ClassVar[int]
    drain_id: str
    def __init__(self, drain_id: _Optional[str] = ...) -> None: ...

class UndrainNodeResponse(_message.Message):
    __slots__ = ("expired",)
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    expired: bool
    def __init__(self, expired: _Optional[bool] = ...) -> None: ...

class SetNodeActiveRequest(_message.Message):
    __slots__ = ("node_name", "active")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    active: bool
    def __init__(self, node_name: _Optional[str] = ..., active: _Optional[bool] = ...) -> None: ...

class SetExecutorRequest(_message.Message):
    __slots__ = ("node_name", "executor")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    executor: str
    def __init__(self, node_name: _Optional[str] = ..., executor: _Optional[str] = ...) -> None: ...

class SetWriteThresholdRequest(_message.Message):
    __slots__ = ("node_name", "threshold_bytes")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_BYTES_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    threshold_bytes: int
    def __init__(self, node_name: _Optional[str] = ..., threshold_bytes: _Optional[int] = ...) -> None: ...

class ListInFlightRequest(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...

class ListInFlightResponse(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[_types_pb2.TrackedRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[_types_pb2.TrackedRequest, _Mapping]]] = ...) -> None: ...

class TransactionAction(_message.Message):
    __slots__ = ("open", "close", "insert_overlay", "insert_filter", "replace", "remove_filter", "reopen", "add_child", "remove_child", "create_bitmap", "delete_bitmap", "clear_bitmap", "set_bitmap_recording", "merge_bitmaps", "create_export", "delete_export", "create_copy_session", "create_snapshot", "change_medium", "create_overlay")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    INSERT_OVERLAY_FIELD_NUMBER: _ClassVar[int]
    INSERT_FILTER_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FILTER_FIELD_NUMBER: _ClassVar[int]
    REOPEN_FIELD_NUMBER: _ClassVar[int]
    ADD_CHILD_FIELD_NUMBER: _ClassVar[int]
    REMOVE_CHILD_FIELD_NUMBER: _ClassVar[int]
    CREATE_BITMAP_FIELD_NUMBER: _ClassVar[int]
    DELETE_BITMAP_FIELD_NUMBER: _ClassVar[int]
    CLEAR_BITMAP_FIELD_NUMBER: _ClassVar[int]
    SET_BITMAP_RECORDING_FIELD_NUMBER: _ClassVar[int]
    MERGE_BITMAPS_FIELD_NUMBER: _ClassVar[int]
    CREATE_EXPORT_FIELD_NUMBER: _ClassVar[int]
    DELETE_EXPORT_FIELD_NUMBER: _ClassVar[int]
    CREATE_COPY_SESSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_MEDIUM_FIELD_NUMBER: _ClassVar[int]
    CREATE_OVERLAY_FIELD_NUMBER: _ClassVar[int]
    open: OpenNodeRequest
    close: CloseNodeRequest
    insert_overlay: InsertOverlayRequest
    insert_filter: InsertFilterRequest
    replace: ReplaceNodeRequest
    remove_filter: RemoveFilterRequest
    reopen: ReopenNodesRequest
    add_child: AddChildRequest
    remove_child: RemoveChildRequest
    create_bitmap: _bitmap_pb2.CreateBitmapRequest
    delete_bitmap: _bitmap_pb2.DeleteBitmapRequest
    clear_bitmap: _bitmap_pb2.ClearBitmapRequest
    set_bitmap_recording: _bitmap_pb2.SetBitmapRecordingRequest
    merge_bitmaps: _bitmap_pb2.MergeBitmapsRequest
    create_export: _export_pb2.CreateExportRequest
    delete_export: _export_pb2.DeleteExportRequest
    create_copy_session: _copy_pb2.CreateCopySessionRequest
    create_snapshot: _control_pb2.CreateSnapshotRequest
    change_medium: _control_pb2.ChangeMediumRequest
    create_overlay: _control_pb2.Overlay
    def __init__(self, open: _Optional[_Union[OpenNodeRequest, _Mapping]] = ..., close: _Optional[_Union[CloseNodeRequest, _Mapping]] = ..., insert_overlay: _Optional[_Union[InsertOverlayRequest, _Mapping]] = ..., insert_filter: _Optional[_Union[InsertFilterRequest, _Mapping]] = ..., replace: _Optional[_Union[ReplaceNodeRequest, _Mapping]] = ..., remove_filter: _Optional[_Union[RemoveFilterRequest, _Mapping]] = ..., reopen: _Optional[_Union[ReopenNodesRequest, _Mapping]] = ..., add_child: _Optional[_Union[AddChildRequest, _Mapping]] = ..., remove_child: _Optional[_Union[RemoveChildRequest, _Mapping]] = ..., create_bitmap: _Optional[_Union[_bitmap_pb2.CreateBitmapRequest, _Mapping]] = ..., delete_bitmap: _Optional[_Union[_bitmap_pb2.DeleteBitmapRequest, _Mapping]] = ..., clear_bitmap: _Optional[_Union[_bitmap_pb2.ClearBitmapRequest, _Mapping]] = ..., set_bitmap_recording: _Optional[_Union[_bitmap_pb2.SetBitmapRecordingRequest, _Mapping]] = ..., merge_bitmaps: _Optional[_Union[_bitmap_pb2.MergeBitmapsRequest, _Mapping]] = ..., create_export: _Optional[_Union[_export_pb2.CreateExportRequest, _Mapping]] = ..., delete_export: _Optional[_Union[_export_pb2.DeleteExportRequest, _Mapping]] = ..., create_copy_session: _Optional[_Union[_copy_pb2.CreateCopySessionRequest, _Mapping]] = ..., create_snapshot: _Optional[_Union[_control_pb2.CreateSnapshotRequest, _Mapping]] = ..., change_medium: _Optional[_Union[_control_pb2.ChangeMediumRequest, _Mapping]] = ..., create_overlay: _Optional[_Union[_control_pb2.Overlay, _Mapping]] = ...) -> None: ...

class ActionFailure(_message.Message):
    __slots__ = ("index", "code", "reason", "error_message")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    code: int
    reason: str
    error_message: str
    def __init__(self, index: _Optional[int] = ..., code: _Optional[int] = ..., reason: _Optional[str] = ..., error_message: _Optional[str] = ...) -> None: ...

class GraphDifference(_message.Message):
    __slots__ = ("added_nodes", "removed_nodes", "changed_nodes", "added_edges", "removed_edges")
    ADDED_NODES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_NODES_FIELD_NUMBER: _ClassVar[int]
    CHANGED_NODES_FIELD_NUMBER: _ClassVar[int]
    ADDED_EDGES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_EDGES_FIELD_NUMBER: _ClassVar[int]
    added_nodes: _containers.RepeatedScalarFieldContainer[str]
    removed_nodes: _containers.RepeatedScalarFieldContainer[str]
    changed_nodes: _containers.RepeatedScalarFieldContainer[str]
    added_edges: _containers.RepeatedCompositeFieldContainer[GetGraphResponse.Edge]
    removed_edges: _containers.RepeatedCompositeFieldContainer[GetGraphResponse.Edge]
    def __init__(self, added_nodes: _Optional[_Iterable[str]] = ..., removed_nodes: _Optional[_Iterable[str]] = ..., changed_nodes: _Optional[_Iterable[str]] = ..., added_edges: _Optional[_Iterable[_Union[GetGraphResponse.Edge, _Mapping]]] = ..., removed_edges: _Optional[_Iterable[_Union[GetGraphResponse.Edge, _Mapping]]] = ...) -> None: ...

class RunTransactionRequest(_message.Message):
    __slots__ = ("actions", "validate_only", "request_id")
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    actions: _containers.RepeatedCompositeFieldContainer[TransactionAction]
    validate_only: bool
    request_id: str
    def __init__(self, actions: _Optional[_Iterable[_Union[TransactionAction, _Mapping]]] = ..., validate_only: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class RunTransactionResponse(_message.Message):
    __slots__ = ("nodes", "closed", "difference", "failures", "pause", "skew")
    NODES_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    SKEW_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.BlockDriverState]
    closed: _containers.RepeatedScalarFieldContainer[str]
    difference: GraphDifference
    failures: _containers.RepeatedCompositeFieldContainer[ActionFailure]
    pause: _duration_pb2.Duration
    skew: _duration_pb2.Duration
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.BlockDriverState, _Mapping]]] = ..., closed: _Optional[_Iterable[str]] = ..., difference: _Optional[_Union[GraphDifference, _Mapping]] = ..., failures: _Optional[_Iterable[_Union[ActionFailure, _Mapping]]] = ..., pause: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., skew: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListDriversRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OptionInfo(_message.Message):
    __slots__ = ("name", "type", "default_value", "required", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    default_value: str
    required: bool
    description: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., default_value: _Optional[str] = ..., required: _Optional[bool] = ..., description: _Optional[str] = ...) -> None: ...

class DriverInfo(_message.Message):
    __slots__ = ("name", "kind", "description", "options", "create_options", "children", "supports_backing", "abilities", "disabled_reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CREATE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_BACKING_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    DISABLED_REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    description: str
    options: _containers.RepeatedCompositeFieldContainer[OptionInfo]
    create_options: _containers.RepeatedCompositeFieldContainer[OptionInfo]
    children: _containers.RepeatedScalarFieldContainer[str]
    supports_backing: bool
    abilities: _containers.RepeatedScalarFieldContainer[str]
    disabled_reason: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., description: _Optional[str] = ..., options: _Optional[_Iterable[_Union[OptionInfo, _Mapping]]] = ..., create_options: _Optional[_Iterable[_Union[OptionInfo, _Mapping]]] = ..., children: _Optional[_Iterable[str]] = ..., supports_backing: _Optional[bool] = ..., abilities: _Optional[_Iterable[str]] = ..., disabled_reason: _Optional[str] = ...) -> None: ...

class ListDriversResponse(_message.Message):
    __slots__ = ("drivers",)
    DRIVERS_FIELD_NUMBER: _ClassVar[int]
    drivers: _containers.RepeatedCompositeFieldContainer[DriverInfo]
    def __init__(self, drivers: _Optional[_Iterable[_Union[DriverInfo, _Mapping]]] = ...) -> None: ...

class ParseFilenameRequest(_message.Message):
    __slots__ = ("filename",)
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    filename: str
    def __init__(self, filename: _Optional[str] = ...) -> None: ...

class ParseFilenameResponse(_message.Message):
    __slots__ = ("definition",)
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    definition: _drivers_pb2.NodeDefinition
    def __init__(self, definition: _Optional[_Union[_drivers_pb2.NodeDefinition, _Mapping]] = ...) -> None: ...

class WatchAccountingRequest(_message.Message):
    __slots__ = ("interval",)
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    interval: _duration_pb2.Duration
    def __init__(self, interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchAccountingResponse(_message.Message):
    __slots__ = ("stats", "instance_id", "sample_time")
    STATS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    stats: _containers.RepeatedCompositeFieldContainer[_types_pb2.BlockAcctStats]
    instance_id: str
    sample_time: _timestamp_pb2.Timestamp
    def __init__(self, stats: _Optional[_Iterable[_Union[_types_pb2.BlockAcctStats, _Mapping]]] = ..., instance_id: _Optional[str] = ..., sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "instance_id", "drivers", "limits")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    DRIVERS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    instance_id: str
    drivers: _containers.RepeatedScalarFieldContainer[str]
    limits: _containers.ScalarMap[str, int]
    def __init__(self, version: _Optional[str] = ..., instance_id: _Optional[str] = ..., drivers: _Optional[_Iterable[str]] = ..., limits: _Optional[_Mapping[str, int]] = ...) -> None: ...
