"""Our daemon as it is run, a client of it, and a job from start to end."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockyard.base.errors import NodeNotFound
from blockyard.client import Client
from blockyard.client.definitions import NodeDefinition, file, qcow2, raw
from blockyard.client.jobs import raise_unless_succeeded


@dataclass(slots=True)
class Daemon:
    """A running daemon."""

    process: subprocess.Popen[bytes]
    address: str
    ready_s: float
    """From the start of the process until it said that it serves."""

    def rss(self) -> int:
        """Bytes in memory."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """Most bytes in memory since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise AssertionError(field)


@contextmanager
def daemon(folder: Path, *arguments: str) -> Iterator[Daemon]:
    """A fresh daemon over the folder."""
    address = f"unix:{folder}/blockyard.sock"
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "blockyard.daemon", "--listen", address, "--storage-roots", str(folder)]
    command += ["--log-level", "warning", "--ready-fd", str(theirs), *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command, pass_fds=[theirs])
    os.close(theirs)
    try:
        with os.fdopen(ours) as ready:
            assert ready.readline().startswith("ready"), "the daemon did not start"
        yield Daemon(process, address, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait()


class Ours:
    """A client in a loop of its own, for benchmarks that are no coroutines."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.client = Client.connect(address)
        self._do(self.client.__aenter__())

    def close(self) -> None:
        self._do(self.client.close())
        self._loop.close()

    def _do(self, work: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(work)

    def open(self, node_name: str, path: Path, format: str, backing: str | None = None) -> None:
        below = file(path.name, node_name=f"{node_name}-file")
        definition = (
            raw(below, node_name=node_name)
            if format == "raw"
            else qcow2(below, node_name=node_name, backing=backing)
        )
        self._do(self.client.nodes.open(definition))

    def add(self, definition: NodeDefinition) -> None:
        """Open a node by its definition."""
        self._do(self.client.nodes.open(definition))

    def export(self, node_name: str, name: str) -> int:
        """Let NBD clients write to a node; the port of the first address."""
        made = self._do(self.client.exports.add_nbd(node_name, name, name=name, writable=True))
        return int(made.uris[0].partition("://")[2].partition("/")[0].rpartition(":")[2])

    def withdraw(self, name: str) -> None:
        """End an export."""
        self._do(self.client.exports.remove(name, force=True))

    def close_all(self) -> None:
        """Close every node, whoever stands on whom."""
        self._do(self._close_all())

    async def _close_all(self) -> None:
        nodes = self.client.nodes
        while found := await nodes.list(full=True):
            for node in found:
                if not node.holders:
                    with suppress(NodeNotFound):  # an implicit one went with its parent
                        await nodes.close(node.node_name)

    def operation(self, start: Callable[[Any], Awaitable[Any]]) -> Any:
        """Run a long operation to its end. `start` gets `client.operations`."""
        return self._do(start(self.client.operations))

    def job(self, start: Callable[[Any], Awaitable[Any]]) -> None:
        """Run a job to its end; a READY one is completed. `start` gets `client.jobs`."""
        self._do(self._job(start))

    async def _job(self, start: Callable[[Any], Awaitable[Any]]) -> None:
        jobs = self.client.jobs
        job = await start(jobs)
        seen = await jobs.wait(job.job_id, "ready")
        if not seen.outcome:
            await jobs.complete(job.job_id)
            seen = await jobs.wait(job.job_id)
        raise_unless_succeeded(seen)
        await jobs.dismiss(job.job_id, allow_missing=True)
