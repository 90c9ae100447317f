"""The loop that takes one job through its life.

What lives here: the order of things (create, work, wait, finalize, abort, conclude) and the points where a job
may stop. What must not: what a kind means (`kinds`), how orders are sent (`copying`), the tables (`table`).

Theory. One task per job runs `run` from CREATED to NULL. Verbs leave requests at the job; this loop looks at
them wherever it may stop: before every order, while nothing is left to do, while it waits. A failure anywhere
after CREATED leads through one place, `_abort`, to CONCLUDED.

Promises:
1. The session at the node is finished in exactly one way: the kind's own, or ABORT. When that cannot be told
   (the node is away for longer than patience allows) the fault says so, and the session keeps the guest's data
   safe.
2. Being cancelled as a task (a service that stops) ends nothing at the node and writes no outcome: another
   incarnation takes the job up where its record says it was, and its session where that is.
3. A job that was fenced off touches nothing any more.
4. Whatever is done at the node for good (a session made, its end) is written down before it is asked for, or can
   be told from the session afterwards. So every stage may be entered again, and is, after a crash.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import (
    BlockError,
    InternalError,
    JobCancelled,
    JobStoreUnavailable,
    OwnerMismatch,
    ResourceBusy,
    ResourceNotFound,
    SessionLost,
    SnapshotBroken,
)
from blockyard.base.failpoints import reach
from blockyard.jobs.copying.bell import Tries
from blockyard.jobs.copying.copier import Copier, is_passing
from blockyard.jobs.copying.policy import Fault, Reaction, io_status_after, react
from blockyard.jobs.lifecycle import table
from blockyard.jobs.lifecycle.ending import Ending
from blockyard.jobs.lifecycle.job import FOR_EVER, Job, TakenOver
from blockyard.jobs.lifecycle.spec import JobOutcome
from blockyard.jobs.lifecycle.table import JobState
from blockyard.jobs.lifecycle.tracing import Segments
from blockyard.jobs.lifecycle.transaction import Alone, Transaction
from blockyard.jobs.node.port import FinishAction, NodePort, Report, Session

PROGRESS_NS: Final = 200_000_000
"""Watchers see progress at most this often."""

CHECKPOINT_NS: Final = 2_000_000_000
"""How often progress is written down while it grows: what another incarnation shows until the node told it more.
The map of what is left is the node's own and is always exact (0014)."""

LOOK_SECONDS: Final = 5.0
"""How often an endless job asks the node how it stands."""

_log = logging.getLogger(__name__)


class _Failed(Exception):
    """Carries the fault that ends the job up to `run`."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a job puts up with a node that does not answer."""

    work_ns: int = 30_000_000_000
    """While it works; then the error policy decides."""
    finish_ns: int = 60_000_000_000
    """While it asks for the end of the session; then the job fails without knowing."""


