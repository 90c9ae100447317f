"""What a dirty bitmap costs: writes beside the same export without one, and searching a sparse one.

`bitmap-write-*`: fio's nbd engine, 4 KiB random writes at depth 32 to a raw image that has a bitmap which survives
a crash (and one that does not), in the steady state: every granule was written before. The servers take turns.
"""

import asyncio
import contextlib
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blockyard.base.clock import SystemClock
from blockyard.base.units import KIB, TIB
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.core.pool import FairPool
from blockyard.node.exports.nbd import ExportConfig, NbdServer
from blockyard.node.graph import recording
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.keeping import DirectoryVault
from blockyard.node.storage.rooted import RootedStorage
from tests.bench import nbd
from tests.bench.harness import RUNS, Row, case, faster, more
from tests.support.kept_graph import MemoryKeeper

JOB: Final = nbd.Job("randwrite", "4k", 32, "raw", {})
FIND_US: Final = 500.0
"""What finding the one dirty granule of 16 Mi may take."""


@case("bitmap-write", peers=("fio", "qemu-img"))
def writes(folder: Path) -> list[Row]:
    """Requests a second with and without a bitmap."""
    with contextlib.ExitStack() as stack:
        sockets = {
            what: stack.enter_context(_serving(folder, what)) for what in ("none", "in-memory", "survives-a-crash")
        }
        figures: dict[str, list[float]] = {what: [] for what in sockets}
        for turn in range(RUNS + 1):
            for what, socket in sockets.items():
                os.sync()
                rate = nbd._fio(JOB, socket)
                if turn:  # the first makes every granule dirty
                    figures[what].append(rate)
    median = {what: statistics.median(rates) for what, rates in figures.items()}
    bare = median.pop("none")
    return [more(f"bitmap-write-{what}", rate, bare, "no bitmap", "requests/s") for what, rate in median.items()]


@case("bitmap-find")
def find(folder: Path) -> list[Row]:
    """The next dirty extent of a sparse bitmap of 1 TiB at 64 KiB."""
    bitmap = DirtyBitmap(TIB, 64 * KIB)
    bitmap.mark(TIB - 1, 1)
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        assert bitmap.next_dirty(random.randrange(64 * KIB)) is not None
        times.append((time.perf_counter() - begun) * 1e6)
    return [faster("bitmap-find", statistics.median(times), FIND_US, "bound", "us")]


@contextlib.contextmanager
def _serving(folder: Path, what: str) -> Iterator[Path]:
    path, socket = nbd.image(folder, what, "raw"), folder / f"{what}.sock"
    command = (sys.executable, "-m", "tests.bench.bitmaps", "--serve", str(path), what, str(socket))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert process.poll() is None, command
            os.sched_yield()
        yield socket
    finally:
        process.terminate()
        process.wait()
        socket.unlink(missing_ok=True)


async def _serve(path: Path, what: str, socket: Path) -> None:
    state = path.parent / f"state-{what}"
    state.mkdir(exist_ok=True)
    vault = DirectoryVault.opened(state)
    environment = Environment(RootedStorage([path.parent]), FairPool(), SystemClock(), vault=vault)
    graph = Graph(environment, Catalogue(MemoryKeeper()))
    below = NodeDefinition("file", "file0", {"filename": path.name})
    node = await graph.open(NodeDefinition("raw", "disk0", {}, {"file": below}))
    if what != "none":
        await recording.create_durably(graph, node, "b", persistent=what == "survives-a-crash")
    server = NbdServer(SystemClock())
    await server.add_export(ExportConfig("", writable=True), graph.use(node.name, "export", "bench", writable=True))
    await server.start(socket)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
