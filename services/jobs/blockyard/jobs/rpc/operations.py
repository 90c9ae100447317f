"""google.longrunning.Operations over the jobs, for tools that know that interface and nothing of QEMU's verbs.

What lives here: the façade. What must not: anything about jobs that JobService does not have.

An operation is called `operations/JOB_ID`; its metadata is the job, and so is its response when the job succeeded.
A job that failed or was cancelled ends with an error: the reason and fields of JobError as ErrorInfo, and the code
of that reason. A job that is READY is not done: completing it is JobService's.
"""

# ruff: noqa: N802 - method names are the contract's

import asyncio
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsServicer as Contract
from google.protobuf.empty_pb2 import Empty
from google.rpc import code_pb2, error_details_pb2, status_pb2

from blockyard.base.errors import CATALOGUE, DOMAIN, InvalidArgument, ResourceNotFound
from blockyard.jobs.rpc.service import JobServicer
from blockyard.v1 import job_pb2

PREFIX: Final = "operations/"
MAX_WAIT_SECONDS: Final = 3600.0
"""Of WaitOperation; who wants to wait longer asks again."""

Context = grpc.aio.ServicerContext[Any, Any]


class OperationsServicer(Contract):  # type: ignore[misc]
    """Jobs as operations."""

    def __init__(self, jobs: JobServicer) -> None:
        self._jobs = jobs

    async def ListOperations(
        self, request: operations_pb2.ListOperationsRequest, context: Context
    ) -> operations_pb2.ListOperationsResponse:
        if request.name not in ("", "operations"):
            raise InvalidArgument("name", "operations, or nothing", request.name)
        if request.filter:
            raise InvalidArgument("filter", "none: ListJobs and WatchJobs tell more", request.filter)
        wanted = job_pb2.ListJobsRequest(page_size=request.page_size, page_token=request.page_token)
        found = await self._jobs.ListJobs(wanted, context)
        return operations_pb2.ListOperationsResponse(
            operations=map(operation_of, found.jobs), next_page_token=found.next_page_token
        )

    async def GetOperation(
        self, request: operations_pb2.GetOperationRequest, context: Context
    ) -> operations_pb2.Operation:
        job_id = _job_id(request.name)
        return operation_of(await self._jobs.GetJob(job_pb2.GetJobRequest(job_id=job_id), context))

    async def CancelOperation(self, request: operations_pb2.CancelOperationRequest, context: Context) -> Empty:
        """Without force: a job that is READY ends with its target as it is."""
        await self._jobs.CancelJob(job_pb2.CancelJobRequest(job_id=_job_id(request.name)), context)
        return Empty()

    async def DeleteOperation(self, request: operations_pb2.DeleteOperationRequest, context: Context) -> Empty:
        """Forget a job that ended."""
        await self._jobs.DismissJob(job_pb2.DismissJobRequest(job_id=_job_id(request.name)), context)
        return Empty()

    async def WaitOperation(
        self, request: operations_pb2.WaitOperationRequest, context: Context
    ) -> operations_pb2.Operation:
        """As it is when it is done, or when the time is over: that is no error."""
        job_id = _job_id(request.name)
        last = await self._jobs.GetJob(job_pb2.GetJobRequest(job_id=job_id), context)
        try:
            async with asyncio.timeout(_seconds(request)):
                last = await self._ended(last, context)
        except TimeoutError:
            last = await self._jobs.GetJob(job_pb2.GetJobRequest(job_id=job_id), context)
        return operation_of(last)

    async def _ended(self, last: job_pb2.Job, context: Context) -> job_pb2.Job:
        watch = self._jobs.WatchJobs(job_pb2.WatchJobsRequest(job_id=last.job_id), context)
        async with aclosing(watch) as events:  # type: ignore[type-var]
            async for event in events:
                if event.HasField("job"):
                    last = event.job
                if _is_done(last):
                    break
        return last


def operation_of(job: job_pb2.Job) -> operations_pb2.Operation:
    """The job as an operation."""
    operation = operations_pb2.Operation(name=f"{PREFIX}{job.job_id}", done=_is_done(job))
    operation.metadata.Pack(job)
    if not operation.done:
        return operation
    if job.outcome == job_pb2.JOB_OUTCOME_SUCCEEDED:
        operation.response.Pack(job)
    else:
        operation.error.CopyFrom(_status(job))
    return operation


def _is_done(job: job_pb2.Job) -> bool:
    return job.outcome != job_pb2.JOB_OUTCOME_UNSPECIFIED


def _status(job: job_pb2.Job) -> status_pb2.Status:
    reason, message = job.error.reason, job.error.message
    if job.outcome == job_pb2.JOB_OUTCOME_CANCELLED:
        return status_pb2.Status(code=code_pb2.CANCELLED, message=message or "the job was cancelled")
    known = CATALOGUE.get(reason)
    code = code_pb2.Code.Value(known.code) if known is not None else code_pb2.UNKNOWN
    status = status_pb2.Status(code=code, message=message)
    metadata = {**job.error.metadata, "advice": job.error.advice}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    return status


def _job_id(name: str) -> str:
    if not name.startswith(PREFIX):
        raise ResourceNotFound("operation", name)
    return name.removeprefix(PREFIX)


def _seconds(request: operations_pb2.WaitOperationRequest) -> float:
    if not request.HasField("timeout"):
        return MAX_WAIT_SECONDS
    seconds = int(request.timeout.ToNanoseconds()) / 1e9
    if seconds < 0:
        raise InvalidArgument("timeout", "0 or more", f"{seconds:g} s")
    return min(seconds, MAX_WAIT_SECONDS)
