"""The daemon itself beside the bounds it was given: ready time, memory at rest, a sparse terabyte."""

import statistics
import subprocess
import time
from pathlib import Path
from typing import Final

from blockyard.base.units import GIB, MIB, TIB
from tests.bench import images
from tests.bench.harness import RUNS, Row, case, faster
from tests.bench.ours import Daemon, Ours, daemon

READY_S: Final = 1.5
IDLE: Final = 120 * MIB
EXTRA: Final = 64 * MIB


@case("daemon-ready")
def ready(folder: Path) -> list[Row]:
    """From the start of the process until it serves; the first start may compile, so it does not count."""
    times = []
    for _ in range(RUNS + 1):
        with daemon(folder) as running:
            times.append(running.ready_s)
    return [faster("daemon-ready", statistics.median(times[1:]), READY_S, "bound")]


@case("daemon-idle-memory")
def idle(folder: Path) -> list[Row]:
    with daemon(folder) as running:
        time.sleep(2)
        return [faster("daemon-idle-memory", running.rss() / MIB, IDLE / MIB, "bound", "MiB")]


@case("sparse-terabyte", peers=("qemu-img", "qemu-io"))
def sparse(folder: Path) -> list[Row]:
    """A mirror of 1 GiB of data in 1 TiB costs what it costs in 1 GiB, in time and in memory."""
    small, large = _image(folder / "small.qcow2", GIB), _image(folder / "large.qcow2", TIB)
    figures: dict[Path, list[tuple[float, int]]] = {small: [], large: []}
    for _ in range(min(RUNS, 3)):
        for path in figures:
            with daemon(folder) as running:
                figures[path].append(_mirror(folder, running, path))
    seconds = {path: statistics.median(item[0] for item in figures[path]) for path in figures}
    extra = {path: max(item[1] for item in figures[path]) for path in figures}
    return [
        faster("sparse-terabyte-time", seconds[large], seconds[small], "1 GiB image"),
        faster("sparse-terabyte-memory", max(1, extra[large]) / MIB, EXTRA / MIB, "bound", "MiB"),
    ]


def _image(path: Path, size: int) -> Path:
    """64 stretches of 16 MiB, spread evenly."""
    images.empty(path, "qcow2", size)
    writes = [part for at in range(64) for part in ("-c", f"write -q -P {at + 1} {at * (size // 64)} 16M")]
    subprocess.run(["qemu-io", "-f", "qcow2", *writes, str(path)], check=True, capture_output=True, timeout=300)
    return path


def _mirror(folder: Path, running: Daemon, path: Path) -> tuple[float, int]:
    """Seconds, and bytes of memory at the peak above those at rest."""
    size = GIB if path.name == "small.qcow2" else TIB
    target = images.empty(folder / "target.qcow2", "qcow2", size)
    images.warm(path)
    client = Ours(running.address)
    client.open("source", path, "qcow2")
    client.open("target", target, "qcow2")
    before = running.rss()
    running.forget_peak()
    started = time.perf_counter()
    client.job(lambda jobs: jobs.mirror("source", "target"))
    elapsed = time.perf_counter() - started
    extra = running.peak() - before
    client.close()
    return elapsed, extra
