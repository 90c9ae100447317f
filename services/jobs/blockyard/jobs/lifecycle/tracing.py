"""The traces of a job: one per run segment, linked to the call that made it and to the segment before.

What lives here: when a segment or a phase begins and ends. What must not: OpenTelemetry, exporters.

Theory: a trace of hours breaks every viewer, and a job outlives the call that made it. So a segment (a stretch
of work between two pauses, at most SEGMENT_NS long) is a trace of its own; its phases are spans in it; links
lead back. At the end a short trace sums the job up. All of it runs in the job's own task, where the present
span is current, so that calls to the node become its children.
"""

from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, Protocol

from blockyard.base.clock import Clock
from blockyard.rpc.trace_context import TraceContext

SEGMENT_NS: Final = 600_000_000_000


class Tracer(Protocol):
    """The part of `blockyard.rpc.telemetry.Telemetry` that a job uses."""

    def span(
        self,
        name: str,
        attributes: Any = None,
        *,
        links: Any = (),
        root: bool = False,
        start_ns: int | None = None,
    ) -> AbstractContextManager[object]: ...

    def current(self) -> TraceContext | None: ...


class Segments:
    """The spans of one job. Every method is called in the job's task."""

    def __init__(
        self,
        tracer: Tracer,
        clock: Clock,
        job_id: str,
        kind: str,
        creator: TraceContext | None,
        previous: TraceContext | None = None,
    ) -> None:
        self._tracer = tracer
        self._clock = clock
        self._name = f"job {kind}"
        self._attributes: dict[str, str | int | float | bool] = {
            "blockyard.job.id": job_id,
            "blockyard.job.kind": kind,
        }
        self._creator = creator
        self._previous = previous
        self._count = 0
        self._since_ns = 0
        self._segment = ExitStack()
        self._phase = ExitStack()
        self.phase_name = ""
        self.trace_id = creator.trace_id if creator else ""

    @property
    def last_trace(self) -> str:
        """traceparent of the latest segment; empty if none was sampled or begun."""
        return self._previous.header() if self._previous else ""

    def phase(self, name: str) -> None:
        """The job does something else now. Begins a segment if none runs."""
        if not self._since_ns:
            self._begin()
        self._phase.close()
        self.phase_name = name
        self._phase.enter_context(self._tracer.span(name, self._attributes))

    def renew_if_long(self) -> None:
        """Go on in a trace of its own when the present one has grown too long."""
        if self._since_ns and self._clock.monotonic_ns() - self._since_ns >= SEGMENT_NS:
            self.end()
            self.phase(self.phase_name)

    def end(self) -> None:
        """End phase and segment: the job is paused, or over."""
        self._phase.close()
        self._segment.close()
        self._since_ns = 0

    def sum_up(self, start_wall_ns: int, outcome: str, **figures: int) -> None:
        """One short trace over the whole job."""
        attributes = {**self._attributes, "blockyard.job.outcome": outcome, "blockyard.job.segments": self._count}
        attributes |= {f"blockyard.job.{name}": value for name, value in figures.items()}
        links = self._links()
        with self._tracer.span(f"{self._name} summary", attributes, links=links, root=True, start_ns=start_wall_ns):
            pass

    def _begin(self) -> None:
        self._count += 1
        self._since_ns = self._clock.monotonic_ns()
        attributes = {**self._attributes, "blockyard.job.segment": self._count}
        span = self._tracer.span(self._name, attributes, links=self._links(), root=True)
        self._segment.enter_context(span)
        self._previous = self._tracer.current()
        self.trace_id = self._previous.trace_id if self._previous else ""

    def _links(self) -> list[TraceContext]:
        return [context for context in (self._creator, self._previous) if context]
