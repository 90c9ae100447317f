import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Breakpoint(_message.Message):
    __slots__ = ("tag", "node_name", "event", "suspended")
    TAG_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    tag: str
    node_name: str
    event: str
    suspended: int
    def __init__(self, tag: _Optional[str] = ..., node_name: _Optional[str] = ..., event: _Optional[str] = ..., suspended: _Optional[int] = ...) -> None: ...

class SetBreakpointRequest(_message.Message):
    __slots__ = ("breakpoint",)
    BREAKPOINT_FIELD_NUMBER: _ClassVar[int]
    breakpoint: Breakpoint
    def __init__(self, breakpoint: _Optional[_Union[Breakpoint, _Mapping]] = ...) -> None: ...

class RemoveBreakpointRequest(_message.Message):
    __slots__ = ("tag",)
    TAG_FIELD_NUMBER: _ClassVar[int]
    tag: str
    def __init__(self, tag: _Optional[str] = ...) -> None: ...

class RemoveBreakpointResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeBreakpointRequest(_message.Message):
    __slots__ = ("tag",)
    TAG_FIELD_NUMBER: _ClassVar[int]
    tag: str
    def __init__(self, tag: _Optional[str] = ...) -> None: ...

class ListBreakpointsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBreakpointsResponse(_message.Message):
    __slots__ = ("breakpoints",)
    BREAKPOINTS_FIELD_NUMBER: _ClassVar[int]
    breakpoints: _containers.RepeatedCompositeFieldContainer[Breakpoint]
    def __init__(self, breakpoints: _Optional[_Iterable[_Union[Breakpoint, _Mapping]]] = ...) -> None: ...

class WatchBreakpointsRequest(_message.Message):
    __slots__ = ("tag",)
    TAG_FIELD_NUMBER: _ClassVar[int]
    tag: str
    def __init__(self, tag: _Optional[str] = ...) -> None: ...

class WatchBreakpointsResponse(_message.Message):
    __slots__ = ("breakpoint", "removed")
    BREAKPOINT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    breakpoint: Breakpoint
    removed: bool
    def __init__(self, breakpoint: _Optional[_Union[Breakpoint, _Mapping]] = ..., removed: _Optional[bool] = ...) -> None: ...

class ListFaultsRequest(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...

class ListFaultsResponse(_message.Message):
    __slots__ = ("faults",)
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    faults: _containers.RepeatedCompositeFieldContainer[Fault]
    def __init__(self, faults: _Optional[_Iterable[_Union[Fault, _Mapping]]] = ...) -> None: ...

class ListDebugEventsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDebugEventsResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, events: _Optional[_Iterable[str]] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("fault_id", "node_name", "event", "errno", "delay", "corrupt", "rate", "times", "offset_bytes", "struck")
    FAULT_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    STRUCK_FIELD_NUMBER: _ClassVar[int]
    fault_id: str
    node_name: str
    event: str
    errno: int
    delay: _duration_pb2.Duration
    corrupt: bool
    rate: float
    times: int
    offset_bytes: int
    struck: int
    def __init__(self, fault_id: _Optional[str] = ..., node_name: _Optional[str] = ..., event: _Optional[str] = ..., errno: _Optional[int] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., corrupt: _Optional[bool] = ..., rate: _Optional[float] = ..., times: _Optional[int] = ..., offset_bytes: _Optional[int] = ..., struck: _Optional[int] = ...) -> None: ...

class InjectFaultRequest(_message.Message):
    __slots__ = ("fault",)
    FAULT_FIELD_NUMBER: _ClassVar[int]
    fault: Fault
    def __init__(self, fault: _Optional[_Union[Fault, _Mapping]] = ...) -> None: ...

class RemoveFaultRequest(_message.Message):
    __slots__ = ("fault_id",)
    FAULT_ID_FIELD_NUMBER: _ClassVar[int]
    fault_id: str
    def __init__(self, fault_id: _Optional[str] = ...) -> None: ...

class RemoveFaultResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
