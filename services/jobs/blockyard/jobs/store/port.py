"""Where jobs are written down.

What lives here: the record of a job and the port of a store. What must not: a database, the loop.

Theory. One counter hands out *fencing tokens*. Each incarnation of a jobs service draws one as its own number;
each job carries the token of whoever works on it. A job is taken over by drawing a new token and replacing the one
that was seen, so of two that try one succeeds; from then on the old owner's writes are refused here, and its calls
at the node, which compares the same tokens.

An incarnation lives as long as its *beat* grows. Others judge that with their own monotonic clocks: whoever saw the
same beat for a whole lease may end it, and only if it is still that beat. No clock of two machines is ever
compared, and none that may jump.

Contract, for implementers:
1. When a change returns it is durable, to the degree that the store promises at all; a later `load` gives it back.
2. A job writes its record before a change of its state is shown to anybody, and before an accepted verb is
   acknowledged.
3. Records hold plain values only (text, numbers, truth values, lists and maps of them), so that any store can keep
   them.
4. Every change is one transaction. `JobStoreUnavailable` means "unknown whether it happened"; every change may be
   repeated after it. It comes within seconds, never later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

OptionValue = str | int | bool | None

MAX_STEPS: Final = 64
"""Steps of a job's history that are kept; the oldest but the first is forgotten first."""
MAX_REQUESTS: Final = 10_000
"""Remembered request ids; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job's life."""

    wall_ns: int
    state: str
    note: str = ""
    """Why: the reason of a fault, or who took the job over."""
    trace_id: str = ""
    """The trace of the segment that it was made in."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Everything that another incarnation needs to go on with a job, or to tell how it ended."""

    job_id: str
    kind: str
    options: Mapping[str, OptionValue]
    speed_bytes_per_second: int
    auto_finalize: bool
    auto_dismiss: bool
    filter_node_name: str
    labels: Mapping[str, str]
    state: str
    fencing_token: int
    requested: Mapping[str, OptionValue] = field(default_factory=dict)
    """What was asked for and has changed since: options by `kind.NAME`, speed and filter's name by their own."""
    request_id: str = ""
    outcome: str = ""
    phase: str = ""
    session_made: bool = False
    """The session exists at the node; one that is not there any more was lost."""
    finalizing: bool = False
    """The session's end was asked for and may have happened."""
    cursor_bytes: int = 0
    copied_bytes: int = 0
    zero_bytes: int = 0
    skipped_bytes: int = 0
    remaining_bytes: int = 0
    passed_over_bytes: int = 0
    """Everything below is left out from now on."""
    user_paused: bool = False
    error_paused: bool = False
    io_status: str = "OK"
    cancel_requested: bool = False
    force: bool = False
    complete_action: str = ""
    finalize_requested: bool = False
    fault: Mapping[str, str] = field(default_factory=dict)
    """`reason`, `message`, `advice`, `side`, `wall_ns`, and fields as `field.NAME`."""
    first_fault: Mapping[str, str] = field(default_factory=dict)
    """What a job that passed over it fails with in the end."""
    ignored_errors: int = 0
    create_wall_ns: int = 0
    start_wall_ns: int = 0
    end_wall_ns: int = 0
    trace: str = ""
    """traceparent of the call that made it."""
    last_trace: str = ""
    """traceparent of its latest segment."""
    history: Sequence[Step] = ()

    @property
    def done_bytes(self) -> int:
        return self.copied_bytes + self.zero_bytes + self.skipped_bytes


@dataclass(frozen=True, slots=True)
class Incarnation:
    """A jobs service from its start to its end."""

    number: int
    address: str
    """Where clients reach it; empty if nobody else can."""
    beat: int


class JobStore(Protocol):
    """Keeps records, and knows who works on which."""

    @property
    def durable(self) -> bool:
        """Whether jobs outlive the service."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other services may use it at the same time."""
        ...

    async def identity(self) -> str:
        """What tells this store from all others, for as long as it lasts."""
        ...

    # --- jobs ---

    async def create(self, record: JobRecord, incarnation: int) -> None:
        """A new job, and its request id if it has one. Raises ResourceExists for an id that there is already."""
        ...

    async def put(self, record: JobRecord) -> None:
        """The record of a job that is there. Raises OwnerMismatch if its token is not the job's (any more)."""
        ...

    async def remove(self, job_id: str, fencing_token: int, refused_request: str = "") -> None:
        """No error if there is none. Raises OwnerMismatch for another's. A request that was refused made nothing,
        so it is forgotten too and may be repeated."""
        ...

    async def load(self) -> Sequence[JobRecord]:
        """All of them, by id."""
        ...

    async def find(self, job_id: str) -> JobRecord | None: ...

    async def request(self, request_id: str) -> JobRecord | None:
        """The job that a request made, as it was asked for; it may be gone. The latest `MAX_REQUESTS` are kept."""
        ...

    # --- owners ---

    async def begin(self, address: str, least_token: int) -> int:
        """A new incarnation's number: greater than every token so far, and at least this."""
        ...

    async def beat(self, incarnation: int) -> None:
        """It lives. Raises OwnerMismatch if it was ended."""
        ...

    async def end(self, incarnation: int, beat: int | None = None) -> bool:
        """It does not live any more; with a beat only if it is still that one. Whether it was ended by this."""
        ...

    async def incarnations(self) -> Sequence[Incarnation]:
        """Those that live, as far as anybody knows."""
        ...

    async def orphans(self) -> Sequence[JobRecord]:
        """Jobs whose incarnation lives no more."""
        ...

    async def adopt(self, job_id: str, seen_token: int, incarnation: int) -> JobRecord | None:
        """Take a job over under a new token: its record as it is now, or None if somebody else was first."""
        ...

    async def owner_of(self, job_id: str) -> Incarnation | None:
        """Who works on it; None if nobody does."""
        ...
