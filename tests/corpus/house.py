"""A node service as a process of its own, asked everything about an image, with what each answer cost it.

Costs are the service's own: its CPU time by the kernel's clock of that process, and the peak of its resident
memory, whose record is reset before each operation. Neither depends on what else the machine does (CPU time a
little: caches are shared), so a test may bound them; wall-clock time is never judged.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockyard.base.errors import BlockError
from blockyard.client import Client
from blockyard.client.definitions import NO_NODE, file, luks, qcow2, raw
from blockyard.v1 import drivers_pb2
from blockyard.v1 import node_pb2 as node
from tests.corpus.entry import ENDLESS, MAIN, ON_A_NODE, OPERATIONS, Entry
from tests.support.daemon import Daemon, daemon

CPU_SECONDS: Final = 1.0
"""What one operation may use. Nearly all take under 20 ms; the bound is 1 s of the issue."""
CROWDED: Final = 2.5
"""By how much CPU time was seen to grow where more processes run than there are processors: they share caches and
cores. The bound is multiplied by it then, so that it tells of us and not of our neighbours."""
MEMORY: Final = 128 << 20
DEADLINE: Final = 60
"""Seconds of wall-clock time after which an operation hangs: 60 times its CPU bound, for machines that are busy."""
SHORT: Final = 0.5
"""The deadline of what would take longer than a second."""
REST: Final = 0.2
USED_BYTES: Final = 12 << 10
"""Written, discarded and zeroed by `use`."""
READ_BYTES: Final = 4 << 20
"""Read from both ends of larger disks."""
WHOLE_BYTES: Final = 64 << 20
"""Disks up to this size are read whole."""
PAGE: Final = 1000
"""Extents of one page of a map."""
NODE: Final = "asked"
BLOCK: Final = 64 << 10
_NOTHING: Final = bytes(BLOCK)


@dataclass
class Outcome:
    """How one operation went."""

    operation: str
    reason: str = ""
    """Of the error; empty for success."""
    message: str = ""
    cpu_s: float = 0.0
    memory: int = 0
    """Bytes by which the peak passed what was resident before."""
    changed: bool = False
    """The file's bytes are not what they were."""

    def __str__(self) -> str:
        cost = f"{self.cpu_s * 1000:.0f} ms, {self.memory >> 20} MiB"
        return (
            f"{self.operation}: {self.reason or 'ok'} {self.message} ({cost}{', CHANGED' if self.changed else ''})"
        )


