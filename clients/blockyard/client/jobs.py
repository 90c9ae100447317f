"""Long work on the graph: `client.jobs`.

What lives here: starting the four kinds, the verbs, and following a job until it ends. What must not: any
knowledge of which state allows which verb; the service has the tables and its errors name them.
"""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, TypedDict, Unpack

from google.protobuf.message import Message

from blockyard.base.errors import CATALOGUE, InternalError, JobCancelled
from blockyard.client.calls import Service
from blockyard.client.remote import worded
from blockyard.client.watching import Persistence, watch
from blockyard.client.words import to_number
from blockyard.v1 import copy_pb2 as copy
from blockyard.v1 import drivers_pb2 as drivers
from blockyard.v1 import job_pb2 as job
from blockyard.v1 import types_pb2 as types
from blockyard.v1.job_pb2 import Job

PAGE_SIZE = 500

ENDED: Final = frozenset({job.JOB_STATE_CONCLUDED, job.JOB_STATE_NULL})
"""A job in one of these does nothing any more."""

ENUMS: Final[dict[str, Any]] = {
    "sync": copy.SyncMode,
    "copy_mode": copy.CopyMode,
    "bitmap_mode": copy.BitmapMode,
    "on_cbw_error": drivers.OnCbwError,
    "on_error": types.OnError,
    "on_source_error": types.OnError,
    "on_target_error": types.OnError,
}
"""Options that are given as words."""


class JobSettings(TypedDict, total=False):
    """Keywords that every kind of job takes; see the fields of Job. `job_id` left out is made up."""

    job_id: str
    speed_bytes_per_second: int
    auto_finalize: bool
    auto_dismiss: bool
    filter_node_name: str
    labels: Mapping[str, str]
    request_id: str
    validate_only: bool


