"""Waiting for what another task or process does soon. The test's own timeout is the bound."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object]) -> None:
    """Return when `condition` holds."""
    while not condition():
        await asyncio.sleep(0.001)
