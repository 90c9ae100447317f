"""An encrypted disk (LUKS1, aes-256-xts) beside QEMU's: fio's nbd engine, servers taking turns.

python -m tests.bench.encryption [CASE ...]        prints all cases, or those named
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blockyard.base.clock import SystemClock
from blockyard.node.core.pool import FairPool
from blockyard.node.exports.nbd import ExportConfig, NbdServer
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.storage.rooted import RootedStorage
from tests.bench.harness import RUNS, Row, more
from tests.bench.nbd import SIZE, Job, _cool, _fio, _process, _warm

PASSPHRASE: Final = "bench"
SECRET: Final = f"secret,id=s,data={PASSPHRASE}"
ATTEMPTS: Final = 50
"""qemu-img measures how fast it hashes, and gives up now and then (see tests/support/luks_images.py)."""

JOBS: Final = {
    "luks-read-4k-32": Job("randread", "4k", 32, "luks", {}),
    "luks-write-4k-32": Job("randwrite", "4k", 32, "luks", {}),
    "luks-read-1m-4": Job("read", "1m", 4, "luks", {"qemu-nbd": 1.0}),
    "luks-write-1m-4": Job("write", "1m", 4, "luks", {"qemu-nbd": 1.0}),
}


def image(path: Path) -> Path:
    """A volume that was written from end to end."""
    if path.exists():
        return path
    raw = path.with_suffix(".raw")
    raw.write_bytes(os.urandom(SIZE))
    options = f"driver=luks,file.filename={path},key-secret=s"
    _qemu_img("create", "-q", "--object", SECRET, "-f", "luks", "-o", "key-secret=s,iter-time=10", path, str(SIZE))
    _qemu_img("convert", "--object", SECRET, "-n", "-f", "raw", raw, "--target-image-opts", options)
    raw.unlink()
    return path


def _qemu_img(*arguments: str | Path) -> None:
    for _ in range(ATTEMPTS):
        if subprocess.run(["qemu-img", *map(str, arguments)], check=False, capture_output=True).returncode == 0:
            return
    raise AssertionError(arguments)


def run(name: str, folder: Path, rounds: int = RUNS) -> list[Row]:
    """Measure one case in `folder`."""
    job = JOBS[name]
    paths = {who: image(folder / f"{who}.luks") for who in ("ours", "qemu-nbd")}
    options = f"driver=luks,file.filename={paths['qemu-nbd']},key-secret=s"
    with contextlib.ExitStack() as stack:
        ours, theirs = folder / "ours.sock", folder / "qemu.sock"
        stack.enter_context(
            _process(ours, sys.executable, "-m", "tests.bench.encryption", "--serve", paths["ours"], ours)
        )
        stack.enter_context(
            _process(theirs, "qemu-nbd", "--object", SECRET, "-k", theirs, "-t", "-e", "8", "--image-opts", options)
        )
        figures: dict[str, list[float]] = {"ours": [], "qemu-nbd": []}
        for _ in range(rounds):
            for who, socket in (("ours", ours), ("qemu-nbd", theirs)):
                os.sync()
                (_cool if "write" in job.pattern else _warm)(paths[who])
                figures[who].append(_fio(job, socket))
    median = {who: statistics.median(values) for who, values in figures.items()}
    return [more(name, median["ours"], median["qemu-nbd"], "qemu-nbd", "requests/s")]


async def _serve(path: Path, socket: Path) -> None:
    graph = Graph(Environment(RootedStorage([path.parent]), FairPool(), SystemClock()))
    await graph.environment.secrets.create("s", data=PASSPHRASE.encode())
    below = NodeDefinition("file", "file0", {"filename": path.name})
    node = await graph.open(NodeDefinition("luks", "disk0", {"key_secret": "s"}, {"file": below}))
    server = NbdServer(SystemClock())
    await server.add_export(ExportConfig("", writable=True), graph.use(node.name, "export", "bench", writable=True))
    await server.start(socket)
    await asyncio.Event().wait()


def _case(name: str) -> Callable[[Path], list[Row]]:
    return lambda folder: run(name, folder)


BENCHES: Final[dict[str, Callable[[Path], list[Row]]]] = {name: _case(name) for name in JOBS}
"""Each case as a function of a folder to work in."""
PEERS: Final = ("fio", "qemu-nbd", "qemu-img")


def _main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="blockyard-bench-") as folder:
        for name in names or JOBS:
            for row in run(name, Path(folder)):
                print(f"{row.case:20} {row.ours:9.0f} {row.unit} {row.peer_name} {row.peer:9.0f}  {row.ratio:5.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        _main(sys.argv[1:])
