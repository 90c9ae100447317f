"""Orders out, reports in: what keeps a session at the node busy.

What lives here: the filling of the window, pacing, and the re-opening of a stream that dropped. What must not:
what a failed report means for the job, states, guest data.

Theory. One stream, one reader task that only puts reports aside and rings the bell, one loop (the job's) that
calls `turn`. A turn ends with a report, or because the job wants attention, or because nothing is left to do;
so a verb never waits for more than the orders in flight.

Invariants:
1. No order is out without a stream; a dropped stream forgets its orders, and the next one begins with the
   session's own figures (`Progress.adopt`), so nothing is missing or counted twice.
2. Reports set aside are never more than orders sent.
3. The node is asked to wait for new work by one order at a time, and only when nothing is left.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import BlockError, Code, PeerUnavailable
from blockyard.base.ranges import ByteRange
from blockyard.jobs.copying.bell import Bell, Tries
from blockyard.jobs.copying.pacing import Pacer
from blockyard.jobs.copying.progress import Progress
from blockyard.jobs.copying.window import Window
from blockyard.jobs.node.port import NodePort, Order, OrderStream, Report, Session

FOLLOW_SECONDS: Final = 5.0
"""How long the node waits for the guest's next write before it answers that there was none."""

_PASSING: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED})
"""Codes after which the same stream may work again."""


def is_passing(error: BlockError) -> bool:
    """Whether the node may answer again later, or may have done what was asked without telling."""
    return error.canonical() in _PASSING


class Copier:
    """The orders of one session. Used inside `async with`, by one task."""

    def __init__(
        self,
        node: NodePort,
        session: Session,
        *,
        clock: Clock,
        bell: Bell,
        window: Window,
        pacer: Pacer,
        progress: Progress,
        patience_ns: int,
    ) -> None:
        self._node = node
        self._session = session
        self._clock = clock
        self._bell = bell
        self._window = window
        self._pacer = pacer
        self._progress = progress
        self._tries = Tries(patience_ns)
        self._resume_at_ns = 0
        self._stream: OrderStream | None = None
        self._stack = contextlib.AsyncExitStack()
        self._reader: asyncio.Task[None] | None = None
        self._reports: deque[Report] = deque()
        self._broken: BlockError | None = None
        self._waiting_order = 0
        self._passed_over = 0
        self._exhausted = False

    async def __aenter__(self) -> "Copier":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop()

    @property
    def drained(self) -> bool:
        """Nothing is left in the work map and no order is out that could put something back."""
        idle = self._window.orders == 0 or self._waits_for_work
        return idle and not self._reports and (self._progress.remaining_bytes == 0 or self._exhausted)

    @property
    def window_bytes(self) -> int:
        return self._window.window_bytes

    @property
    def _waits_for_work(self) -> bool:
        return bool(self._waiting_order) and self._window.orders == 1

    def hold(self, seconds: float) -> None:
        """Send nothing for a while: the last order failed and will fail again at once."""
        self._resume_at_ns = self._clock.monotonic_ns() + round(seconds * 1e9)

    def pass_over(self, end: int) -> None:
        """Leave out everything below `end` from now on: it cannot be copied."""
        self._passed_over = max(self._passed_over, end)

    async def turn(self, attention: Callable[[], bool], *, follow: bool = False) -> Report | None:
        """The next report; None if the job wants attention, or nothing is left and nobody asked to `follow`.

        Raises what ended the session, and `PeerUnavailable` when the node was away for longer than patience allows;
        calling again then begins a new time of patience.
        """
        while True:
            self._bell.clear()
            if self._reports:
                return self._take()
            if attention() or (self.drained and not follow):
                return None
            seconds = await self._advance(follow)
            if not (self.drained and not follow):
                await self._bell.wait(seconds)

    async def settle(self, give_up: Callable[[], bool]) -> list[Report]:
        """Send nothing more, collect what is out. An order that only waits for work is dropped with its stream."""
        reports: list[Report] = []
        while self._window.orders and not self._waits_for_work and self._broken is None and not give_up():
            self._bell.clear()
            if self._reports:
                reports.append(self._take())
            elif self._broken is None and not give_up():
                await self._bell.wait()
        reports += [self._take() for _ in range(len(self._reports))]
        if self._window.orders:
            await self.drop()
        return reports

    async def drop(self) -> None:
        """Close the stream and forget its orders."""
        reader, self._reader, self._stream = self._reader, None, None
        if reader:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        await self._stack.aclose()
        self._window.clear()
        self._reports.clear()
        self._broken = None
        self._waiting_order = 0

    def _take(self) -> Report:
        report = self._reports.popleft()
        self._window.give_back(report.order_id)
        if report.order_id == self._waiting_order:
            self._waiting_order = 0
        self._tries.worked()
        nothing_done = not report.failed and report.done_bytes == 0
        self._exhausted = bool(self._passed_over) and nothing_done and self._window.orders == 0
        now_ns = self._clock.monotonic_ns()
        self._progress.add(report, now_ns, self._clock.wall_ns())
        self._pacer.account(report.copied_bytes, now_ns)
        return report

    async def _advance(self, follow: bool) -> float | None:
        """Do what can be done now; how long until there is more to do, None if only the bell can tell."""
        try:
            if self._broken is not None:
                raise self._broken
            now_ns = self._clock.monotonic_ns()
            if now_ns < self._resume_at_ns:
                return (self._resume_at_ns - now_ns) / 1e9
            if self._stream is None:
                await self._open()
            return await self._fill(follow)
        except BlockError as error:
            await self.drop()
            return self._after_failure(error)

    def _after_failure(self, error: BlockError) -> float:
        if not is_passing(error):
            raise error
        now_ns = self._clock.monotonic_ns()
        delay_ns = self._tries.failed(now_ns)
        if delay_ns is None:
            self._tries.worked()
            raise error
        self._resume_at_ns = now_ns + delay_ns
        return delay_ns / 1e9

    async def _open(self) -> None:
        session = await self._node.get_session(self._session.session_id)
        self._progress.adopt(session, self._clock.monotonic_ns(), self._clock.wall_ns())
        stream = await self._stack.enter_async_context(self._node.run_copy(session.session_id))
        self._stream = stream
        self._reader = asyncio.create_task(self._read(stream), name=f"reports of {session.session_id}")

    async def _read(self, stream: OrderStream) -> None:
        try:
            while True:
                report = await stream.receive()
                if len(self._reports) >= self._window.max_orders:
                    raise PeerUnavailable("node", "", "it reports more orders than it was given")
                self._reports.append(report)
                self._bell.ring()
        except BlockError as error:
            self._broken = error
            self._bell.ring()

    async def _fill(self, follow: bool) -> float | None:
        assert self._stream is not None
        window, pacer = self._window, self._pacer
        while True:
            delay_ns = pacer.delay_ns(self._clock.monotonic_ns())
            if delay_ns:
                return delay_ns / 1e9
            left = self._progress.remaining_bytes
            if left == 0 and (not follow or window.orders):
                return None
            allowance = pacer.allowance(window.window_bytes, self._session.granularity_bytes)
            size = window.room(allowance, left)
            if not size:
                return None
            order = Order(window.take(size), size, self._scope(), FOLLOW_SECONDS if left == 0 else 0.0)
            self._waiting_order = order.order_id if left == 0 else self._waiting_order
            await self._stream.send(order)

    def _scope(self) -> ByteRange | None:
        if not self._passed_over:
            return None
        start = min(self._passed_over, self._session.size_bytes)
        return ByteRange(start, self._session.size_bytes - start)
