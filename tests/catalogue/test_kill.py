"""A real node process that is killed at random instants of a random life finds its graph again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from blockyard.base.errors import BlockError
from blockyard.client import Client
from blockyard.client.definitions import file, qcow2
from tests.support.daemon import Daemon, daemon
from tests.support.kept_graph import differences, picture
from tests.support.random_graph import Life, Model, look

SEEDS = range(int(os.environ.get("BLOCKYARD_KILLS", "3")))
"""`BLOCKYARD_KILLS=100` for a night."""
LIVES = 6
STEPS = 12


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_killed_node_serves_what_was_acknowledged_last_or_also_what_was_being_done(
    seed: int, tmp_path: Path
):
    random = Random(seed)
    life, expected = Life(random), [Model()]
    for number in range(LIVES):
        async with living(tmp_path) as (node, client):
            assert list((await client.catalogue.list(failed_only=True)).entries) == []
            model = found(expected, await look(client))
            for _ in range(random.randrange(STEPS)):
                model, call = await life.step(model, client)
                await call(client)
            assert model.seen() == await look(client)
            if number % 3 == 2:
                expected = [model]  # it is asked to end, and does
                continue
            after, call = await life.step(model, client)
            killing = asyncio.create_task(kill_soon(node.pid, random.random() * 0.01))
            try:
                await call(client)
                expected = [after]
            except BlockError:
                expected = [model, after]
            await killing
            await node.process.wait()


async def kill_soon(pid: int, seconds: float) -> None:
    await asyncio.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


def found(expected: list[Model], seen: dict[str, object]) -> Model:
    """The model that is there."""
    for model in expected:
        if model.seen() == seen:
            return model
    told = [differences(model.seen(), seen) for model in expected]
    pytest.fail(f"the graph is none of those that it may be: {told}")


@asynccontextmanager
async def living(folder: Path, module: str = "blockyard.node") -> AsyncIterator[tuple[Daemon, Client]]:
    """One life of a process, and a client."""
    options = ["--state-directory", str(folder / "state")]
    async with daemon(folder, module=module, options=options) as running, Client.connect(running.address) as client:
        yield running, client


async def test_a_node_that_is_asked_to_end_serves_the_same_graph_again(tmp_path: Path):
    random = Random(7)
    life, model = Life(random), Model()
    async with living(tmp_path) as (_, client):
        for _ in range(25):
            model, call = await life.step(model, client)
            await call(client)
        before = await picture(client)
    async with living(tmp_path) as (_, client):
        assert differences(before, await picture(client)) == []


async def test_the_whole_daemon_keeps_a_catalogue_too(tmp_path: Path):
    async with living(tmp_path, "blockyard.daemon") as (whole, client):
        _, call = await Life(Random(1)).step(Model(), client)
        await call(client)
        os.kill(whole.pid, signal.SIGKILL)
        await whole.process.wait()
    async with living(tmp_path, "blockyard.daemon") as (_, client):
        assert len((await client.catalogue.list()).entries) == 1
        await client.nodes.close("disk1")
        assert list(await client.nodes.list()) == []


@pytest.mark.peer("qemu-img")
async def test_a_guest_goes_on_at_the_same_address_when_its_node_was_killed(tmp_path: Path):
    async with living(tmp_path) as (node, client):
        await client.images.create("disk.qcow2", 1 << 20, format="qcow2")
        await client.nodes.open(qcow2(file("disk.qcow2"), node_name="disk"))
        await client.exports.add_nbd("disk", "disk", writable=True)
        guest = await QemuIo.started(node.nbd_socket)
        assert "wrote 4096/4096" in await guest.command("write -P 7 0 4k")
        assert await guest.command("flush") == ""
        os.kill(node.pid, signal.SIGKILL)
        await node.process.wait()
    async with living(tmp_path):
        assert "read 4096/4096" in await guest.command("read -P 7 0 4k")
        assert "wrote 4096/4096" in await guest.command("write -P 8 4k 4k")
        await guest.end()


_PROMPT = b"qemu-io> "


class QemuIo:
    """A qemu-io that waits for its server to come back."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def started(cls, socket: Path) -> "QemuIo":
        options = f"driver=nbd,server.type=unix,server.path={socket},export=disk,reconnect-delay=60"
        process = await asyncio.create_subprocess_exec(
            "qemu-io", "--image-opts", options, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        made = cls(process)
        await made.prompted()
        return made

    async def command(self, text: str) -> str:
        """What it prints for a command. It takes one line at a time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n".encode())
        return await self.prompted()

    async def prompted(self) -> str:
        """What it prints until it asks again."""
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            return (await self._process.stdout.readuntil(_PROMPT)).removesuffix(_PROMPT).decode()

    async def end(self) -> None:
        """It ends."""
        await self._process.communicate(b"quit\n")
