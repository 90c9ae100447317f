"""Jobs as messages, and messages as jobs.

What lives here: both directions, by the names that messages and values share. What must not: decisions.

A kind's options are converted field by field along its dataclass; a test holds dataclass and message together, so
that a new kind needs nothing here.
"""

from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from google.protobuf.timestamp_pb2 import Timestamp

from blockyard.base.errors import InvalidArgument, MissingOption
from blockyard.jobs.copying.policy import Fault, IoStatus, OnError
from blockyard.jobs.copying.progress import ProgressView
from blockyard.jobs.kinds import catalogue
from blockyard.jobs.kinds.base import Kind
from blockyard.jobs.lifecycle import table
from blockyard.jobs.lifecycle.spec import JobOutcome, JobSpec, JobView
from blockyard.jobs.lifecycle.table import JobState, JobVerb
from blockyard.jobs.lifecycle.watch import Change, Event
from blockyard.jobs.node.port import BitmapMode, CopyMode, CopySide, FinishAction, OnCbwError, SyncMode
from blockyard.jobs.store.port import Step
from blockyard.jobs.store.records import enum_of
from blockyard.jobs.wire import from_wire, to_wire
from blockyard.v1 import copy_pb2, drivers_pb2, job_pb2, types_pb2

PAIRS: dict[type, Any] = {
    JobState: job_pb2.JobState,
    JobVerb: job_pb2.JobVerb,
    JobOutcome: job_pb2.JobOutcome,
    IoStatus: types_pb2.IoStatus,
    OnError: types_pb2.OnError,
    Change: types_pb2.ChangeType,
    SyncMode: copy_pb2.SyncMode,
    CopyMode: copy_pb2.CopyMode,
    BitmapMode: copy_pb2.BitmapMode,
    CopySide: copy_pb2.CopySide,
    OnCbwError: drivers_pb2.OnCbwError,
}
"""Every enumeration that a job shows or takes, with its twin on the wire."""


def spec_from(job: job_pb2.Job) -> JobSpec:
    """Raises InvalidArgument or MissingOption with the field's name."""
    return JobSpec(
        job_id=job.job_id,
        kind=kind_from(job),
        speed_bytes_per_second=job.speed_bytes_per_second,
        auto_finalize=job.auto_finalize if job.HasField("auto_finalize") else True,
        auto_dismiss=job.auto_dismiss if job.HasField("auto_dismiss") else False,
        filter_node_name=job.filter_node_name,
        labels=dict(job.labels),
    )


def kind_from(job: job_pb2.Job) -> Kind:
    name = job.WhichOneof("kind")
    if name is None or name not in catalogue():
        raise MissingOption("a job", f"one of {', '.join(catalogue())}")
    kind, message = catalogue()[name], getattr(job, name)
    given: dict[str, Any] = {}
    for option, words in _option_words(kind).items():
        value = getattr(message, option)
        if words is not None:
            value = from_wire(PAIRS[words], words, value, f"{name}.{option}")
            given |= {option: value} if value is not None else {}
        elif not message.DESCRIPTOR.fields_by_name[option].has_presence or message.HasField(option):
            given[option] = value
    return kind(kind.Options(**given))


def job_message(view: JobView) -> job_pb2.Job:
    spec = view.spec
    job = job_pb2.Job(
        job_id=spec.job_id,
        speed_bytes_per_second=spec.speed_bytes_per_second,
        auto_finalize=spec.auto_finalize,
        auto_dismiss=spec.auto_dismiss,
        filter_node_name=spec.filter_node_name,
        state=to_wire(job_pb2.JobState, view.state),
        outcome=to_wire(job_pb2.JobOutcome, view.outcome),
        progress=_progress(view.progress),
        ignored_errors=view.ignored_errors,
        io_status=to_wire(types_pb2.IoStatus, view.io_status),
        user_paused=view.user_paused,
        allowed_verbs=[to_wire(job_pb2.JobVerb, verb) for verb in view.allowed_verbs],
        create_time=_time(view.create_wall_ns),
        start_time=_time(view.start_wall_ns),
        end_time=_time(view.end_wall_ns),
        etag=view.etag,
        trace_id=view.trace_id,
        labels=spec.labels,
        node_names=view.node_names,
        history=map(_step, view.history),
    )
    fill_options(getattr(job, spec.kind.name), spec.kind)
    if view.fault:
        job.error.CopyFrom(_error(view.fault))
    return job


