"""What a job does when copying fails: QEMU's error policies as a table.

What lives here: the policies, the three things that can be done, and how a fault is told to people. What must
not: a job, the node, time.

`AUTO` is what QEMU does with it for jobs (block/block-backend.c and blockjob.c, block_job_error_action; seen on
qemu-storage-daemon 7.2 for mirror, backup and stream): stop on a full disk, fail on anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Self

from blockyard.base.errors import CATALOGUE, BlockError, NoSpace
from blockyard.jobs.node.port import CopySide, Report


class OnError(StrEnum):
    """BlockdevOnError (qapi/block-core.json)."""

    REPORT = "REPORT"
    IGNORE = "IGNORE"
    ENOSPC = "ENOSPC"
    STOP = "STOP"
    AUTO = "AUTO"


class IoStatus(StrEnum):
    """BlockDeviceIoStatus (qapi/block-core.json)."""

    OK = "OK"
    FAILED = "FAILED"
    NOSPACE = "NOSPACE"


class Reaction(StrEnum):
    """BlockErrorAction (qapi/block-core.json)."""

    REPORT = "REPORT"
    """The job fails."""
    IGNORE = "IGNORE"
    """The job goes on."""
    STOP = "STOP"
    """The job pauses until it is resumed."""


_REACTIONS: Final[Mapping[OnError, tuple[Reaction, Reaction]]] = {
    OnError.REPORT: (Reaction.REPORT, Reaction.REPORT),
    OnError.IGNORE: (Reaction.IGNORE, Reaction.IGNORE),
    OnError.ENOSPC: (Reaction.STOP, Reaction.REPORT),
    OnError.STOP: (Reaction.STOP, Reaction.STOP),
    OnError.AUTO: (Reaction.STOP, Reaction.REPORT),
}
"""Policy -> reaction to a full disk, reaction to anything else."""


def react(policy: OnError, reason: str) -> Reaction:
    on_full, on_other = _REACTIONS[policy]
    return on_full if reason == NoSpace.reason else on_other


def io_status_after(reason: str) -> IoStatus:
    return IoStatus.NOSPACE if reason == NoSpace.reason else IoStatus.FAILED


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a job failed or paused (JobError)."""

    reason: str
    message: str
    advice: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    side: CopySide | None = None
    wall_ns: int = 0

    @classmethod
    def of_error(cls, error: BlockError, wall_ns: int, side: CopySide | None = None) -> Self:
        return cls(error.reason, str(error), error.hint, error.metadata(), side, wall_ns)

    @classmethod
    def of_report(cls, report: Report, wall_ns: int) -> Self:
        """A failed order. What to do stands in the catalogue, if the reason is one of ours and needs no fields."""
        known = CATALOGUE.get(report.reason)
        advice = known.advice if known and "{" not in known.advice else ""
        where = report.failed_range
        metadata = {"offset": str(where.offset), "length": str(where.length)} if where else {}
        return cls(report.reason, report.error_message, advice, metadata, report.failed_side, wall_ns)

    def noting(self, **metadata: str) -> Self:
        return replace(self, metadata={**self.metadata, **metadata})


@dataclass(frozen=True, slots=True)
class ErrorPolicies:
    """One policy per side."""

    source: OnError = OnError.REPORT
    target: OnError = OnError.REPORT

    def of(self, side: CopySide | None) -> OnError:
        """A failure of no side (the node does not answer) counts as one of reading."""
        return self.target if side is CopySide.TARGET else self.source
