"""The main job, step by step, on a real daemon: chain, mirror, pivot, backup, increment, stream, compare.

The guest works all the time. Where a copy of an instant is taken (a backup), it is frozen for the moment in which
the job is created, as a guest's file system would be, so that the ledger knows that instant.
"""

import asyncio
import os
import random
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from blockyard.base.ranges import align_up
from blockyard.base.units import KIB, MIB
from blockyard.cli import progress
from blockyard.cli.options import Globals
from blockyard.client import Client
from blockyard.client.definitions import NO_NODE, file, qcow2, raw
from blockyard.client.jobs import raise_unless_succeeded
from blockyard.client.pieces import Piece
from blockyard.rpc.telemetry import trace_of
from blockyard.rpc.trace_context import TraceContext, new_trace_id
from blockyard.v1 import job_pb2
from blockyard.v1.job_pb2 import Job
from tests.e2e.guest import Guest
from tests.e2e.ledger import UNIT, WINDOW, Ledger, Reader, Seeds, first_difference, pattern
from tests.e2e.plain_qcow2 import PlainQcow2
from tests.e2e.report import Done, Report
from tests.support import peers
from tests.support.daemon import Daemon

LAYERS: Final = ("bottom", "middle", "top")
SEEDED: Final = 24 * MIB
"""Bytes that each layer holds of its own before the guest begins."""
EXPORT: Final = "vm"
SAMPLED_EVERY: Final = 4
"""Of the comparing reads; each becomes a trace with a span per layer and request."""


