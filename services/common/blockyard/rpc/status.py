"""The only map between the error catalogue and the wire, in both directions.

An error leaves as google.rpc.Status with exactly one ErrorInfo (AIP-193) and whatever else helps a program: the
field at fault, the owner in the way, the resource, when to try again. It comes back as the same class with the
same fields; what is not of this catalogue becomes RemoteError, or the class that its code stands for.

Everything fits into the metadata limit of a peer: gRPC refuses trailers above 8 KiB, and a binary trailer grows
by a third on the wire.
"""

from collections.abc import Callable
from typing import Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from blockyard.base.errors import (
    CATALOGUE,
    DOMAIN,
    BlockError,
    CallCancelled,
    Code,
    DeadlinePassed,
    NotImplementedYet,
    PeerUnavailable,
    RemoteError,
)

DETAILS_KEY: Final = "grpc-status-details-bin"
MAX_DETAILS: Final = 4096
"""Bytes of a Status. With base64 and the message beside it a trailer stays under 8 KiB."""
MAX_MESSAGE: Final = 512
"""Bytes of a message; it travels twice, once percent-encoded (up to three times as long)."""
MAX_VALUE: Final = 512
"""Characters of one metadata value, before it is tried shorter."""

RETRY_SECONDS: Final = {Code.UNAVAILABLE: 1.0, Code.RESOURCE_EXHAUSTED: 0.5}
"""When a retryable error is worth another try; one second for any other code."""

PRECONDITIONS: Final[dict[str, tuple[str, str, str]]] = {
    "NODE_IN_USE": ("IN_USE", "{node_name}", "{owners}"),
    "RESOURCE_BUSY": ("BUSY", "{name}", "{owner}"),
    "FILE_BUSY": ("LOCKED", "{path}", "{lock}"),
    "OWNER_MISMATCH": ("OWNED", "{name}", "{owner}"),
    "PERMISSION_CONFLICT": ("CONFLICT", "{node_name}", "{user} and {owner} exclude each other"),
    "DEPENDENCY_NOT_RESTORED": ("NOT_RESTORED", "{needs_name}", "{needs_kind} {needs_name}: {failure}"),
    "BITMAP_INCONSISTENT": ("INCONSISTENT", "{name}", "its bits were lost"),
    "NODE_INACTIVE": ("INACTIVE", "{node_name}", "handed over"),
    "NODE_READ_ONLY": ("READ_ONLY", "{node_name}", "opened read-only"),
    "JOB_VERB_NOT_ALLOWED": ("STATE", "{job_id}", "{state}"),
    "NO_MEDIUM": ("MEDIUM", "{attachment}", "no medium"),
    "ATTACHMENT_READ_ONLY": ("READ_ONLY", "{attachment}", "made read-only"),
    "TRAY_LOCKED": ("LOCKED", "{attachment}", "{owner}"),
    "MEDIUM_ACTION_NOT_ALLOWED": ("STATE", "{attachment}", "{state}"),
}
"""Reason -> type, subject and description of a PreconditionFailure; the description names who stands in the way."""

RESOURCES: Final[dict[str, tuple[str, str]]] = {
    "NODE_NOT_FOUND": ("node", "{node_name}"),
    "NODE_EXISTS": ("node", "{node_name}"),
    "NODE_IN_USE": ("node", "{node_name}"),
    "NODE_INACTIVE": ("node", "{node_name}"),
    "PERMISSION_CONFLICT": ("node", "{node_name}"),
    "RESOURCE_EXISTS": ("{kind}", "{name}"),
    "RESOURCE_NOT_FOUND": ("{kind}", "{name}"),
    "RESOURCE_BUSY": ("{kind}", "{name}"),
    "ENTRY_NOT_RESTORED": ("{kind}", "{name}"),
    "DEPENDENCY_NOT_RESTORED": ("{kind}", "{name}"),
    "BITMAP_INCONSISTENT": ("bitmap", "{name}"),
    "OWNER_MISMATCH": ("{kind}", "{name}"),
    "ETAG_MISMATCH": ("{kind}", "{name}"),
    "SECRET_UNREADABLE": ("secret", "{name}"),
    "FILE_NOT_FOUND": ("file", "{path}"),
    "FILE_EXISTS": ("file", "{path}"),
    "FILE_BUSY": ("file", "{path}"),
    "JOB_VERB_NOT_ALLOWED": ("job", "{job_id}"),
    "NO_MEDIUM": ("attachment", "{attachment}"),
    "ATTACHMENT_READ_ONLY": ("attachment", "{attachment}"),
    "TRAY_LOCKED": ("attachment", "{attachment}"),
    "MEDIUM_ACTION_NOT_ALLOWED": ("attachment", "{attachment}"),
}
"""Reason -> type and name of a ResourceInfo."""

