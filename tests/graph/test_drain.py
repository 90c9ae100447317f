"""Draining: nothing is in flight while the body runs, and everything goes on afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.units import KIB
from blockyard.node.graph.drain import drained
from blockyard.node.graph.status import block_status
from tests.support.graphs import GraphGround, content
from tests.support.linear import Mix, Register, Storm


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_drain_waits_for_those_inside_and_holds_all_others(ground: GraphGround):
    node = await ground.strict(size=64 * KIB, inline=0)
    disk = node.driver
    disk.hold = asyncio.Event()  # type: ignore[attr-defined]
    user = ground.use(node)
    inside = asyncio.ensure_future(user.write(0, b"inside"))
    await turns()
    steps: list[str] = []

    async def drain() -> None:
        async with drained(node):
            assert inside.done() and not node.tracker.requests
            steps.append("drained")
            await turns()
            steps.append("end")

    task = asyncio.ensure_future(drain())
    await turns()
    calls = (
        user.read(0, memoryview(bytearray(9))),
        user.write(0, b"x"),
        user.zero(0, 1),
        user.discard(0, 1),
        user.flush(),
        user.truncate(64 * KIB),
    )
    others = [asyncio.ensure_future(call) for call in calls]
    assert not user.read_now(0, memoryview(bytearray(9))) and not user.write_now(0, b"x")
    await turns()
    assert not steps and not any(other.done() for other in others)
    disk.hold.set()  # type: ignore[attr-defined]
    disk.hold = None  # type: ignore[attr-defined]
    await task
    assert steps == ["drained", "end"]
    await asyncio.gather(*others)


async def test_a_drain_waits_for_flushes_that_share_one(ground: GraphGround):
    node = await ground.strict(size=KIB, inline=1)
    user, disk = ground.use(node), node.driver
    user.write_now(0, b"x")
    disk.hold = asyncio.Event()  # type: ignore[attr-defined]
    flushes = [asyncio.ensure_future(user.flush())]
    await turns()
    node.write_generation += 1
    flushes.append(asyncio.ensure_future(user.flush()))
    await turns()
    draining = asyncio.ensure_future(drained(node).__aenter__())
    await turns()
    assert not draining.done()
    disk.hold.set()  # type: ignore[attr-defined]
    await asyncio.gather(*flushes)
    await draining
    assert disk.flushes == 2 and not disk.inside  # type: ignore[attr-defined]
    node.quiesced -= 1


async def test_a_drain_waits_for_block_status(ground: GraphGround):
    node = await ground.strict(size=KIB)
    node.driver.hold = asyncio.Event()  # type: ignore[attr-defined]
    asking = asyncio.ensure_future(block_status(node, 0, KIB))
    await turns()
    draining = asyncio.ensure_future(drained(node).__aenter__())
    await turns()
    assert not draining.done()
    node.driver.hold.set()  # type: ignore[attr-defined]
    await asking
    await draining
    node.quiesced -= 1


async def test_drains_nest_and_a_cancelled_one_undoes_itself(ground: GraphGround):
    node = await ground.strict(size=KIB, inline=0)
    user = ground.use(node)
    async with drained(node):
        async with drained(node):
            pass
        waiting = asyncio.ensure_future(user.write(0, b"x"))
        await turns()
        assert not waiting.done()
    await waiting
    node.driver.hold = asyncio.Event()  # type: ignore[attr-defined]
    inside = asyncio.ensure_future(user.write(0, b"y"))
    await turns()
    draining = asyncio.ensure_future(drained(node).__aenter__())
    await turns()
    draining.cancel()
    await turns()
    assert draining.cancelled() and not node.quiesced
    node.driver.hold.set()  # type: ignore[attr-defined]
    await inside


async def test_a_request_that_gives_up_at_the_gate_leaves_nothing(ground: GraphGround):
    node = await ground.strict(size=KIB)
    user = ground.use(node)
    async with drained(node):
        waiting = asyncio.ensure_future(user.write(0, b"x"))
        await turns()
        waiting.cancel()
        await turns()
        assert waiting.cancelled()
    assert await content(user, 0, 1) == b"\0"


async def test_a_node_below_can_rest_while_the_one_above_waits(ground: GraphGround):
    disk = await ground.strict(size=0)
    cow = await ground.toycow(disk, size=64 * KIB)
    user = ground.use(cow)
    async with drained(cow, disk):
        writing = asyncio.ensure_future(user.write(0, b"x"))
        await turns()
        assert not cow.tracker.requests
    await writing


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
async def test_drains_in_a_storm_see_a_still_node_and_lose_nothing(ground: GraphGround, seed: int):
    disk = await ground.strict(seed=seed)
    cow = await ground.toycow(disk, size=60_000, seed=seed)
    storm = Storm(ground.use(cow), Register(60_000, bytes(60_000)), seed, Mix(cancel=0.1))
    running = asyncio.ensure_future(storm.run())
    count = 0
    while not running.done():
        async with drained(cow):
            before = bytes(disk.driver.bytes)  # type: ignore[attr-defined]
            await turns(storm.numbers.randrange(8))
            assert before == disk.driver.bytes  # type: ignore[attr-defined]
        count += 1
        await turns(storm.numbers.randrange(1, 30))
    await running
    assert count > 10
