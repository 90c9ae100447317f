"""One job: its state, what was asked of it, and what it shows.

What lives here: the verbs (they check the table, leave a request, ring the bell), the moves (they check the
other table, write the record, tell the watchers), and the picture for clients. What must not: copying, the
node, decisions about what to do next; those are the runner's.

Invariants:
1. Only `move` changes the state, only along TRANSITIONS, and the record is stored before watchers are told. Verbs
   are checked against the new state from its first moment, so none is accepted that comes too late.
2. A verb never awaits, so what it checks still holds when it acts.
3. `cancel` ends every pause; nothing ends a cancel.
4. Once `finalizing` is set the graph change is under way: only FINALIZE is accepted, and changes nothing.
"""

from collections.abc import Callable
from dataclasses import replace

from blockyard.base.clock import Clock
from blockyard.base.errors import JobCancelled, JobVerbNotAllowed
from blockyard.jobs.copying.bell import Bell
from blockyard.jobs.copying.pacing import Pacer
from blockyard.jobs.copying.policy import Fault, IoStatus
from blockyard.jobs.copying.progress import Progress
from blockyard.jobs.lifecycle import table
from blockyard.jobs.lifecycle.spec import JobOutcome, JobSpec, JobView
from blockyard.jobs.lifecycle.table import JobState, JobVerb
from blockyard.jobs.node.port import CopyMode, FinishAction
from blockyard.jobs.store.port import JobRecord, JobStore
from blockyard.jobs.store.records import plain_options

Announce = Callable[["Job"], None]


class Job:
    """A job. Its runner is the only one that moves it."""

    def __init__(
        self, spec: JobSpec, *, clock: Clock, store: JobStore, fencing_token: int, announce: Announce
    ) -> None:
        self.requested = spec
        """As the client asked; what a repeated request is compared with."""
        self.spec = spec
        """As it is now (speed, copy mode, name of the filter)."""
        self.state = JobState.UNDEFINED
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
        self.bell = Bell(clock)
        self.pacer = Pacer(spec.speed_bytes_per_second)
        self.progress = Progress()
        self._clock = clock
        self._store = store
        self._fencing_token = fencing_token
        self._announce = announce

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

    async def move(self, state: JobState) -> None:
        """Go to the next state: stored first, then shown."""
        assert table.may_follow(self.state, state), f"{self.spec.job_id}: {self.state} -> {state}"
        self.state = state
        self._stamp()
        await self.save()
        self.announce()

    def announce(self) -> None:
        """Tell the watchers how it stands now."""
        self._announce(self)

    async def save(self) -> None:
        await self._store.put(self.record())

    async def forget(self) -> None:
        """The last move: remove the record, then show NULL."""
        assert table.may_follow(self.state, JobState.NULL), self.state
        await self._store.remove(self.spec.job_id)
        self.state = JobState.NULL
        self.announce()

    def _stamp(self) -> None:
        now = self._clock.wall_ns()
        if self.state is JobState.CREATED:
            self.create_wall_ns = now
        elif self.state is JobState.RUNNING:
            self.start_wall_ns = self.start_wall_ns or now
        elif self.state is JobState.CONCLUDED:
            self.end_wall_ns = now

    # --- what others see ---

    def view(self) -> JobView:
        named = (*self.spec.kind.node_names, self.spec.filter_node_name)
        return JobView(
            spec=self.spec,
            state=self.state,
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
        )

    def record(self) -> JobRecord:
        spec, fault = self.spec, self.fault
        return JobRecord(
            job_id=spec.job_id,
            kind=spec.kind.name,
            options=plain_options(spec.kind),
            speed_bytes_per_second=spec.speed_bytes_per_second,
            auto_finalize=spec.auto_finalize,
            auto_dismiss=spec.auto_dismiss,
            filter_node_name=spec.filter_node_name,
            labels=spec.labels,
            state=str(self.state),
            fencing_token=self._fencing_token,
            outcome=str(self.outcome or ""),
            cursor_bytes=self.progress.cursor_bytes,
            done_bytes=self.progress.done_bytes,
            remaining_bytes=self.progress.remaining_bytes,
            user_paused=self.user_paused,
            error_paused=self.error_paused,
            cancel_requested=self.cancel_requested,
            complete_action=str(self.complete_action or ""),
            finalize_requested=self.finalize_requested,
            fault_reason=fault.reason if fault else "",
            fault_message=fault.message if fault else "",
            fault_advice=fault.advice if fault else "",
            fault_metadata=fault.metadata if fault else {},
            ignored_errors=self.ignored_errors,
            create_wall_ns=self.create_wall_ns,
            start_wall_ns=self.start_wall_ns,
            end_wall_ns=self.end_wall_ns,
            trace=self.trace_parent,
        )
