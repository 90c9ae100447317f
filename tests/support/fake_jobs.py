"""JobService in memory: jobs that a test moves by hand, and watches that can be broken off.

The states are set by tests; the verb table is that of the real service and not repeated here.
"""

import asyncio
from collections.abc import AsyncIterator

from blockyard.base.errors import (
    JobVerbNotAllowed,
    ResourceExists,
    ResourceNotFound,
    RevisionTooOld,
    ShuttingDown,
)
from blockyard.v1 import job_pb2, job_pb2_grpc, types_pb2
from blockyard.v1.job_pb2 import Job


class FakeJobs(job_pb2_grpc.JobServiceServicer):
    """Jobs that do nothing by themselves."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.log: list[job_pb2.WatchJobsResponse] = []
        self.oldest = 0
        """Revisions up to this one are forgotten."""
        self.streams: list[int] = []
        """start_revision of every watch."""
        self.verbs: list[str] = []
        self.closing = False
        self._break = 0
        self._changed = asyncio.Condition()

    async def move(self, job_id: str, state: str, outcome: str = "", **progress: object) -> Job:
        """Set a job's state (a word) and progress, and tell the watchers."""
        job = self.jobs[job_id]
        job.state = job_pb2.JobState.Value(f"JOB_STATE_{state.upper()}")
        if outcome:
            job.outcome = job_pb2.JobOutcome.Value(f"JOB_OUTCOME_{outcome.upper()}")
        for name, value in progress.items():
            setattr(job.progress, name, value)
        await self._publish(job, types_pb2.CHANGE_TYPE_MODIFIED)
        return job

    async def break_watches(self) -> None:
        """End every watch that is open as a stopping service does."""
        self._break += 1
        async with self._changed:
            self._changed.notify_all()

    async def until(self, ready) -> None:
        """Wait until a condition over this fake holds."""
        async with self._changed:
            await self._changed.wait_for(ready)

    async def _publish(self, job: Job, change: int) -> None:
        copy = Job()
        copy.CopyFrom(job)
        revision = self.oldest + len(self.log) + 1
        self.log.append(job_pb2.WatchJobsResponse(change=change, job=copy, revision=revision))
        async with self._changed:
            self._changed.notify_all()

    def _job(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise ResourceNotFound("job", job_id)
        return self.jobs[job_id]

    async def CreateJob(self, request, context):  # noqa: N802
        job = request.job
        if job.job_id in self.jobs:
            raise ResourceExists("job", job.job_id)
        job.state = job_pb2.JOB_STATE_RUNNING
        job.create_time.FromSeconds(1_700_000_000)
        job.start_time.FromSeconds(1_700_000_000)
        if not request.validate_only:
            self.jobs[job.job_id] = job
            await self._publish(job, types_pb2.CHANGE_TYPE_ADDED)
        return job

    async def GetJob(self, request, context):  # noqa: N802
        return self._job(request.job_id)

    async def ListJobs(self, request, context):  # noqa: N802
        jobs = sorted(self.jobs.values(), key=lambda job: job.job_id)
        begin = int(request.page_token or 0)
        token = str(begin + 1) if begin + 1 < len(jobs) else ""
        return job_pb2.ListJobsResponse(jobs=jobs[begin : begin + 1], next_page_token=token)

    async def WatchJobs(self, request, context) -> AsyncIterator[job_pb2.WatchJobsResponse]:  # noqa: N802
        if request.job_id and request.start_revision == 0:
            self._job(request.job_id)
        self.streams.append(request.start_revision)
        async with self._changed:
            self._changed.notify_all()
        if request.start_revision and request.start_revision < self.oldest:
            raise RevisionTooOld(request.start_revision, self.oldest)
        breaks, sent = self._break, request.start_revision
        if not sent:
            sent = self.oldest + len(self.log)
            for job_id, job in sorted(self.jobs.items()):
                if request.job_id in ("", job_id):
                    ended = job.state == job_pb2.JOB_STATE_CONCLUDED  # a test may move it while this is sent
                    yield job_pb2.WatchJobsResponse(change=types_pb2.CHANGE_TYPE_INITIAL, job=job, revision=sent)
                    if request.job_id and ended:
                        return
        while True:
            for event in self.log[max(0, sent - self.oldest) :]:
                sent = event.revision
                if request.job_id in ("", event.job.job_id):
                    yield event
                    if request.job_id and event.job.state == job_pb2.JOB_STATE_CONCLUDED:
                        return
            if self._break != breaks or self.closing:
                raise ShuttingDown("jobs")
            async with self._changed:
                while self.oldest + len(self.log) <= sent and self._break == breaks and not self.closing:
                    await self._changed.wait()

    async def CompleteJob(self, request, context):  # noqa: N802
        job = self._job(request.job_id)
        if job.state != job_pb2.JOB_STATE_READY:
            state = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
            raise JobVerbNotAllowed(job.job_id, "COMPLETE", state, "CANCEL, PAUSE, SET_SPEED")
        self.verbs.append(f"complete {request.action}")
        job.end_time.FromSeconds(1_700_000_004)
        return await self.move(job.job_id, "concluded", "succeeded")

    async def PauseJob(self, request, context):  # noqa: N802
        return await self.move(self._job(request.job_id).job_id, "paused")

    async def ResumeJob(self, request, context):  # noqa: N802
        return await self.move(self._job(request.job_id).job_id, "running")

    async def CancelJob(self, request, context):  # noqa: N802
        self.verbs.append(f"cancel force={request.force}")
        return await self.move(self._job(request.job_id).job_id, "concluded", "cancelled")

    async def FinalizeJob(self, request, context):  # noqa: N802
        return await self.move(self._job(request.job_id).job_id, "concluded", "succeeded")

    async def SetJobSpeed(self, request, context):  # noqa: N802
        job = self._job(request.job_id)
        job.speed_bytes_per_second = request.speed_bytes_per_second
        return job

    async def ChangeJob(self, request, context):  # noqa: N802
        job = self._job(request.job_id)
        job.mirror.copy_mode = request.copy_mode
        return job

    async def DismissJob(self, request, context):  # noqa: N802
        if not request.allow_missing:
            self._job(request.job_id)
        self.jobs.pop(request.job_id, None)
        return job_pb2.DismissJobResponse()

    async def DescribeStateMachine(self, request, context):  # noqa: N802
        row = job_pb2.DescribeStateMachineResponse.Row(state=job_pb2.JOB_STATE_READY)
        return job_pb2.DescribeStateMachineResponse(rows=[row])
