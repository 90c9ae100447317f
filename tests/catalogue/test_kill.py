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