class House:
    """The process and a client of it."""

    def __init__(self, daemon: Daemon, client: Client) -> None:
        self.daemon, self.client, self.root = daemon, client, daemon.root
        self._clock = ~daemon.pid << 3 | 2  # CPUCLOCK_SCHED of another process (clock_getcpuclockid(3))
        self._proc = Path("/proc") / str(daemon.pid)
        self._limit: float = DEADLINE
        self.alone = False
        """Nodes are opened without the backing file that a header may name."""
        self.content: bytes | None = None
        """What the last `read` saw, if it saw the whole disk."""
        self.report = node.CheckImageResponse()
        """Of the last `check` or `repair`."""

    async def ask(self, entry: Entry, folder: Path, operations: tuple[str, ...] = OPERATIONS) -> list[Outcome]:
        """Every operation on an image that lies in a folder beneath the root. The node is closed at the end."""
        path = os.fspath((folder / MAIN).relative_to(self.root))
        done: list[Outcome] = []
        opened = False
        for name in operations:
            if name in ON_A_NODE and not opened:
                continue
            if name not in ON_A_NODE and opened:
                await self.client.nodes.close(NODE)
                opened = False
            outcome = await self._measured(name, entry, path, folder / MAIN)
            done.append(outcome)
            opened = opened or (name == "open" and not outcome.reason)
        if opened:
            await self.client.nodes.close(NODE)
        return done

    async def _measured(self, name: str, entry: Entry, path: str, image: Path) -> Outcome:
        outcome = Outcome(name)
        before = fingerprint(image)
        resident = self._reset_peak()
        started = time.clock_gettime(self._clock)
        try:
            async with asyncio.timeout(DEADLINE):
                self._limit = SHORT if entry.answer(name) == ENDLESS else DEADLINE
                await _ASKED[name](self, entry, path)
        except BlockError as error:
            outcome.reason, outcome.message = error.reason, str(error)
        outcome.cpu_s = time.clock_gettime(self._clock) - started
        outcome.memory = self._status("VmHWM") - resident
        outcome.changed = fingerprint(image) != before
        return outcome

    def _reset_peak(self) -> int:
        """Bytes resident now, which the recorded peak is from here on (proc(5), clear_refs 5)."""
        (self._proc / "clear_refs").write_text("5")
        return self._status("VmRSS")

    def _status(self, field: str) -> int:
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) << 10
        raise AssertionError(field)

    async def rest(self) -> float:
        """CPU seconds of the service in the next moment, when nothing is asked of it."""
        started = time.clock_gettime(self._clock)
        await asyncio.sleep(REST)
        return time.clock_gettime(self._clock) - started

    # --- the operations ----------------------------------------------------------------------------------

    async def _guess(self, entry: Entry, path: str) -> None:
        await self.client.images.info(path)

    async def _info(self, entry: Entry, path: str) -> None:
        await self.client.images.info(path, format=entry.format)

    async def _chain(self, entry: Entry, path: str) -> None:
        await self.client.images.info(path, format=entry.format, backing_chain=True)

    async def _alone(self, entry: Entry, path: str) -> None:
        await self.client.nodes.open(definition(entry.format, path, read_only=True, alone=True), timeout=DEADLINE)
        try:
            await self.client.nodes.get(NODE)
        finally:
            await self.client.nodes.close(NODE)

    async def _open(self, entry: Entry, path: str) -> None:
        opened = definition(entry.format, path, read_only=True, alone=self.alone)
        await self.client.nodes.open(opened, timeout=DEADLINE)

    async def _map(self, entry: Entry, path: str) -> None:
        count = 0
        async with asyncio.timeout(DEADLINE):
            async for _ in self.client.data.block_status(NODE):
                count += 1
                if count >= PAGE:
                    break

    async def _measure(self, entry: Entry, path: str) -> None:
        target = node.CreateImageRequest()
        target.qcow2.SetInParent()
        request = node.MeasureImageRequest(node_name=NODE, target=target)
        await self.client.images._service.unary("MeasureImage", request, node.MeasureImageResponse, self._limit)

    async def _read(self, entry: Entry, path: str) -> None:
        self.content = None
        size = (await self.client.nodes.get(NODE)).size_bytes
        if size <= WHOLE_BYTES:
            self.content = await self.client.data.read(NODE) if size else b""
            return
        for offset in (0, size - READ_BYTES):
            async for _ in self.client.data.pieces(NODE, offset, READ_BYTES):
                pass

    async def _check(self, entry: Entry, path: str) -> None:
        self.report = await self.client.images.check(path, entry.format, timeout=self._limit)

    async def _write(self, entry: Entry, path: str) -> None:
        opened = definition(entry.format, path, read_only=False, alone=self.alone)
        await self.client.nodes.open(opened, timeout=DEADLINE)
        await self.client.nodes.close(NODE)

    async def _use(self, entry: Entry, path: str) -> None:
        """Write, discard and flush at the disk's begin."""
        opened = definition(entry.format, path, read_only=False, alone=True)
        size = (await self.client.nodes.open(opened, timeout=DEADLINE)).size_bytes
        try:
            if size >= 2 * USED_BYTES:
                await self.client.data.write(NODE, 512, b"w" * USED_BYTES)
                await self.client.data.discard(NODE, 0, USED_BYTES)
                await self.client.data.write_zeroes(NODE, USED_BYTES, USED_BYTES)
                await self.client.data.flush(NODE)
        finally:
            await self.client.nodes.close(NODE)

    async def _repair(self, entry: Entry, path: str) -> None:
        self.report = await self.client.images.check(path, entry.format, repair="all", timeout=self._limit)


_ASKED: Final[dict[str, Callable[[House, Entry, str], Awaitable[None]]]] = {
    name: getattr(House, f"_{name}") for name in (*OPERATIONS, "use")
}


def cpu_bound() -> float:
    """Seconds of CPU that an operation may use now."""
    return CPU_SECONDS * (CROWDED if os.getloadavg()[0] > (os.cpu_count() or 1) else 1)


def definition(format_: str, path: str, *, read_only: bool, alone: bool = False) -> drivers_pb2.NodeDefinition:
    """A node of the image; `alone` without what its header names."""
    if format_ == "luks":
        return luks(file(path), no_io=True, node_name=NODE, read_only=read_only)
    if format_ != "qcow2":
        return raw(file(path), node_name=NODE, read_only=read_only)
    return qcow2(file(path), node_name=NODE, read_only=read_only, backing=NO_NODE if alone else None)


def fingerprint(path: Path) -> bytes:
    """Of a file's length and data; holes are passed over, so a file of 16 TiB takes no time."""
    digest = hashlib.blake2b()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        digest.update(size.to_bytes(8, "big"))
        at = _next_data(descriptor, 0)
        while at < size:
            part = os.pread(descriptor, BLOCK, at)
            if part != _NOTHING[: len(part)]:
                digest.update(at.to_bytes(8, "big") + part)
            at = _next_data(descriptor, at + BLOCK)
    finally:
        os.close(descriptor)
    return digest.digest()


def _next_data(descriptor: int, at: int) -> int:
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA) // BLOCK * BLOCK
    except OSError:  # ENXIO: only a hole is left
        return 1 << 63


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """The process and a client."""
    async with daemon(folder, module="blockyard.node") as running, Client.connect(running.address) as made:
        yield House(running, made)
