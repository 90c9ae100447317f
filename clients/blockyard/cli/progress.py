"""Progress of anything long, on standard error: a live bar on a terminal, plain lines elsewhere, nothing if quiet.

What lives here: the three ways of showing a `Step`, and how jobs and transfers become steps. What must not:
waiting for anything; whoever does the work calls `show`.
"""

import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from blockyard.base.clock import Clock, SystemClock
from blockyard.cli import units
from blockyard.cli.describe import job_kind, job_state
from blockyard.client.pieces import Piece
from blockyard.v1.job_pb2 import JOB_STATE_RUNNING, Job

if TYPE_CHECKING:
    from blockyard.cli.options import Globals

PLAIN_INTERVAL_S: Final = 2.0
"""Seconds between lines where there is no terminal; a change of phase is told at once."""

RATE_WINDOW_S: Final = 3.0
"""Rates of transfers are those of the last seconds."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a piece of work is."""

    title: str
    phase: str
    done: int
    total: int
    """0 if it is not known."""
    rate: float = 0.0
    eta_s: float | None = None
    zero: int = 0
    skipped: int = 0

    def percent(self) -> str:
        return f"{min(self.done / self.total, 1) * 100:.1f}%" if self.total else ""

    def amount(self) -> str:
        return f"{units.size(self.done)} of {units.size(self.total)}" if self.total else units.size(self.done)

    def tail(self) -> str:
        """Rate, time left, and what needed no copying."""
        words = [units.rate(self.rate)] if self.rate else []
        words += [f"ETA {units.clock_time(self.eta_s)}"] if self.eta_s is not None else []
        words += [f"zero {units.size(self.zero)}"] if self.zero else []
        words += [f"skipped {units.size(self.skipped)}"] if self.skipped else []
        return "  ".join(words)

    def line(self) -> str:
        """All of it as one line."""
        return "  ".join(filter(None, (self.title, self.phase, self.percent(), self.amount(), self.tail())))


class Counted(Step):
    """Counts things, not bytes."""

    __slots__ = ()

    def amount(self) -> str:
        return f"{self.done} of {self.total}" if self.total else ""


def step_of(job: Job) -> Step:
    """A job's progress."""
    progress = job.progress
    phase = progress.phase if job.state == JOB_STATE_RUNNING and progress.phase else job_state(job)
    return Step(
        title=f"{job_kind(job)} {job.job_id}" if not job.job_id.startswith(job_kind(job)) else job.job_id,
        phase=phase,
        done=progress.done_bytes,
        total=progress.total_bytes,
        rate=float(progress.rate_bytes_per_second),
        eta_s=progress.eta.ToTimedelta().total_seconds() if progress.HasField("eta") else None,
        zero=progress.zero_bytes,
        skipped=progress.skipped_bytes,
    )


class View(Protocol):
    """Shows steps until it is closed."""

    def show(self, step: Step) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Shows nothing."""

    def show(self, step: Step) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """A line now and then, for logs."""

    def __init__(self, sink: TextIO, clock: Clock) -> None:
        self._sink, self._clock = sink, clock
        self._told: Step | None = None
        self._last: Step | None = None
        self._told_ns = 0

    def show(self, step: Step) -> None:
        self._last = step
        now_ns = self._clock.monotonic_ns()
        new = self._told is None or (step.title, step.phase) != (self._told.title, self._told.phase)
        if new or now_ns - self._told_ns >= PLAIN_INTERVAL_S * 1e9:
            self._tell(step, now_ns)

    def close(self) -> None:
        if self._last is not None and self._last != self._told:
            self._tell(self._last, self._clock.monotonic_ns())

    def _tell(self, step: Step, now_ns: int) -> None:
        self._sink.write(step.line() + "\n")
        self._sink.flush()
        self._told, self._told_ns = step, now_ns


class Bar:
    """A live bar."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("[dim]{task.fields[phase]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[percent]:>6}"),
            TextColumn("{task.fields[amount]}"),
            TextColumn("[dim]{task.fields[tail]}"),
            console=console or Console(stderr=True),
            refresh_per_second=8,
        )
        self._progress.start()
        self._tasks: dict[str, Any] = {}

    def show(self, step: Step) -> None:
        if step.title not in self._tasks:
            blank: dict[str, Any] = {"phase": "", "percent": "", "amount": "", "tail": ""}
            self._tasks[step.title] = self._progress.add_task(step.title, total=None, **blank)
        self._progress.update(
            self._tasks[step.title],
            total=step.total or None,
            completed=step.done,
            phase=step.phase,
            percent=step.percent(),
            amount=step.amount(),
            tail=step.tail(),
        )

    def close(self) -> None:
        self._progress.stop()


def view(options: "Globals", sink: TextIO | None = None, clock: Clock | None = None) -> View:
    """The way of showing that fits where we are."""
    sink = sink or sys.stderr
    if options.quiet:
        return Silent()
    if sink.isatty():
        return Bar()
    return Lines(sink, clock or SystemClock())


class Meter:
    """Turns pieces of a transfer into steps."""

    def __init__(self, title: str, total: int, shown: View, clock: Clock | None = None) -> None:
        self._title, self._total, self._view = title, total, shown
        self._clock = clock or SystemClock()
        self._began_ns = self._clock.monotonic_ns()
        self._samples: deque[tuple[int, int]] = deque([(self._began_ns, 0)], maxlen=64)
        self.done = self.zero = 0

    def add(self, piece: Piece) -> None:
        """Count a piece that arrived."""
        self.done += piece.length
        if piece.data is None:
            self.zero += piece.length
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._samples[-1][0] >= 1e8:
            self._samples.append((now_ns, self.done))
            while len(self._samples) > 2 and now_ns - self._samples[0][0] > RATE_WINDOW_S * 1e9:
                self._samples.popleft()
            self._view.show(self.step("copying"))

    def end(self) -> None:
        """Show the end, with the mean rate of the whole."""
        seconds = (self._clock.monotonic_ns() - self._began_ns) / 1e9
        rate = self.done / seconds if seconds > 0 else 0.0
        self._view.show(Step(self._title, "done", self.done, self._total, rate, None, self.zero))
        self._view.close()

    def step(self, phase: str) -> Step:
        """How far it is now."""
        (first_ns, first), (last_ns, last) = self._samples[0], self._samples[-1]
        rate = (last - first) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else 0.0
        eta = (self._total - self.done) / rate if rate and self._total > self.done else None
        return Step(self._title, phase, self.done, self._total, rate, eta, self.zero)
