"""A node service for each test; one whose clock stands still for those that need requests in flight."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.client.definitions import memory
from blockyard.node.graph.definition import NodeDefinition
from tests.support.gated import Gates
from tests.support.node_calls import NodeHouse, node_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def still(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[NodeHouse]:
    """Its nodes of driver `null` with a latency answer when the test moves the clock."""
    async with AsyncExitStack() as leaving:
        made = await leaving.enter_async_context(node_house(tmp_path, clock=clock))
        yield made
        # Closing flushes, and a slow node's flush takes its time.
        moving = asyncio.create_task(_move(clock))
    moving.cancel()


@pytest.fixture
async def gates() -> AsyncIterator[Gates]:
    made = Gates()
    with made.registered():
        yield made


@pytest.fixture
async def attached(gates: Gates, house: NodeHouse) -> NodeHouse:
    """With a node "a" whose file can fail, one "b" in memory, and a socket for exports beside them."""
    house.raw_file("a.raw", 4 << 20)
    await house.graph.open(NodeDefinition("gated", "a", {"filename": "a.raw"}))
    await house.client.nodes.open(memory(2 << 20, node_name="b"))
    return house


async def _move(clock: VirtualClock) -> None:
    while True:
        await clock.advance(1)
