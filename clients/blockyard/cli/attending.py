"""Staying with a job: progress until it ends or needs a decision, and what that means for the exit code.

What must not live here: the command line's words.
"""

from typing import TYPE_CHECKING

from blockyard.cli import progress, units
from blockyard.cli.describe import job_kind, job_work
from blockyard.cli.exits import Exit
from blockyard.cli.options import Globals
from blockyard.cli.running import CommandFailed, Parting, remark
from blockyard.v1 import job_pb2
from blockyard.v1.job_pb2 import Job

if TYPE_CHECKING:
    from blockyard.client.client import Client


async def attend(client: "Client", job_id: str, options: Globals, complete: str = "") -> Job:
    """Show a job's progress until it is concluded, or until it waits for a decision that was not made.

    `complete` (pivot or detach) completes the job as soon as it is READY. An interrupt leaves the job alone.
    """
    Parting.text = (
        f"Job {job_id} goes on. `blockyard job watch {job_id}` takes it up again, "
        f"`blockyard job cancel {job_id}` ends it."
    )
    shown = progress.view(options)
    job, completing = Job(), False
    try:
        async for job in client.jobs.follow(job_id):
            shown.show(progress.step_of(job))
            if job.state == job_pb2.JOB_STATE_READY and not completing:
                if not complete:
                    break
                completing = True
                await client.jobs.complete(job_id, complete)
            if job.state == job_pb2.JOB_STATE_PENDING and not _auto(job):
                break
    finally:
        shown.close()
    _tell(job, options)
    return job


def _auto(job: Job) -> bool:
    return not job.HasField("auto_finalize") or job.auto_finalize


def _tell(job: Job, options: Globals) -> None:
    if job.outcome == job_pb2.JOB_OUTCOME_FAILED:
        message = f"{job_kind(job)} {job.job_id} failed: {job.error.message or 'no reason was given'}"
        raise CommandFailed(Exit.FAILED, message.rstrip("."), job.error.advice)
    if job.outcome == job_pb2.JOB_OUTCOME_CANCELLED:
        raise CommandFailed(Exit.FAILED, f"job {job.job_id} was cancelled", "The source is untouched.")
    if job.state == job_pb2.JOB_STATE_READY:
        remark(
            options,
            f"{job.job_id} is ready and follows the guest. `blockyard job complete {job.job_id}` moves the users "
            f"to the target; with --detach the target becomes a copy of that instant.",
        )
    elif job.state == job_pb2.JOB_STATE_PENDING:
        remark(options, f"{job.job_id} is pending. `blockyard job finalize {job.job_id}` lets it change the graph.")
    elif job.outcome == job_pb2.JOB_OUTCOME_SUCCEEDED:
        remark(options, f"{job.job_id} succeeded: {summary(job)}")


def summary(job: Job) -> str:
    """What a job did, in one line."""
    done = job.progress
    words = [f"{job_work(job)}, {units.size(done.copied_bytes)} copied"]
    if done.zero_bytes:
        words.append(f"{units.size(done.zero_bytes)} zero")
    if done.skipped_bytes:
        words.append(f"{units.size(done.skipped_bytes)} skipped")
    took_ns = job.end_time.ToNanoseconds() - job.start_time.ToNanoseconds()
    if job.HasField("end_time") and job.HasField("start_time") and took_ns > 0:
        words.append(f"{units.clock_time(took_ns / 1e9)} ({units.rate(done.copied_bytes * 1e9 / took_ns)})")
    return ", ".join(words)