class Jobs:
    """Starts, steers and follows jobs."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, wanted: Job, *, request_id: str = "", validate_only: bool = False) -> Job:
        """Start a job from its message."""
        request = job.CreateJobRequest(job=wanted, request_id=request_id, validate_only=validate_only)
        return await self._service.unary("CreateJob", request, Job)

    async def mirror(
        self,
        node_name: str,
        target_node_name: str,
        *,
        sync: str = "full",
        copy_mode: str = "background",
        replaces_node_name: str = "",
        granularity_bytes: int = 0,
        buf_size_bytes: int = 0,
        unmap: bool | None = None,
        target_is_zero: bool = False,
        on_source_error: str = "",
        on_target_error: str = "",
        **settings: Unpack[JobSettings],
    ) -> Job:
        """Copy a node to a target and follow its writes; READY when both are the same, until `complete`."""
        options = _numbered(locals(), job.MirrorOptions)
        return await self._start("mirror", job.MirrorOptions(**options), settings)

    async def backup(
        self,
        node_name: str,
        target_node_name: str,
        *,
        sync: str = "full",
        bitmap: str = "",
        bitmap_mode: str = "",
        compress: bool = False,
        on_cbw_error: str = "",
        on_source_error: str = "",
        on_target_error: str = "",
        max_workers: int = 0,
        max_chunk_bytes: int = 0,
        target_is_zero: bool = False,
        **settings: Unpack[JobSettings],
    ) -> Job:
        """Copy a node as it is at the start of the job, while it may be written."""
        options = _numbered(locals(), job.BackupOptions)
        return await self._start("backup", job.BackupOptions(**options), settings)

    async def stream(
        self,
        node_name: str,
        *,
        base_node_name: str = "",
        backing_file: str = "",
        on_error: str = "",
        **settings: Unpack[JobSettings],
    ) -> Job:
        """Copy the chain below a node into it, down to `base_node_name`, or all of it."""
        options = _numbered(locals(), job.StreamOptions)
        return await self._start("stream", job.StreamOptions(**options), settings)

    async def commit(
        self,
        node_name: str,
        *,
        top_node_name: str = "",
        base_node_name: str = "",
        backing_file: str = "",
        on_error: str = "",
        **settings: Unpack[JobSettings],
    ) -> Job:
        """Copy layers into a layer below them."""
        options = _numbered(locals(), job.CommitOptions)
        return await self._start("commit", job.CommitOptions(**options), settings)

    async def get(self, job_id: str) -> Job:
        """One job."""
        return await self._service.unary("GetJob", job.GetJobRequest(job_id=job_id), Job)

    async def pause(self, job_id: str) -> Job:
        """Stop copying at the next chunk."""
        return await self._service.unary("PauseJob", job.PauseJobRequest(job_id=job_id), Job)

    async def resume(self, job_id: str) -> Job:
        """Go on."""
        return await self._service.unary("ResumeJob", job.ResumeJobRequest(job_id=job_id), Job)

    async def cancel(self, job_id: str, *, force: bool = False) -> Job:
        """End a job without its effect."""
        return await self._service.unary("CancelJob", job.CancelJobRequest(job_id=job_id, force=force), Job)

    async def complete(self, job_id: str, action: str = "pivot") -> Job:
        """End a READY job with its effect: pivot or detach."""
        number = to_number(job.CompleteAction, action, "action")
        request = job.CompleteJobRequest(job_id=job_id, action=number)
        return await self._service.unary("CompleteJob", request, Job)

    async def finalize(self, job_id: str) -> Job:
        """Let a PENDING job make its graph change."""
        return await self._service.unary("FinalizeJob", job.FinalizeJobRequest(job_id=job_id), Job)

    async def dismiss(self, job_id: str, *, allow_missing: bool = False) -> None:
        """Forget a CONCLUDED job."""
        request = job.DismissJobRequest(job_id=job_id, allow_missing=allow_missing)
        await self._service.unary("DismissJob", request, job.DismissJobResponse)

    async def set_speed(self, job_id: str, bytes_per_second: int) -> Job:
        """Change the rate limit; 0 is none."""
        request = job.SetJobSpeedRequest(job_id=job_id, speed_bytes_per_second=bytes_per_second)
        return await self._service.unary("SetJobSpeed", request, Job)

    async def change(self, job_id: str, *, copy_mode: str) -> Job:
        """Change how a mirror follows the guest."""
        number = to_number(copy.CopyMode, copy_mode, "copy_mode")
        return await self._service.unary("ChangeJob", job.ChangeJobRequest(job_id=job_id, copy_mode=number), Job)

    async def state_machine(self) -> Sequence[job.DescribeStateMachineResponse.Row]:
        """The service's tables: states, transitions, verbs."""
        request = job.DescribeStateMachineRequest()
        response = await self._service.unary("DescribeStateMachine", request, job.DescribeStateMachineResponse)
        return tuple(response.rows)

    def watch(
        self, job_id: str = "", *, start_revision: int = 0, persistence: Persistence | None = None
    ) -> AsyncIterator[job.WatchJobsResponse]:
        """Changes of a job until its last state, or of all jobs for ever; taken up again when dropped."""

        def start(revision: int) -> AsyncIterator[job.WatchJobsResponse]:
            request = job.WatchJobsRequest(job_id=job_id, start_revision=revision)
            return self._service.stream("WatchJobs", request, job.WatchJobsResponse)

        def is_last(event: job.WatchJobsResponse) -> bool:
            return bool(job_id) and (event.change == types.CHANGE_TYPE_REMOVED or event.job.state in ENDED)

        return watch(start, is_last, start_revision=start_revision, persistence=persistence)

    async def follow(self, job_id: str, *, persistence: Persistence | None = None) -> AsyncIterator[Job]:
        """The job's states from now until it is concluded. Leaving the loop leaves the job alone."""
        async for event in self.watch(job_id, persistence=persistence):
            if event.HasField("job"):
                yield event.job

    async def wait(self, job_id: str, *states: str, persistence: Persistence | None = None) -> Job:
        """Wait until the job is in one of these states (words; `ready` ...) or ended, and return it."""
        numbers = {to_number(job.JobState, word, "states") for word in states}
        last = Job()
        async for last in self.follow(job_id, persistence=persistence):
            if last.state in numbers:
                break
        return last

    async def list(self) -> Sequence[Job]:
        """All jobs by id; every page is fetched."""
        found: Sequence[Job] = ()
        page_token = ""
        while True:
            request = job.ListJobsRequest(page_size=PAGE_SIZE, page_token=page_token)
            response = await self._service.unary("ListJobs", request, job.ListJobsResponse)
            found = (*found, *response.jobs)
            page_token = response.next_page_token
            if not page_token:
                return found

    async def _start(self, kind: str, options: Message, settings: JobSettings) -> Job:
        given: dict[str, Any] = dict(settings)
        request_id, validate_only = given.pop("request_id", ""), given.pop("validate_only", False)
        given.setdefault("job_id", f"{kind}-{uuid.uuid4().hex[:8]}")
        wanted = Job(**given)
        getattr(wanted, kind).CopyFrom(options)
        return await self.create(wanted, request_id=request_id, validate_only=validate_only)


def raise_unless_succeeded(ended: Job) -> Job:
    """Return a job that succeeded; raise what it failed with, or JobCancelled."""
    if ended.outcome == job.JOB_OUTCOME_SUCCEEDED:
        return ended
    if ended.outcome == job.JOB_OUTCOME_CANCELLED:
        raise JobCancelled(job_id=ended.job_id)
    failure = CATALOGUE.get(ended.error.reason, InternalError)
    raise worded(failure, ended.error.message, ended.error.advice, dict(ended.error.metadata))


def _numbered(arguments: Mapping[str, Any], message: Any) -> dict[str, Any]:
    """The arguments that are fields of the options message, with words turned into numbers."""
    return {
        name: to_number(ENUMS[name], arguments[name], name) if name in ENUMS else arguments[name]
        for name in message.DESCRIPTOR.fields_by_name
    }
