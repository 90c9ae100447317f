"""Values and messages hold together: kinds with their options, enumerations with their twins."""

from dataclasses import fields

import pytest

from blockyard.base.errors import InvalidArgument, MissingOption
from blockyard.base.ranges import ByteRange
from blockyard.jobs.kinds import catalogue
from blockyard.jobs.kinds.base import Kind
from blockyard.jobs.lifecycle.table import JobState
from blockyard.jobs.node.port import CopyKind, CopyMode, CopySide, FinishAction, SessionRequest, SyncMode
from blockyard.jobs.node.remote import create_message, read_report
from blockyard.jobs.rpc import convert
from blockyard.jobs.store.records import kind_of, plain_options
from blockyard.jobs.wire import from_wire, to_wire
from blockyard.v1 import copy_pb2, job_pb2

PAIRS = {**convert.PAIRS, CopyKind: copy_pb2.CopyKind, FinishAction: copy_pb2.FinishAction}


def filled(kind: type[Kind]) -> job_pb2.Job:
    """A job whose every option has a value that is not the default."""
    job = job_pb2.Job(job_id="j")
    message = getattr(job, kind.name)
    for field in message.DESCRIPTOR.fields:
        if field.enum_type is not None:
            setattr(message, field.name, field.enum_type.values[-1].number)
        elif field.cpp_type == field.CPPTYPE_STRING:
            setattr(message, field.name, f"value-of-{field.name}")
        elif field.cpp_type == field.CPPTYPE_BOOL:
            setattr(message, field.name, True)
        else:
            setattr(message, field.name, 8192)
    return job


def test_every_kind_of_the_contract_has_a_module_and_every_module_a_kind():
    assert set(catalogue()) == {field.name for field in job_pb2.Job.DESCRIPTOR.oneofs_by_name["kind"].fields}


@pytest.mark.parametrize("kind", catalogue().values(), ids=str)
def test_options_are_the_message_field_for_field(kind):
    message = job_pb2.Job.DESCRIPTOR.fields_by_name[kind.name].message_type
    assert [item.name for item in fields(kind.Options)] == [field.name for field in message.fields]


@pytest.mark.parametrize("kind", catalogue().values(), ids=str)
def test_options_survive_the_wire_and_the_store(kind):
    job = filled(kind)
    made = convert.kind_from(job)
    defaults = kind.Options()
    assert all(getattr(made.options, item.name) != getattr(defaults, item.name) for item in fields(kind.Options))
    again = job_pb2.Job(job_id="j")
    convert.fill_options(getattr(again, kind.name), made)
    assert again == job
    assert kind_of(kind.name, plain_options(made)) == made


@pytest.mark.parametrize("kind", catalogue().values(), ids=str)
def test_an_empty_message_gives_the_defaults(kind):
    job = job_pb2.Job(job_id="j")
    getattr(job, kind.name).SetInParent()
    assert convert.kind_from(job) == kind(kind.Options())


def test_a_job_without_a_kind_is_refused_with_the_kinds_there_are():
    with pytest.raises(MissingOption, match="backup, commit, mirror, stream"):
        convert.spec_from(job_pb2.Job(job_id="j"))


def test_auto_finalize_is_on_and_auto_dismiss_is_off_unless_said():
    job = job_pb2.Job(job_id="j", stream=job_pb2.StreamOptions(node_name="a"))
    assert (convert.spec_from(job).auto_finalize, convert.spec_from(job).auto_dismiss) == (True, False)
    job.auto_finalize, job.auto_dismiss = False, True
    assert (convert.spec_from(job).auto_finalize, convert.spec_from(job).auto_dismiss) == (False, True)


@pytest.mark.parametrize(("words", "enum"), PAIRS.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_every_word_has_a_number_and_every_number_a_word(words, enum):
    numbers = [value.number for value in enum.DESCRIPTOR.values if value.number]
    assert sorted(to_wire(enum, word) for word in words) == sorted(numbers)
    assert {from_wire(enum, words, number, "field") for number in numbers} == set(words)
    assert from_wire(enum, words, 0, "field") is None
    assert to_wire(enum, None) == 0
    with pytest.raises(InvalidArgument, match="field"):
        from_wire(enum, words, 99, "field")


def test_the_state_machine_is_told_whole():
    rows = convert.state_machine_message().rows
    assert [row.state for row in rows] == [to_wire(job_pb2.JobState, state) for state in list(JobState)[1:]]
    ready = next(row for row in rows if row.state == job_pb2.JOB_STATE_READY)
    assert job_pb2.JOB_VERB_COMPLETE in ready.verbs
    assert list(ready.next_states) == [
        job_pb2.JOB_STATE_STANDBY,
        job_pb2.JOB_STATE_WAITING,
        job_pb2.JOB_STATE_ABORTING,
    ]


def test_a_session_is_asked_for_with_owner_token_and_every_field():
    request = SessionRequest(
        "j", CopyKind.MIRROR, "a", "t", sync=SyncMode.TOP, copy_mode=CopyMode.WRITE_BLOCKING, unmap=False
    )
    message = create_message(request, 7, True)
    assert (message.session_id, message.owner, message.fencing_token) == ("j", "job/j", 7)
    assert (message.kind, message.sync) == (copy_pb2.COPY_KIND_MIRROR, copy_pb2.SYNC_MODE_TOP)
    assert message.copy_mode == copy_pb2.COPY_MODE_WRITE_BLOCKING
    assert message.HasField("unmap")
    assert (message.unmap, message.validate_only) == (False, True)
    assert not create_message(SessionRequest("j", CopyKind.STREAM, "a"), 7, False).HasField("unmap")


def test_a_failed_report_keeps_its_side_range_and_reason():
    message = copy_pb2.RunCopyResponse(
        order_id=3,
        copied_bytes=1,
        remaining_bytes=9,
        failed_side=copy_pb2.COPY_SIDE_TARGET,
        reason="NO_SPACE",
        error_message="no space left",
    )
    message.failed_range.offset_bytes = 4096
    message.failed_range.length_bytes = 512
    report = read_report(message)
    assert report.failed
    assert (report.failed_side, report.failed_range) == (CopySide.TARGET, ByteRange(4096, 512))
    assert (report.reason, report.error_message, report.remaining_bytes) == ("NO_SPACE", "no space left", 9)
    assert not read_report(copy_pb2.RunCopyResponse(order_id=3)).failed


def test_a_node_that_tells_negative_figures_is_not_believed():
    with pytest.raises(InvalidArgument, match="remaining_bytes"):
        read_report(copy_pb2.RunCopyResponse(order_id=1, remaining_bytes=-1))
