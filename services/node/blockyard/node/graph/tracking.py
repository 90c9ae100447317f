"""Requests in flight at one node, and who must wait for whom.

Only requests that span an await are tracked: an inline request starts and ends between two turns of the loop,
so nothing can overlap it. Must not know drivers or children.

Theory (QEMU's block/io.c, bdrv_wait_serialising_requests): a serialising request excludes every overlapping one;
ordinary requests exclude nobody but wait for serialising ones. As there, a request that runs and becomes
serialising does not wait for one that already waits: that one sees us when it wakes, and waiting for it could close
a circle.

Unlike there, a request that just comes (nobody waits for it yet) does wait for every older one, also if that waits
itself: a stream of overlapping reads cannot keep a write out for ever. Only those that were inside when it came,
and become serialising later, can be served before it.

Invariants
1. `serialising` counts exactly the serialising requests in `requests`.
2. The graph of `waiting_for` edges has no cycle. Whoever runs begins to wait only for one that runs. Whoever has
   just come is waited for only by those that came later and have just come too, and itself begins to wait for older
   ones or for ones that run; so no path leads back to it.
3. A request leaves `requests` exactly once, and everyone who waited for it wakes.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count

from blockyard.base.clock import Clock
from blockyard.base.ranges import align_down, align_up
from blockyard.node.interface import tracing
from blockyard.node.interface.waiting import WaitReason, present

_ids = count(1)

asker: ContextVar[str] = ContextVar("blockyard_asker", default="")
"""Who asked for what runs in this task: set by every user's edge, never reset (each enters with its own name)."""


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
    """Who asked for it, or for the request above that it serves."""
    trace_id: str = ""
    parent: "TrackedRequest | None" = field(default=None, repr=False)
    """The request of a layer above that it serves."""
    reason: WaitReason = WaitReason.NONE
    """Why it waits; see also `waiting_for`."""
    waiting_for: "TrackedRequest | None" = None
    blocking: int = 0
    """How many wait for this one."""
    over: bool = False
    ended: asyncio.Future[None] | None = field(default=None, repr=False)

    @property
    def wait_reason(self) -> WaitReason:
        return self.reason if self.waiting_for is None else WaitReason.OVERLAP

    def excludes(self, alignment: int) -> bool:
        """Whether it excludes others from whole units of the alignment."""
        return self.serialising and not self.overlap_offset % alignment and not self.overlap_length % alignment

    def overlaps(self, offset: int, length: int) -> bool:
        return offset < self.overlap_offset + self.overlap_length and self.overlap_offset < offset + length


class Tracker:
    """The tracked requests of one node."""

    __slots__ = ("_clock", "_idle", "held", "requests", "serialising", "waits")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._idle: asyncio.Future[None] | None = None
        self.requests: dict[int, TrackedRequest] = {}
        """Those inside, oldest first."""
        self.held: dict[int, TrackedRequest] = {}
        """Those that wait outside, oldest first: a drain does not wait for them."""
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
        request = self._new(type_, offset, length)
        self.requests[request.request_id] = request
        try:
            if serialise:
                self._widen(request, serialise)
            if self.serialising:
                await self._wait(request, comes=not self._serves_one_inside(request))
        except BaseException:
            self.end(request)
            raise
        return request

    def _new(self, type_: int, offset: int, length: int) -> TrackedRequest:
        request = TrackedRequest(next(_ids), type_, offset, length, self._clock.monotonic_ns())
        request.overlap_offset, request.overlap_length = offset, length
        above = present.get()
        if isinstance(above, TrackedRequest):
            request.parent, request.owner, request.trace_id = above, above.owner, above.trace_id
        else:
            request.owner = asker.get()
        if (starter := tracing.active.get()) is not None:
            request.trace_id = getattr(starter, "trace_id", "")
        return request

    @contextmanager
    def hold(self, type_: int, offset: int, length: int, reason: WaitReason) -> Iterator[None]:
        """Show a request that waits outside the node while the body runs."""
        request = self._new(type_, offset, length)
        request.reason = reason
        self.held[request.request_id] = request
        try:
            yield
        finally:
            del self.held[request.request_id]

    async def serialise(self, request: TrackedRequest, alignment: int) -> None:
        """Make a request exclude all others from the aligned units around its range, and wait for those inside."""
        self._widen(request, alignment)
        await self._wait(request, comes=False)

    def _widen(self, request: TrackedRequest, alignment: int) -> None:
        start = align_down(min(request.offset, request.overlap_offset), alignment)
        end = align_up(
            max(request.offset + request.length, request.overlap_offset + request.overlap_length), alignment
        )
        request.overlap_offset, request.overlap_length = start, end - start
        if not request.serialising:
            request.serialising = True
            self.serialising += 1

    def end(self, request: TrackedRequest) -> None:
        """Leave; everyone who waits for it looks again."""
        del self.requests[request.request_id]
        request.over, request.parent = True, None
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

    def _serves_one_inside(self, request: TrackedRequest) -> bool:
        """Whether others may wait for it already, through the request that it serves."""
        above = request.parent
        while above is not None and self.requests.get(above.request_id) is not above:
            above = above.parent
        return above is not None

    def oldest(self) -> TrackedRequest | None:
        """Of those inside and those that wait outside."""
        inside, outside = next(iter(self.requests.values()), None), next(iter(self.held.values()), None)
        if inside is None or outside is None:
            return inside or outside
        return inside if inside.started_ns <= outside.started_ns else outside

    async def _wait(self, request: TrackedRequest, *, comes: bool) -> None:
        while (other := self._conflict(request, comes)) is not None:
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

    def _conflict(self, request: TrackedRequest, comes: bool) -> TrackedRequest | None:
        """Whom the request must wait for, the oldest first. `comes`: it has not been inside yet."""
        offset, length, number = request.overlap_offset, request.overlap_length, request.request_id
        for other in self.requests.values():
            if other is request or not (request.serialising or other.serialising):
                continue
            if other.overlaps(offset, length) and (
                other.waiting_for is None or (comes and other.request_id < number)
            ):
                return other
        return None
