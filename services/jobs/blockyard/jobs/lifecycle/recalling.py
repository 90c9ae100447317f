"""A job as a record, and the job that a record makes again.

What lives here: both directions. What must not: the store, the loop. A test holds them to be inverse.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from blockyard.jobs.copying.policy import Fault, IoStatus
from blockyard.jobs.lifecycle.job import Job
from blockyard.jobs.lifecycle.spec import JobOutcome, JobSpec
from blockyard.jobs.lifecycle.table import JobState
from blockyard.jobs.node.port import CopySide, FinishAction
from blockyard.jobs.store.port import JobRecord, OptionValue
from blockyard.jobs.store.records import kind_of, plain_options

_OPTION: Final = "kind."
_FIELD: Final = "field."


def spec_of(record: JobRecord) -> JobSpec:
    """The job as it is now."""
    return JobSpec(
        job_id=record.job_id,
        kind=kind_of(record.kind, record.options),
        speed_bytes_per_second=record.speed_bytes_per_second,
        auto_finalize=record.auto_finalize,
        auto_dismiss=record.auto_dismiss,
        filter_node_name=record.filter_node_name,
        labels=dict(record.labels),
    )


def requested_of(record: JobRecord) -> JobSpec:
    """The job as it was asked for."""
    asked = dict(record.requested)
    options = {
        name: asked.pop(f"{_OPTION}{name}", value) if f"{_OPTION}{name}" in asked else value
        for name, value in record.options.items()
    }
    return replace(spec_of(record), kind=kind_of(record.kind, options), **asked)  # type: ignore[arg-type]


def recall(job: Job, record: JobRecord) -> Job:
    """Fill a job that was made with `spec_of(record)`."""
    job.requested = requested_of(record)
    job.request_id = record.request_id
    job.state = job.stored_state = JobState(record.state)
    job.outcome = JobOutcome(record.outcome) if record.outcome else None
    job.fault = _fault(record.fault)
    job.first_fault = _fault(record.first_fault)
    job.ignored_errors = record.ignored_errors
    job.io_status = IoStatus(record.io_status)
    job.user_paused, job.error_paused = record.user_paused, record.error_paused
    job.cancel_requested, job.force = record.cancel_requested, record.force
    job.complete_action = FinishAction(record.complete_action) if record.complete_action else None
    job.finalize_requested = record.finalize_requested
    job.session_made, job.finalizing = record.session_made, record.finalizing
    job.passed_over_bytes = record.passed_over_bytes
    job.create_wall_ns, job.start_wall_ns = record.create_wall_ns, record.start_wall_ns
    job.end_wall_ns = record.end_wall_ns
    job.trace_parent, job.last_trace = record.trace, record.last_trace
    job.history = list(record.history)
    progress = job.progress
    progress.copied_bytes, progress.zero_bytes = record.copied_bytes, record.zero_bytes
    progress.skipped_bytes, progress.remaining_bytes = record.skipped_bytes, record.remaining_bytes
    progress.cursor_bytes, progress.phase = record.cursor_bytes, record.phase
    return job


def record_of(job: Job) -> JobRecord:
    """The job as it is now, for the store."""
    spec, progress = job.spec, job.progress
    return JobRecord(
        job_id=spec.job_id,
        kind=spec.kind.name,
        options=plain_options(spec.kind),
        speed_bytes_per_second=spec.speed_bytes_per_second,
        auto_finalize=spec.auto_finalize,
        auto_dismiss=spec.auto_dismiss,
        filter_node_name=spec.filter_node_name,
        labels=spec.labels,
        state=str(job.state),
        fencing_token=job.fencing_token,
        requested=_changed(job.requested, spec),
        request_id=job.request_id,
        outcome=str(job.outcome or ""),
        phase=progress.phase,
        session_made=job.session_made,
        finalizing=job.finalizing,
        cursor_bytes=progress.cursor_bytes,
        copied_bytes=progress.copied_bytes,
        zero_bytes=progress.zero_bytes,
        skipped_bytes=progress.skipped_bytes,
        remaining_bytes=progress.remaining_bytes,
        passed_over_bytes=job.passed_over_bytes,
        user_paused=job.user_paused,
        error_paused=job.error_paused,
        io_status=str(job.io_status),
        cancel_requested=job.cancel_requested,
        force=job.force,
        complete_action=str(job.complete_action or ""),
        finalize_requested=job.finalize_requested,
        fault=_plain_fault(job.fault),
        first_fault=_plain_fault(job.first_fault),
        ignored_errors=job.ignored_errors,
        create_wall_ns=job.create_wall_ns,
        start_wall_ns=job.start_wall_ns,
        end_wall_ns=job.end_wall_ns,
        trace=job.trace_parent,
        last_trace=job.last_trace,
        history=tuple(job.history),
    )


def _changed(requested: JobSpec, now: JobSpec) -> dict[str, OptionValue]:
    """What was asked for and is otherwise now."""
    asked = plain_options(requested.kind)
    changed: dict[str, OptionValue] = {
        f"{_OPTION}{name}": asked[name] for name, value in plain_options(now.kind).items() if asked[name] != value
    }
    for name in ("speed_bytes_per_second", "filter_node_name"):
        if getattr(requested, name) != getattr(now, name):
            changed[name] = getattr(requested, name)
    return changed


def _plain_fault(fault: Fault | None) -> dict[str, str]:
    if fault is None:
        return {}
    plain = {
        "reason": fault.reason,
        "message": fault.message,
        "advice": fault.advice,
        "side": str(fault.side or ""),
        "wall_ns": str(fault.wall_ns),
    }
    return plain | {f"{_FIELD}{name}": value for name, value in fault.metadata.items()}


def _fault(plain: Mapping[str, str]) -> Fault | None:
    if not plain:
        return None
    return Fault(
        plain["reason"],
        plain.get("message", ""),
        plain.get("advice", ""),
        {name.removeprefix(_FIELD): value for name, value in plain.items() if name.startswith(_FIELD)},
        CopySide(plain["side"]) if plain.get("side") else None,
        int(plain.get("wall_ns", "0")),
    )
