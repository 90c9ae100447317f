"""The states of our jobs, compared with what a real qemu-storage-daemon emits for the same scenario.

QEMU's graph changes drain the nodes of a job, which pauses it for a moment (running, paused, running at the start
of a backup): a state of theirs that no client asked for. Such a pair is taken out before comparing.
"""

import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blockyard.v1 import job_pb2
from tests.support.real_services import House, house

pytestmark = pytest.mark.peer("qemu-storage-daemon", "qemu-img")
SIZE = 4 << 20


class Qemu:
    """A qemu-storage-daemon over QMP, with the states that it told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.states: list[str] = []

    async def say(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The reply; events before it are noted."""
        plain = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._writer.write(json.dumps({"execute": command, "arguments": plain}).encode() + b"\n")
        while "event" in (message := await self._read()):
            pass
        return message

    async def until(self, state: str) -> None:
        async with asyncio.timeout(20):
            while not self.states or self.states[-1] != state:
                await self._read()

    async def _read(self) -> dict[str, Any]:
        message = json.loads(await self._reader.readline())
        if message.get("event") == "JOB_STATUS_CHANGE":
            self.states.append(message["data"]["status"])
        return message


async def connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a peer that is starting."""
    while True:
        try:
            return await asyncio.open_unix_connection(path)
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def qemu(folder: Path) -> AsyncIterator[Qemu]:
    """With nodes `a` (random bytes) and `t`."""
    (folder / "a.raw").write_bytes(random.Random(1).randbytes(SIZE))
    (folder / "t.raw").write_bytes(bytes(SIZE))
    # A socket's path is short, a test's folder need not be.
    sockets = Path(tempfile.mkdtemp(prefix="qsd-"))
    process = await asyncio.create_subprocess_exec(
        "qemu-storage-daemon",
        *("--chardev", f"socket,id=c,path={sockets}/qmp,server=on,wait=off", "--monitor", "chardev=c"),
        *("--blockdev", f"driver=file,filename={folder}/a.raw,node-name=a"),
        *("--blockdev", f"driver=file,filename={folder}/t.raw,node-name=t"),
    )
    try:
        async with asyncio.timeout(20):
            reader, writer = await connected(sockets / "qmp")
        await reader.readline()
        daemon = Qemu(reader, writer)
        await daemon.say("qmp_capabilities")
        yield daemon
        writer.close()
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(sockets)


class Ours:
    """The same words for our service."""

    def __init__(self, yard: House) -> None:
        self._jobs = yard.jobs
        self.states: list[str] = []
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for event in self._jobs.watch():
            state = job_pb2.JobState.Name(event.job.state).removeprefix("JOB_STATE_").lower()
            if event.HasField("job") and (not self.states or self.states[-1] != state):
                self.states.append(state)
                self._news.set()

    async def until(self, state: str) -> None:
        async with asyncio.timeout(20):
            while not self.states or self.states[-1] != state:
                self._news.clear()
                await self._news.wait()

    async def say(self, command: str, **arguments: Any) -> None:
        if command.startswith("blockdev-"):
            settings = {name: value for name, value in arguments.items() if name.startswith("auto")}
            start = getattr(self._jobs, command.removeprefix("blockdev-"))
            speed = arguments.get("speed", 0)
            await start("a", "t", sync=arguments["sync"], job_id="m", speed_bytes_per_second=speed, **settings)
        elif command == "block-job-set-speed":
            await self._jobs.set_speed("m", arguments["speed"])
        else:
            await getattr(self._jobs, command.removeprefix("job-"))("m")

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


MANUAL = {"auto_finalize": False, "auto_dismiss": False}
AUTOMATIC = {"auto_finalize": True, "auto_dismiss": True}
SLOW = {"speed": 65536}

SCENARIOS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "a mirror by hand, with a pause in ready": (
        ("blockdev-mirror", {"sync": "full", **MANUAL}),
        ("until ready", {}),
        ("job-pause", {}),
        ("until standby", {}),
        ("job-complete", {}),
        ("job-resume", {}),
        ("until pending", {}),
        ("job-finalize", {}),
        ("until concluded", {}),
        ("job-dismiss", {}),
        ("until null", {}),
    ),
    "a mirror of nothing, by itself": (
        ("blockdev-mirror", {"sync": "none", **AUTOMATIC}),
        ("until ready", {}),
        ("job-complete", {}),
        ("until null", {}),
    ),
    "a slow mirror cancelled while it runs": (
        ("blockdev-mirror", {"sync": "full", **MANUAL, **SLOW}),
        ("until running", {}),
        ("job-cancel", {}),
        ("until concluded", {}),
    ),
    "a slow mirror cancelled while it is paused": (
        ("blockdev-mirror", {"sync": "full", **MANUAL, **SLOW}),
        ("until running", {}),
        ("job-pause", {}),
        ("until paused", {}),
        ("job-cancel", {}),
        ("until concluded", {}),
    ),
    "a mirror cancelled in standby": (
        ("blockdev-mirror", {"sync": "full", **MANUAL}),
        ("until ready", {}),
        ("job-pause", {}),
        ("until standby", {}),
        ("job-cancel", {}),
        ("until concluded", {}),
    ),
    "a mirror cancelled while it is pending": (
        ("blockdev-mirror", {"sync": "full", **MANUAL}),
        ("until ready", {}),
        ("job-complete", {}),
        ("until pending", {}),
        ("job-cancel", {}),
        ("until concluded", {}),
    ),
    "a backup by itself": (("blockdev-backup", {"sync": "full", **AUTOMATIC}), ("until null", {})),
    "a backup by hand": (
        ("blockdev-backup", {"sync": "full", **MANUAL}),
        ("until pending", {}),
        ("job-finalize", {}),
        ("until concluded", {}),
        ("job-dismiss", {}),
        ("until null", {}),
    ),
    "a backup of nothing, paused and cancelled": (
        ("blockdev-backup", {"sync": "none", **MANUAL}),
        ("until running", {}),
        ("job-pause", {}),
        ("until paused", {}),
        ("job-resume", {}),
        ("until running", {}),
        ("job-cancel", {}),
        ("until concluded", {}),
    ),
    "a slow mirror that is let go": (
        ("blockdev-mirror", {"sync": "full", **MANUAL, **SLOW}),
        ("until running", {}),
        ("block-job-set-speed", {"device": "m", "speed": 0}),
        ("until ready", {}),
        ("job-complete", {}),
        ("until pending", {}),
        ("job-finalize", {}),
        ("until concluded", {}),
    ),
}


async def play(scenario: tuple[tuple[str, dict[str, Any]], ...], side: Qemu | Ours) -> list[str]:
    for step, arguments in scenario:
        if step.startswith("until "):
            await side.until(step.removeprefix("until "))
            continue
        given = dict(arguments)
        if isinstance(side, Qemu) and step.startswith("blockdev-"):
            given |= {"job_id": "m", "device": "a", "target": "t"}
        elif step.startswith("job-"):
            given["id"] = "m"
        reply = await side.say(step, **given)
        assert not reply or "error" not in reply, reply
    return side.states


def without_drains(states: list[str], asked_pauses: int) -> list[str]:
    """QEMU's states without pauses that no client asked for, which are the first ones."""
    found = list(states)
    while found.count("paused") > asked_pauses:
        index = found.index("paused")
        del found[index : index + 2]
    return found


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
async def test_our_states_are_qemus(scenario, tmp_path):
    async with qemu(tmp_path) as daemon:
        theirs = await play(scenario, daemon)
    async with house(tmp_path) as yard:
        await yard.memory("a", random.Random(1).randbytes(SIZE))
        await yard.memory("t", SIZE)
        ours = Ours(yard)
        try:
            states = await play(scenario, ours)
        finally:
            await ours.end()
    asked = sum(step == "until paused" for step, _ in scenario)
    assert states == without_drains(theirs, asked)
