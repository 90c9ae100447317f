"""Throttle groups: limits that nodes share, and the turns of who must wait (QEMU's block/throttle-groups.c).

The arithmetic of rates is `core.throttle`; here are queues, turns and time. Must not know a driver or the wire.

Theory. Each side (reads, writes) of a group has a ring of the members that have someone waiting, and one task that
sleeps for as long as the buckets say and then lets the first of the next member in the ring pass. A member that
still has others waiting goes to the ring's end, so N members that ask for more than there is get 1/N each, one
request at a time. A request that comes while others of its side wait queues behind those of its member.

Invariants
1. A member is in the ring of a side exactly if its queue of that side holds someone.
2. A side's task runs exactly if its ring is not empty: nobody waits without a timer.
3. A request is counted once: when it may pass. Given up before that, it leaves nothing; after it, it is refunded.
4. New limits count from the instant they are set, also for who waits: the tasks start again.
"""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Final

from blockyard.base.clock import Clock
from blockyard.base.errors import EtagMismatch, LimitReached, ResourceBusy, ResourceExists, ResourceNotFound
from blockyard.node.core.accounting import READ
from blockyard.node.core.throttle import READ_SIDE, SECOND_NS, SIDES, WRITE_SIDE, Throttle, ThrottleLimits
from blockyard.node.interface import tracing
from blockyard.node.interface.throttling import KIND
from blockyard.node.interface.waiting import WaitReason, waiting

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node

MAX_GROUPS: Final = 4096
"""Each costs some KiB; a host has fewer disks."""
MAX_WAITING: Final = 65_536
"""Requests of one member; exports and sessions bound what comes in far below it (100 connections of 64)."""


class _Waiter:
    __slots__ = ("length", "passed")

    def __init__(self, length: int, passed: asyncio.Future[None]) -> None:
        self.length = length
        self.passed = passed


Queue = OrderedDict[_Waiter, None]
"""First in, first out, and cheap to leave from the middle."""


