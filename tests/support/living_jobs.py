"""A jobs service without a wire, on a small node and a clock that stands still."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

from blockyard.base.clock import VirtualClock
from blockyard.jobs.kinds import catalogue
from blockyard.jobs.lifecycle.manager import Limits, Manager
from blockyard.jobs.lifecycle.runner import Patience
from blockyard.jobs.lifecycle.spec import JobSpec, JobView
from blockyard.jobs.lifecycle.table import JobState
from blockyard.jobs.lifecycle.tracing import Tracer
from blockyard.jobs.store.memory import MemoryStore
from tests.support.small_node import SmallNode, open_gate


class NoTracer:
    """Tracing that costs and shows nothing."""

    def span(self, *_: Any, **__: Any) -> AbstractContextManager[object]:
        return nullcontext()

    def current(self) -> None:
        return None


class Together:
    """A transaction whose members wait for the test."""

    def __init__(self) -> None:
        self.gate = open_gate()

    async def all_ready(self, job_id: str) -> None:
        await self.gate.wait()


class Scene:
    """A manager with its node and its clock, and the events that a watcher saw."""

    def __init__(self, **limits: Any) -> None:
        self.clock = VirtualClock()
        self.node = SmallNode(self.clock)
        self.store = MemoryStore()
        self.transaction = Together()
        self.tracer: Tracer = NoTracer()
        self.manager = self.another_manager(1, **limits)

    def another_manager(self, token: int, **limits: Any) -> Manager:
        return Manager(
            self.node.port(token),
            clock=self.clock,
            store=self.store,
            tracer=self.tracer,
            fencing_token=token,
            limits=Limits(**limits),
            transaction=self.transaction,
            patience=Patience(work_ns=10_000_000_000, finish_ns=10_000_000_000),
        )

    async def start(self, kind: str, job_id: str = "job", **options: Any) -> JobView:
        """Create a job; options of JobSpec are told apart from those of the kind by name."""
        spec = spec_of(kind, job_id, **options)
        return await self.manager.create(spec)

    async def stop(self, manager: Manager | None = None) -> None:
        """Stop a manager while time passes."""
        stopping = asyncio.create_task((manager or self.manager).stop())
        while not stopping.done():
            await self.clock.advance(0.5)
        await stopping

    def view(self, job_id: str = "job") -> JobView:
        return self.manager.get(job_id)

    async def pass_time(self, seconds: float = 0.0) -> None:
        # In small steps: a job that wakes may take many steps of the loop before it sleeps again.
        steps = max(1, round(seconds / 0.05))
        for _ in range(steps):
            await self.clock.advance(seconds / steps)

    async def until(self, *states: JobState, job_id: str = "job", seconds: float = 60.0) -> JobView:
        """Let time pass until the job is in one of the states."""
        return await self.until_true(lambda: self.view(job_id).state in states, job_id, seconds)

    async def until_true(self, holds: Callable[[], bool], job_id: str = "job", seconds: float = 60.0) -> JobView:
        for _ in range(int(seconds / 0.05)):
            if holds():
                return self.view(job_id)
            await self.clock.advance(0.05)
        raise AssertionError(f"not reached: {self.view(job_id)}")

    def seen_states(self, job_id: str = "job") -> list[JobState]:
        """Every state that watchers were told, in order."""
        kept = self.manager.watches.kept
        return [event.view.state for event in kept if event.view and event.view.job_id == job_id]


SPEC_FIELDS = frozenset(("speed_bytes_per_second", "auto_finalize", "auto_dismiss", "filter_node_name", "labels"))


def spec_of(kind: str, job_id: str = "job", **options: Any) -> JobSpec:
    found = catalogue()[kind]
    of_spec = {name: value for name, value in options.items() if name in SPEC_FIELDS}
    of_kind = {name: value for name, value in options.items() if name not in SPEC_FIELDS}
    return JobSpec(job_id, found(found.Options(**of_kind)), **of_spec)


@asynccontextmanager
async def living(**limits: Any) -> AsyncIterator[Scene]:
    """A scene whose jobs are stopped at the end."""
    scene = Scene(**limits)
    try:
        yield scene
    finally:
        await scene.stop()
