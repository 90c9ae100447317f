"""A job's verb, options or life. See `blockyard.base.errors`."""

from dataclasses import dataclass

from blockyard.base.errors.base import Code, JobError


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
class SnapshotBroken(JobError):
    """A backup's copy before a guest's write failed, and the guest went first."""

    job_id: str
    reason = "SNAPSHOT_BROKEN"
    code = Code.DATA_LOSS
    template = "job {job_id!r}: old data could not be copied before the guest overwrote it"
    advice = "Make room on the target and back up again; the source is untouched."


@dataclass(eq=False)
class SessionLost(JobError):
    """The node ended without keeping the job's session."""

    job_id: str
    reason = "SESSION_LOST"
    code = Code.ABORTED
    template = "job {job_id!r}: the node does not know its copy session any more"
    advice = "Start the job again. A node with a state directory (`--state-directory`) keeps its sessions."


@dataclass(eq=False)
class JobElsewhere(JobError):
    """Another replica of the jobs service works on the job."""

    job_id: str
    owner: str
    reason = "JOB_ELSEWHERE"
    code = Code.UNAVAILABLE
    retryable = True
    template = "job {job_id!r} is worked on by {owner}"
    advice = "Call that replica, or again when it is gone: another one takes its jobs over then."