class Member:
    """A node's place in a group. It is an `interface.throttling.ThrottleMember`."""

    __slots__ = (
        "_groups",
        "_passing",
        "group",
        "node_name",
        "on_wait",
        "queues",
        "throttled_operations",
        "waited_ns",
    )

    def __init__(self, groups: "ThrottleGroups", group: "ThrottleGroup", node_name: str) -> None:
        self._groups = groups
        self.group = group
        self.node_name = node_name
        self.on_wait: Callable[[int, int], None] | None = None
        self.queues: tuple[Queue, Queue] = (OrderedDict(), OrderedDict())
        self.throttled_operations = 0
        self.waited_ns = 0
        self._passing = 0
        """How many want everything to pass."""
        group.members[self] = None

    @property
    def group_name(self) -> str:
        return self.group.name

    @property
    def queued(self) -> tuple[int, int]:
        return len(self.queues[READ_SIDE]), len(self.queues[WRITE_SIDE])

    def charge_now(self, side: int, length: int, now_ns: int) -> bool:
        group = self.group
        if not group.rings[side] and group.throttle.trying[side](length, now_ns):
            return True
        if self._passing:
            group.throttle.charge(side, length, now_ns)
            return True
        return not group.throttle.active[side]

    def refund(self, side: int, length: int) -> None:
        self.group.throttle.refund(side, length)

    async def wait(self, operation: int, length: int) -> None:
        side = READ_SIDE if operation == READ else WRITE_SIDE
        if self.charge_now(side, length, self.group.now_ns()):
            return
        if (starter := tracing.active.get()) is None:
            return await self._turn(operation, side, length)
        told: dict[str, str | int] = {
            "blockyard.node.name": self.node_name,
            "blockyard.throttle.group": self.group.name,
        }
        with starter("blk.throttle_wait", told):
            return await self._turn(operation, side, length)

    async def _turn(self, operation: int, side: int, length: int) -> None:
        queue = self.queues[side]
        if len(queue) >= MAX_WAITING:
            raise LimitReached(
                f"requests of node {self.node_name!r} that wait for their throttle group", MAX_WAITING
            )
        waiter = _Waiter(length, asyncio.get_running_loop().create_future())
        started_ns = self.group.now_ns()
        queue[waiter] = None
        self.group.entered(self, side)
        try:
            with waiting(WaitReason.THROTTLED):
                await waiter.passed
        except BaseException:
            self._gave_up(waiter, side)
            raise
        finally:
            self._account(operation, self.group.now_ns() - started_ns)

    def _gave_up(self, waiter: _Waiter, side: int) -> None:
        if waiter in self.queues[side]:
            del self.queues[side][waiter]
            self.group.left(self, side)
        elif not waiter.passed.cancelled():
            self.refund(side, waiter.length)

    def _account(self, operation: int, waited_ns: int) -> None:
        for each in (self, self.group):
            each.throttled_operations += 1
            each.waited_ns += waited_ns
        if self.on_wait is not None:
            self.on_wait(operation, waited_ns)

    def next_waiter(self, side: int) -> _Waiter | None:
        """Take the first one out of the queue; None if all have given up."""
        queue = self.queues[side]
        while queue:
            waiter, _ = queue.popitem(last=False)
            if not waiter.passed.done():
                return waiter
        return None

    # --- membership --------------------------------------------------------------------------------------

    def move(self, group_name: str) -> None:
        group = self._groups.get(group_name)
        if group is not self.group:
            self._withdraw()
            self.group = group
            group.members[self] = None
            for side in SIDES:
                group.entered(self, side)

    def leave(self) -> None:
        self.begin_passing()
        self._withdraw()

    def _withdraw(self) -> None:
        self.group.members.pop(self, None)
        for side in SIDES:
            self.group.left(self, side, even_waiting=True)

    def begin_passing(self) -> None:
        self._passing += 1
        for side in SIDES:
            while (waiter := self.next_waiter(side)) is not None:
                self.group.throttle.charge(side, waiter.length, self.group.now_ns())
                waiter.passed.set_result(None)
            self.group.left(self, side)

    def end_passing(self) -> None:
        assert self._passing > 0
        self._passing -= 1


class ThrottleGroup:
    """A named group. `members` in the order of their joining."""

    def __init__(self, name: str, limits: ThrottleLimits, clock: Clock) -> None:
        self.name = name
        self.now_ns = clock.monotonic_ns
        self.throttle = Throttle(limits)
        self.members: dict[Member, None] = {}
        self.rings: tuple[OrderedDict[Member, None], ...] = (OrderedDict(), OrderedDict())
        self.reads_wait = self.rings[READ_SIDE]
        self.try_read = self.throttle.trying[READ_SIDE]
        """Both of them for the inline form, which is measured in tenths of a microsecond."""
        self.throttled_operations = 0
        self.waited_ns = 0
        self._clock = clock
        self._tasks: list[asyncio.Task[None] | None] = [None for _ in SIDES]
        self._uid = uuid.uuid4().hex[:8]
        self._revision = 1

    @property
    def limits(self) -> ThrottleLimits:
        return self.throttle.limits

    @property
    def etag(self) -> str:
        """Changes with every change of the limits."""
        return f"{self._uid}-{self._revision}"

    @property
    def queued(self) -> int:
        """Requests that wait now."""
        return sum(len(member.queues[side]) for side in SIDES for member in self.rings[side])

    def configure(self, limits: ThrottleLimits) -> None:
        """New limits, at once and for who waits too."""
        self.throttle.configure(limits)
        self.try_read = self.throttle.trying[READ_SIDE]
        self._revision += 1
        for side in SIDES:
            self._stop(side)
            self._start(side)

    def entered(self, member: Member, side: int) -> None:
        """Someone may have come into the member's queue."""
        if member.queues[side]:
            self.rings[side].setdefault(member)
            self._start(side)

    def left(self, member: Member, side: int, *, even_waiting: bool = False) -> None:
        """Someone may have gone out of it, or, `even_waiting`, takes the queue along."""
        if even_waiting or not member.queues[side]:
            self.rings[side].pop(member, None)
            if not self.rings[side]:
                self._stop(side)

    # --- turns -------------------------------------------------------------------------------------------

    def _start(self, side: int) -> None:
        if self.rings[side] and self._tasks[side] is None:
            # An empty context: the turns of all are no part of the call, and the trace, that began the waiting.
            self._tasks[side] = asyncio.create_task(self._turns(side), context=Context())

    def _stop(self, side: int) -> None:
        task, self._tasks[side] = self._tasks[side], None
        if task is not None:
            task.cancel()

    async def _turns(self, side: int) -> None:
        while self.rings[side]:
            if wait_ns := self.throttle.wait_ns(side, self.now_ns()):
                await self._clock.sleep(wait_ns / SECOND_NS)
            self._pass_next(side)
        self._tasks[side] = None

    def _pass_next(self, side: int) -> None:
        """Let one pass: the first of the member whose turn it is."""
        ring = self.rings[side]
        while ring:
            member, _ = ring.popitem(last=False)
            waiter = member.next_waiter(side)
            if member.queues[side]:
                ring[member] = None
            if waiter is not None:
                self.throttle.charge(side, waiter.length, self.now_ns())
                waiter.passed.set_result(None)
                return


