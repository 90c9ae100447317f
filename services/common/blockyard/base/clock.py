"""Time, injected. No module calls `time.*` or `asyncio.sleep` directly; it is handed a `Clock`.

`SystemClock` is the real one. `VirtualClock` moves only when told, so that tests need not sleep.
"""

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time for latencies and deadlines, wall time for people and leases' records."""

    def monotonic_ns(self) -> int: ...

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch. May jump; never used to measure a duration."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """A clock that stands still until `advance`; sleepers wake in order of their deadlines."""

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._now_ns = start_ns
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def monotonic_ns(self) -> int:
        return self._now_ns

    def wall_ns(self) -> int:
        return self._now_ns

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_ns + round(seconds * 1e9), next(self._order), wake))
        await wake

    @property
    def sleepers(self) -> int:
        """How many tasks wait for time to pass."""
        return sum(not wake.done() for _, _, wake in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move time on, letting every task whose deadline passes run before the next one wakes."""
        end_ns = self._now_ns + round(seconds * 1e9)
        while self._sleepers and self._sleepers[0][0] <= end_ns:
            self._now_ns, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                wake.set_result(None)
            await _let_others_run()
        self._now_ns = end_ns
        await _let_others_run()


async def _let_others_run() -> None:
    # A woken task may need several steps of the loop before it sleeps again.
    for _ in range(20):
        await asyncio.sleep(0)
