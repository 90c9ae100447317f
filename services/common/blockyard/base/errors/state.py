"""It could be, but not in the present state; says who or what stands in the way. See `blockyard.base.errors`."""

from dataclasses import dataclass

from blockyard.base.errors.base import Code, StateError


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
class NodeInactive(StateError):
    """A request that a node cannot serve while its files are handed over to another process."""

    node_name: str
    reason = "NODE_INACTIVE"
    code = Code.FAILED_PRECONDITION
    template = "node {node_name!r} is handed over: only reads are served"
    advice = "Take it back with SetNodeActive (`blockyard node activate`)."


@dataclass(eq=False)
class PermissionConflict(StateError):
    """Two users of a node exclude each other."""

    node_name: str
    permission: str
    user: str
    owner: str
    reason = "PERMISSION_CONFLICT"
    code = Code.FAILED_PRECONDITION
    template = "{user} needs {permission!r} on node {node_name!r}, which {owner} does not share"
    advice = "End one of the two, or open one of them so that it needs less (read_only)."


@dataclass(eq=False)
class TransactionFailed(StateError):
    """Actions of a transaction failed; nothing was changed."""

    failed: int
    actions: int
    failures: str
    reason = "TRANSACTION_FAILED"
    code = Code.FAILED_PRECONDITION
    template = "{failed} of {actions} actions failed, nothing was changed: {failures}"
    advice = (
        "Mend the actions that are named by their place, from 0; validate_only tells the same without changing."
    )


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
class NoMedium(StateError):
    """A request through an attachment that has no medium, or whose tray is open (QEMU's ENOMEDIUM)."""

    attachment: str
    reason = "NO_MEDIUM"
    code = Code.FAILED_PRECONDITION
    template = "attachment {attachment!r} has no medium, or its tray is open"
    advice = "Insert a medium and close the tray: `blockyard attachment change`."


@dataclass(eq=False)
class AttachmentReadOnly(StateError):
    """A write through an attachment that may not write."""

    attachment: str
    reason = "ATTACHMENT_READ_ONLY"
    code = Code.FAILED_PRECONDITION
    template = "attachment {attachment!r} may not write: it was made read-only, or its medium is"
    advice = "Make it with writable = true, on a node that is not read-only."


@dataclass(eq=False)
class TrayLocked(StateError):
    """The guest locked the tray; it was asked to open it."""

    attachment: str
    owner: str
    reason = "TRAY_LOCKED"
    code = Code.FAILED_PRECONDITION
    template = "the tray of attachment {attachment!r} is locked by {owner}, which was asked to open it"
    advice = "Wait until the guest unlocks it (event tray-moved), or use force."


@dataclass(eq=False)
class MediumActionNotAllowed(StateError):
    """A tray or medium is not where an action needs it."""

    attachment: str
    action: str
    state: str
    why: str
    reason = "MEDIUM_ACTION_NOT_ALLOWED"
    code = Code.FAILED_PRECONDITION
    template = "cannot {action} with attachment {attachment!r} ({state}): {why}"
    advice = "Bring tray and medium into place first; `blockyard attachment show` tells where they are."


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
