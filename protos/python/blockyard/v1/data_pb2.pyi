from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FlushLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FLUSH_LEVEL_UNSPECIFIED: _ClassVar[FlushLevel]
    FLUSH_LEVEL_OS: _ClassVar[FlushLevel]
    FLUSH_LEVEL_DISK: _ClassVar[FlushLevel]
FLUSH_LEVEL_UNSPECIFIED: FlushLevel
FLUSH_LEVEL_OS: FlushLevel
FLUSH_LEVEL_DISK: FlushLevel

class ReadRequest(_message.Message):
    __slots__ = ("node_name", "offset_bytes", "length_bytes", "chunk_bytes", "sparse", "copy_on_read", "prefetch", "attachment")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    COPY_ON_READ_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    offset_bytes: int
    length_bytes: int
    chunk_bytes: int
    sparse: bool
    copy_on_read: bool
    prefetch: bool
    attachment: str
    def __init__(self, node_name: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., sparse: _Optional[bool] = ..., copy_on_read: _Optional[bool] = ..., prefetch: _Optional[bool] = ..., attachment: _Optional[str] = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("offset_bytes", "data", "zero_length_bytes")
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ZERO_LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    offset_bytes: int
    data: bytes
    zero_length_bytes: int
    def __init__(self, offset_bytes: _Optional[int] = ..., data: _Optional[bytes] = ..., zero_length_bytes: _Optional[int] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("node_name", "offset_bytes", "data", "zero_length_bytes", "fua", "compressed", "attachment")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ZERO_LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    FUA_FIELD_NUMBER: _ClassVar[int]
    COMPRESSED_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    offset_bytes: int
    data: bytes
    zero_length_bytes: int
    fua: bool
    compressed: bool
    attachment: str
    def __init__(self, node_name: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., data: _Optional[bytes] = ..., zero_length_bytes: _Optional[int] = ..., fua: _Optional[bool] = ..., compressed: _Optional[bool] = ..., attachment: _Optional[str] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("written_bytes",)
    WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    written_bytes: int
    def __init__(self, written_bytes: _Optional[int] = ...) -> None: ...

class WriteZeroesRequest(_message.Message):
    __slots__ = ("node_name", "offset_bytes", "length_bytes", "may_unmap", "no_fallback", "fua", "attachment")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAY_UNMAP_FIELD_NUMBER: _ClassVar[int]
    NO_FALLBACK_FIELD_NUMBER: _ClassVar[int]
    FUA_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    offset_bytes: int
    length_bytes: int
    may_unmap: bool
    no_fallback: bool
    fua: bool
    attachment: str
    def __init__(self, node_name: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., may_unmap: _Optional[bool] = ..., no_fallback: _Optional[bool] = ..., fua: _Optional[bool] = ..., attachment: _Optional[str] = ...) -> None: ...

class WriteZeroesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DiscardRequest(_message.Message):
    __slots__ = ("node_name", "offset_bytes", "length_bytes", "attachment")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    offset_bytes: int
    length_bytes: int
    attachment: str
    def __init__(self, node_name: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., attachment: _Optional[str] = ...) -> None: ...

class DiscardResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FlushRequest(_message.Message):
    __slots__ = ("node_name", "level", "attachment")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    level: FlushLevel
    attachment: str
    def __init__(self, node_name: _Optional[str] = ..., level: _Optional[_Union[FlushLevel, str]] = ..., attachment: _Optional[str] = ...) -> None: ...

class FlushResponse(_message.Message):
    __slots__ = ("skipped",)
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    skipped: bool
    def __init__(self, skipped: _Optional[bool] = ...) -> None: ...

class BlockStatusRequest(_message.Message):
    __slots__ = ("node_name", "offset_bytes", "length_bytes", "base_node_name", "max_results", "allocation_only")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    BASE_NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    ALLOCATION_ONLY_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    offset_bytes: int
    length_bytes: int
    base_node_name: str
    max_results: int
    allocation_only: bool
    def __init__(self, node_name: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., base_node_name: _Optional[str] = ..., max_results: _Optional[int] = ..., allocation_only: _Optional[bool] = ...) -> None: ...

class BlockExtent(_message.Message):
    __slots__ = ("offset_bytes", "length_bytes", "allocated", "zero", "data", "compressed", "depth", "node_name", "host_offset_bytes")
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_FIELD_NUMBER: _ClassVar[int]
    ZERO_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    COMPRESSED_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    offset_bytes: int
    length_bytes: int
    allocated: bool
    zero: bool
    data: bool
    compressed: bool
    depth: int
    node_name: str
    host_offset_bytes: int
    def __init__(self, offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., allocated: _Optional[bool] = ..., zero: _Optional[bool] = ..., data: _Optional[bool] = ..., compressed: _Optional[bool] = ..., depth: _Optional[int] = ..., node_name: _Optional[str] = ..., host_offset_bytes: _Optional[int] = ...) -> None: ...

class BlockStatusResponse(_message.Message):
    __slots__ = ("extents", "size_bytes")
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    extents: _containers.RepeatedCompositeFieldContainer[BlockExtent]
    size_bytes: int
    def __init__(self, extents: _Optional[_Iterable[_Union[BlockExtent, _Mapping]]] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class IoSessionRequest(_message.Message):
    __slots__ = ("open", "batch")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    open: IoSessionOpen
    batch: IoBatch
    def __init__(self, open: _Optional[_Union[IoSessionOpen, _Mapping]] = ..., batch: _Optional[_Union[IoBatch, _Mapping]] = ...) -> None: ...

class IoSessionOpen(_message.Message):
    __slots__ = ("node_name", "client_name", "max_in_flight", "attachment")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    client_name: str
    max_in_flight: int
    attachment: str
    def __init__(self, node_name: _Optional[str] = ..., client_name: _Optional[str] = ..., max_in_flight: _Optional[int] = ..., attachment: _Optional[str] = ...) -> None: ...

class IoBatch(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[IoRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[IoRequest, _Mapping]]] = ...) -> None: ...

class IoRequest(_message.Message):
    __slots__ = ("id", "operation", "offset_bytes", "length_bytes", "data", "fua", "may_unmap", "copy_on_read", "compressed", "no_fallback")
    class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OPERATION_UNSPECIFIED: _ClassVar[IoRequest.Operation]
        OPERATION_READ: _ClassVar[IoRequest.Operation]
        OPERATION_WRITE: _ClassVar[IoRequest.Operation]
        OPERATION_WRITE_ZEROES: _ClassVar[IoRequest.Operation]
        OPERATION_DISCARD: _ClassVar[IoRequest.Operation]
        OPERATION_FLUSH: _ClassVar[IoRequest.Operation]
        OPERATION_PREFETCH: _ClassVar[IoRequest.Operation]
    OPERATION_UNSPECIFIED: IoRequest.Operation
    OPERATION_READ: IoRequest.Operation
    OPERATION_WRITE: IoRequest.Operation
    OPERATION_WRITE_ZEROES: IoRequest.Operation
    OPERATION_DISCARD: IoRequest.Operation
    OPERATION_FLUSH: IoRequest.Operation
    OPERATION_PREFETCH: IoRequest.Operation
    ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FUA_FIELD_NUMBER: _ClassVar[int]
    MAY_UNMAP_FIELD_NUMBER: _ClassVar[int]
    COPY_ON_READ_FIELD_NUMBER: _ClassVar[int]
    COMPRESSED_FIELD_NUMBER: _ClassVar[int]
    NO_FALLBACK_FIELD_NUMBER: _ClassVar[int]
    id: int
    operation: IoRequest.Operation
    offset_bytes: int
    length_bytes: int
    data: bytes
    fua: bool
    may_unmap: bool
    copy_on_read: bool
    compressed: bool
    no_fallback: bool
    def __init__(self, id: _Optional[int] = ..., operation: _Optional[_Union[IoRequest.Operation, str]] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., data: _Optional[bytes] = ..., fua: _Optional[bool] = ..., may_unmap: _Optional[bool] = ..., copy_on_read: _Optional[bool] = ..., compressed: _Optional[bool] = ..., no_fallback: _Optional[bool] = ...) -> None: ...

class IoSessionResponse(_message.Message):
    __slots__ = ("opened", "results")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    opened: IoSessionOpened
    results: _containers.RepeatedCompositeFieldContainer[IoResult]
    def __init__(self, opened: _Optional[_Union[IoSessionOpened, _Mapping]] = ..., results: _Optional[_Iterable[_Union[IoResult, _Mapping]]] = ...) -> None: ...

class IoSessionOpened(_message.Message):
    __slots__ = ("max_in_flight", "max_bytes_in_flight", "size_bytes")
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_in_flight: int
    max_bytes_in_flight: int
    size_bytes: int
    def __init__(self, max_in_flight: _Optional[int] = ..., max_bytes_in_flight: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class IoResult(_message.Message):
    __slots__ = ("id", "data", "code", "reason", "error_message")
    ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: int
    data: bytes
    code: int
    reason: str
    error_message: str
    def __init__(self, id: _Optional[int] = ..., data: _Optional[bytes] = ..., code: _Optional[int] = ..., reason: _Optional[str] = ..., error_message: _Optional[str] = ...) -> None: ...
