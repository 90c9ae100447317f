"""What a benchmark is: a named function of a folder that gives rows of our figure beside a peer's, from one run.

    @case("mirror", peers=("qemu-storage-daemon",))
    def mirror(folder: Path) -> list[Row]: ...

A module of this folder is found by its decorated functions, or by a table `BENCHES` of names and functions. Each
case runs in a process of its own (`python -m tests.bench --one NAME`): gRPC allows one event loop per process, and
the memory of one case must not show in another's figures.
"""

import importlib
import os
import pkgutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

RUNS: Final = int(os.environ.get("BLOCKYARD_BENCH_RUNS", "5"))


class Row(NamedTuple):
    """One figure of ours beside one of a peer. `ratio` above 1: ours is better."""

    case: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    ratio: float


Bench = Callable[[Path], list[Row]]

WANTED: Final[dict[tuple[str, str], float]] = {
    **{
        (f"job-{kind}", "qemu-storage-daemon"): 1.0
        for kind in ("mirror-raw-raw", "backup-raw-qcow2", "stream", "commit")
    },
    ("job-mirror-nbd-target", "qemu-storage-daemon"): 0.7,
    ("nbd-raw-read-4k-32", "qemu-nbd"): 2.0,
    ("nbd-raw-read-4k-32", "nbdkit"): 1.5,
    ("nbd-raw-read-4k-1", "qemu-nbd"): 1.1,
    ("nbd-raw-write-4k-32", "qemu-nbd"): 1.5,
    ("nbd-raw-read-256k-16", "qemu-nbd"): 1.3,
    ("nbd-raw-write-256k-16", "qemu-nbd"): 1.3,
    ("nbd-qcow2-read-4k-32", "qemu-nbd"): 1.6,
    ("nbd-qcow2-write-4k-32", "qemu-nbd"): 1.2,
    ("api-streamed-read", "bare grpc.aio"): 0.8,
    ("api-streamed-write", "bare grpc.aio"): 0.8,
    ("api-session-4k-32", "bare grpc.aio"): 0.6,
    ("daemon-ready", "bound"): 1.0,
    ("daemon-idle-memory", "bound"): 1.0,
    ("sparse-terabyte-memory", "bound"): 1.0,
    ("executor-own-beside-a-slow-disk", "alone"): 0.6,
    ("request-path-throttle-own", "bound"): 1.0,
    ("filter-throttle", "bound"): 1.0,
    ("filter-copy-on-read", "bound"): 1.0,
    ("filter-blkdebug", "bound"): 1.0,
    ("filter-preallocate", "bound"): 1.0,
    ("memory-of-a-node", "bound"): 1.0,
    ("memory-of-a-request-in-flight", "bound"): 1.0,
    ("open-terabyte", "1 GiB image"): 0.83,
    ("compressed-write", "qemu-img"): 5.0,
    ("compressed-size", "qemu-img"): 0.9,
    ("job-durable-checkpoint", "bound"): 1.0,
    ("job-many-memory", "bound"): 1.0,
    ("bitmap-write-survives-a-crash", "no bitmap"): 0.95,
    ("bitmap-find", "bound"): 1.0,
    **{
        (f"snapshot-{name}{spread}", "qemu-img"): wanted
        for name, wanted in (("create", 1.0), ("check", 2.0), ("delete", 1.0))
        for spread in ("", "-scattered")
    },
    ("luks-read-1m-4", "qemu-nbd"): 1.0,
    ("luks-write-1m-4", "qemu-nbd"): 1.0,
}
"""The ratios to reach, by case and peer; cases that are not here only inform."""


@dataclass(frozen=True, slots=True)
class Case:
    """A benchmark and the programs it needs."""

    name: str
    run: Bench
    peers: tuple[str, ...] = ()


def case(name: str, peers: tuple[str, ...] = ()) -> Callable[[Bench], Bench]:
    """Make a function a case."""

    def mark(function: Bench) -> Bench:
        function.case = Case(name, function, peers)  # type: ignore[attr-defined]
        return function

    return mark


def alternate(ours: Callable[[], float], peer: Callable[[], float], runs: int = RUNS) -> tuple[float, float]:
    """Medians of runs in turns: what else the machine does hits both alike."""
    pairs = [(ours(), peer()) for _ in range(runs)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def faster(name: str, ours_s: float, peer_s: float, peer_name: str, unit: str = "s") -> Row:
    """A row of times: less is better."""
    return Row(name, ours_s, peer_s, peer_name, unit, peer_s / ours_s)


def more(name: str, ours: float, peer: float, peer_name: str, unit: str) -> Row:
    """A row of rates: more is better."""
    return Row(name, ours, peer, peer_name, unit, ours / peer)


def cases() -> dict[str, Case]:
    """All cases of this folder's modules by name."""
    found: dict[str, Case] = {}
    for module_info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"tests.bench.{module_info.name}")
        table: dict[str, Bench] = getattr(module, "BENCHES", {})
        peers: tuple[str, ...] = getattr(module, "PEERS", ())
        marked = [value.case for value in vars(module).values() if isinstance(getattr(value, "case", None), Case)]
        for item in [*marked, *(Case(name, run, peers) for name, run in table.items())]:
            found[item.name] = item
    return found
