"""Requests that wait for an attachment to go on: in the order they came in, let on one behind the other.

Theory. A request takes a ticket when it comes. It waits while the line is stopped, and while one with an earlier
ticket waits. The head of a line that is not stopped has been called; it leaves, calls the next, and only then does
its own first step, all without an await between. So requests begin in the order of their tickets, and if the first
fails at once and stops the line again, the others are still in it. A request that failed keeps its ticket and is
therefore before all that came after it.

Invariants
1. The line is in order of tickets, and no ticket is in it twice.
2. If the line is not stopped and not empty, its head has been called.
3. Whoever gives up waiting, for whatever reason, leaves nothing behind, and the next is called if it was the head.
"""

import asyncio
from bisect import insort
from typing import Final

from blockyard.base.errors import LimitReached

MAX_HELD: Final = 4096
"""Requests of one attachment that wait; the next one is refused. 64 of each of 64 NBD clients."""


class _Waiter:
    __slots__ = ("called", "ticket")

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __lt__(self, other: "_Waiter") -> bool:
        return self.ticket < other.ticket


class HeldRequests:
    """The line. `stopped` is set by `stop` and `go_on` only."""

    __slots__ = ("_last_ticket", "_line", "stopped")

    def __init__(self) -> None:
        self.stopped = False
        self._last_ticket = 0
        self._line: list[_Waiter] = []

    def __len__(self) -> int:
        return len(self._line)

    def ticket(self) -> int:
        """For a request that has come; they grow."""
        self._last_ticket += 1
        return self._last_ticket

    def stop(self) -> None:
        """Nobody goes on."""
        self.stopped = True

    def go_on(self) -> None:
        """Call the first; the others follow."""
        self.stopped = False
        self._call_head()

    def must_wait(self, ticket: int) -> bool:
        """Whether it is not this request's turn."""
        return self.stopped or (bool(self._line) and self._line[0].ticket < ticket)

    async def wait(self, ticket: int) -> None:
        """Until it is this request's turn. Raises LimitReached."""
        while self.must_wait(ticket):
            if len(self._line) >= MAX_HELD:
                raise LimitReached("requests that wait for an attachment", MAX_HELD)
            waiter = _Waiter(ticket)
            insort(self._line, waiter)
            try:
                await waiter.called
            finally:
                self._line.remove(waiter)
                self._call_head()

    def _call_head(self) -> None:
        if not self.stopped and self._line and not self._line[0].called.done():
            self._line[0].called.set_result(None)
