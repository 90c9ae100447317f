"""Source and target on two node services, with NBD between them and a network that fails."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.base.errors import IoError
from blockyard.client import Client
from blockyard.client.definitions import memory, nbd
from blockyard.jobs import app as jobs_app
from blockyard.jobs.config import JobsConfig
from blockyard.node import app as node_app
from blockyard.node.config import NodeConfig
from blockyard.v1 import job_pb2 as job

SIZE = 8 << 20


class Network:
    """What lies between the hosts: it can be cut and healed."""

    def __init__(self, here: Path, there: Path) -> None:
        self.here = here
        self._there = there
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.passed = 0

    async def heal(self) -> None:
        self._server = await asyncio.start_unix_server(self._connect, str(self.here))

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        self.here.unlink(missing_ok=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(str(self._there))
        self._writers |= {writer, far_writer}
        with suppress(OSError):
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            self.passed += len(piece)
            writer.write(piece)
            await writer.drain()
        writer.transport.abort()


@dataclass
class Hosts:
    """`near` has the source and the jobs, `far` the target."""

    near: Client
    far: Client
    jobs: Client
    network: Network
    content: bytes

    async def state(self, wanted: "job.JobState.ValueType") -> job.Job:
        async for shown in self.jobs.jobs.follow("j"):
            if shown.state == wanted:
                return shown
        raise AssertionError(f"the job never was {job.JobState.Name(wanted)}")


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="by"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def node(folder: Path, name: str) -> AsyncIterator[Client]:
    config = NodeConfig(
        listen=(f"unix:{folder}/{name}.sock",),
        storage_roots=(str(folder),),
        nbd=(f"unix:{folder}/{name}.nbd",),
        grace_seconds=0.2,
    )
    async with node_app.serving(config), Client.connect(config.listen[0]) as client:
        yield client


@pytest.fixture
async def hosts(folder: Path) -> AsyncIterator[Hosts]:
    config = JobsConfig(listen=(f"unix:{folder}/jobs.sock",), node=f"unix:{folder}/near.sock", grace_seconds=0.2)
    network = Network(folder / "wire", folder / "far.nbd")
    async with (
        node(folder, "near") as near,
        node(folder, "far") as far,
        jobs_app.serving(config),
        Client.connect(config.listen[0]) as jobs,
    ):
        content = random.Random(3).randbytes(SIZE)
        await near.nodes.open(memory(SIZE, node_name="source"))
        await near.data.write("source", 0, content)
        await far.nodes.open(memory(SIZE, node_name="target"))
        await far.exports.add_nbd("target", "disk", name="disk", writable=True)
        await network.heal()
        yield Hosts(near, far, jobs, network, content)
        with suppress(IoError):  # it says that what it could not flush may be lost
            await near.nodes.close("remote")
        await network.cut()


def remote(hosts: Hosts, reconnect_delay_seconds: int = 0) -> object:
    return nbd(
        f"unix:{hosts.network.here}",
        "disk",
        node_name="remote",
        reconnect_delay_seconds=reconnect_delay_seconds,
    )


async def test_a_backup_reaches_another_host(hosts: Hosts):
    await hosts.near.nodes.open(remote(hosts))
    await hosts.jobs.jobs.backup("source", "remote", job_id="j", auto_dismiss=False)
    done = await hosts.jobs.jobs.wait("j")
    assert done.outcome == job.JOB_OUTCOME_SUCCEEDED
    assert bytes(await hosts.far.data.read("target", 0, SIZE)) == hosts.content


async def test_a_mirror_through_a_cut_network_pauses_by_its_policy_and_ends_with_equal_bytes(hosts: Hosts):
    await hosts.near.nodes.open(remote(hosts))
    await hosts.jobs.jobs.mirror(
        "source", "remote", job_id="j", on_target_error="stop", speed_bytes_per_second=4 << 20, auto_dismiss=False
    )
    while hosts.network.passed < SIZE // 4:
        await asyncio.sleep(0.001)
    await hosts.network.cut()
    paused = await hosts.state(job.JOB_STATE_PAUSED)
    assert "no connection" in paused.error.message
    await hosts.near.data.write("source", 0, b"written while the network was cut")
    await hosts.network.heal()
    await hosts.jobs.jobs.set_speed("j", 0)
    await _ready(hosts)
    await hosts.jobs.jobs.complete("j")
    done = await hosts.jobs.jobs.wait("j")
    assert done.outcome == job.JOB_OUTCOME_SUCCEEDED
    # The mirror ended with a pivot: what was the source is the target from now on, and was equal to it.
    assert bytes(await hosts.far.data.read("target", 0, SIZE)) == bytes(
        await hosts.near.data.read("remote", 0, SIZE)
    )
    assert bytes(await hosts.far.data.read("target", 33, SIZE - 33)) == hosts.content[33:]
    assert bytes(await hosts.far.data.read("target", 0, 33)) == b"written while the network was cut"


async def _ready(hosts: Hosts) -> None:
    """Resume as often as it takes: an attempt before the connection is there pauses the job once more."""
    while (shown := await hosts.jobs.jobs.get("j")).state != job.JOB_STATE_READY:
        if shown.state == job.JOB_STATE_PAUSED:
            await hosts.jobs.jobs.resume("j")
        await asyncio.sleep(0.01)


async def test_a_backup_waits_out_a_short_cut_without_a_pause(hosts: Hosts):
    await hosts.near.nodes.open(remote(hosts, reconnect_delay_seconds=60))
    await hosts.jobs.jobs.backup("source", "remote", job_id="j", speed_bytes_per_second=4 << 20, auto_dismiss=False)
    while hosts.network.passed < SIZE // 4:
        await asyncio.sleep(0.001)
    await hosts.network.cut()
    await hosts.network.heal()
    await hosts.jobs.jobs.set_speed("j", 0)
    done = await hosts.jobs.jobs.wait("j")
    assert done.outcome == job.JOB_OUTCOME_SUCCEEDED
    assert bytes(await hosts.far.data.read("target", 0, SIZE)) == hosts.content


async def test_a_backup_without_a_policy_fails_when_the_network_is_cut_and_says_so(hosts: Hosts):
    await hosts.near.nodes.open(remote(hosts))
    await hosts.jobs.jobs.backup("source", "remote", job_id="j", speed_bytes_per_second=2 << 20, auto_dismiss=False)
    while hosts.network.passed < SIZE // 8:
        await asyncio.sleep(0.001)
    await hosts.network.cut()
    done = await hosts.jobs.jobs.wait("j")
    assert done.outcome == job.JOB_OUTCOME_FAILED
    assert "no connection" in done.error.message
