"""The catalogue and the wire are one: every error survives the way there and back."""

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base import errors
from blockyard.rpc.status import MAX_DETAILS, PRECONDITIONS, RESOURCES, from_rpc_error, from_status, to_status


def sample(kind: type[errors.BlockError], text: str = "word", number: int = 7) -> errors.BlockError:
    fields = {"RemoteError": {"status": "ABORTED"}}.get(kind.__name__, {})
    empty = kind.from_metadata({})
    values = {name: number if value == 0 else text for name, value in empty.values().items()} | fields
    return kind.from_metadata({name: str(value) for name, value in values.items()})


def details(status: status_pb2.Status) -> dict[str, object]:
    found = {}
    for packed in status.details:
        for kind in ("ErrorInfo", "BadRequest", "PreconditionFailure", "ResourceInfo", "RetryInfo"):
            message = getattr(error_details_pb2, kind)()
            if packed.Unpack(message):
                assert kind not in found
                found[kind] = message
    return found


class FailedCall(grpc.RpcError):
    """A failed call as grpc hands it out, with the trailer given."""

    def __init__(self, code: grpc.StatusCode, message: str, trailer: bytes | None = None) -> None:
        self._parts = code, message, trailer

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str:
        return self._parts[1]

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        return [] if self._parts[2] is None else [("grpc-status-details-bin", self._parts[2])]


@pytest.mark.parametrize("kind", errors.CATALOGUE.values(), ids=lambda kind: kind.reason)
def test_every_error_comes_back_as_it_was(kind) -> None:
    error = sample(kind)
    status = to_status(error, "a" * 32)
    back = from_status(status_pb2.Status.FromString(status.SerializeToString()))
    assert (type(back), back.values(), back.trace_id) == (kind, error.values(), "a" * 32)
    assert status.code == code_pb2.Code.Value(error.canonical()) and status.message == str(error)


@pytest.mark.parametrize("kind", errors.CATALOGUE.values(), ids=lambda kind: kind.reason)
def test_every_error_carries_one_error_info_with_advice(kind) -> None:
    found = details(to_status(sample(kind)))
    info = found["ErrorInfo"]
    assert (info.reason, info.domain) == (kind.reason, "blockyard")
    assert info.metadata["advice"]
    assert ("RetryInfo" in found) == kind.retryable
    assert ("BadRequest" in found) == bool(kind.field)


def test_a_blocker_is_named_with_its_owner() -> None:
    found = details(to_status(errors.NodeInUse("top", "close", "export 'x'")))
    (violation,) = found["PreconditionFailure"].violations
    assert (violation.subject, violation.description) == ("top", "export 'x'")
    assert found["ResourceInfo"].owner == "export 'x'"


def test_a_bad_field_is_named() -> None:
    (violation,) = details(to_status(errors.InvalidArgument("size_bytes", "0 or more", "-1")))[
        "BadRequest"
    ].field_violations
    assert violation.field == "size_bytes"


def test_the_tables_name_errors_that_exist_and_fields_that_they_have() -> None:
    for reason, parts in {**PRECONDITIONS, **RESOURCES}.items():
        values = sample(errors.CATALOGUE[reason]).values()
        assert all(part.format(**values) for part in parts)


@given(kind=st.sampled_from(list(errors.CATALOGUE.values())), text=st.text(max_size=20_000), number=st.integers())
def test_no_content_makes_a_status_too_large_for_a_trailer(kind, text, number) -> None:
    status = to_status(sample(kind, text, number), "a" * 32)
    assert status.ByteSize() <= MAX_DETAILS
    assert type(from_status(status)) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.PeerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlinePassed),
        (grpc.StatusCode.CANCELLED, errors.CallCancelled),
        (grpc.StatusCode.UNIMPLEMENTED, errors.NotImplementedYet),
        (grpc.StatusCode.UNKNOWN, errors.RemoteError),
        (grpc.StatusCode.ABORTED, errors.RemoteError),
    ],
)
def test_an_error_of_grpc_itself_becomes_the_class_for_its_code(code, kind) -> None:
    error = from_rpc_error(FailedCall(code, "gone"), "/p.S/M", "unix:/x")
    assert type(error) is kind and "gone" in str(error)


def test_a_foreign_reason_keeps_its_code_and_name() -> None:
    status = status_pb2.Status(code=code_pb2.ABORTED, message="no")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="LATER_VERSION", domain="blockyard"))
    error = from_rpc_error(FailedCall(grpc.StatusCode.ABORTED, "no", status.SerializeToString()))
    assert isinstance(error, errors.RemoteError)
    assert (error.remote_reason, error.canonical()) == ("LATER_VERSION", errors.Code.ABORTED)


@given(st.binary(max_size=200))
def test_a_hostile_trailer_breaks_nothing(trailer) -> None:
    assert from_rpc_error(FailedCall(grpc.StatusCode.INTERNAL, "x", trailer)).canonical() == errors.Code.INTERNAL
