"""Jobs as google.longrunning.Operations, to a client that knows nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from blockyard.base.errors import InvalidArgument, ResourceNotFound
from blockyard.client.definitions import NodeDefinition, blkdebug, memory
from blockyard.rpc.address import Address
from blockyard.rpc.channel import open_channel
from blockyard.v1 import job_pb2
from blockyard.v1.drivers_pb2 import BlkdebugInjectError
from tests.support.real_services import House, house

SIZE = 1 << 20


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as yard:
        await yard.memory("a", b"x" * SIZE)
        await yard.memory("t", SIZE)
        yield yard


@pytest.fixture
async def operations(yard: House) -> AsyncIterator[OperationsStub]:
    async with open_channel(Address.parse(f"unix:{yard.folder}/jobs.sock")) as channel:
        yield OperationsStub(channel)


async def wait(operations: OperationsStub, name: str, seconds: int = 30) -> operations_pb2.Operation:
    return await operations.WaitOperation(
        operations_pb2.WaitOperationRequest(name=name, timeout=Duration(seconds=seconds))
    )


async def test_a_job_that_succeeded_is_the_response_of_its_operation(yard: House, operations: OperationsStub):
    await yard.jobs.backup("a", "t", job_id="b", auto_dismiss=False)
    done = await wait(operations, "operations/b")
    shown = job_pb2.Job()
    assert done.done and done.response.Unpack(shown)
    assert (shown.job_id, shown.outcome) == ("b", job_pb2.JOB_OUTCOME_SUCCEEDED)


async def test_a_job_that_goes_on_is_not_done_and_its_metadata_tell_how_far_it_is(
    yard: House, operations: OperationsStub
):
    await yard.jobs.mirror("a", "t", job_id="m", auto_dismiss=False)
    await yard.jobs.wait("m", "ready")
    found = await wait(operations, "operations/m", seconds=0)
    shown = job_pb2.Job()
    assert not found.done and found.metadata.Unpack(shown)
    assert shown.state == job_pb2.JOB_STATE_READY and shown.progress.done_bytes == SIZE


async def test_a_cancelled_job_ends_with_the_code_for_that(yard: House, operations: OperationsStub):
    await yard.jobs.backup("a", "t", job_id="b", speed_bytes_per_second=1 << 16, auto_dismiss=False)
    await operations.CancelOperation(operations_pb2.CancelOperationRequest(name="operations/b"))
    done = await wait(operations, "operations/b")
    assert done.done and done.error.code == code_pb2.CANCELLED


async def test_a_failed_job_ends_with_the_code_and_reason_of_its_error(yard: House, operations: OperationsStub):
    await yard.node.nodes.open(_broken())
    await yard.write("broken", 0, b"data that cannot be read")
    await yard.jobs.backup("broken", "t", job_id="b", auto_dismiss=False)
    done = await wait(operations, "operations/b")
    info = error_details_pb2.ErrorInfo()
    assert done.error.code == code_pb2.INTERNAL and done.error.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("IO_ERROR", "blockyard")


def _broken() -> NodeDefinition:
    rule = BlkdebugInjectError(event="none", iotype="read", errno=5)
    return blkdebug(memory(SIZE), inject_error=[rule], node_name="broken")


async def test_operations_are_listed_page_by_page(yard: House, operations: OperationsStub):
    for name in "xyz":
        await yard.memory(f"t{name}", SIZE)
        await yard.jobs.backup("a", f"t{name}", job_id=name, auto_dismiss=False)
    first = await operations.ListOperations(operations_pb2.ListOperationsRequest(page_size=2))
    rest = await operations.ListOperations(
        operations_pb2.ListOperationsRequest(page_size=2, page_token=first.next_page_token)
    )
    names = [each.name for each in (*first.operations, *rest.operations)]
    assert names == ["operations/x", "operations/y", "operations/z"] and not rest.next_page_token


async def test_a_deleted_operation_is_gone(yard: House, operations: OperationsStub):
    await yard.jobs.backup("a", "t", job_id="b", auto_dismiss=False)
    await wait(operations, "operations/b")
    await operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name="operations/b"))
    with pytest.raises(ResourceNotFound):
        await operations.GetOperation(operations_pb2.GetOperationRequest(name="operations/b"))


@pytest.mark.parametrize(
    ("method", "request_", "error"),
    [
        ("GetOperation", operations_pb2.GetOperationRequest(name="jobs/b"), ResourceNotFound),
        ("GetOperation", operations_pb2.GetOperationRequest(name="operations/nobody"), ResourceNotFound),
        ("ListOperations", operations_pb2.ListOperationsRequest(filter="done"), InvalidArgument),
        ("ListOperations", operations_pb2.ListOperationsRequest(name="jobs"), InvalidArgument),
    ],
)
async def test_what_names_no_operation_is_refused(operations: OperationsStub, method, request_, error):
    with pytest.raises(error):
        await getattr(operations, method)(request_)
