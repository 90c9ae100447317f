"""What the story tells at its end: how fast, how long, and where the time went."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from blockyard.cli import units
from blockyard.cli.output import Column, Output
from blockyard.v1.job_pb2 import Job
from tests.e2e.collector import Collector, Layer
from tests.e2e.guest import Guest


@dataclass(frozen=True)
class Done:
    """A job that succeeded."""

    title: str
    job: Job
    seconds: float

    @property
    def moved(self) -> int:
        return self.job.progress.copied_bytes

    @property
    def covered(self) -> int:
        return self.job.progress.done_bytes


@dataclass
class Report:
    """Gathered on the way."""

    jobs: list[Done] = field(default_factory=list)
    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        return bool(self.checks) and all(good for _, good, _ in self.checks)

    def check(self, what: str, good: bool, detail: str) -> None:
        self.checks.append((what, good, detail))

    def print(self, guest: Guest, collector: Collector) -> None:
        """The whole report."""
        out = Output("table")
        _title("Jobs")
        out.many(self.jobs, JOBS)
        _title("The guest's requests meanwhile")
        out.many([(phase, sorted(taken)) for phase, taken in guest.latencies_ns.items()], LATENCIES)
        layers = collector.layers()
        _title(
            f"Where the time went by layer, from {collector.traces()} traces: each layer without those below it,\n"
            "its waits included, summed over all requests, of which many run at once"
        )
        out.many(_shares(layers), LAYERS)
        _title("Where the jobs' time went, from their traces")
        for job, phases in collector.phases().items():
            print(f"  {job:<12} " + ", ".join(f"{name} {units.short_time(taken)}" for name, taken in phases))
        _title("Compared")
        for what, good, detail in self.checks:
            print(f"  {'same' if good else 'DIFFERENT':<10} {what}: {detail}")
        self.facts.append(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        for fact in self.facts:
            print(f"  {fact}")


def _title(text: str) -> None:
    print(f"\n{text}")


def percentile(sorted_values: Sequence[int], fraction: float) -> int:
    """Of a sorted list; its last value for 1."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * fraction))]


def _shares(layers: Sequence[Layer]) -> Iterable[tuple[Layer, float]]:
    total = sum(layer.own_ns for layer in layers) or 1
    return [(layer, layer.own_ns / total) for layer in layers]


JOBS = (
    Column("  JOB", lambda done: f"  {done.title}"),
    Column("COPIED", lambda done: units.size(done.moved), right=True),
    Column("COVERED", lambda done: units.size(done.covered), right=True),
    Column("TIME", lambda done: f"{done.seconds:.2f} s", right=True),
    Column("THROUGHPUT", lambda done: units.rate(done.moved / done.seconds), right=True),
)

LATENCIES = (
    Column("  DURING", lambda row: f"  {row[0]}"),
    Column("REQUESTS", lambda row: units.count(len(row[1])), right=True),
    Column("P50", lambda row: units.short_time(percentile(row[1], 0.5)), right=True),
    Column("P99", lambda row: units.short_time(percentile(row[1], 0.99)), right=True),
    Column("LONGEST", lambda row: units.short_time(row[1][-1]), right=True),
)

LAYERS = (
    Column("  LAYER", lambda row: f"  {row[0].name}"),
    Column("SPANS", lambda row: units.count(row[0].count), right=True),
    Column("OWN TIME", lambda row: units.short_time(row[0].own_ns), right=True),
    Column("MEAN", lambda row: units.short_time(row[0].own_ns / row[0].count), right=True),
    Column("SHARE", lambda row: f"{row[1] * 100:.1f}%", right=True),
)
