"""A node service for each test; one whose clock stands still for those that need requests in flight."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
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


async def _move(clock: VirtualClock) -> None:
    while True:
        await clock.advance(1)
