"""The NBD export beside qemu-nbd and nbdkit's file plugin: fio's nbd engine over unix sockets, one run, in turns.

Each server is a process of its own with an image of its own, equal in content. A figure is the median of rounds in
which the servers take turns, because others use the machine too; the images are read once before every run, because
the figures are about the page cache.

    python -m tests.bench.nbd [CASE ...]        prints all cases, or those named
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockyard.base.clock import SystemClock
from blockyard.base.units import MIB
from blockyard.node.core.pool import FairPool
from blockyard.node.exports.nbd import ExportConfig, NbdServer
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.storage.rooted import RootedStorage
from tests.bench.harness import RUNS, Row, more

SIZE: Final = 256 * MIB
SECONDS: Final = 1.0


@dataclass(frozen=True)
class Job:
    """A fio job, the image format, and the ratios that are wanted."""

    pattern: str
    block: str
    depth: int
    driver: str
    wanted: dict[str, float]


JOBS: Final = {
    "nbd-raw-read-4k-32": Job("randread", "4k", 32, "raw", {"qemu-nbd": 2.0, "nbdkit": 1.5}),
    "nbd-raw-read-4k-1": Job("randread", "4k", 1, "raw", {"qemu-nbd": 1.1}),
    "nbd-raw-write-4k-32": Job("randwrite", "4k", 32, "raw", {"qemu-nbd": 1.5}),
    "nbd-raw-read-256k-16": Job("randread", "256k", 16, "raw", {"qemu-nbd": 1.3}),
    "nbd-raw-write-256k-16": Job("randwrite", "256k", 16, "raw", {"qemu-nbd": 1.3}),
    "nbd-qcow2-read-4k-32": Job("randread", "4k", 32, "qcow2", {"qemu-nbd": 1.6}),
    "nbd-qcow2-write-4k-32": Job("randwrite", "4k", 32, "qcow2", {"qemu-nbd": 1.2}),
}


def run(name: str, folder: Path, rounds: int = RUNS) -> list[Row]:
    """Measure one case in `folder`; a row for each peer."""
    job = JOBS[name]
    with contextlib.ExitStack() as stack:
        servers = {
            who: (stack.enter_context(start(folder, job.driver)), image(folder, who, job.driver))
            for who, start in (("ours", _ours), ("qemu-nbd", _qemu), ("nbdkit", _nbdkit))
            if who == "ours" or who in job.wanted
        }
        figures: dict[str, list[float]] = {who: [] for who in servers}
        for _ in range(rounds):
            for who, (socket, path) in servers.items():
                os.sync()  # what the one before left dirty is not the next one's load
                (_cool if "write" in job.pattern else _warm)(path)
                figures[who].append(_fio(job, socket))
    median = {who: statistics.median(values) for who, values in figures.items()}
    ours = median.pop("ours")
    return [more(name, ours, peer, who, "requests/s") for who, peer in median.items()]


def image(folder: Path, who: str, driver: str) -> Path:
    """An image full of random bytes, allocated throughout; made once."""
    path = folder / f"{who}.{driver}"
    if not path.exists():
        source = folder / "random.raw"
        if not source.exists():
            with source.open("wb") as file:
                for _ in range(SIZE // MIB):
                    file.write(os.urandom(MIB))
        _run("qemu-img", "convert", "-f", "raw", "-O", driver, source, path)
    return path


def _fio(job: Job, socket: Path) -> float:
    output = _run(
        "fio", "--name=bench", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}", f"--size={SIZE}",
        "--time_based", f"--runtime={SECONDS}", "--norandommap", "--randrepeat=0", f"--rw={job.pattern}",
        f"--bs={job.block}", f"--iodepth={job.depth}", "--output-format=json",
    )  # fmt: skip
    result = json.loads(output[output.index("{") :])["jobs"][0]
    return float(result["read"]["iops"] or result["write"]["iops"])


def _warm(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(4 * MIB)
        while file.readinto(buffer):
            pass


def _cool(path: Path) -> None:
    """Writes begin without a page cache. One filled by long reads or writes consists of large folios, and a
    bare 4 KiB pwrite into one of those costs ext4 22 us instead of 3.5 us: more than any of the servers adds."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


# --- servers -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _process(socket: Path, *command: str | Path) -> Iterator[Path]:
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert process.poll() is None, command
            os.sched_yield()
        yield socket
    finally:
        process.terminate()
        process.wait()
        socket.unlink(missing_ok=True)


def _qemu(folder: Path, driver: str) -> contextlib.AbstractContextManager[Path]:
    path, socket = image(folder, "qemu-nbd", driver), folder / "qemu.sock"
    return _process(socket, "qemu-nbd", "-k", socket, "-f", driver, "-t", "-e", "8", path)


def _nbdkit(folder: Path, driver: str) -> contextlib.AbstractContextManager[Path]:
    path, socket = image(folder, "nbdkit", driver), folder / "nbdkit.sock"
    return _process(socket, "nbdkit", "-f", "-U", socket, "file", path)


def _ours(folder: Path, driver: str) -> contextlib.AbstractContextManager[Path]:
    path, socket = image(folder, "ours", driver), folder / "ours.sock"
    return _process(socket, sys.executable, "-m", "tests.bench.nbd", "--serve", path, driver, socket)


async def _serve(path: Path, driver: str, socket: Path) -> None:
    """Our side of a bench: a graph with one image, exported."""
    graph = Graph(Environment(RootedStorage([path.parent]), FairPool(), SystemClock()))
    below = NodeDefinition("file", "file0", {"filename": path.name})
    node = await graph.open(NodeDefinition(driver, "disk0", {}, {"file": below}))
    server = NbdServer(SystemClock())
    await server.add_export(ExportConfig("", writable=True), graph.use(node.name, "export", "bench", writable=True))
    await server.start(socket)
    await asyncio.Event().wait()


def _run(*command: str | Path) -> str:
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def _case(name: str) -> Callable[[Path], list[Row]]:
    return lambda folder: run(name, folder)


BENCHES: Final[dict[str, Callable[[Path], list[Row]]]] = {name: _case(name) for name in JOBS}
"""Each case as a function of a folder to work in."""
PEERS: Final = ("fio", "qemu-nbd", "nbdkit", "qemu-img")


def _main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="blockyard-bench-") as folder:
        for name in names or JOBS:
            for row in run(name, Path(folder)):
                wanted = JOBS[name].wanted[row.peer_name]
                verdict = "ok" if row.ratio >= wanted else "BELOW"
                print(
                    f"{row.case:24} {row.ours:9.0f} {row.unit} {row.peer_name:9} {row.peer:9.0f}"
                    f"  {row.ratio:5.2f} (wanted {wanted}) {verdict}",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
    else:
        _main(sys.argv[1:])
