"""What wakes a job's loop: one bell, rung by verbs, reports and time.

What lives here: the bell and the waiting times of repeated tries. What must not: what the ringing means.

Theory: the loop clears the bell, looks at everything that could have changed, and waits. Whatever happens after the
clearing rings again, so nothing is missed and nobody needs a lock. A bell has one waiter.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from blockyard.base.clock import Clock

FIRST_DELAY_NS: Final = 50_000_000
LONGEST_DELAY_NS: Final = 2_000_000_000


class Bell:
    """An event that can also be waited for with a bound in time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    async def wait(self, seconds: float | None = None) -> None:
        """Until it rings, or at most so long."""
        if seconds is None or self._event.is_set():
            await self._event.wait()
            return
        elapsed = asyncio.create_task(self._clock.sleep(seconds))
        elapsed.add_done_callback(self._time_is_up)
        try:
            await self._event.wait()
        finally:
            # Not awaited: an await here could swallow the cancellation of the waiter itself.
            elapsed.cancel()

    def _time_is_up(self, elapsed: asyncio.Task[None]) -> None:
        if not elapsed.cancelled():
            self._event.set()


@dataclass(slots=True)
class Tries:
    """Delays that double from one try to the next, and an end to them."""

    patience_ns: int
    _since_ns: int | None = None
    _delay_ns: int = FIRST_DELAY_NS

    @property
    def failing(self) -> bool:
        return self._since_ns is not None

    def failed(self, now_ns: int) -> int | None:
        """How long to wait before the next try; None when it has failed for longer than patience allows."""
        if self._since_ns is None:
            self._since_ns = now_ns
        if now_ns - self._since_ns >= self.patience_ns:
            return None
        delay_ns = self._delay_ns
        self._delay_ns = min(2 * delay_ns, LONGEST_DELAY_NS)
        return delay_ns

    def worked(self) -> None:
        self._since_ns = None
        self._delay_ns = FIRST_DELAY_NS
