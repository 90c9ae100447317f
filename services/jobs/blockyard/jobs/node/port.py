"""What a job may ask of the node: the port, and the words both sides use.

What lives here: the requests and answers of the copy mechanism as plain values, and the protocol `NodePort`
that the gRPC adapter (`remote`) and the tests' small node both fulfil under one contract. What must not:
protobuf, grpc, policy.

Contract, for implementers:
1. Every method raises only classes of `blockyard.base.errors`. `PeerUnavailable` means "unknown whether it
   happened"; every method may be repeated after it.
2. A stream of orders answers each order once, or raises. Dropping a stream ends no session; what its unanswered
   orders had in flight is back in the work map or done, and `get_session` tells which.
3. Figures of a session only grow, except `remaining_bytes`. They are the truth; reports are increments of it.
4. Calls carry the fencing token of this incarnation; an older one is answered `OwnerMismatch`.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from blockyard.base.ranges import ByteRange
from blockyard.base.units import KIB, MIB

MAX_ORDER_BYTES: Final = 64 * MIB
"""copy.proto, RunCopyRequest.max_bytes."""

MIN_GRANULARITY: Final = 4 * KIB
MAX_GRANULARITY: Final = 64 * MIB
"""copy.proto, CreateCopySessionRequest.granularity_bytes."""


class CopyKind(StrEnum):
    """What a session does."""

    MIRROR = "MIRROR"
    BACKUP = "BACKUP"
    STREAM = "STREAM"
    COMMIT = "COMMIT"


class SyncMode(StrEnum):
    """What is copied at first."""

    FULL = "FULL"
    TOP = "TOP"
    NONE = "NONE"
    BITMAP = "BITMAP"


class CopyMode(StrEnum):
    """How a mirror follows the guest."""

    BACKGROUND = "BACKGROUND"
    WRITE_BLOCKING = "WRITE_BLOCKING"


class BitmapMode(StrEnum):
    """What happens to the bitmap of a backup."""

    ON_SUCCESS = "ON_SUCCESS"
    NEVER = "NEVER"
    ALWAYS = "ALWAYS"


class OnCbwError(StrEnum):
    """What happens when a copy before a guest's write fails."""

    BREAK_GUEST_WRITE = "BREAK_GUEST_WRITE"
    BREAK_SNAPSHOT = "BREAK_SNAPSHOT"


class FinishAction(StrEnum):
    """How a session ends."""

    ABORT = "ABORT"
    COMPLETE = "COMPLETE"
    PIVOT = "PIVOT"
    DETACH = "DETACH"


class CopySide(StrEnum):
    """Which side failed."""

    SOURCE = "SOURCE"
    TARGET = "TARGET"


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A session to be set up. Empty names, None and 0 leave the choice to the node, as copy.proto says."""

    session_id: str
    kind: CopyKind
    source: str
    target: str = ""
    base: str = ""
    sync: SyncMode = SyncMode.FULL
    bitmap: str = ""
    bitmap_mode: BitmapMode | None = None
    copy_mode: CopyMode | None = None
    granularity_bytes: int = 0
    target_is_zero: bool = False
    unmap: bool | None = None
    compress: bool = False
    on_cbw_error: OnCbwError | None = None
    filter_node_name: str = ""
    backing_file: str = ""
    replaces: str = ""
    domain: str = field(default="", compare=False)
    """Which store knows the job."""

    @property
    def owner(self) -> str:
        return f"job/{self.session_id}"


@dataclass(frozen=True, slots=True)
class Session:
    """A session as the node tells it."""

    session_id: str
    filter_node_name: str
    granularity_bytes: int
    size_bytes: int
    remaining_bytes: int
    copied_bytes: int
    zero_bytes: int
    skipped_bytes: int
    finished: FinishAction | None = None
    snapshot_broken: bool = False
    fencing_token: int = 0
    domain: str = ""

    @property
    def done_bytes(self) -> int:
        return self.copied_bytes + self.zero_bytes + self.skipped_bytes


@dataclass(frozen=True, slots=True)
class Order:
    """Copy about `max_bytes` of what is left, inside `within` if given; with nothing left wait for new work."""

    order_id: int
    max_bytes: int
    within: ByteRange | None = None
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """The end of an order."""

    order_id: int
    copied_bytes: int = 0
    zero_bytes: int = 0
    skipped_bytes: int = 0
    remaining_bytes: int = 0
    dirtied_bytes: int = 0
    cursor_bytes: int = 0
    failed_side: CopySide | None = None
    failed_range: ByteRange | None = None
    reason: str = ""
    error_message: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.reason) or self.failed_side is not None

    @property
    def done_bytes(self) -> int:
        return self.copied_bytes + self.zero_bytes + self.skipped_bytes


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a job needs to know of a node before it asks for a session."""

    node_name: str
    size_bytes: int
    read_only: bool
    below: str
    """The node that shows through: the backing child, or a filter's child; empty at the end of the chain."""


class OrderStream(Protocol):
    """One stream of orders to a session."""

    async def send(self, order: Order) -> None:
        """May wait for room. Raises like `receive`."""
        ...

    async def receive(self) -> Report:
        """The next report. Raises `PeerUnavailable` when the stream dropped, else what ended the session."""
        ...


class NodePort(Protocol):
    """What a job may ask of the node, under one fencing token."""

    def fenced(self, token: int) -> "NodePort":
        """The same node under another token."""
        ...

    async def get_node(self, node_name: str) -> NodeFacts: ...

    async def create_session(self, request: SessionRequest, *, validate_only: bool = False) -> Session:
        """Idempotent: the same request again answers the session as it is, and takes it over with a newer token."""
        ...

    async def get_session(self, session_id: str) -> Session: ...

    async def adopt_session(self, session_id: str) -> Session:
        """The session of an earlier incarnation is ours from now on: older tokens are refused."""
        ...

    async def list_sessions(self) -> Sequence[Session]: ...

    def run_copy(self, session_id: str) -> AbstractAsyncContextManager[OrderStream]:
        """A stream of orders; leaving the context drops it."""
        ...

    async def set_copy_mode(self, session_id: str, mode: CopyMode) -> Session: ...

    async def finish_session(self, session_id: str, action: FinishAction) -> Session:
        """Idempotent: repeated, it answers as it did."""
        ...
