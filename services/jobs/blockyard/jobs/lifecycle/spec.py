"""What a job is made from, and what it shows: plain values.

What lives here: the request for a job (`JobSpec`), the picture of a job at one instant (`JobView`), and the
bounds on names and labels. What must not: protobuf, the loop.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from blockyard.base.errors import InvalidArgument
from blockyard.base.units import MAX_SIZE
from blockyard.jobs.copying.policy import Fault, IoStatus
from blockyard.jobs.copying.progress import ProgressView
from blockyard.jobs.kinds.base import Kind
from blockyard.jobs.lifecycle.table import JobState, JobVerb
from blockyard.jobs.store.port import Step

MAX_LABELS: Final = 64
MAX_LABEL_LENGTH: Final = 256
"""Characters of a label's key or value."""

_JOB_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,127}")


class JobOutcome(StrEnum):
    """How a job ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a client asked for. Two equal specs are the same request."""

    job_id: str
    kind: Kind
    speed_bytes_per_second: int = 0
    auto_finalize: bool = True
    auto_dismiss: bool = False
    filter_node_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `RequestError` for what can never be, before anybody is asked."""
        if not _JOB_ID.fullmatch(self.job_id):
            expected = "1 to 128 characters of [A-Za-z0-9._-], beginning with a letter"
            raise InvalidArgument("job_id", expected, repr(self.job_id[:200]))
        check_speed(self.speed_bytes_per_second)
        if len(self.labels) > MAX_LABELS:
            raise InvalidArgument("labels", f"at most {MAX_LABELS}", str(len(self.labels)))
        for key, value in self.labels.items():
            if len(key) > MAX_LABEL_LENGTH or len(value) > MAX_LABEL_LENGTH:
                raise InvalidArgument("labels", f"at most {MAX_LABEL_LENGTH} characters each", repr(key[:64]))
        self.kind.check()


def check_speed(speed_bytes_per_second: int) -> None:
    if not 0 <= speed_bytes_per_second <= MAX_SIZE:
        raise InvalidArgument("speed_bytes_per_second", "0 or more", str(speed_bytes_per_second))


@dataclass(frozen=True, slots=True)
class JobView:
    """A job at one instant."""

    spec: JobSpec
    state: JobState
    outcome: JobOutcome | None
    progress: ProgressView
    fault: Fault | None
    ignored_errors: int
    io_status: IoStatus
    user_paused: bool
    allowed_verbs: tuple[JobVerb, ...]
    create_wall_ns: int
    start_wall_ns: int
    end_wall_ns: int
    revision: int
    trace_id: str
    node_names: tuple[str, ...]
    history: tuple[Step, ...] = ()

    @property
    def job_id(self) -> str:
        return self.spec.job_id

    @property
    def etag(self) -> str:
        """Changes with every announced change, and with progress between two of them."""
        return f"{self.revision:x}.{self.progress.done_bytes:x}"
