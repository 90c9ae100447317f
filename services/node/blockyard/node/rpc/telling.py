"""A long operation as a stream: its progress, then its result. To drop the stream cancels it.

The operation is a task of the call. Progress is coalesced: a slow client gets the latest, and nothing piles up.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

from blockyard.base.clock import Clock
from blockyard.node.interface.operations import Progress
from blockyard.v1 import node_pb2

INTERVAL_NS: Final = 10**8
"""Between two messages of one phase."""

Result = TypeVar("Result")


class Teller:
    """The latest progress of one operation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest = ("", 0, 0)
        self._told_ns = -INTERVAL_NS
        self._phase = ""
        self.news = asyncio.Event()

    def __call__(self, phase: str, done: int, total: int) -> None:
        self._latest = (phase, done, total)
        if phase != self._phase or self._clock.monotonic_ns() - self._told_ns >= INTERVAL_NS:
            self.news.set()

    def take(self) -> node_pb2.OperationProgress:
        """What is to be told now."""
        self.news.clear()
        self._phase, done, total = self._latest
        self._told_ns = self._clock.monotonic_ns()
        return node_pb2.OperationProgress(phase=self._phase, done=done, total=total)


async def told(
    clock: Clock, work: Callable[[Progress], Awaitable[Result]]
) -> AsyncGenerator[node_pb2.OperationProgress | Result, None]:
    """Progress while `work` runs, and what it returned. Whoever leaves early has it cancelled, and at rest."""
    teller = Teller(clock)
    task = asyncio.ensure_future(work(teller))
    task.add_done_callback(lambda _: teller.news.set())
    try:
        while not task.done():
            await teller.news.wait()
            if not task.done():
                yield teller.take()
        yield task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
