"""Run an oracle over the crash states of a log, on all cores, and report.

Worker processes are started afresh (never forked: gRPC does not survive it) and speak pickle over pipes.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.crash.disk import Disk
from tests.support.crash.log import Log
from tests.support.crash.oracles import Crash, Oracle
from tests.support.crash.states import State, states

BUDGET_VARIABLE: Final = "BLOCKYARD_CRASH_STATES"
SHOWN: Final = 10
INLINE_LIMIT: Final = 200
"""States that are done in this process: a worker takes 0.5 s to start."""
TIMEOUT_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Finding:
    """A state that is wrong."""

    state: State
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.state}: " + "; ".join(self.problems)


@dataclass(slots=True)
class Report:
    """What came of it."""

    states: int = 0
    findings: list[Finding] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, other: "Report") -> None:
        self.states += other.states
        self.findings += other.findings
        self.tally += other.tally

    @property
    def states_per_minute(self) -> float:
        return self.states / self.seconds * 60 if self.seconds else 0.0

    def __str__(self) -> str:
        head = f"{len(self.findings)} of {self.states} crash states are wrong ({dict(self.tally)})"
        return "\n".join([head, *map(str, self.findings[:SHOWN])])


def budget(usual: int) -> int:
    """How many states to try: `usual`, or what the environment says (`make crash`)."""
    return int(os.environ.get(BUDGET_VARIABLE, "") or usual)


def replay(log: Log, oracle: Oracle, limit: int, seed: int = 0, workers: int | None = None) -> Report:
    """Judge at most `limit` states. `workers` 0 does all in this process; None chooses by their number."""
    started = time.perf_counter()
    chosen = states(log, limit, seed)
    if workers is None:
        workers = 0 if len(chosen) <= INLINE_LIMIT else os.cpu_count() or 1
    if workers:
        report = _spread(log, oracle, chosen, workers)
    else:
        with _workplace() as place:
            report = judge(log, oracle, chosen, place)
    report.seconds = time.perf_counter() - started
    return report


def judge(log: Log, oracle: Oracle, chosen: Sequence[State], place: Path) -> Report:
    """One worker's share."""
    report = Report()
    disk = Disk(log, place)
    scratch = place / "scratch"
    scratch.mkdir()
    try:
        for state in chosen:
            with disk.at(state) as directory:
                crash = Crash(directory, scratch, log, state, report.tally)
                problems = oracle.problems(crash)
            report.states += 1
            report.tally[state.kind] += 1
            if problems:
                report.findings.append(Finding(state, tuple(problems)))
    finally:
        disk.close()
    return report


def surviving_barriers(log: Log, oracle: Oracle, limit: int, seed: int = 0) -> list[int]:
    """Flushes whose loss the oracle does not notice: each is either superfluous, or a test that is too weak."""
    return [
        index for index in log.barriers() if not replay(log.without_barrier(index), oracle, limit, seed).findings
    ]


def _spread(log: Log, oracle: Oracle, chosen: Sequence[State], workers: int) -> Report:
    """Contiguous shares, so that each worker's durable state only moves forward."""
    share = -(-len(chosen) // workers)
    running = []
    for start in range(0, len(chosen), share):
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert worker.stdin is not None
        worker.stdin.write(pickle.dumps((log, oracle, chosen[start : start + share])))
        worker.stdin.close()
        running.append(worker)
    report = Report()
    for worker in running:
        assert worker.stdout is not None
        answer = worker.stdout.read()
        worker.stdout.close()
        assert worker.wait(TIMEOUT_SECONDS) == 0, "a replay worker failed; its traceback is above"
        report.add(pickle.loads(answer))
    return report


@contextmanager
def _workplace() -> Iterator[Path]:
    """Memory if there is a file system in memory: the states are many and short-lived."""
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="blockyard-crash-", dir=parent) as place:
        yield Path(place)


def work() -> None:
    """A worker's life: a share on standard input, a report on standard output."""
    log, oracle, chosen = pickle.loads(sys.stdin.buffer.read())
    with _workplace() as place:
        report = judge(log, oracle, chosen, place)
    sys.stdout.buffer.write(pickle.dumps(report))
