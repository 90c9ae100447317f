import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NbdExport(_message.Message):
    __slots__ = ("name", "description", "bitmaps", "allocation_depth", "addresses", "max_connections")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    BITMAPS_FIELD_NUMBER: _ClassVar[int]
    ALLOCATION_DEPTH_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    bitmaps: _containers.RepeatedScalarFieldContainer[str]
    allocation_depth: bool
    addresses: _containers.RepeatedScalarFieldContainer[str]
    max_connections: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., bitmaps: _Optional[_Iterable[str]] = ..., allocation_depth: _Optional[bool] = ..., addresses: _Optional[_Iterable[str]] = ..., max_connections: _Optional[int] = ...) -> None: ...

class Export(_message.Message):
    __slots__ = ("export_id", "node_name", "writable", "writethrough", "nbd", "uris", "clients", "create_time", "attachment")
    EXPORT_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    WRITETHROUGH_FIELD_NUMBER: _ClassVar[int]
    NBD_FIELD_NUMBER: _ClassVar[int]
    URIS_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    export_id: str
    node_name: str
    writable: bool
    writethrough: bool
    nbd: NbdExport
    uris: _containers.RepeatedScalarFieldContainer[str]
    clients: _containers.RepeatedCompositeFieldContainer[ExportClient]
    create_time: _timestamp_pb2.Timestamp
    attachment: str
    def __init__(self, export_id: _Optional[str] = ..., node_name: _Optional[str] = ..., writable: _Optional[bool] = ..., writethrough: _Optional[bool] = ..., nbd: _Optional[_Union[NbdExport, _Mapping]] = ..., uris: _Optional[_Iterable[str]] = ..., clients: _Optional[_Iterable[_Union[ExportClient, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attachment: _Optional[str] = ...) -> None: ...

class ExportClient(_message.Message):
    __slots__ = ("address", "connect_time", "requests", "in_flight")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CONNECT_TIME_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    address: str
    connect_time: _timestamp_pb2.Timestamp
    requests: int
    in_flight: int
    def __init__(self, address: _Optional[str] = ..., connect_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., requests: _Optional[int] = ..., in_flight: _Optional[int] = ...) -> None: ...

class CreateExportRequest(_message.Message):
    __slots__ = ("export", "request_id", "validate_only")
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    export: Export
    request_id: str
    validate_only: bool
    def __init__(self, export: _Optional[_Union[Export, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class GetExportRequest(_message.Message):
    __slots__ = ("export_id",)
    EXPORT_ID_FIELD_NUMBER: _ClassVar[int]
    export_id: str
    def __init__(self, export_id: _Optional[str] = ...) -> None: ...

class ListExportsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListExportsResponse(_message.Message):
    __slots__ = ("exports",)
    EXPORTS_FIELD_NUMBER: _ClassVar[int]
    exports: _containers.RepeatedCompositeFieldContainer[Export]
    def __init__(self, exports: _Optional[_Iterable[_Union[Export, _Mapping]]] = ...) -> None: ...

class DeleteExportRequest(_message.Message):
    __slots__ = ("export_id", "force", "allow_missing")
    EXPORT_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    export_id: str
    force: bool
    allow_missing: bool
    def __init__(self, export_id: _Optional[str] = ..., force: _Optional[bool] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DeleteExportResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