@dataclass(slots=True)
class Runner:
    """The life of one job."""

    job: Job
    node: NodePort
    clock: Clock
    segments: Segments
    patience: Patience = field(default_factory=Patience)
    transaction: Transaction = field(default_factory=Alone)
    domain: str = ""
    """Which store knows the job."""
    resumed: bool = False
    """The job was recalled from its record."""
    session: Session | None = None
    created: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the session exists, or can no longer come to be."""
    refusal: BlockError | None = None
    """Why the job could not be created; set before `created`."""
    _told_ns: int = 0
    _retries: Tries = field(default_factory=lambda: Tries(FOR_EVER))
    _suspicious: bool = False
    _saved_ns: int = 0
    _saved_bytes: int = 0

    async def run(self) -> None:
        """CREATED to NULL, or from where the record says. Returns when the job is gone; raises TakenOver."""
        job = self.job
        try:
            if self.resumed:
                job.announce()
            elif not await self._begin():
                return
            if not job.ended:
                if not job.session_made and job.state is JobState.CREATED and not await self._create():
                    return
                self.created.set()
                await self._work_to_the_end()
            self.created.set()
            await self._until_dismissed()
        finally:
            self.segments.end()
            self.created.set()

    # --- CREATED ---

    async def _begin(self) -> bool:
        try:
            await self.job.begin()
        except BlockError as error:
            self.refusal = error
        return self.refusal is None

    async def _create(self) -> bool:
        job = self.job
        self._phase("creating")
        try:
            made = self._reached(self._make_session) if self.resumed else self._make_session()
            self.session = await made
        except BlockError as error:
            self.refusal = error
            if is_passing(error):
                await self._ending.undo_creation()
        except Exception as bug:
            _log.exception("creating job %s", job.spec.job_id)
            self.refusal = InternalError(repr(bug))
        if self.session is None:
            await job.forget(refused=True)
            return False
        job.spec = replace(job.spec, filter_node_name=self.session.filter_node_name)
        self._adopt(self.session)
        job.session_made = True
        reach("jobs.session.before")
        await job.save_surely()
        reach("jobs.session.after")
        return True

    async def _make_session(self) -> Session:
        spec = self.job.spec
        request = await spec.kind.session(spec.job_id, spec.filter_node_name, self.node)
        return await self.node.create_session(replace(request, domain=self.domain))

    async def _reached(self, call: Callable[[], Awaitable[Session]]) -> Session:
        """What the node answers, however long it is away: a job that was taken up has nothing better to do."""
        tries = Tries(FOR_EVER)
        while True:
            try:
                return await call()
            except BlockError as error:
                if not is_passing(error) or self.job.force:
                    raise
                self._phase("waiting for the node")
                delay_ns = tries.failed(self.clock.monotonic_ns())
                assert delay_ns is not None
                self.job.bell.clear()
                await self.job.bell.wait(delay_ns / 1e9)

    # --- RUNNING to PENDING, or ABORTING, to CONCLUDED ---

    async def _work_to_the_end(self) -> None:
        job = self.job
        try:
            if job.state is JobState.ABORTING:
                await self._abort(job.fault or self._fault(JobCancelled(job.spec.job_id)))
            else:
                if self.session is None:
                    await self._take_over()
                await self._stages()
                job.outcome = JobOutcome.SUCCEEDED
        except TakenOver:
            raise
        except _Failed as failed:
            await self._abort(failed.fault)
        except BlockError as error:
            await self._abort(self._fault(error), fenced=isinstance(error, OwnerMismatch))
        except Exception as bug:
            _log.exception("job %s", job.spec.job_id)
            await self._abort(self._fault(InternalError(repr(bug))))
        job.finalizing = False
        self._sum_up()
        await job.move(JobState.CONCLUDED)

    async def _take_over(self) -> None:
        """The session of an earlier incarnation becomes ours; from now on the node refuses that one."""
        job = self.job
        try:
            session = await self._reached(lambda: self.node.adopt_session(job.spec.job_id))
        except ResourceNotFound as gone:
            raise SessionLost(job.spec.job_id) from gone
        if session.finished and not job.finalizing:
            raise ResourceBusy("copy session", session.session_id, f"somebody ended it by {session.finished}, who")
        self.session = session
        self._adopt(session)
        job.announce()

    async def _stages(self) -> None:
        """Every stage from the present one on."""
        job = self.job
        if job.state is JobState.CREATED:
            job.raise_if_cancelled()
            await job.move(JobState.RUNNING)
        if job.state not in (JobState.WAITING, JobState.PENDING):
            await self._work()
            self._phase("finishing")
            await job.move(JobState.WAITING)
        if job.state is JobState.WAITING:
            await self._wait_for_others()
        if not job.finalizing:
            await self._pend()
        await self._finish()

    def _adopt(self, session: Session) -> None:
        self.job.progress.adopt(session, self.clock.monotonic_ns(), self.clock.wall_ns())

    async def _work(self) -> None:
        """Copy until nothing is left; a job that converges then follows the guest until it is completed."""
        async with self._copier() as copier:
            self._phase("protecting" if self.job.spec.kind.endless else "copying")
            copier.pass_over(self.job.passed_over_bytes)
            while not await self._step(copier):
                await self._checkpoint()
        if self.job.first_fault:
            raise _Failed(self.job.first_fault)

    async def _checkpoint(self) -> None:
        """Progress is written down now and then; copying does not wait for a store that is away."""
        now_ns, done = self.clock.monotonic_ns(), self.job.progress.done_bytes
        if now_ns - self._saved_ns < CHECKPOINT_NS or done == self._saved_bytes:
            return
        self._saved_ns, self._saved_bytes = now_ns, done
        try:
            await self.job.save()
            reach("jobs.checkpoint.after")
        except JobStoreUnavailable as problem:
            _log.warning("progress of job %s is not written down: %s", self.job.spec.job_id, problem)

    async def _step(self, copier: Copier) -> bool:
        """From one stop point to the next. True when the work is done."""
        job, kind = self.job, self.job.spec.kind
        await self._stop_point(copier)
        if self._suspicious:
            await self._look_at_session()
        if kind.endless:
            await self._protect(copier)
            return False
        if copier.drained and not kind.converges:
            return True
        if copier.drained and job.state is JobState.RUNNING:
            self._phase("ready")
            await job.move(JobState.READY)
        if self._may_complete(copier):
            await self._settle(copier)
            return job.state is JobState.READY and not job.pause_wanted
        if job.state is JobState.READY:
            job.progress.phase = "ready" if copier.drained else "converging"
        await self._turn(copier, follow=job.state is JobState.READY)
        return False

    async def _look_at_session(self) -> None:
        """After a failure, or orders that do nothing: can this session still come to its end?"""
        assert self.session is not None
        try:
            session = await self.node.get_session(self.session.session_id)
        except BlockError as error:
            if not is_passing(error):
                raise
            return
        self._suspicious = False
        if session.snapshot_broken:
            raise SnapshotBroken(self.job.spec.job_id)
        if session.finished:
            raise ResourceBusy("copy session", session.session_id, f"somebody ended it by {session.finished}, who")

    async def _protect(self, copier: Copier) -> None:
        """An endless job only looks how far the guest has driven it."""
        job = self.job
        assert self.session is not None
        try:
            session = await self.node.get_session(self.session.session_id)
        except BlockError as error:
            if not is_passing(error):
                raise
        else:
            if session.snapshot_broken:
                raise SnapshotBroken(job.spec.job_id)
            self._adopt(session)
        job.bell.clear()
        if not self._attention(copier):
            await job.bell.wait(LOOK_SECONDS)

    def _copier(self) -> Copier:
        assert self.session is not None
        return Copier(
            self.node,
            self.session,
            clock=self.clock,
            bell=self.job.bell,
            window=self.job.spec.kind.window(),
            pacer=self.job.pacer,
            progress=self.job.progress,
            patience_ns=self.patience.work_ns,
        )

    def _may_complete(self, copier: Copier) -> bool:
        """COMPLETE acts once what is left fits into the drained instant of the pivot: no more than a window.

        An error makes a READY job unready again, as in QEMU: then it acts when nothing is left.
        """
        if self.job.complete_action is None or self.job.state is not JobState.READY:
            return False
        small = self.job.progress.remaining_bytes <= copier.window_bytes
        return copier.drained or (small and not self._retries.failing)

    async def _turn(self, copier: Copier, follow: bool) -> None:
        try:
            report = await copier.turn(lambda: self._attention(copier), follow=follow)
        except BlockError as error:
            if not is_passing(error):
                raise
            self._react(copier, self._fault(error))
            return
        if report:
            self._digest(copier, report)

    def _attention(self, copier: Copier) -> bool:
        """Something was asked of the job that the loop must look at."""
        job = self.job
        if job.state is JobState.PENDING:
            return job.finalize_requested or job.cancel_requested
        return job.cancel_requested or job.pause_wanted or self._may_complete(copier)

    def _digest(self, copier: Copier, report: Report) -> None:
        if report.failed:
            self._react(copier, Fault.of_report(report, self.clock.wall_ns()), report)
        elif report.done_bytes:
            self._retries.worked()
        elif report.remaining_bytes and not self.job.first_fault:
            self._try_later(copier)
        now_ns = self.clock.monotonic_ns()
        if now_ns - self._told_ns >= PROGRESS_NS:
            self._told_ns = now_ns
            self.segments.renew_if_long()
            self.job.announce()

    def _react(self, copier: Copier, fault: Fault, report: Report | None = None) -> None:
        """What the error policy says to a failure of copying."""
        job, kind = self.job, self.job.spec.kind
        reaction = react(kind.policies.of(fault.side), fault.reason)
        if reaction is Reaction.REPORT:
            raise _Failed(fault)
        if reaction is Reaction.STOP and job.state is not JobState.PENDING:
            job.stop_for(fault, io_status_after(fault.reason))
            return
        job.ignored_errors += 1
        if kind.passes_over and report and report.failed_range:
            job.first_fault = job.first_fault or fault
            job.passed_over_bytes = max(job.passed_over_bytes, report.failed_range.end)
            copier.pass_over(report.failed_range.end)
            return
        self._try_later(copier)

    def _try_later(self, copier: Copier) -> None:
        self._suspicious = True
        delay_ns = self._retries.failed(self.clock.monotonic_ns())
        assert delay_ns is not None
        copier.hold(delay_ns / 1e9)

    async def _stop_point(self, copier: Copier) -> None:
        """Where a job may stop: cancelled, or paused until it is not."""
        job = self.job
        if job.cancel_requested or job.pause_wanted:
            await self._settle(copier)
        if job.pause_wanted or job.state in table.RESUMED_FORM:
            await self._stay_paused()
        job.raise_if_cancelled()

    async def _stay_paused(self) -> None:
        job, working = self.job, self.job.progress.phase
        self._phase("paused")
        self.segments.end()
        if job.state in table.PAUSED_FORM:
            await job.move(table.PAUSED_FORM[job.state])
        while job.pause_wanted:
            job.bell.clear()
            await job.bell.wait()
        job.progress.restart_rate()
        self._phase(working)
        await job.move(table.RESUMED_FORM[job.state])

    async def _settle(self, copier: Copier) -> None:
        """Let what is in flight come back. Its failures count, unless the job is cancelled."""
        for report in await copier.settle(lambda: self.job.force):
            if not self.job.cancel_requested:
                self._digest(copier, report)

    # --- WAITING, PENDING ---

    async def _wait_for_others(self) -> None:
        job = self.job
        ready = asyncio.create_task(self.transaction.all_ready(job.spec.job_id))
        ready.add_done_callback(lambda _: job.bell.ring())
        try:
            while not ready.done():
                job.bell.clear()
                job.raise_if_cancelled()
                await job.bell.wait()
            await ready
        finally:
            ready.cancel()
        job.raise_if_cancelled()

    async def _pend(self) -> None:
        """Wait for FINALIZE. A job that converges goes on following the guest: the last drain stays short."""
        job = self.job
        if job.state is not JobState.PENDING:
            await job.move(JobState.PENDING)
        if not job.finalize_requested:
            self._phase("pending")
            async with self._copier() as copier:
                while not self._attention(copier):
                    if job.spec.kind.converges:
                        await self._turn(copier, follow=True)
                    else:
                        job.bell.clear()
                        await job.bell.wait()
                await self._settle(copier)
        job.raise_if_cancelled()

    async def _finish(self) -> None:
        job = self.job
        job.finalizing = True
        reach("jobs.finalizing.before")
        await job.save_surely()
        reach("jobs.finalizing.after")
        job.announce()
        action = job.spec.kind.finish(job.complete_action)
        self._phase("pivoting" if action is FinishAction.PIVOT else "finishing")
        if (await self._ending.look(lambda: False)).snapshot_broken:
            raise SnapshotBroken(job.spec.job_id)
        self._adopt(await self._ending.finish(action, lambda: False))

    # --- ABORTING ---

    async def _abort(self, fault: Fault, fenced: bool = False) -> None:
        job = self.job
        cancelled = fault.reason == JobCancelled.reason
        job.outcome = JobOutcome.CANCELLED if cancelled else JobOutcome.FAILED
        job.fault = fault
        job.finalizing = False
        if job.state in table.RESUMED_FORM:
            await job.move(table.RESUMED_FORM[job.state])
        self._phase("aborting")
        if job.state is not JobState.ABORTING:
            await job.move(JobState.ABORTING)
        if fenced:
            return
        try:
            await self._ending.finish(FinishAction.ABORT, lambda: job.force)
        except (OwnerMismatch, ResourceNotFound):
            _log.info("the session of job %s is not ours to end", job.spec.job_id)
        except BlockError as error:
            _log.warning("the session of job %s is left at the node: %s", job.spec.job_id, error)
            job.fault = fault.noting(session_left=str(error))

    # --- CONCLUDED ---

    async def _until_dismissed(self) -> None:
        job = self.job
        self.segments.end()
        while not job.dismiss_requested:
            job.bell.clear()
            await job.bell.wait()
        await job.forget()

    # --- shared ---

    @property
    def _ending(self) -> Ending:
        return Ending(self.node, self.clock, self.job.spec.job_id, self.patience.finish_ns)

    def _fault(self, error: BlockError) -> Fault:
        return Fault.of_error(error, self.clock.wall_ns())

    def _phase(self, name: str) -> None:
        if name == self.job.progress.phase and name == self.segments.phase_name:
            return
        self.job.progress.phase = name
        self.segments.phase(name)
        self.job.trace_id = self.segments.trace_id
        self.job.last_trace = self.segments.last_trace

    def _sum_up(self) -> None:
        progress = self.job.progress
        progress.phase = "concluded"
        outcome = str(self.job.outcome)
        self.segments.sum_up(
            self.job.start_wall_ns or self.job.create_wall_ns,
            outcome,
            copied_bytes=progress.copied_bytes,
            zero_bytes=progress.zero_bytes,
            skipped_bytes=progress.skipped_bytes,
        )
