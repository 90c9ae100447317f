"""Requests in flight at one node, and who must wait for whom.

Only requests that span an await are tracked: an inline request starts and ends between two turns of the loop,
so nothing can overlap it. Must not know drivers or children.

Theory (QEMU's block/io.c, bdrv_wait_serialising_requests): a serialising request excludes every overlapping one;
ordinary requests exclude nobody but wait for serialising ones. A request that already waits is not waited for:
it will see us when it wakes, and waiting for it could close a circle.

Invariants
1. `serialising` counts exactly the serialising requests in `requests`.
2. The graph of `waiting_for` edges has no cycle, because a request with such an edge is never waited for.
3. A request leaves `requests` exactly once, and everyone who waited for it wakes.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from blockyard.base.clock import Clock
from blockyard.base.ranges import align_down, align_up

_ids = count(1)


@dataclass(slots=True, eq=False)
class TrackedRequest:
    """A request in flight (the seed's BdrvTrackedRequest). `overlap_*`: what it serialises."""

    request_id: int
    type: int
    offset: int
    length: int
    started_ns: int
    serialising: bool = False
    overlap_offset: int = 0
    overlap_length: int = 0
    owner: str = ""
    trace_id: str = ""
    waiting_for: "TrackedRequest | None" = None
    blocking: int = 0
    """How many wait for this one."""
    ended: asyncio.Future[None] | None = field(default=None, repr=False)

    def excludes(self, alignment: int) -> bool:
        """Whether it excludes others from whole units of the alignment."""
        return self.serialising and not self.overlap_offset % alignment and not self.overlap_length % alignment

    def overlaps(self, offset: int, length: int) -> bool:
        return offset < self.overlap_offset + self.overlap_length and self.overlap_offset < offset + length


class Tracker:
    """The tracked requests of one node."""

    __slots__ = ("_clock", "_idle", "requests", "serialising", "waits")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._idle: asyncio.Future[None] | None = None
        self.requests: dict[int, TrackedRequest] = {}
        self.serialising = 0
        """How many serialising requests are in flight; 0 lets inline requests skip every check."""
        self.waits = 0
        """How often a request had to wait for another since the node was opened."""

    def blocks(self, offset: int, length: int) -> bool:
        """Whether a serialising request overlaps the range now."""
        return any(item.serialising and item.overlaps(offset, length) for item in self.requests.values())

    async def begin(self, type_: int, offset: int, length: int, serialise: int = 0) -> TrackedRequest:
        """Enter a request; `serialise` > 0 is the alignment whose units it excludes others from.

        Waits for what excludes it. Cancellation leaves nothing behind.
        """
        request = TrackedRequest(next(_ids), type_, offset, length, self._clock.monotonic_ns())
        request.overlap_offset, request.overlap_length = offset, length
        self.requests[request.request_id] = request
        try:
            if serialise:
                await self.serialise(request, serialise)
            elif self.serialising:
                await self._wait(request)
        except BaseException:
            self.end(request)
            raise
        return request

    async def serialise(self, request: TrackedRequest, alignment: int) -> None:
        """Make a request exclude all others from the aligned units around its range, and wait for those inside."""
        start = align_down(min(request.offset, request.overlap_offset), alignment)
        end = align_up(
            max(request.offset + request.length, request.overlap_offset + request.overlap_length), alignment
        )
        request.overlap_offset, request.overlap_length = start, end - start
        if not request.serialising:
            request.serialising = True
            self.serialising += 1
        await self._wait(request)

    def end(self, request: TrackedRequest) -> None:
        """Leave; everyone who waits for it looks again."""
        del self.requests[request.request_id]
        if request.serialising:
            self.serialising -= 1
        if request.ended is not None:
            request.ended.set_result(None)
        if not self.requests and self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    async def idle(self) -> None:
        """Return when no request is in flight."""
        while self.requests:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    def edges(self) -> Iterator[tuple[TrackedRequest, TrackedRequest]]:
        """The wait graph: (who waits, for whom)."""
        for item in self.requests.values():
            if item.waiting_for is not None:
                yield item, item.waiting_for

    async def _wait(self, request: TrackedRequest) -> None:
        while (other := self._conflict(request)) is not None:
            if other.ended is None:
                other.ended = asyncio.get_running_loop().create_future()
            self.waits += 1
            request.waiting_for = other
            other.blocking += 1
            try:
                await asyncio.shield(other.ended)
            finally:
                request.waiting_for = None
                other.blocking -= 1

    def _conflict(self, request: TrackedRequest) -> TrackedRequest | None:
        for other in self.requests.values():
            if other is request or not (request.serialising or other.serialising):
                continue
            if other.overlaps(request.overlap_offset, request.overlap_length) and other.waiting_for is None:
                return other
        return None