class ThrottleGroups:
    """All groups of a node service. It is an `interface.throttling.Throttling`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._groups: dict[str, ThrottleGroup] = {}

    def create(self, name: str, limits: ThrottleLimits) -> ThrottleGroup:
        """Raises ResourceExists, LimitReached, or InvalidArgument for limits that cannot be."""
        limits.check()
        if name in self._groups:
            raise ResourceExists(KIND, name)
        if len(self._groups) >= MAX_GROUPS:
            raise LimitReached("throttle groups", MAX_GROUPS)
        group = self._groups[name] = ThrottleGroup(name, limits, self._clock)
        return group

    def get(self, name: str) -> ThrottleGroup:
        """Raises ResourceNotFound."""
        group = self._groups.get(name)
        if group is None:
            raise ResourceNotFound(KIND, name)
        return group

    def all(self) -> list[ThrottleGroup]:
        """By name."""
        return [self._groups[name] for name in sorted(self._groups)]

    def definitions(self) -> dict[str, ThrottleLimits]:
        """What `create` takes to make them again, by name."""
        return {name: group.limits for name, group in self._groups.items()}

    def update(self, name: str, limits: ThrottleLimits, etag: str = "") -> ThrottleGroup:
        """Change all limits at once. Raises ResourceNotFound, InvalidArgument, or EtagMismatch."""
        group = self.get(name)
        limits.check()
        if etag and etag != group.etag:
            raise EtagMismatch(KIND, name, etag, group.etag)
        if limits != group.limits:
            group.configure(limits)
        return group

    def delete(self, name: str) -> None:
        """Raises ResourceNotFound, or ResourceBusy that names the nodes that use it."""
        group = self.get(name)
        if group.members:
            raise ResourceBusy(KIND, name, ", ".join(f"node/{member.node_name}" for member in group.members))
        del self._groups[name]

    def put_back(self, group: ThrottleGroup) -> None:
        """Undo a `delete`."""
        self._groups[group.name] = group

    def join(self, group_name: str, node_name: str) -> Member:
        """Raises ResourceNotFound."""
        return Member(self, self.get(group_name), node_name)


@contextmanager
def all_passing(node: "Node") -> Iterator[None]:
    """While the body runs, the throttles of a node and of all below let everything pass, so that it comes to rest.

    QEMU does so for the drained node alone; here also below, where a format's requests wait.
    """
    members = [below.throttle for below in _descendants(node) if below.throttle is not None]
    for member in members:
        member.begin_passing()
    try:
        yield
    finally:
        for member in members:
            member.end_passing()


def _descendants(node: "Node") -> "list[Node]":
    found = {node: None}
    pending = [node]
    while pending:
        for edge in pending.pop().children.values():
            if edge.node not in found:
                found[edge.node] = None
                pending.append(edge.node)
    return list(found)
