"""The world below refused: files, disks, networks, strangers on the wire. See `blockyard.base.errors`."""

import errno as errno_module
from dataclasses import dataclass
from typing import ClassVar

from blockyard.base.errors.base import Code, StorageError


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
    """Another process, or another node, holds the image's lock."""

    path: str
    lock: str
    holder: str = "another process or node"
    """node/NAME if it is one of the same service that goes by the same path."""
    reason = "FILE_BUSY"
    code = Code.FAILED_PRECONDITION
    template = "{path!r} is locked by {holder} ({lock})"
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


@dataclass(eq=False)
class QuorumFailed(StorageError):
    """The copies of a quorum that could be read say too different things."""

    node_name: str
    offset: int
    length: int
    votes: int
    threshold: int
    reason = "QUORUM_FAILED"
    code = Code.DATA_LOSS
    template = (
        "the copies below node {node_name!r} disagree about [{offset}, +{length}): "
        "{votes} of them say the same, {threshold} must"
    )
    advice = "Read the children one by one and compare; take the wrong one out with `blockyard node remove-child`."


@dataclass(eq=False)
class CopiesDiffer(StorageError):
    """Two copies that must never differ do (blkverify)."""

    node_name: str
    operation: str
    offset: int
    detail: str
    reason = "COPIES_DIFFER"
    code = Code.DATA_LOSS
    template = "{operation} on node {node_name!r}: its copies differ at offset {offset}: {detail}"
    advice = (
        "Compare the two children from that offset on; one of their drivers has a bug, or someone wrote behind it."
    )


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