_OWN_KEYS: Final = ("advice", "trace_id")
_SHORTER: Final = (MAX_VALUE, 128, 32)


def to_status(error: BlockError, trace_id: str = "") -> status_pb2.Status:
    """The error as it goes over the wire, never more than MAX_DETAILS bytes."""
    code = code_pb2.Code.Value(error.canonical())
    for limit in _SHORTER:
        status = status_pb2.Status(code=code, message=_shortened(str(error), MAX_MESSAGE))
        status.details.add().Pack(_error_info(error, trace_id, limit))
        for detail in _further_details(error, limit):
            status.details.add().Pack(detail)
            if status.ByteSize() > MAX_DETAILS:
                del status.details[-1]
        if status.ByteSize() <= MAX_DETAILS:
            return status
    del status.details[:]
    return status


def from_status(status: status_pb2.Status, method: str = "") -> BlockError:
    """The same error on this side, or RemoteError if it is not of our catalogue."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) and detail.Unpack(info):
            break
    fields = {key: value for key, value in info.metadata.items() if key not in _OWN_KEYS}
    if info.domain == DOMAIN and info.reason in CATALOGUE:
        error: BlockError = CATALOGUE[info.reason].from_metadata(fields)
    else:
        error = _plain(_code_name(status.code), status.message, method, info.reason)
    error.trace_id = info.metadata.get("trace_id", "")
    return error


def from_rpc_error(error: grpc.RpcError, method: str = "", address: str = "") -> BlockError:
    """What a failed call meant. `method` and `address` help to word an error that gRPC itself made."""
    for key, value in _trailers(error):
        if key == DETAILS_KEY:
            try:
                status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode())
            except DecodeError:
                break
            if status.code == _code_number(error):
                return from_status(status, method)
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: "")()
    return _plain(code.name if code else "UNKNOWN", details or "", method, "", address)


def _plain(code: str, detail: str, method: str, reason: str, address: str = "") -> BlockError:
    make = _BY_CODE.get(code) if not reason else None
    if make:
        return make(method, address, detail)
    return RemoteError(method, code, reason, detail)


_BY_CODE: Final[dict[str, Callable[[str, str, str], BlockError]]] = {
    "UNAVAILABLE": lambda method, address, detail: PeerUnavailable(service_of(method), address, detail),
    "DEADLINE_EXCEEDED": lambda method, address, detail: DeadlinePassed(method, detail),
    "CANCELLED": lambda method, address, detail: CallCancelled(method, detail),
    "UNIMPLEMENTED": lambda method, address, detail: NotImplementedYet(method, detail),
}


def service_of(method: str) -> str:
    """`blockyard.v1.NodeService` of `/blockyard.v1.NodeService/GetNode`."""
    return method.strip("/").partition("/")[0]


def _error_info(error: BlockError, trace_id: str, limit: int) -> error_details_pb2.ErrorInfo:
    metadata = {name: _shortened(value, limit) for name, value in error.metadata().items()}
    if advice := error.hint:
        metadata["advice"] = _shortened(advice, limit)
    if trace := trace_id or error.trace_id:
        metadata["trace_id"] = trace
    return error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)


def _further_details(error: BlockError, limit: int) -> list[Message]:
    values = {name: _shortened(str(value), limit) for name, value in error.values().items()}
    details: list[Message] = []
    if field := error.bad_field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_shortened(field, limit), description=_shortened(str(error), limit), reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.reason in PRECONDITIONS:
        kind, subject, description = (part.format(**values) for part in PRECONDITIONS[error.reason])
        blocker = error_details_pb2.PreconditionFailure.Violation(
            type=kind, subject=subject, description=description
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[blocker]))
    if error.reason in RESOURCES:
        kind, name = (part.format(**values) for part in RESOURCES[error.reason])
        owner = values.get("owners") or values.get("owner", "")
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, owner=owner))
    if error.retryable:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(RETRY_SECONDS.get(error.canonical(), 1.0) * 1e9))
        details.append(retry)
    return details


def _shortened(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8; what is cut off is marked."""
    # Names of files may hold bytes that are no UTF-8 (surrogate escapes); protobuf refuses those.
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "..."


def _trailers(error: grpc.RpcError) -> list[tuple[str, str | bytes]]:
    trailers = getattr(error, "trailing_metadata", lambda: None)()
    return [(key, value) for key, value in trailers or ()]


def _code_number(error: grpc.RpcError) -> int:
    code = getattr(error, "code", lambda: None)()
    return int(code.value[0]) if code else -1


def _code_name(number: int) -> str:
    return str(code_pb2.Code.Name(number)) if number in code_pb2.Code.values() else "UNKNOWN"
