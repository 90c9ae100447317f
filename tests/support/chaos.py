"""One cell of the chaos matrix: a real job under a writing guest, stopped at one place, disturbed there, and
judged.

The services are real processes; what connects them goes through proxies that can be cut. A service stops itself at
the failpoint (`blockyard.base.failpoints`) and says so; then this module does to it, or to others, what the cell
says, and lets what is left go on. The guest repeats a write until it is told that it is durable, so at the end the
disk must hold exactly what the guest was told.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from blockyard.base.errors import BlockError
from blockyard.client import Client
from blockyard.client.definitions import blkdebug, file, qcow2, raw
from blockyard.v1 import copy_pb2, drivers_pb2
from blockyard.v1 import job_pb2 as job
from blockyard.v1.copy_pb2_grpc import CopyServiceStub
from tests.support import peers
from tests.support.processes import Service, jobs_of, node_of

SIZE = 4 << 20
STALL_SECONDS = float(os.environ.get("BLOCKYARD_CHAOS_STALL", "2"))
REACH_SECONDS = 30
END_SECONDS = 90
FAULTS = {"EIO": 5, "ENOSPC": 28}


class Cut:
    """A proxy in front of a Unix socket that can be cut."""

    def __init__(self, front: Path, back: Path) -> None:
        self._front = front
        self._back = back
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def heal(self) -> None:
        self._front.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._front)

    async def cut(self) -> None:
        """Connections end, and nobody gets in."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._front.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            below_reader, below_writer = await asyncio.open_unix_connection(self._back)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, below_writer}
        try:
            await asyncio.gather(_pump(reader, below_writer), _pump(below_reader, writer))
        finally:
            self._writers -= {writer, below_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@dataclass
class Scene:
    """A kind of job on its disks."""

    name: str
    ends_by_verb: bool
    places: tuple[str, ...]
    """Failpoints of its own, besides those that all have."""


STATES = ("CREATED", "RUNNING", "WAITING", "PENDING", "CONCLUDED")
COMMON = (
    *(f"jobs.{state}.{when}" for state in STATES for when in ("before", "after")),
    *("jobs.session.before", "jobs.session.after", "jobs.finalizing.before", "jobs.finalizing.after"),
    *("node.session.before", "node.session.after", "node.copy.before", "node.copy.after"),
    *("node.finish.before", "node.finish.after"),
)
READY = ("jobs.READY.before", "jobs.READY.after", "node.pivot.before", "node.pivot.after")
HEADER = ("node.header.before", "node.header.after")
SCENES = (
    Scene("mirror", True, (*COMMON, *READY)),
    Scene("active", True, (*COMMON, *READY)),
    Scene("backup", False, (*COMMON, "node.seal.before", "node.seal.after")),
    Scene("stream", False, (*COMMON, *HEADER)),
    Scene("commit", False, (*COMMON, *HEADER)),
)
DISTURBANCES = ("kill-jobs", "kill-node", "kill-both", "stall", "cut-node", "cut-store", "EIO", "ENOSPC")
"""`cut-store` needs a database that can be cut; EIO and ENOSPC come from the target once, and the job pauses."""


def cells() -> list[tuple[str, str, str]]:
    """All of the matrix: scene, failpoint, disturbance."""
    return [(scene.name, place, what) for scene in SCENES for place in scene.places for what in DISTURBANCES]


@dataclass
class World:
    """Everything of one cell."""

    folder: Path
    scene: Scene
    place: str
    disturbance: str
    node: Service
    jobs: Service
    to_node: Cut
    to_store: Cut | None
    at_node: Client
    at_jobs: Client
    reached: asyncio.Future[str]
    told: bytearray = field(default_factory=bytearray)
    """What the guest was told that its disk holds."""
    before: bytes = b""
    """What it held when the job began."""
    outcome: job.Job | None = None
    chance: Random = field(default_factory=Random)
    writing: asyncio.Task[None] | None = None
    """The guest."""

    @property
    def target(self) -> str:
        return {"mirror": "t", "backup": "t", "active": "base", "commit": "base", "stream": "top"}[self.scene.name]


async def insist(call: Callable[[], Awaitable[Any]], seconds: float = END_SECONDS) -> Any:
    """Repeat a call until it is answered: its service may be away."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await call()
            except BlockError as problem:
                passing = problem.canonical() in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED")
                if not passing:
                    raise
                await asyncio.sleep(0.05)


# --- the scene --------------------------------------------------------------------------------------------


async def build(world: World) -> None:
    """Disks with content, and the guest's door."""
    client, name = world.at_node, world.scene.name
    chain = {"mirror": ["a"], "backup": ["a"], "active": ["base", "top"], "stream": ["base", "top"]}
    below = ""
    for layer in chain.get(name, ["base", "mid", "top"]):
        await client.images.create(f"{layer}.qcow2", SIZE, format="qcow2")
        more = {"backing": below} if below else {}
        await client.nodes.open(qcow2(_file(world, layer), node_name=layer, **more))
        content = world.chance.randbytes(SIZE // 2 if below else SIZE)
        await client.data.write(layer, world.chance.randrange(4) << 19 if below else 0, content)
        await client.data.flush(layer)
        below = layer
    if world.target == "t":
        (world.folder / "images" / "t.raw").write_bytes(bytes(SIZE))
        await client.nodes.open(raw(_file(world, "t", "t.raw"), node_name="t"))
    await client.attachments.create("guest", below)
    world.before = bytes(await client.data.read("", 0, SIZE, attachment="guest"))
    world.told[:] = world.before


def _file(world: World, layer: str, name: str = "") -> Any:
    where = file(name or f"{layer}.qcow2")
    if world.disturbance in FAULTS and layer == world.target and layer == "t":
        fault = drivers_pb2.BlkdebugInjectError(
            event="none", iotype="write", errno=FAULTS[world.disturbance], once=True
        )
        return blkdebug(where, inject_error=[fault])
    return where


def wanted(world: World) -> job.Job:
    """The job."""
    stop = 4  # ON_ERROR_STOP, see types.proto
    options: dict[str, Any] = {
        "mirror": {"mirror": job.MirrorOptions(node_name="a", target_node_name="t", sync=1, on_target_error=stop)},
        "backup": {"backup": job.BackupOptions(node_name="a", target_node_name="t", sync=1, on_target_error=stop)},
        "active": {"commit": job.CommitOptions(node_name="top")},
        "stream": {"stream": job.StreamOptions(node_name="top")},
        "commit": {"commit": job.CommitOptions(node_name="top", top_node_name="mid", base_node_name="base")},
    }[world.scene.name]
    return job.Job(job_id="j", auto_finalize=True, **options)


async def guest(world: World) -> None:
    """Writes, again and again until it is told that it is durable, then elsewhere."""
    while True:
        length = world.chance.choice((512, 4096, 70000)) // 512 * 512
        offset = world.chance.randrange((SIZE - length) // 512) * 512
        data = world.chance.randbytes(length)
        write = partial(world.at_node.data.write, "", offset, data, attachment="guest", fua=True, timeout=5)
        await insist(write, 1000)
        world.told[offset : offset + length] = data
        await asyncio.sleep(0.002)


async def operator(world: World) -> None:
    """Starts the job, resumes it when an error stops it, completes it when it is ready, and sees its end."""
    request = wanted(world)
    await insist(lambda: world.at_jobs.jobs.create(request, request_id="r"))
    world.writing = asyncio.create_task(guest(world))
    while True:
        shown = await insist(lambda: world.at_jobs.jobs.get("j"))
        if shown.state == job.JOB_STATE_CONCLUDED:
            world.outcome = shown
            return
        verbs = world.at_jobs.jobs
        with suppress(BlockError):
            if shown.state in (job.JOB_STATE_PAUSED, job.JOB_STATE_STANDBY):
                await verbs.resume("j")
            elif shown.state == job.JOB_STATE_READY:
                await verbs.complete("j", "pivot")
        await asyncio.sleep(0.03)


# --- the disturbance --------------------------------------------------------------------------------------


async def disturb(world: World) -> None:
    """What the cell says, with the service stopped at its failpoint."""
    stopped = world.jobs if world.place.startswith("jobs.") else world.node
    await _stands(stopped)
    what = world.disturbance
    both = [world.jobs, world.node]
    killed = {"kill-jobs": both[:1], "kill-node": both[1:], "kill-both": both}.get(what, [])
    for service in killed:
        await service.kill()
    if what == "stall":
        await asyncio.sleep(STALL_SECONDS)
    cut = {"cut-node": world.to_node, "cut-store": world.to_store}.get(what)
    if cut is not None:
        await cut.cut()
    if stopped not in killed:
        stopped.signal(signal.SIGCONT)
    if cut is not None:
        await asyncio.sleep(1)
        await cut.heal()
    for service in reversed(killed):
        await service.start(BLOCKYARD_FAILPOINT="")


async def _stands(service: Service) -> None:
    """It says where it is before it stops; to let it go on before that would let it stop for ever."""
    assert service.process is not None
    stat = Path(f"/proc/{service.process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.001)


# --- the judgement ----------------------------------------------------------------------------------------


async def judge(world: World) -> None:
    """The job ended as asked, the guest's disk holds what it was told, nothing is left behind."""
    ended, client, name = world.outcome, world.at_node, world.scene.name
    assert ended is not None
    assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED, ended
    held = await client.data.read("", 0, SIZE, attachment="guest")
    assert held == world.told, f"the guest's disk differs at {first_difference(held, world.told)}"
    if name == "backup":
        copy = await client.data.read("t", 0, SIZE)
        assert copy == world.before, f"the backup differs at {first_difference(copy, world.before)}"
    if name in ("mirror", "active"):
        assert (await client.attachments.get("guest")).node_name == world.target
    if name in ("stream", "commit"):
        children = {child.name: child.node_name for child in (await client.nodes.get("top")).children}
        assert children.get("backing", "") == ("base" if name == "commit" else "")
    stub = CopyServiceStub(client._open_channel)
    sessions = (await stub.ListCopySessions(copy_pb2.ListCopySessionsRequest())).sessions
    assert [each.session_id for each in sessions] == []
    assert list((world.folder / "node-state" / "sessions").iterdir()) == []
    drivers = {each.driver for each in await client.nodes.list()}
    assert not drivers & {"mirror-top", "copy-before-write"}


async def judge_again(world: World) -> None:
    """The same after a clean end of everything, by other eyes."""
    assert await world.jobs.terminate() == 0
    assert await world.node.terminate() == 0
    for image in (world.folder / "images").glob("*.qcow2"):
        peers.run("qemu-img", "check", "-q", image)
    await world.node.start(BLOCKYARD_FAILPOINT="")
    held = await insist(lambda: world.at_node.data.read("", 0, SIZE, attachment="guest"))
    assert held == world.told


def first_difference(one: bytes, other: bytes) -> int:
    return next(index for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)


# --- all of it --------------------------------------------------------------------------------------------


async def run(folder: Path, scene_name: str, place: str, disturbance: str, seed: int, server: Any) -> bool:
    """One cell; whether its failpoint was reached."""
    scene = next(each for each in SCENES if each.name == scene_name)
    async with _world(folder, scene, place, disturbance, seed, server) as world:
        await build(world)
        operating = asyncio.create_task(operator(world))
        try:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait((world.reached, operating), timeout=REACH_SECONDS, return_when=first)
            if world.reached.done():
                await disturb(world)
            async with asyncio.timeout(END_SECONDS):
                await operating
        finally:
            tasks = [task for task in (operating, world.writing) if task is not None]
            # The guest is told of its last write, then it rests.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await _settle_last_write(world)
        await judge(world)
        await judge_again(world)
        return world.reached.done()


async def _settle_last_write(world: World) -> None:
    """A write that was cut off may or may not have happened: where the disk differs only there, take what it
    holds."""
    held = await insist(lambda: world.at_node.data.read("", 0, SIZE, attachment="guest"))
    if held != world.told:
        last = max(index for index, (a, b) in enumerate(zip(held, world.told, strict=True)) if a != b)
        assert last - first_difference(held, world.told) < 70000, "more than the last write differs"
        world.told[:] = held


@asynccontextmanager
async def _world(
    folder: Path, scene: Scene, place: str, disturbance: str, seed: int, server: Any
) -> AsyncIterator[World]:
    front, (ready, told) = folder / "proxy.sock", os.pipe()
    telling = {"BLOCKYARD_FAILPOINT": place, "BLOCKYARD_FAILPOINT_TELL": str(told)}
    node, jobs = node_of(folder), jobs_of(folder)
    store: Cut | None = None
    if disturbance == "cut-store":
        database = folder / ".s.PGSQL.5432"
        store = Cut(database, server.folder / ".s.PGSQL.5432")
        url = server.new_database().replace(str(server.folder), str(folder))
        jobs.options = ("--database", url, "--lease-seconds", "30")
    else:
        jobs.options = ("--state-directory", f"{folder}/jobs-state")
    jobs.options += ("--node", f"unix:{front}", "--node-patience-seconds", "60")
    for service in (node, jobs):
        service.pass_fds = (told,)
        if place.startswith(service.name):
            service.environment = telling
    to_node = Cut(front, folder / "node.sock")
    async with AsyncExitStack() as stack:
        stack.callback(os.close, ready)
        for each in (to_node, store):
            if each is not None:
                await each.heal()
                stack.push_async_callback(each.cut)
        for service in (node, jobs):
            stack.push_async_callback(_end, service)
            await service.start()
        stack.callback(os.close, told)
        clients = [await stack.enter_async_context(Client.connect(each.address)) for each in (node, jobs)]
        reached: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        loop.add_reader(ready, lambda: _note(ready, reached))
        stack.callback(loop.remove_reader, ready)
        world = World(folder, scene, place, disturbance, node, jobs, to_node, store, *clients, reached)
        world.chance = Random(f"{seed} {scene.name} {place} {disturbance}")
        yield world


def _note(ready: int, reached: "asyncio.Future[str]") -> None:
    told = os.read(ready, 100).decode().strip()
    if not reached.done():
        reached.set_result(told)


async def _end(service: Service) -> None:
    if service.process is not None and service.process.returncode is None:
        service.signal(signal.SIGCONT)
        await service.kill()
