"""How far a job is, how fast it goes, and when it will be done.

What lives here: counters in bytes and a sliding window of samples. What must not: states, sessions, clocks (time is
handed in).

Theory: the session at the node keeps cumulative figures; a report is an increment of them. While a stream lives
the increments are added up; when it was lost, `adopt` takes the session's figures, so that a report which never
arrived is neither missing nor counted twice. `total` is done + remaining: it grows when the guest writes behind
a mirror.

A rate needs a span: it is the difference between now and the oldest sample of the last SPAN_NS.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from blockyard.jobs.node.port import Report, Session

SPAN_NS: Final = 5_000_000_000
SAMPLE_NS: Final = 100_000_000
"""At most one sample in this time: the window holds no more than SPAN_NS / SAMPLE_NS + 2."""

MIN_SPAN_NS: Final = 20_000_000
"""A shorter span says nothing about a rate."""

_NS: Final = 1_000_000_000


class _Sample(NamedTuple):
    time_ns: int
    done: int
    copied: int
    dirtied: int


@dataclass(frozen=True, slots=True)
class ProgressView:
    """Progress at one instant (JobProgress)."""

    done_bytes: int = 0
    total_bytes: int = 0
    copied_bytes: int = 0
    zero_bytes: int = 0
    skipped_bytes: int = 0
    rate_bytes_per_second: int = 0
    dirty_rate_bytes_per_second: int = 0
    eta_seconds: float | None = None
    phase: str = ""
    last_movement_wall_ns: int = 0


class Progress:
    """The counters of one job."""

    def __init__(self) -> None:
        self.copied_bytes = 0
        self.zero_bytes = 0
        self.skipped_bytes = 0
        self.remaining_bytes = 0
        self.cursor_bytes = 0
        self.phase = "creating"
        self._dirtied = 0
        self._samples: deque[_Sample] = deque()
        self._moved_wall_ns = 0

    @property
    def done_bytes(self) -> int:
        return self.copied_bytes + self.zero_bytes + self.skipped_bytes

    def adopt(self, session: Session, now_ns: int, wall_ns: int) -> None:
        """Take the node's cumulative figures. None of ours ever goes back."""
        before = self.done_bytes
        self.copied_bytes = max(self.copied_bytes, session.copied_bytes)
        self.zero_bytes = max(self.zero_bytes, session.zero_bytes)
        self.skipped_bytes = max(self.skipped_bytes, session.skipped_bytes)
        self.remaining_bytes = session.remaining_bytes
        self._note(before, now_ns, wall_ns)

    def add(self, report: Report, now_ns: int, wall_ns: int) -> None:
        """Count one report."""
        before = self.done_bytes
        self.copied_bytes += report.copied_bytes
        self.zero_bytes += report.zero_bytes
        self.skipped_bytes += report.skipped_bytes
        self.remaining_bytes = report.remaining_bytes
        self.cursor_bytes = report.cursor_bytes
        self._dirtied = max(self._dirtied, report.dirtied_bytes)
        self._note(before, now_ns, wall_ns)

    def restart_rate(self) -> None:
        """After a pause the time that passed says nothing about the rate."""
        self._samples.clear()

    def view(self, now_ns: int) -> ProgressView:
        done_rate, copied_rate, dirty_rate = self._rates(now_ns)
        net = done_rate - dirty_rate
        eta = self.remaining_bytes / net if net > 0 and self.remaining_bytes else None
        return ProgressView(
            done_bytes=self.done_bytes,
            total_bytes=self.done_bytes + self.remaining_bytes,
            copied_bytes=self.copied_bytes,
            zero_bytes=self.zero_bytes,
            skipped_bytes=self.skipped_bytes,
            rate_bytes_per_second=round(copied_rate),
            dirty_rate_bytes_per_second=round(dirty_rate),
            eta_seconds=eta,
            phase=self.phase,
            last_movement_wall_ns=self._moved_wall_ns,
        )

    def _note(self, before: int, now_ns: int, wall_ns: int) -> None:
        if self.done_bytes > before:
            self._moved_wall_ns = wall_ns
        samples = self._samples
        if samples and now_ns - samples[-1].time_ns < SAMPLE_NS:
            return
        samples.append(_Sample(now_ns, self.done_bytes, self.copied_bytes, self._dirtied))
        self._forget_before(now_ns - SPAN_NS)

    def _forget_before(self, time_ns: int) -> None:
        # The newest sample that is older than the span stays: it is where the span begins.
        while len(self._samples) > 1 and self._samples[1].time_ns <= time_ns:
            self._samples.popleft()

    def _rates(self, now_ns: int) -> tuple[float, float, float]:
        self._forget_before(now_ns - SPAN_NS)
        if not self._samples or now_ns - self._samples[0].time_ns < MIN_SPAN_NS:
            return 0.0, 0.0, 0.0
        first = self._samples[0]
        seconds = (now_ns - first.time_ns) / _NS
        return (
            (self.done_bytes - first.done) / seconds,
            (self.copied_bytes - first.copied) / seconds,
            (self._dirtied - first.dirtied) / seconds,
        )
