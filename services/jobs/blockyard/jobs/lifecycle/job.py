"""One job: its state, what was asked of it, and what it shows.

What lives here: the verbs (they check the table, leave a request, ring the bell), the moves (they check the
other table, write the record, tell the watchers), and the picture for clients. What must not: copying, the
node, decisions about what to do next; those are the runner's.

A job's record is written by whoever works on it. When the store says that this is somebody else now, `TakenOver`
ends what we do with it: nothing more is written, asked of the node or shown.

Invariants:
1. Only `move` changes the state, only along TRANSITIONS, and the record is stored before watchers are told. Verbs
   are checked against the new state from its first moment, so none is accepted that comes too late.
2. A verb never awaits, so what it checks still holds when it acts.
3. `cancel` ends every pause; nothing ends a cancel.
4. Once `finalizing` is set the graph change is under way: only FINALIZE is accepted, and changes nothing.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import JobCancelled, JobStoreUnavailable, JobVerbNotAllowed, OwnerMismatch
from blockyard.base.failpoints import reach
from blockyard.jobs.copying.bell import Bell, Tries
from blockyard.jobs.copying.pacing import Pacer
from blockyard.jobs.copying.policy import Fault, IoStatus
from blockyard.jobs.copying.progress import Progress
from blockyard.jobs.lifecycle import table
from blockyard.jobs.lifecycle.spec import JobOutcome, JobSpec, JobView
from blockyard.jobs.lifecycle.table import JobState, JobVerb
from blockyard.jobs.node.port import CopyMode, FinishAction
from blockyard.jobs.store.port import MAX_STEPS, JobRecord, JobStore, Step

Announce = Callable[["Job"], None]
Record = Callable[["Job"], JobRecord]

_log = logging.getLogger(__name__)

FOR_EVER: Final = 1 << 62
"""Nanoseconds of patience that do not end."""


class TakenOver(Exception):
    """Another incarnation of the service works on the job."""

    def __init__(self, mismatch: OwnerMismatch) -> None:
        super().__init__(str(mismatch))
        self.mismatch = mismatch


class Job:
    """A job. Its runner is the only one that moves it."""

    def __init__(
        self,
        spec: JobSpec,
        *,
        clock: Clock,
        store: JobStore,
        incarnation: int,
        fencing_token: int,
        announce: Announce,
        record: Record,
    ) -> None:
        self.requested = spec
        """As the client asked; what a repeated request is compared with."""
        self.spec = spec
        """As it is now (speed, copy mode, name of the filter)."""
        self.state = JobState.UNDEFINED
        self.stored_state = JobState.UNDEFINED
        """The latest state that was written down: what others are shown."""
        self.outcome: JobOutcome | None = None
        self.fault: Fault | None = None
        self.ignored_errors = 0
        self.io_status = IoStatus.OK
        self.user_paused = False
        self.error_paused = False
        self.cancel_requested = False
        self.force = False
        self.complete_action: FinishAction | None = None
        self.finalize_requested = spec.auto_finalize
        self.dismiss_requested = spec.auto_dismiss
        self.finalizing = False
        self.create_wall_ns = self.start_wall_ns = self.end_wall_ns = 0
        self.revision = 0
        self.trace_id = ""
        self.trace_parent = ""
        self.last_trace = ""
        """traceparent of its latest segment."""
        self.request_id = ""
        self.session_made = False
        """The session was set up: one that the node does not know any more was lost."""
        self.first_fault: Fault | None = None
        """What a job that passed over it fails with in the end."""
        self.passed_over_bytes = 0
        self.history: list[Step] = []
        self.fencing_token = fencing_token
        self.bell = Bell(clock)
        self.pacer = Pacer(spec.speed_bytes_per_second)
        self.progress = Progress()
        self._clock = clock
        self._store = store
        self._incarnation = incarnation
        self._announce = announce
        self._record = record

    # --- verbs: accepted or refused at once ---

    def pause(self) -> None:
        self._accept(JobVerb.PAUSE)
        self.user_paused = True
        self.bell.ring()

    def resume(self) -> None:
        self._accept(JobVerb.RESUME)
        self._end_pause()

    def cancel(self, force: bool = False) -> None:
        self._accept(JobVerb.CANCEL)
        self.cancel_requested = True
        self.force = self.force or force
        self._end_pause()

    def complete(self, action: FinishAction) -> None:
        """Asked twice before it acts, the later action counts."""
        self._accept(JobVerb.COMPLETE)
        if self.cancel_requested:
            self._refuse(JobVerb.COMPLETE)
        self.complete_action = action
        self.bell.ring()

    def finalize(self) -> None:
        self._accept(JobVerb.FINALIZE)
        self.finalize_requested = True
        self.bell.ring()

    def dismiss(self) -> None:
        self._accept(JobVerb.DISMISS)
        self.dismiss_requested = True
        self.bell.ring()

    def set_speed(self, speed_bytes_per_second: int) -> None:
        self._accept(JobVerb.SET_SPEED)
        self.spec = replace(self.spec, speed_bytes_per_second=speed_bytes_per_second)
        self.pacer.set_speed(speed_bytes_per_second)
        self.bell.ring()

    def may_change(self, mode: CopyMode) -> None:
        """Refuse a ChangeJob that can have no effect, before the node is asked."""
        self._accept(JobVerb.CHANGE)
        self.spec.kind.with_copy_mode(mode)

    def changed(self, mode: CopyMode) -> None:
        """The node follows the guest in this mode now."""
        self.spec = replace(self.spec, kind=self.spec.kind.with_copy_mode(mode))

    @property
    def allowed_verbs(self) -> tuple[JobVerb, ...]:
        allowed = table.allowed_verbs(self.state)
        return tuple(verb for verb in allowed if verb is JobVerb.FINALIZE) if self.finalizing else allowed

    def _accept(self, verb: JobVerb) -> None:
        if verb not in self.allowed_verbs:
            self._refuse(verb)

    def _refuse(self, verb: JobVerb) -> None:
        allowed = ", ".join(other for other in self.allowed_verbs if other is not verb) or "no verb"
        raise JobVerbNotAllowed(self.spec.job_id, str(verb), str(self.state), allowed)

    def _end_pause(self) -> None:
        self.user_paused = self.error_paused = False
        self.io_status = IoStatus.OK
        self.bell.ring()

    # --- what the loop reads ---

    @property
    def pause_wanted(self) -> bool:
        return self.user_paused or self.error_paused

    @property
    def ended(self) -> bool:
        return self.state in table.ENDED

    def raise_if_cancelled(self) -> None:
        if self.cancel_requested:
            raise JobCancelled(self.spec.job_id)

    # --- what the loop does ---

    def stop_for(self, fault: Fault, status: IoStatus) -> None:
        """An error policy pauses the job."""
        self.fault = fault
        self.error_paused = True
        self.io_status = status

    async def begin(self) -> None:
        """The first move: written down as a new job. Raises ResourceExists or JobStoreUnavailable."""
        self._enter(JobState.CREATED)
        reach("jobs.CREATED.before")
        await self._store.create(self._record(self), self._incarnation)
        reach("jobs.CREATED.after")
        self.announce()

    async def move(self, state: JobState) -> None:
        """Go to the next state: stored first, then shown. Waits for a store that is away; raises TakenOver."""
        self._enter(state)
        reach(f"jobs.{state}.before")
        await self.save_surely()
        reach(f"jobs.{state}.after")
        self.announce()

    def note_taken_over(self, incarnation: int) -> None:
        """A step of its history that changes no state."""
        self._remember(f"taken over by jobs service #{incarnation}")

    def tell(self) -> None:
        """Tell the watchers what a verb changed; a move that is under way tells of itself."""
        self._announce(self)

    def announce(self) -> None:
        """Tell the watchers how it stands now, which is written down."""
        self.stored_state = self.state
        self._announce(self)

    async def save(self) -> None:
        """Write it down as it is now. Raises JobStoreUnavailable or TakenOver."""
        try:
            await self._store.put(self._record(self))
        except OwnerMismatch as mismatch:
            raise TakenOver(mismatch) from mismatch

    async def save_surely(self) -> None:
        """As `save`, but waits for a store that is away: what the node does meanwhile goes on."""
        await self._persist(self.save)

    async def forget(self, *, refused: bool = False) -> None:
        """The last move: remove the record, then show NULL."""
        assert table.may_follow(self.state, JobState.NULL), self.state
        request_id = self.request_id if refused else ""
        try:
            await self._persist(lambda: self._store.remove(self.spec.job_id, self.fencing_token, request_id))
        except OwnerMismatch as mismatch:
            raise TakenOver(mismatch) from mismatch
        self.state = JobState.NULL
        self.announce()

    async def _persist(self, write: Callable[[], Awaitable[None]]) -> None:
        tries = Tries(FOR_EVER)
        while True:
            try:
                return await write()
            except JobStoreUnavailable as problem:
                delay_ns = tries.failed(self._clock.monotonic_ns())
                assert delay_ns is not None
                _log.warning("job %s waits to be written down: %s", self.spec.job_id, problem)
                await self._clock.sleep(delay_ns / 1e9)

    def _enter(self, state: JobState) -> None:
        assert table.may_follow(self.state, state), f"{self.spec.job_id}: {self.state} -> {state}"
        self.state = state
        now = self._clock.wall_ns()
        if state is JobState.CREATED:
            self.create_wall_ns = now
        elif state is JobState.RUNNING:
            self.start_wall_ns = self.start_wall_ns or now
        elif state is JobState.CONCLUDED:
            self.end_wall_ns = now
        said_why = state in (JobState.PAUSED, JobState.STANDBY, JobState.ABORTING) and self.fault
        self._remember(self.fault.reason if said_why and self.fault else "")

    def _remember(self, why: str) -> None:
        self.history.append(Step(self._clock.wall_ns(), str(self.state), why, self.trace_id))
        if len(self.history) > MAX_STEPS:
            del self.history[1]

    # --- what others see ---

    def view(self) -> JobView:
        named = (*self.spec.kind.node_names, self.spec.filter_node_name)
        return JobView(
            spec=self.spec,
            state=self.stored_state,
            outcome=self.outcome,
            progress=self.progress.view(self._clock.monotonic_ns()),
            fault=self.fault,
            ignored_errors=self.ignored_errors,
            io_status=self.io_status,
            user_paused=self.user_paused,
            allowed_verbs=self.allowed_verbs,
            create_wall_ns=self.create_wall_ns,
            start_wall_ns=self.start_wall_ns,
            end_wall_ns=self.end_wall_ns,
            revision=self.revision,
            trace_id=self.trace_id,
            node_names=tuple(name for name in named if name),
            history=tuple(self.history),
        )