def event_message(event: Event) -> job_pb2.WatchJobsResponse:
    return job_pb2.WatchJobsResponse(
        change=to_wire(types_pb2.ChangeType, event.change),
        job=job_message(event.view) if event.view else None,
        revision=event.revision,
    )


def state_machine_message() -> job_pb2.DescribeStateMachineResponse:
    """The tables; UNDEFINED, which nobody ever sees, is left out."""
    response = job_pb2.DescribeStateMachineResponse()
    for state in JobState:
        if state is JobState.UNDEFINED:
            continue
        following = [other for other in JobState if table.may_follow(state, other)]
        response.rows.add(
            state=to_wire(job_pb2.JobState, state),
            next_states=[to_wire(job_pb2.JobState, other) for other in following],
            verbs=[to_wire(job_pb2.JobVerb, verb) for verb in table.allowed_verbs(state)],
        )
    return response


def finish_action_from(number: int) -> FinishAction:
    """CompleteAction; PIVOT unless said otherwise."""
    if number not in (
        job_pb2.COMPLETE_ACTION_UNSPECIFIED,
        job_pb2.COMPLETE_ACTION_PIVOT,
        job_pb2.COMPLETE_ACTION_DETACH,
    ):
        raise InvalidArgument("action", "PIVOT or DETACH", str(number))
    return FinishAction.DETACH if number == job_pb2.COMPLETE_ACTION_DETACH else FinishAction.PIVOT


def copy_mode_from(number: int) -> CopyMode:
    mode = from_wire(copy_pb2.CopyMode, CopyMode, number, "copy_mode")
    if mode is None:
        raise InvalidArgument("copy_mode", "a copy mode: nothing else of a running job can be changed", "nothing")
    return mode


@cache
def _option_words(kind: type[Kind]) -> dict[str, Any]:
    """Every option of a kind, with its enumeration if it has one."""
    hints = get_type_hints(kind.Options)
    return {item.name: enum_of(hints[item.name]) for item in fields(kind.Options)}


def fill_options(message: Any, kind: Kind) -> None:
    message.SetInParent()
    for option, words in _option_words(type(kind)).items():
        value = getattr(kind.options, option)
        if value is not None:
            setattr(message, option, to_wire(PAIRS[words], value) if words else value)


def _progress(progress: ProgressView) -> job_pb2.JobProgress:
    message = job_pb2.JobProgress(
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        copied_bytes=progress.copied_bytes,
        zero_bytes=progress.zero_bytes,
        skipped_bytes=progress.skipped_bytes,
        rate_bytes_per_second=progress.rate_bytes_per_second,
        phase=progress.phase,
        last_movement_time=_time(progress.last_movement_wall_ns),
        dirty_rate_bytes_per_second=progress.dirty_rate_bytes_per_second,
    )
    if progress.eta_seconds is not None:
        message.eta.FromNanoseconds(round(progress.eta_seconds * 1e9))
    return message


def _error(fault: Fault) -> job_pb2.JobError:
    return job_pb2.JobError(
        reason=fault.reason,
        message=fault.message,
        advice=fault.advice,
        metadata=fault.metadata,
        side=to_wire(copy_pb2.CopySide, fault.side),
        error_time=_time(fault.wall_ns),
    )


def _step(step: Step) -> job_pb2.JobStep:
    state = to_wire(job_pb2.JobState, JobState(step.state))
    return job_pb2.JobStep(time=_time(step.wall_ns), state=state, note=step.note, trace_id=step.trace_id)


def _time(wall_ns: int) -> Timestamp | None:
    if not wall_ns:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(wall_ns)
    return stamp
