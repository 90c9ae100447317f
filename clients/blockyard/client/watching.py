"""Watches that outlive their streams.

Theory. A watch is a view of a state that the service keeps; every message carries a revision. When the stream
breaks the watch is taken up again after the last revision seen, so that nothing is told twice and nothing is
missed. When the service has forgotten that revision (it restarted, or the gap is long) the watch begins again
with the present state, and says so by INITIAL messages.

Must not know what is watched.
"""

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from blockyard.base.clock import Clock, SystemClock
from blockyard.base.errors import BlockError, Code, PeerUnavailable, RevisionTooOld


class Revised(Protocol):
    """A message of a watch."""

    @property
    def revision(self) -> int: ...


Event = TypeVar("Event", bound=Revised)

DROPPED = frozenset({Code.UNAVAILABLE, Code.CANCELLED})
"""How a stream ends that the watch did not end: the service went away, or a proxy reset the connection."""


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long a watch keeps trying."""

    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0
    patience_s: float = 120.0
    """Give up, with the last error, when there was no stream for so long."""


async def watch(
    start: Callable[[int], AsyncIterator[Event]],
    is_last: Callable[[Event], bool],
    *,
    start_revision: int = 0,
    persistence: Persistence | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Event]:
    """Yield the events of `start(revision)` until one is the last, over as many streams as it takes."""
    persistence, clock = persistence or Persistence(), clock or SystemClock()
    revision, wait_s, down_since_ns = start_revision, persistence.first_wait_s, 0
    while True:
        failure: BlockError = PeerUnavailable("watched", "", "the stream ended before its last message")
        began_ns = clock.monotonic_ns()
        try:
            async for event in start(revision):
                revision, wait_s, down_since_ns = event.revision or revision, persistence.first_wait_s, 0
                yield event
                if is_last(event):
                    return
        except RevisionTooOld:
            revision = 0
        except BlockError as error:
            if error.canonical() not in DROPPED:
                raise
            failure = error
        now_ns = clock.monotonic_ns()
        if not down_since_ns or now_ns - began_ns > persistence.longest_wait_s * 1e9:
            # It was up, if silent, until now.
            wait_s, down_since_ns = persistence.first_wait_s, now_ns
        if now_ns - down_since_ns > persistence.patience_s * 1e9:
            raise failure
        await clock.sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s = min(wait_s * 2, persistence.longest_wait_s)
