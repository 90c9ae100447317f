"""The error catalogue: everything the world can do to us, as classes with typed fields.

What lives here: one class per stable `reason`, its canonical code, its message and its advice. A raise
site passes data, never sentences. What must not: grpc (see `blockyard.rpc.status`, the only map to the
wire), policy, and errors for our own bugs (those are assertions).

    BlockError
    ├── RequestError        the caller asked for something that cannot be
    ├── StateError          it could be, but not in the present state; says who or what stands in the way
    ├── ImageError          the bytes of an image are not what they must be
    ├── StorageError        the world below (files, disks, networks) refused
    └── JobError            a job's verb, options or life

A class is part of the API: `(reason, domain)` never changes meaning and a field never disappears
(AIP-193). `docs/errors.md` is printed from here.
"""

import dataclasses
import errno as errno_module
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import ClassVar, Final, Self

DOMAIN: Final = "blockyard"


class Code(StrEnum):
    """The canonical codes of google.rpc.Code that we use."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    CANCELLED = "CANCELLED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAUTHENTICATED = "UNAUTHENTICATED"


CATALOGUE: Final[dict[str, type["BlockError"]]] = {}
"""Every concrete error by its reason, in order of definition."""


@dataclass(eq=False)
class BlockError(Exception):
    """Base of all. Concrete classes set `reason`, `code`, `template` and `advice`.

    `template` and `advice` are formatted with the fields of the instance.
    """

    reason: ClassVar[str] = ""
    code: ClassVar[Code] = Code.INTERNAL
    template: ClassVar[str] = ""
    advice: ClassVar[str] = ""
    retryable: ClassVar[bool] = False
    field: ClassVar[str] = ""
    """Name of the request field at fault, for google.rpc.BadRequest; may be formatted with the fields."""

    trace_id: str = dataclasses.field(default="", init=False, repr=False)
    """The trace to look for in the logs, if the error came over the wire with one. No part of the catalogue."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "reason" in cls.__dict__:
            assert cls.reason not in CATALOGUE, cls.reason
            CATALOGUE[cls.reason] = cls

    def __str__(self) -> str:
        return self.template.format(**self.values())

    @property
    def hint(self) -> str:
        """What to do about it, in one sentence."""
        return self.advice.format(**self.values())

    @property
    def bad_field(self) -> str:
        return self.field.format(**self.values())

    def values(self) -> dict[str, object]:
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}

    def canonical(self) -> Code:
        """The code on the wire: the class's own, but for an error that only stands for a foreign one."""
        return self.code

    def metadata(self) -> dict[str, str]:
        """The fields as ErrorInfo carries them."""
        return {name: str(value) for name, value in self.values().items()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Self:
        """The same error on the other side of the wire. Unknown keys are dropped, missing ones are empty."""
        known = [item for item in fields(cls) if item.init]
        return cls(**{item.name: _parse(item.type, metadata.get(item.name, "")) for item in known})


def _parse(annotation: object, text: str) -> object:
    if annotation in (int, "int"):
        return int(text) if text.lstrip("-").isdigit() else 0
    return text


class RequestError(BlockError):
    """The caller asked for something that cannot be."""


class StateError(BlockError):
    """It could be, but not in the present state."""


class ImageError(BlockError):
    """The bytes of an image are not what they must be."""


class StorageError(BlockError):
    """The world below refused."""


class JobError(BlockError):
    """A job's verb, options or life."""


# --- requests -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class InvalidArgument(RequestError):
    """A field has a value that it may never have."""

    name: str
    expected: str
    found: str
    reason = "INVALID_ARGUMENT"
    code = Code.INVALID_ARGUMENT
    field = "{name}"
    template = "{name}: expected {expected}, found {found}"
    advice = "Correct the field and call again."


@dataclass(eq=False)
class UnknownOption(RequestError):
    """A driver or job was given an option it does not have."""

    owner: str
    option: str
    known: str
    reason = "UNKNOWN_OPTION"
    code = Code.INVALID_ARGUMENT
    field = "{option}"
    template = "{owner} has no option {option!r}; it has: {known}"
    advice = "Remove or correct the option; `blockyard driver list` prints every option with its meaning."


@dataclass(eq=False)
class MissingOption(RequestError):
    """A driver or job lacks an option it cannot do without."""

    owner: str
    option: str
    reason = "MISSING_OPTION"
    code = Code.INVALID_ARGUMENT
    field = "{option}"
    template = "{owner} needs the option {option!r}"
    advice = "Give the option and call again."


@dataclass(eq=False)
class RangeOutside(RequestError):
    """A request reaches outside the node (negative, wrapped, or past its end)."""

    node_name: str
    offset: int
    length: int
    size_bytes: int
    reason = "RANGE_OUTSIDE"
    code = Code.OUT_OF_RANGE
    field = "offset"
    template = "range [{offset}, +{length}) lies outside node {node_name!r} of {size_bytes} bytes"
    advice = "Keep offset >= 0 and offset + length <= size_bytes of the node."


@dataclass(eq=False)
class SizeTooLarge(RequestError):
    """A size past what the format or the 63-bit offset space can hold."""

    name: str
    found: int
    limit: int
    reason = "SIZE_TOO_LARGE"
    code = Code.OUT_OF_RANGE
    field = "{name}"
    template = "{name} is {found}, the largest possible is {limit}"
    advice = "Choose a smaller size, or a format or cluster size that can hold it."


@dataclass(eq=False)
class NotImplementedYet(RequestError):
    """An RPC whose shape is fixed but whose work comes with a later version."""

    operation: str
    why: str
    reason = "NOT_IMPLEMENTED"
    code = Code.UNIMPLEMENTED
    template = "{operation} is not implemented: {why}"
    advice = "Use a version that has it; the message shapes will not change."


@dataclass(eq=False)
class OperationUnsupported(RequestError):
    """The driver of this node cannot do that."""

    node_name: str
    driver: str
    operation: str
    reason = "OPERATION_UNSUPPORTED"
    code = Code.UNIMPLEMENTED
    template = "driver {driver!r} of node {node_name!r} cannot {operation}"
    advice = "Choose a node whose driver lists the ability (ListDrivers)."


@dataclass(eq=False)
class DriverUnknown(RequestError):
    """No driver of that name."""

    driver: str
    known: str
    reason = "DRIVER_UNKNOWN"
    code = Code.INVALID_ARGUMENT
    field = "driver"
    template = "no driver named {driver!r}; there are: {known}"
    advice = "Name one of the listed drivers."


@dataclass(eq=False)
class DriverUnavailable(RequestError):
    """The driver exists, but a library it needs is not installed."""

    driver: str
    why: str
    reason = "DRIVER_UNAVAILABLE"
    code = Code.UNIMPLEMENTED
    field = "driver"
    template = "driver {driver!r} is disabled here: {why}"
    advice = "Install what it needs and restart the node service."


@dataclass(eq=False)
class Unauthenticated(RequestError):
    """The caller did not say who it is, or could not prove it."""

    method: str
    why: str
    reason = "UNAUTHENTICATED"
    code = Code.UNAUTHENTICATED
    template = "{method}: who calls? {why}"
    advice = "Send the credentials that the service is configured to accept."


@dataclass(eq=False)
class CallerDenied(RequestError):
    """The caller is known and may not do this."""

    method: str
    caller: str
    reason = "CALLER_DENIED"
    code = Code.PERMISSION_DENIED
    template = "{caller} may not call {method}"
    advice = "Ask the operator for the right, or call as someone who has it."


@dataclass(eq=False)
class CallCancelled(RequestError):
    """A call ended before its work did: the client, or the work itself, gave it up."""

    method: str
    why: str
    reason = "CALL_CANCELLED"
    code = Code.CANCELLED
    template = "{method} was cancelled: {why}"
    advice = "Call again if the result is still wanted; a mutation with the same request_id is harmless."


@dataclass(eq=False)
class DeadlinePassed(RequestError):
    """No answer came within the time that the caller gave."""

    method: str
    detail: str
    reason = "DEADLINE_PASSED"
    code = Code.DEADLINE_EXCEEDED
    retryable = True
    template = "{method} was not answered in time: {detail}"
    advice = "Give it more time; a mutation may have happened, so repeat it with the same request_id."


@dataclass(eq=False)
class RemoteError(BlockError):
    """An error that is not of this catalogue came back from a peer: another version, a proxy, or gRPC itself."""

    method: str
    status: str
    remote_reason: str
    detail: str
    reason = "REMOTE_ERROR"
    code = Code.INTERNAL
    template = "{method} failed with {status} {remote_reason}: {detail}"
    advice = "Compare the versions of client and service (`blockyard version`), then look at the service's log."

    def canonical(self) -> Code:
        return Code(self.status) if self.status in Code.__members__ else self.code


# --- state --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class NodeNotFound(StateError):
    """A node name that the graph does not have."""

    node_name: str
    reason = "NODE_NOT_FOUND"
    code = Code.NOT_FOUND
    field = "node_name"
    template = "no node named {node_name!r}"
    advice = "`blockyard node list` prints the nodes that are open."


@dataclass(eq=False)
class NodeExists(StateError):
    """A node name is taken."""

    node_name: str
    reason = "NODE_EXISTS"
    code = Code.ALREADY_EXISTS
    field = "node_name"
    template = "a node named {node_name!r} is open already"
    advice = "Choose another name, or close the node first."


@dataclass(eq=False)
class NodeInUse(StateError):
    """A node cannot be closed, changed or written while someone holds it."""

    node_name: str
    operation: str
    owners: str
    reason = "NODE_IN_USE"
    code = Code.FAILED_PRECONDITION
    template = "cannot {operation} node {node_name!r}: in use by {owners}"
    advice = "Release or end what holds it, then call again."


@dataclass(eq=False)
class NodeReadOnly(StateError):
    """A write to a node that was opened read-only."""

    node_name: str
    reason = "NODE_READ_ONLY"
    code = Code.FAILED_PRECONDITION
    template = "node {node_name!r} is read-only"
    advice = "Open it with read_only = false."


@dataclass(eq=False)
class GraphCycle(StateError):
    """A change would make a node its own descendant."""

    node_name: str
    through: str
    reason = "GRAPH_CYCLE"
    code = Code.FAILED_PRECONDITION
    template = "node {node_name!r} would become its own descendant through {through!r}"
    advice = "Choose a child that does not depend on the node."


@dataclass(eq=False)
class ResourceExists(StateError):
    """A name of a bitmap, export, session or job is taken."""

    kind: str
    name: str
    reason = "RESOURCE_EXISTS"
    code = Code.ALREADY_EXISTS
    template = "{kind} {name!r} exists already"
    advice = "Choose another name, or delete the old one first."


@dataclass(eq=False)
class ResourceNotFound(StateError):
    """No bitmap, export, session or job of that name."""

    kind: str
    name: str
    reason = "RESOURCE_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "no {kind} named {name!r}"
    advice = "List the collection to see the names."


@dataclass(eq=False)
class ResourceBusy(StateError):
    """A bitmap or session is frozen by an owner."""

    kind: str
    name: str
    owner: str
    reason = "RESOURCE_BUSY"
    code = Code.FAILED_PRECONDITION
    template = "{kind} {name!r} is busy: {owner} uses it"
    advice = "Wait for the owner to end, or end it."


@dataclass(eq=False)
class OwnerMismatch(StateError):
    """A fenced resource was touched by someone who does not own it (any more)."""

    kind: str
    name: str
    owner: str
    caller: str
    reason = "OWNER_MISMATCH"
    code = Code.ABORTED
    template = "{kind} {name!r} belongs to {owner}, not to {caller}"
    advice = "Another incarnation took over; stop acting on this resource."


@dataclass(eq=False)
class EtagMismatch(StateError):
    """The resource changed since the caller read it."""

    kind: str
    name: str
    expected: str
    found: str
    reason = "ETAG_MISMATCH"
    code = Code.ABORTED
    template = "{kind} {name!r} has etag {found}, the call expected {expected}"
    advice = "Read the resource again and repeat the change on what you see."


@dataclass(eq=False)
class RequestIdReused(StateError):
    """One request_id, two different requests."""

    request_id: str
    reason = "REQUEST_ID_REUSED"
    code = Code.INVALID_ARGUMENT
    field = "request_id"
    template = "request_id {request_id!r} was used for a different request"
    advice = "Use a new UUID for a new request."


@dataclass(eq=False)
class RevisionTooOld(StateError):
    """A watch cannot resume: the revisions it missed are forgotten."""

    asked: int
    oldest: int
    reason = "REVISION_TOO_OLD"
    code = Code.OUT_OF_RANGE
    template = "revision {asked} is forgotten; the oldest kept is {oldest}"
    advice = "Watch again without start_revision: the stream then begins with the present state."


@dataclass(eq=False)
class LimitReached(StateError):
    """A configured bound was hit. The bounds stand in docs/limits.md."""

    what: str
    limit: int
    reason = "LIMIT_REACHED"
    code = Code.RESOURCE_EXHAUSTED
    retryable = True
    template = "the limit of {limit} {what} is reached"
    advice = "Wait for others to end, or raise the limit in the configuration."


@dataclass(eq=False)
class ShuttingDown(StateError):
    """The service is stopping."""

    service: str
    reason = "SHUTTING_DOWN"
    code = Code.UNAVAILABLE
    retryable = True
    template = "the {service} service is shutting down"
    advice = "Call again when it is back."


# --- images -------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ImageCorrupt(ImageError):
    """A field of an image has a value that cannot be."""

    image: str
    what: str
    expected: str
    found: str
    reason = "IMAGE_CORRUPT"
    code = Code.DATA_LOSS
    template = "{image}: {what}: expected {expected}, found {found}"
    advice = "Run `blockyard image check` on a copy; restore from a backup if it cannot be repaired."


@dataclass(eq=False)
class ImageMarkedCorrupt(ImageError):
    """The image's corrupt bit is set; it may not be written."""

    image: str
    reason = "IMAGE_MARKED_CORRUPT"
    code = Code.FAILED_PRECONDITION
    template = "{image} is marked corrupt and may not be opened for writing"
    advice = "Open it read-only to save the data, or repair it with `blockyard image check --repair all`."


@dataclass(eq=False)
class UnsupportedFeature(ImageError):
    """The image needs something this version does not know."""

    image: str
    features: str
    reason = "UNSUPPORTED_FEATURE"
    code = Code.FAILED_PRECONDITION
    template = "{image} uses features that are not supported: {features}"
    advice = "Convert the image without these features, or use a version that knows them."


@dataclass(eq=False)
class FormatMismatch(ImageError):
    """The image is not of the format that was named."""

    image: str
    driver: str
    found: str
    reason = "FORMAT_MISMATCH"
    code = Code.INVALID_ARGUMENT
    field = "driver"
    template = "{image} is not a {driver} image: {found}"
    advice = "Name the right format; `blockyard image info --probe` tells what it looks like."


@dataclass(eq=False)
class BackingMissing(ImageError):
    """The backing file named in an image's header cannot be opened."""

    image: str
    backing: str
    why: str
    reason = "BACKING_MISSING"
    code = Code.FAILED_PRECONDITION
    template = "{image}: its backing file {backing!r} cannot be opened: {why}"
    advice = "Put the file where the header says, give `backing` explicitly, or rebase the image."


@dataclass(eq=False)
class BackingDenied(ImageError):
    """The gate for backing files named in headers is closed."""

    image: str
    backing: str
    reason = "BACKING_DENIED"
    code = Code.PERMISSION_DENIED
    template = "{image} names the backing file {backing!r}, and opening backing files from headers is denied"
    advice = "Give `backing` explicitly in the definition, or allow it in the node's configuration."


@dataclass(eq=False)
class BackingFormatUnknown(ImageError):
    """A header names a backing file but not its format, and formats are not guessed."""

    image: str
    backing: str
    reason = "BACKING_FORMAT_UNKNOWN"
    code = Code.FAILED_PRECONDITION
    template = "{image} names the backing file {backing!r} without its format"
    advice = "Give `backing` explicitly with its driver, or write the format into the header (rebase)."


@dataclass(eq=False)
class BackingLoop(ImageError):
    """A backing chain that comes back to itself."""

    image: str
    backing: str
    reason = "BACKING_LOOP"
    code = Code.FAILED_PRECONDITION
    template = "{image}: its backing file {backing!r} is part of the same chain"
    advice = "Rebase the image onto the right backing file (`qemu-img rebase -u`)."


@dataclass(eq=False)
class ChainTooDeep(ImageError):
    """More backing files than the configured depth."""

    image: str
    limit: int
    reason = "CHAIN_TOO_DEEP"
    code = Code.RESOURCE_EXHAUSTED
    template = "{image}: the backing chain is deeper than {limit}"
    advice = "Shorten the chain with a commit or stream job, or raise max_chain_depth."


# --- storage ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class PathDenied(StorageError):
    """A path does not lie beneath a storage root."""

    path: str
    why: str
    reason = "PATH_DENIED"
    code = Code.PERMISSION_DENIED
    field = "filename"
    template = "path {path!r} is refused: {why}"
    advice = "Use a path beneath a storage root; `--storage-roots` names them."


@dataclass(eq=False)
class FileNotFound(StorageError):
    """No such file beneath the storage roots."""

    path: str
    reason = "FILE_NOT_FOUND"
    code = Code.NOT_FOUND
    field = "filename"
    template = "no file {path!r}"
    advice = "Check the name; relative names are looked up in the first storage root."


@dataclass(eq=False)
class FileExists(StorageError):
    """An image would overwrite a file."""

    path: str
    reason = "FILE_EXISTS"
    code = Code.ALREADY_EXISTS
    field = "filename"
    template = "{path!r} exists already"
    advice = "Choose another name, or ask to overwrite."


@dataclass(eq=False)
class FileBusy(StorageError):
    """Another process holds the image's lock."""

    path: str
    lock: str
    reason = "FILE_BUSY"
    code = Code.FAILED_PRECONDITION
    template = "{path!r} is locked by another process ({lock})"
    advice = "Close it there, or open it read-only with force_share if a torn view is acceptable."


@dataclass(eq=False)
class FileReadOnly(StorageError):
    """The file system or the file's mode forbids writing."""

    path: str
    reason = "FILE_READ_ONLY"
    code = Code.FAILED_PRECONDITION
    template = "{path!r} cannot be opened for writing"
    advice = "Open it with read_only = true, or change the file's permissions."


@dataclass(eq=False)
class NoSpace(StorageError):
    """The disk, quota or file size limit is reached. Nothing acknowledged was lost."""

    node_name: str
    operation: str
    reason = "NO_SPACE"
    code = Code.RESOURCE_EXHAUSTED
    retryable = True
    template = "no space left for {operation} on node {node_name!r}"
    advice = "Make room and try again; jobs with on_error = ENOSPC resume where they stopped."
    errno: ClassVar[int] = errno_module.ENOSPC


@dataclass(eq=False)
class IoError(StorageError):
    """A system call on a file failed."""

    node_name: str
    operation: str
    errno: int
    detail: str
    reason = "IO_ERROR"
    code = Code.INTERNAL
    template = "{operation} on node {node_name!r} failed: {detail} (errno {errno})"
    advice = "Look at the machine's logs for the device; the request had no effect that was acknowledged."


# --- jobs ---------------------------------------------------------------------------------------------


@dataclass(eq=False)
class JobVerbNotAllowed(JobError):
    """QEMU's verb table forbids this verb in this state."""

    job_id: str
    verb: str
    state: str
    allowed: str
    reason = "JOB_VERB_NOT_ALLOWED"
    code = Code.FAILED_PRECONDITION
    template = "job {job_id!r} in state {state} cannot accept {verb}"
    advice = "In this state it accepts: {allowed}."


@dataclass(eq=False)
class JobCancelled(JobError):
    """The job was cancelled by a verb."""

    job_id: str
    reason = "JOB_CANCELLED"
    code = Code.CANCELLED
    template = "job {job_id!r} was cancelled"
    advice = "Nothing to do; the source is untouched."


@dataclass(eq=False)
class ProtocolViolation(StorageError):
    """The other side of a connection sent bytes that its protocol forbids."""

    protocol: str
    what: str
    expected: str
    found: str
    reason = "PROTOCOL_VIOLATION"
    code = Code.DATA_LOSS
    template = "{protocol}: {what}: expected {expected}, found {found}"
    advice = "Nothing of that message was used; check that the other side speaks this protocol."


@dataclass(eq=False)
class AddressUnavailable(StorageError):
    """An address cannot be listened on."""

    address: str
    why: str
    reason = "ADDRESS_UNAVAILABLE"
    code = Code.FAILED_PRECONDITION
    field = "address"
    template = "cannot listen on {address}: {why}"
    advice = "Choose another address, or stop what uses this one."


@dataclass(eq=False)
class SnapshotBroken(JobError):
    """A backup's copy before a guest's write failed, and the guest went first."""

    job_id: str
    reason = "SNAPSHOT_BROKEN"
    code = Code.DATA_LOSS
    template = "job {job_id!r}: old data could not be copied before the guest overwrote it"
    advice = "Make room on the target and back up again; the source is untouched."


@dataclass(eq=False)
class PeerUnavailable(StorageError):
    """Another service of ours does not answer."""

    service: str
    address: str
    detail: str
    reason = "PEER_UNAVAILABLE"
    code = Code.UNAVAILABLE
    retryable = True
    template = "the {service} service at {address} does not answer: {detail}"
    advice = "Start it, or correct its address in the configuration."


@dataclass(eq=False)
class InternalError(BlockError):
    """A bug of ours. The text goes to the log; the client gets the trace id to find it."""

    detail: str
    reason = "INTERNAL"
    code = Code.INTERNAL
    template = "internal error: {detail}"
    advice = "Report it with the trace id and the service's log."
