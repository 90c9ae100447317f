"""All jobs of one incarnation of the service.

What lives here: creation that may be repeated, look-up, lists, limits, the tasks of the jobs, taking up what an
earlier incarnation left, and the stop.
What must not: how a job works (`runner`), the wire.

Theory. A job's task belongs to the manager, not to the call that made it: a client that vanishes ends nothing.
The same id with the same request is the same job; a `request_id` remembers its job even after that is gone, so
that a client that repeats a call whose answer it lost never starts the work twice.

Several services may share a store; each works on its own jobs (`tenancy`) and knows those of others by their
records.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import (
    JobElsewhere,
    JobStoreUnavailable,
    LimitReached,
    RequestIdReused,
    ResourceExists,
    ResourceNotFound,
    ShuttingDown,
)
from blockyard.jobs.lifecycle.job import Job, TakenOver
from blockyard.jobs.lifecycle.orphans import Orphans
from blockyard.jobs.lifecycle.recalling import recall, record_of, requested_of, spec_of
from blockyard.jobs.lifecycle.runner import Patience, Runner
from blockyard.jobs.lifecycle.spec import JobSpec, JobView, check_speed
from blockyard.jobs.lifecycle.table import JobState
from blockyard.jobs.lifecycle.tenancy import Tenancy
from blockyard.jobs.lifecycle.tracing import Segments, Tracer
from blockyard.jobs.lifecycle.transaction import Alone, Transaction
from blockyard.jobs.lifecycle.watch import Event, Watches
from blockyard.jobs.node.port import CopyMode, FinishAction, NodePort
from blockyard.jobs.store.port import MAX_REQUESTS, JobRecord, JobStore
from blockyard.rpc.trace_context import parse

MAX_JOBS: Final = 1000
LEASE_SECONDS: Final = 10.0
"""Longer than any pause of a process that is well, short enough to be back in service within half a minute."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a jobs service."""

    max_jobs: int = MAX_JOBS
    max_requests: int = MAX_REQUESTS
    stop_seconds: float = 10.0
    """How long a stop waits for jobs to end cleanly, where they cannot outlive it."""
    lease_seconds: float = LEASE_SECONDS
    """How long an incarnation may be silent before others take its jobs over."""


