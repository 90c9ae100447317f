"""JobService: each method translates, delegates and answers.

What lives here: the methods. What must not: anything that would be missed if jobs were driven without a wire.
"""

# ruff: noqa: N802 - method names are the contract's

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc

from blockyard.base.errors import InvalidArgument, JobElsewhere, ResourceNotFound
from blockyard.jobs.lifecycle.manager import Manager
from blockyard.jobs.rpc import convert
from blockyard.jobs.rpc.forwarding import Peers
from blockyard.v1 import job_pb2
from blockyard.v1.job_pb2_grpc import JobServiceServicer

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
"""job.proto, ListJobsRequest.page_size."""

Context = grpc.aio.ServicerContext[Any, Any]


Verb = Callable[["JobServicer", Any, Context], Awaitable[Any]]


def _where_it_is(verb: Verb) -> Verb:
    """A verb on a job of another replica is that replica's."""

    @functools.wraps(verb)
    async def call(self: "JobServicer", request: Any, context: Context) -> Any:
        try:
            return await verb(self, request, context)
        except JobElsewhere as elsewhere:
            if self._peers is None:
                raise
            return await self._peers.unary(verb.__name__, request, context, elsewhere)

    return call


class JobServicer(JobServiceServicer):
    """The service, over the jobs of one manager."""

    def __init__(self, manager: Manager, peers: Peers | None = None) -> None:
        self._manager = manager
        self._peers = peers

    async def CreateJob(self, request: job_pb2.CreateJobRequest, context: Context) -> job_pb2.Job:
        spec = convert.spec_from(request.job)
        if request.validate_only:
            return convert.job_message(await self._manager.validate(spec))
        return convert.job_message(await self._manager.create(spec, request.request_id))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.Job:
        return convert.job_message(await self._manager.show(request.job_id))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:
        if request.page_size < 0:
            raise InvalidArgument("page_size", "0 or more", str(request.page_size))
        count = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        views, more = await self._manager.list(request.page_token, count)
        token = views[-1].job_id if more else ""
        return job_pb2.ListJobsResponse(jobs=map(convert.job_message, views), next_page_token=token)

    async def WatchJobs(
        self, request: job_pb2.WatchJobsRequest, context: Context
    ) -> AsyncIterator[job_pb2.WatchJobsResponse]:
        try:
            if request.job_id:
                await self._manager.locate(request.job_id)
        except JobElsewhere as elsewhere:
            if self._peers is None:
                raise
            async with aclosing(self._peers.stream("WatchJobs", request, context, elsewhere)) as answers:
                async for answer in answers:
                    yield answer
            return
        async with aclosing(self._manager.watch(request.job_id, request.start_revision)) as events:
            async for event in events:
                yield convert.event_message(event)

    @_where_it_is
    async def PauseJob(self, request: job_pb2.PauseJobRequest, context: Context) -> job_pb2.Job:
        return convert.job_message(await self._manager.pause(request.job_id))

    @_where_it_is
    async def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: Context) -> job_pb2.Job:
        return convert.job_message(await self._manager.resume(request.job_id))

    @_where_it_is
    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.Job:
        return convert.job_message(await self._manager.cancel(request.job_id, request.force))

    @_where_it_is
    async def CompleteJob(self, request: job_pb2.CompleteJobRequest, context: Context) -> job_pb2.Job:
        action = convert.finish_action_from(request.action)
        return convert.job_message(await self._manager.complete(request.job_id, action))

    @_where_it_is
    async def FinalizeJob(self, request: job_pb2.FinalizeJobRequest, context: Context) -> job_pb2.Job:
        return convert.job_message(await self._manager.finalize(request.job_id))

    @_where_it_is
    async def DismissJob(self, request: job_pb2.DismissJobRequest, context: Context) -> job_pb2.DismissJobResponse:
        try:
            await self._manager.dismiss(request.job_id)
        except ResourceNotFound:
            if not request.allow_missing:
                raise
        return job_pb2.DismissJobResponse()

    @_where_it_is
    async def SetJobSpeed(self, request: job_pb2.SetJobSpeedRequest, context: Context) -> job_pb2.Job:
        return convert.job_message(await self._manager.set_speed(request.job_id, request.speed_bytes_per_second))

    @_where_it_is
    async def ChangeJob(self, request: job_pb2.ChangeJobRequest, context: Context) -> job_pb2.Job:
        mode = convert.copy_mode_from(request.copy_mode)
        return convert.job_message(await self._manager.change(request.job_id, mode))

    async def DescribeStateMachine(
        self, request: job_pb2.DescribeStateMachineRequest, context: Context
    ) -> job_pb2.DescribeStateMachineResponse:
        return convert.state_machine_message()
