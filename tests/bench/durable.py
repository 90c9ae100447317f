"""What it costs that jobs outlive a kill: the same job by a daemon that keeps everything and one that keeps
nothing, the store alone, and the memory of a service with many jobs.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from blockyard.base.errors import PeerUnavailable
from blockyard.client import Client
from blockyard.client.definitions import memory
from blockyard.jobs.store.sqlite import sqlite_store
from blockyard.v1 import job_pb2 as job
from tests.bench import images
from tests.bench.harness import Row, alternate, case, faster
from tests.bench.ours import Ours, daemon
from tests.support.processes import jobs_of, node_of, running
from tests.support.stores import FULL, record

CHECKPOINTS = 200
CHECKPOINT_SECONDS = 2.0
"""`lifecycle.runner.CHECKPOINT_NS`."""
JOBS, WORKING = 1000, 50
MEMORY_BOUND = 100 << 20


def _beside_nothing_kept(name: str, folder: Path, kind: str, format: str) -> list[Row]:
    """The same job by two daemons."""

    def side(place: Path, client: Ours) -> Callable[[], float]:
        def run() -> float:
            target = images.empty(place / f"target.{format}", format)
            images.warm(place / "source.raw")
            client.open("source", place / "source.raw", "raw")
            client.open("target", target, format)
            started = time.perf_counter()
            client.job(lambda jobs: getattr(jobs, kind)("source", "target"))
            elapsed = time.perf_counter() - started
            client.close_all()
            return elapsed

        return run

    with ExitStack() as stack:
        sides = []
        for place, more_options in (("kept", ("--state-directory", f"{folder}/state")), ("lost", ())):
            (folder / place).mkdir()
            images.random_raw(folder / place / "source.raw")
            client = Ours(stack.enter_context(daemon(folder / place, *more_options)).address)
            stack.callback(client.close)
            sides.append(side(folder / place, client))
        kept_s, lost_s = alternate(*sides)
    return [faster(name, kept_s, lost_s, "nothing kept")]


@case("job-durable-mirror-raw-raw", ("qemu-img",))
def mirror(folder: Path) -> list[Row]:
    return _beside_nothing_kept("job-durable-mirror-raw-raw", folder, "mirror", "raw")


@case("job-durable-backup-raw-qcow2", ("qemu-img",))
def backup(folder: Path) -> list[Row]:
    return _beside_nothing_kept("job-durable-backup-raw-qcow2", folder, "backup", "qcow2")


@case("job-durable-checkpoint")
def checkpoint(folder: Path) -> list[Row]:
    """The part of its time that a job spends on writing its progress down; 1 % is the bound."""

    async def measured() -> float:
        async with sqlite_store(str(folder / "state")) as store:
            number = await store.begin("", 0)
            await store.create(record(token=number), number)
            full = record(token=number, **FULL)
            started = time.perf_counter()
            for _ in range(CHECKPOINTS):
                await store.put(full)
            return (time.perf_counter() - started) / CHECKPOINTS

    share = asyncio.run(measured()) / CHECKPOINT_SECONDS
    return [faster("job-durable-checkpoint", 100 * share, 1.0, "bound", "% of the time")]


@case("job-many-memory")
def many(folder: Path) -> list[Row]:
    """A jobs service that took up 1,000 jobs, 50 of them at work, the others ended and still shown."""

    async def measured() -> int:
        node, jobs = node_of(folder), jobs_of(folder)
        async with running(node, jobs) as (at_node, at_jobs):
            for number in range(WORKING):
                for name in (f"a{number}", f"t{number}"):
                    await at_node.nodes.open(memory(1 << 20, node_name=name))
            for number in range(JOBS - WORKING):
                await at_jobs.jobs.backup("a0", "t0", job_id=f"ended{number}")
                await _until(at_jobs, f"ended{number}", job.JOB_STATE_CONCLUDED)
            for number in range(WORKING):
                await at_jobs.jobs.mirror(f"a{number}", f"t{number}", job_id=f"working{number}")
            for number in range(WORKING):
                await _until(at_jobs, f"working{number}", job.JOB_STATE_READY)
            await jobs.terminate()
            await jobs.start()
            for number in range(WORKING):
                await _until(at_jobs, f"working{number}", job.JOB_STATE_READY)
            assert jobs.process is not None
            lines = Path(f"/proc/{jobs.process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))

    used = asyncio.run(measured())
    return [faster("job-many-memory", used / 2**20, MEMORY_BOUND / 2**20, "bound", "MiB")]


async def _until(client: Client, job_id: str, state: int) -> None:
    while True:
        with suppress(PeerUnavailable):
            if (await client.jobs.get(job_id)).state == state:
                return
        await asyncio.sleep(0.005)