class Manager:
    """The jobs, used inside `async with`."""

    def __init__(
        self,
        node: NodePort,
        *,
        clock: Clock,
        store: JobStore,
        tracer: Tracer,
        fencing_token: int,
        address: str = "",
        limits: Limits | None = None,
        patience: Patience | None = None,
        transaction: Transaction | None = None,
    ) -> None:
        self._node = node
        self._clock = clock
        self._store = store
        self._tracer = tracer
        self._limits = limits or Limits()
        self._tenancy = Tenancy(
            store,
            clock,
            fencing_token,
            address=address,
            lease_seconds=self._limits.lease_seconds,
            adopted=self._take_up,
        )
        self._domain = ""
        self._living: asyncio.Task[None] | None = None
        self._patience = patience or Patience()
        self._transaction = transaction or Alone()
        self._runners: dict[str, Runner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._requests: OrderedDict[str, Job] = OrderedDict()
        self._stopping = False
        self.watches = Watches(clock)

    async def __aenter__(self) -> "Manager":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Go on with every job that nobody works on. Raises JobStoreUnavailable."""
        self._domain = await self._store.identity()
        await self._tenancy.adopt_orphans()
        self._living = asyncio.create_task(self._live_on(), name="lease")

    async def _live_on(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tenancy.run())
            group.create_task(Orphans(self._node, self._store, self._clock).run())

    # --- making ---

    async def create(self, spec: JobSpec, request_id: str = "") -> JobView:
        """Start a job. Returns when its session exists at the node; raises why it cannot."""
        spec.check()
        known = self._known(spec, request_id) or await self._recorded(spec, request_id)
        # While the store was asked another call may have made it.
        known = self._known(spec, request_id) or known
        if known:
            return await self._created(known)
        self._check_room()
        job = self._new(spec)
        job.request_id = request_id
        self._remember(request_id, job)
        return await self._created(self._start(job))

    async def _recorded(self, spec: JobSpec, request_id: str) -> Job | None:
        """The job that this request made at another service, or in an earlier life."""
        made = await self._store.request(request_id) if request_id else None
        if made and requested_of(made) != spec:
            raise RequestIdReused(request_id)
        record = await self._store.find(spec.job_id) if made or self._store.shared else None
        if record and record.fencing_token != self._tenancy.number:
            if requested_of(record) != spec:
                raise ResourceExists("job", spec.job_id)
            return self._recalled(record)
        if made and not record:
            gone = self._recalled(made)
            gone.state = gone.stored_state = JobState.NULL
            return gone
        return None

    async def validate(self, spec: JobSpec) -> JobView:
        """Everything that `create` checks, at the node too; nothing happens. The job as it would be."""
        spec.check()
        if spec.job_id in self._runners:
            raise ResourceExists("job", spec.job_id)
        self._check_room()
        request = await spec.kind.session(spec.job_id, spec.filter_node_name, self._node)
        session = await self._node.create_session(request, validate_only=True)
        job = self._new(replace(spec, filter_node_name=session.filter_node_name))
        job.progress.adopt(session, self._clock.monotonic_ns(), self._clock.wall_ns())
        return job.view()

    def _new(self, spec: JobSpec) -> Job:
        return Job(
            spec,
            clock=self._clock,
            store=self._store,
            incarnation=self._tenancy.number,
            fencing_token=self._tenancy.number,
            announce=self._announce,
            record=record_of,
        )

    def _recalled(self, record: JobRecord) -> Job:
        job = recall(self._new(spec_of(record)), record)
        job.fencing_token = record.fencing_token
        return job

    def _known(self, spec: JobSpec, request_id: str) -> Runner | Job | None:
        """The job that this request made already."""
        remembered = self._requests.get(request_id) if request_id else None
        if remembered:
            if remembered.requested != spec:
                raise RequestIdReused(request_id)
            runner = self._runners.get(spec.job_id)
            return runner if runner and runner.job is remembered else remembered
        runner = self._runners.get(spec.job_id)
        if runner and runner.job.requested != spec:
            raise ResourceExists("job", spec.job_id)
        return runner

    async def _created(self, known: Runner | Job) -> JobView:
        if isinstance(known, Job):
            return known.view()
        await known.created.wait()
        if known.refusal:
            raise known.refusal
        return known.job.view()

    def _check_room(self) -> None:
        if self._stopping:
            raise ShuttingDown("jobs")
        if len(self._runners) >= self._limits.max_jobs:
            raise LimitReached("jobs", self._limits.max_jobs)

    def _remember(self, request_id: str, job: Job) -> None:
        if not request_id:
            return
        self._requests[request_id] = job
        if len(self._requests) > self._limits.max_requests:
            self._requests.popitem(last=False)

    def _start(self, job: Job) -> Runner:
        creator = self._tracer.current()
        job.trace_parent = creator.header() if creator else ""
        return self._run(job, resumed=False)

    def _run(self, job: Job, *, resumed: bool) -> Runner:
        job_id = job.spec.job_id
        creator, previous = parse(job.trace_parent), parse(job.last_trace)
        segments = Segments(self._tracer, self._clock, job_id, job.spec.kind.name, creator, previous)
        node = self._node.fenced(job.fencing_token)
        runner = Runner(job, node, self._clock, segments, self._patience, self._transaction)
        runner.resumed, runner.domain = resumed, self._domain
        self._runners[job_id] = runner
        self._tasks[job_id] = asyncio.create_task(self._live(runner), name=f"job {job_id}")
        return runner

    async def _take_up(self, record: JobRecord) -> None:
        """A job is ours now: one that another incarnation left, or our own of before we were thought dead."""
        runner = self._runners.get(record.job_id)
        if runner is not None:
            # What it is doing it may go on doing: at the node nobody has a newer token than its own.
            runner.job.fencing_token = record.fencing_token
            return
        _log.info("job %s is taken up in state %s", record.job_id, record.state)
        job = self._recalled(record)
        job.note_taken_over(self._tenancy.number)
        try:
            await job.save()
        except TakenOver:
            return
        self._run(job, resumed=True)

    async def _live(self, runner: Runner) -> None:
        job_id = runner.job.spec.job_id
        try:
            await runner.run()
        except TakenOver as taken:
            _log.info("job %s goes on elsewhere: %s", job_id, taken)
        except Exception:
            # A bug, or a store that is damaged: it can neither go on nor be written down.
            _log.exception("job %s is lost", job_id)
        finally:
            del self._runners[job_id]
            del self._tasks[job_id]
            self._forget_refused(runner)

    def _forget_refused(self, runner: Runner) -> None:
        """A refused request may be repeated: it made nothing."""
        if runner.refusal:
            for request_id in [key for key, job in self._requests.items() if job is runner.job]:
                del self._requests[request_id]

    # --- looking ---

    def get(self, job_id: str) -> JobView:
        return self._find(job_id).job.view()

    def present(self) -> Mapping[str, JobView]:
        return {job_id: runner.job.view() for job_id, runner in self._runners.items() if _shown(runner)}

    def listed(self, after: str, count: int) -> tuple[Sequence[JobView], bool]:
        """At most `count` jobs by id, those after `after`; whether there are more."""
        names = sorted(name for name, runner in self._runners.items() if name > after and _shown(runner))
        views = [self._runners[name].job.view() for name in names[:count]]
        return views, len(names) > count

    def watch(self, job_id: str = "", start_revision: int = 0) -> AsyncGenerator[Event, None]:
        """Events of a job or of all; see `Watches.watch`. A job must exist, or stand in the history."""
        if job_id and job_id not in self._runners and not (start_revision and self.watches.seen(job_id)):
            raise ResourceNotFound("job", job_id)
        return self.watches.watch(self.present, job_id, start_revision)

    async def show(self, job_id: str) -> JobView:
        """A job, whoever works on it. Raises ResourceNotFound or JobStoreUnavailable."""
        runner = self._runners.get(job_id)
        if runner is not None and _shown(runner):
            return runner.job.view()
        record = await self._store.find(job_id) if self._store.shared else None
        if record is None:
            raise ResourceNotFound("job", job_id)
        return self._recalled(record).view()

    async def list(self, after: str, count: int) -> tuple[Sequence[JobView], bool]:
        """As `listed`, those of other services too. Raises JobStoreUnavailable."""
        if not self._store.shared:
            return self.listed(after, count)
        records = [record for record in await self._store.load() if record.job_id > after]
        views = [self._view_of(record) for record in records[:count]]
        return views, len(records) > count

    def _view_of(self, record: JobRecord) -> JobView:
        runner = self._runners.get(record.job_id)
        return runner.job.view() if runner and _shown(runner) else self._recalled(record).view()

    # --- verbs ---

    async def pause(self, job_id: str) -> JobView:
        job = (await self._mine(job_id)).job
        job.pause()
        return await self._saved(job)

    async def resume(self, job_id: str) -> JobView:
        job = (await self._mine(job_id)).job
        job.resume()
        return await self._saved(job)

    async def cancel(self, job_id: str, force: bool = False) -> JobView:
        job = (await self._mine(job_id)).job
        job.cancel(force)
        return await self._saved(job)

    async def complete(self, job_id: str, action: FinishAction) -> JobView:
        job = (await self._mine(job_id)).job
        job.complete(action)
        return await self._saved(job)

    async def finalize(self, job_id: str) -> JobView:
        job = (await self._mine(job_id)).job
        job.finalize()
        return await self._saved(job)

    async def set_speed(self, job_id: str, speed_bytes_per_second: int) -> JobView:
        check_speed(speed_bytes_per_second)
        job = (await self._mine(job_id)).job
        job.set_speed(speed_bytes_per_second)
        return await self._saved(job)

    async def change(self, job_id: str, mode: CopyMode) -> JobView:
        runner = await self._mine(job_id)
        runner.job.may_change(mode)
        await runner.created.wait()
        await runner.node.set_copy_mode(job_id, mode)
        runner.job.changed(mode)
        return await self._saved(runner.job)

    async def dismiss(self, job_id: str) -> None:
        """Returns when the job is gone, so that its id is free."""
        runner = await self._mine(job_id)
        task = self._tasks.get(job_id)
        runner.job.dismiss()
        if task:
            await asyncio.wait((task,))

    async def _mine(self, job_id: str) -> Runner:
        """Raises ResourceNotFound, JobElsewhere or JobStoreUnavailable."""
        await self.locate(job_id)
        return self._find(job_id)

    async def locate(self, job_id: str) -> None:
        """Raises JobElsewhere for a job of another replica, with its address, or JobStoreUnavailable."""
        if job_id in self._runners:
            return
        if self._store.shared and await self._store.find(job_id) is not None:
            owner = await self._store.owner_of(job_id)
            told = (owner.address or f"jobs service #{owner.number}") if owner else "nobody at this moment"
            raise JobElsewhere(job_id, told)

    def _find(self, job_id: str) -> Runner:
        runner = self._runners.get(job_id)
        if runner is None or not _shown(runner):
            raise ResourceNotFound("job", job_id)
        return runner

    async def _saved(self, job: Job) -> JobView:
        """What an accepted verb asked is written down before it is acknowledged."""
        if not job.ended:
            try:
                await job.save()
            except TakenOver as taken:
                raise taken.mismatch from taken
            job.tell()
        return job.view()

    def _announce(self, job: Job) -> None:
        job.revision = self.watches.next_revision()
        self.watches.publish(job.view())

    # --- stopping ---

    async def stop(self) -> None:
        """Let go of all jobs: the next incarnation goes on with them, and their sessions stay safe at the node.

        Without a durable store a job cannot outlive its service, so every job that may be cancelled is.
        """
        self._stopping = True
        living, self._living = self._living, None
        if living is not None:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
        tasks = list(self._tasks.values())
        if self._store.durable:
            await self._leave(tasks)
        else:
            await self._cancel_all(tasks)
        self.watches.close()

    async def _leave(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._tenancy.end()
        except JobStoreUnavailable as problem:
            _log.warning("others must wait for the lease of this jobs service: %s", problem)

    async def _cancel_all(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for runner in self._runners.values():
            job = runner.job
            job.dismiss_requested = True
            job.bell.ring()
            if "CANCEL" in job.allowed_verbs:
                job.cancel()
        if tasks:
            await self._let_go(tasks)

    async def _let_go(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        time_is_up = asyncio.create_task(self._clock.sleep(self._limits.stop_seconds))
        ended = asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait((time_is_up, ended), return_when=asyncio.FIRST_COMPLETED)
        time_is_up.cancel()
        for task in tasks:
            if not task.done():
                _log.warning("%s did not end in time; its session is left at the node", task.get_name())
                task.cancel()
        await ended


def _shown(runner: Runner) -> bool:
    """A job is nobody's business until it was written down as CREATED."""
    return runner.job.revision > 0