@dataclass
class Story:
    """What the steps share."""

    client: Client
    daemon: Daemon
    original: Path
    format: str
    options: Globals
    report: Report = field(default_factory=Report)
    ledger: Ledger = field(default_factory=lambda: Ledger(0))
    guest: Guest | None = None
    _windows: int = 0

    async def run(self) -> None:
        """All of it."""
        await self._open_chain()
        await self._start_guest()
        await self._mirror()
        await self._close_old_chain()
        full, increment = await self._back_up()
        await self._flatten()
        await self._stop_guest()
        await self._compare_nodes({"live": self.ledger.snapshot(), "full": full, "increment": increment})
        await self._compare_files({"live": self.ledger.snapshot(), "full": full, "increment": increment})

    @property
    def _guest(self) -> Guest:
        assert self.guest is not None
        return self.guest

    # --- steps ---------------------------------------------------------------------------------------------

    async def _open_chain(self) -> None:
        build = raw if self.format == "raw" else qcow2
        base = await self.client.nodes.open(
            build(file(str(self.original), read_only=True), node_name="base", read_only=True)
        )
        size = align_up(base.size_bytes, UNIT)
        self.ledger = Ledger(size)
        below, name_below, format_below = "base", str(self.original), self.format
        for number, layer in enumerate(LAYERS):
            await self.client.images.create(
                f"{layer}.qcow2", size, format="qcow2", backing_file=name_below, backing_format=format_below
            )
            await self.client.nodes.open(qcow2(file(f"{layer}.qcow2"), node_name=layer, backing=below))
            await self._seed(layer, number)
            below, name_below, format_below = layer, f"{layer}.qcow2", "qcow2"
        self._say(f"a chain of {len(LAYERS)} qcow2 layers over {self.original.name}, {size // MIB} MiB")

    async def _seed(self, layer: str, number: int) -> None:
        chance = random.Random(number)
        pieces = []
        while sum(piece.length for piece in pieces) < min(SEEDED, self.ledger.size // 8):
            length = min(UNIT * chance.randint(1, 512), self.ledger.size)
            offset = UNIT * chance.randrange((self.ledger.size - length) // UNIT + 1)
            seed = 2**40 + number * 2**32 + len(pieces) + 1
            pieces.append(Piece(offset, length, pattern(offset, length, seed)))
            self.ledger.note(offset, length, seed)

        async def source() -> AsyncIterator[Piece]:
            for piece in pieces:
                yield piece

        await self.client.data.write_pieces(layer, source())

    async def _start_guest(self) -> None:
        export = await self.client.exports.add_nbd("top", EXPORT, writable=True)
        self.guest = await Guest.connect(self.daemon.nbd_socket, EXPORT, self.ledger)
        self.guest.start()
        self._say(f"a guest writes to it over {export.uris[0]}")

    async def _mirror(self) -> None:
        await self._new_image("mirror")
        self._guest.phase = "mirror"
        began = time.perf_counter()
        job = await self.client.jobs.mirror("top", "mirror", job_id="mirror")
        await self._watched(job, "ready")
        ready = time.perf_counter() - began
        await asyncio.sleep(0.5)  # the mirror follows the guest for a while
        self._guest.phase = "pivot"
        await self.client.jobs.complete("mirror", "pivot")
        job = await self._watched(job)
        self.report.jobs.append(Done("mirror (until ready)", job, ready))
        await asyncio.sleep(0.2)
        export = await self.client.exports.get(EXPORT)
        assert export.node_name == "mirror", f"the guest's export shows {export.node_name}"
        self._say("pivoted: the guest goes on writing to mirror.qcow2")

    async def _close_old_chain(self) -> None:
        for node in (*reversed(LAYERS),):
            await self.client.nodes.close(node)

    async def _back_up(self) -> tuple[Seeds, Seeds]:
        self._guest.phase = "full backup"
        await self.client.bitmaps.add("mirror", "since-full")
        await self._new_image("full")
        full = await self._instant_copy("full backup", "full", sync="full")
        self._guest.phase = "between backups"
        await asyncio.sleep(1.0)
        self._guest.phase = "incremental backup"
        await self._new_image("increment", below="full")
        increment = await self._instant_copy("incremental backup", "increment", sync="bitmap", bitmap="since-full")
        return full, increment

    async def _instant_copy(self, title: str, target: str, **options: str) -> Seeds:
        began = time.perf_counter()
        await self._guest.freeze()
        instant = self.ledger.snapshot()
        job = await self.client.jobs.backup("mirror", target, job_id=target, **options)
        self._guest.thaw()
        job = await self._watched(job)
        self.report.jobs.append(Done(title, job, time.perf_counter() - began))
        return instant

    async def _flatten(self) -> None:
        self._guest.phase = "snapshot"
        await self.client.images.create(
            "live.qcow2", self.ledger.size, format="qcow2", backing_file="mirror.qcow2", backing_format="qcow2"
        )
        await self.client.nodes.open(qcow2(file("live.qcow2"), node_name="live", backing=NO_NODE))
        await self.client.nodes.insert_overlay("mirror", "live")
        await asyncio.sleep(0.5)
        for node in ("live", "increment"):
            self._guest.phase = f"stream of {node}"
            began = time.perf_counter()
            job = await self._watched(await self.client.jobs.stream(node, job_id=f"stream-{node}"))
            self.report.jobs.append(Done(f"stream {node} flat", job, time.perf_counter() - began))
            state = await self.client.nodes.get(node)
            left = [child.node_name for child in state.children if child.name == "backing"]
            assert not left and not state.backing_file, f"{node} still has {left or state.backing_file} below it"

    async def _stop_guest(self) -> None:
        await self._guest.stop()
        await self.client.exports.remove(EXPORT, force=True)
        self.report.facts.append(
            f"the guest sent {self._guest.requests} requests, wrote {self._guest.written_bytes // MIB} MiB "
            f"and read {self._guest.verified} of its writes back meanwhile"
        )

    async def _compare_nodes(self, wanted: dict[str, Seeds]) -> None:
        for node, seeds in wanted.items():
            await self._compare(f"{node}, through the API", seeds, self._node(node))

    async def _compare_files(self, wanted: dict[str, Seeds]) -> None:
        for node in ("live", "mirror", "increment", "full"):
            await self.client.nodes.close(node)
        for node, seeds in wanted.items():
            path = self.daemon.root / f"{node}.qcow2"
            await self._compare(f"{node}.qcow2, closed, byte by byte from its clusters", seeds, _plain(path))
            check = await self.client.images.check(f"{node}.qcow2", "qcow2")
            clean = not (check.corruptions or check.leaks or check.check_errors)
            self.report.check(f"{node}.qcow2, metadata", clean, f"{check.corruptions} errors, {check.leaks} leaks")
            if shutil.which("qemu-img"):
                asked = peers.run("qemu-img", "check", "-f", "qcow2", path, check=False)
                self.report.check(
                    f"{node}.qcow2, as QEMU sees it", not asked.returncode, asked.stdout.split("\n")[0]
                )

    # --- means ---------------------------------------------------------------------------------------------

    async def _new_image(self, name: str, below: str = "") -> None:
        options = {"backing_file": f"{below}.qcow2", "backing_format": "qcow2"} if below else {}
        await self.client.images.create(f"{name}.qcow2", self.ledger.size, format="qcow2", **options)
        backing = below or NO_NODE
        await self.client.nodes.open(qcow2(file(f"{name}.qcow2"), node_name=name, backing=backing))

    async def _watched(self, started: Job, *until: str) -> Job:
        """Follow a job with a progress bar; the guest's problems are ours."""
        shown = progress.view(self.options)
        wanted = {job_pb2.JobState.Value(f"JOB_STATE_{state.upper()}") for state in until}
        job = started
        try:
            async for job in self.client.jobs.follow(started.job_id):
                shown.show(progress.step_of(job))
                self._guest.check()
                if job.state in wanted:
                    return job
        finally:
            shown.close()
        return raise_unless_succeeded(job)

    async def _compare(self, what: str, seeds: Seeds, found: Reader) -> None:
        began = time.perf_counter()
        different = await first_difference(seeds, self._original(), found)
        seconds = time.perf_counter() - began
        size = len(seeds) * UNIT
        detail = f"{size} bytes in {seconds:.1f} s" if different < 0 else f"first wrong byte at {different}"
        self.report.check(what, different < 0, detail)

    def _node(self, node: str) -> Reader:
        async def read(offset: int, length: int) -> bytes:
            self._windows += 1
            context = TraceContext(new_trace_id(), secrets.token_hex(8), self._windows % SAMPLED_EVERY == 0)
            with trace_of(context):
                return await self.client.data.read(node, offset, length)

        return read

    def _original(self) -> Reader:
        """The original image: a raw file as it is, another format through its own read-only node."""
        if self.format != "raw":

            async def through_node(offset: int, length: int) -> bytes:
                return await self.client.data.read("base", offset, length)

            return through_node
        source = self.original.open("rb", buffering=0)

        async def straight(offset: int, length: int) -> bytes:
            data = os.pread(source.fileno(), length, offset)
            return data + bytes(length - len(data))

        return straight

    def _say(self, text: str) -> None:
        if not self.options.quiet:
            print(text, flush=True)


def _plain(path: Path) -> Reader:
    image = PlainQcow2(path)

    async def read(offset: int, length: int) -> bytes:
        return image.read(offset, length)

    return read


assert WINDOW % (64 * KIB) == 0
