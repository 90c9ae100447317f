"""Where jobs are written down.

What lives here: the record of a job and the port of a store. What must not: a database, the loop.

Contract, for implementers:
1. When `put` returns the record is durable, to the degree that the store promises at all; a later `load` gives
   it back.
2. A job writes its record before a change of its state is shown to anybody, and before an accepted verb is
   acknowledged.
3. Records hold plain values only (text, numbers, truth values), so that any store can keep them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

OptionValue = str | int | bool | None


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
    outcome: str = ""
    cursor_bytes: int = 0
    done_bytes: int = 0
    remaining_bytes: int = 0
    user_paused: bool = False
    error_paused: bool = False
    cancel_requested: bool = False
    complete_action: str = ""
    finalize_requested: bool = False
    fault_reason: str = ""
    fault_message: str = ""
    fault_advice: str = ""
    fault_metadata: Mapping[str, str] = field(default_factory=dict)
    ignored_errors: int = 0
    create_wall_ns: int = 0
    start_wall_ns: int = 0
    end_wall_ns: int = 0
    trace: str = ""
    """traceparent of the call that made it."""


class JobStore(Protocol):
    """Keeps records."""

    async def put(self, record: JobRecord) -> None: ...

    async def remove(self, job_id: str) -> None:
        """No error if there is none."""
        ...

    async def load(self) -> Sequence[JobRecord]: ...
