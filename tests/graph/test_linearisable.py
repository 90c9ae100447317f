"""Concurrent requests are as if one came after the other: their histories are searched for an order.

qcow2 with small clusters over a backing file, above disks that let others run at every step (between sectors, which
are atomic on every disk: that a write in place is seen by half is nobody's to prevent). And the search itself: it
finds what is wrong when requests are not kept apart.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import RangeOutside
from blockyard.node.drivers.catalogue import driver_class
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.node import Node
from blockyard.node.graph.tracking import TrackedRequest, Tracker
from blockyard.node.graph.user import User
from blockyard.node.interface.flags import MAY_UNMAP, Role
from tests.support.graphs import GraphGround, content
from tests.support.histories import GONE, TORN, UNIT, History, Operation, content_of, linearisable, values_of

UNITS = 64
BACKING_UNITS = 50
"""Shorter than the overlay."""


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


class WatchedTracker(Tracker):
    """Holds requests to what `graph.tracking` promises: no circle, and nobody is overtaken on the way in."""

    __slots__ = ("coming", "overtaken")

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.coming: set[int] = set()
        self.overtaken: dict[int, int] = {}

    async def begin(self, type_: int, offset: int, length: int, serialise: int = 0) -> TrackedRequest:
        request = await super().begin(type_, offset, length, serialise)
        self.coming.discard(request.request_id)
        for number in self.coming & self.requests.keys():
            other = self.requests[number]
            excluded = other.serialising or request.serialising
            if number < request.request_id and excluded and self._meet(other, request):
                raise AssertionError(f"{request} overtook {other}")
        return request

    async def serialise(self, request: TrackedRequest, alignment: int) -> None:
        await super().serialise(request, alignment)
        for number in self.coming & self.requests.keys():
            other = self.requests[number]
            if number < request.request_id and self._meet(other, request):
                self.overtaken[number] = self.overtaken.get(number, 0) + 1

    def _conflict(self, request: TrackedRequest, comes: bool) -> TrackedRequest | None:
        other = super()._conflict(request, comes)
        step = other
        while step is not None:
            assert step is not request, "a circle of waits"
            step = step.waiting_for
        if comes and other is not None:
            self.coming.add(request.request_id)
        return other

    @staticmethod
    def _meet(one: TrackedRequest, other: TrackedRequest) -> bool:
        return one.overlaps(other.overlap_offset, other.overlap_length)


class Untracked(Tracker):
    """The bug that the search must find: nobody waits for anybody."""

    __slots__ = ()

    def _conflict(self, request: TrackedRequest, comes: bool) -> TrackedRequest | None:
        return None


async def overlay(ground: GraphGround, seed: int, cluster: int) -> Node:
    """qcow2 over a strict disk with sectors, above a shorter backing file whose units have values of their own."""
    disk = await ground.strict("disk", size=0, alignment=512, atomic=512, inline=0.2, seed=seed)
    base = await ground.strict("base", size=BACKING_UNITS * UNIT, atomic=512, inline=0.5, seed=seed + 1)
    for unit in range(BACKING_UNITS):
        base.driver.bytes[unit * UNIT : (unit + 1) * UNIT] = content_of(0x8000 + unit)  # type: ignore[attr-defined]
    class_: Any = driver_class("qcow2")
    edge = Edge(None, "file", Role.FILE, disk)
    options = class_.CreateOptions(size=UNITS * UNIT, cluster_size=cluster)
    await class_.create(options, ground._context("fresh", {"file": edge}))
    edge.detach()
    return await ground.graph.open(NodeDefinition("qcow2", "top", children={"file": "disk", "backing": "base"}))


class Workers:
    """Several who do one request after another, at random, and write down what they see."""

    def __init__(
        self, user: User, history: History, seed: int, *, resize: bool = True, cancel: float = 0.0
    ) -> None:
        self.user = user
        self.history = history
        self.numbers = random.Random(seed)
        self.kinds = ["read"] * 6 + ["write"] * 7 + ["zero"] * 2 + ["discard"] * 2 + ["truncate"] * resize
        self.cancel = cancel
        self.values = 0

    async def run(self, workers: int = 6, requests: int = 30) -> None:
        """Raises TimeoutError if some request never ends."""
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(requests))

    async def _work(self, requests: int) -> None:
        for _ in range(requests):
            task = asyncio.ensure_future(self._one())
            if self.numbers.random() < self.cancel:
                for _ in range(self.numbers.randrange(10)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def _one(self) -> None:
        kind = self.numbers.choice(self.kinds)
        first = self.numbers.randrange(self.numbers.choice((8, UNITS)))
        end = min(UNITS, first + self.numbers.randint(1, 7))
        value = 0
        if kind == "write":
            self.values += 1
            value = self.values
        elif kind == "truncate":
            # In whole sectors, as qcow2 has them.
            first, end, value = 0, UNITS, self.numbers.randint(UNITS // 4, UNITS // 2) * 2
        operation = self.history.call(kind, first, end, value)
        try:
            await self._do(operation)
        except RangeOutside:
            self.history.refused(operation)
        except asyncio.CancelledError:
            self.history.cancelled(operation)
            raise
        else:
            self.history.done(operation)

    async def _do(self, operation: Operation) -> None:
        offset, length = operation.first * UNIT, (operation.end - operation.first) * UNIT
        match operation.kind:
            case "read":
                into = bytearray(length)
                if self.numbers.random() < 0.5 or not self.user.read_now(offset, memoryview(into)):
                    await self.user.read(offset, memoryview(into))
                operation.seen = values_of(bytes(into))
            case "write":
                data = content_of(operation.value, length // UNIT)
                if self.numbers.random() < 0.5 or not self.user.write_now(offset, data):
                    await self.user.write(offset, data)
            case "zero":
                await self.user.zero(offset, length, MAY_UNMAP if self.numbers.random() < 0.5 else 0)
            case "discard":
                await self.user.discard(offset, length)
            case "truncate":
                await self.user.truncate(operation.value * UNIT)


async def look_at_all(user: User, history: History) -> None:
    """Nothing is in flight any more: what is there must be explained, too."""
    last = history.call("read", 0, user.size // UNIT)
    last.seen = values_of(await content(user))
    history.done(last)


def watch(ground: GraphGround, kind: type[Tracker]) -> None:
    for node in ground.graph.nodes.values():
        node.tracker = kind(ground.clock)


# --- what is shown ---------------------------------------------------------------------------------------


@pytest.mark.fuzz
@pytest.mark.parametrize("cluster", [512, 2048])
@pytest.mark.parametrize("seed", range(10))
async def test_requests_on_qcow2_over_a_backing_file_are_linearisable(ground: GraphGround, seed: int, cluster: int):
    node = await overlay(ground, seed, cluster)
    watch(ground, WatchedTracker)
    user = ground.use(node)
    below = [0x8000 + unit for unit in range(BACKING_UNITS)]
    history = History([*below, *[0] * (UNITS - BACKING_UNITS)], below)
    await Workers(user, history, seed).run()
    await look_at_all(user, history)
    assert not history.violations()
    trackers = [item.tracker for item in ground.graph.nodes.values()]
    assert any(item.waits for item in trackers), "nobody ever met"
    most = max((count for item in trackers for count in item.overtaken.values()), default=0)  # type: ignore[attr-defined]
    assert most <= 6, "no more than were in flight when it came"


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
async def test_requests_that_are_cancelled_leave_histories_that_can_be_explained(ground: GraphGround, seed: int):
    node = await overlay(ground, seed, 1024)
    watch(ground, WatchedTracker)
    user = ground.use(node)
    below = [0x8000 + unit for unit in range(BACKING_UNITS)]
    history = History([*below, *[0] * (UNITS - BACKING_UNITS)], below)
    await Workers(user, history, seed, cancel=0.2).run(workers=4, requests=20)
    await look_at_all(user, history)
    assert not history.violations()


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
async def test_requests_that_share_sectors_of_a_raw_disk_are_linearisable(ground: GraphGround, seed: int):
    disk = await ground.strict("disk", size=UNITS * UNIT, alignment=2048, atomic=2048, inline=0.2, seed=seed)
    await ground.raw("top", disk)
    watch(ground, WatchedTracker)
    user = ground.use(ground.graph.nodes["top"])
    history = History([0] * UNITS)
    await Workers(user, history, seed, resize=False).run()
    await look_at_all(user, history)
    assert not history.violations()


async def test_the_search_finds_that_requests_are_not_kept_apart(ground: GraphGround):
    found = 0
    for seed in range(4):
        sectors = {"alignment": 2048, "atomic": 2048}
        disk = await ground.strict(f"disk{seed}", size=UNITS * UNIT, **sectors, inline=0.2, seed=seed)
        disk.tracker = Untracked(ground.clock)
        history = History([0] * UNITS)
        user = ground.use(disk)
        await Workers(user, history, seed, resize=False).run()
        await look_at_all(user, history)
        found += bool(history.violations())
    assert found == 4, "read-modify-write of shared sectors loses writes when nobody waits"


# --- the search itself -----------------------------------------------------------------------------------


def at(kind: str, called: int, returned: int, value: int = 0, **more: Any) -> Operation:
    seen = [value] if kind == "read" else []
    return Operation(kind, 0, 1, called, returned, value, seen, **more)


@pytest.mark.parametrize(
    ("history", "is_good"),
    [
        ([at("write", 1, 2, 7), at("read", 3, 4, 7)], True),
        ([at("write", 1, 2, 7), at("read", 3, 4, 0)], False),
        ([at("write", 1, 4, 7), at("read", 2, 3, 0)], True),
        ([at("write", 1, 4, 7), at("read", 2, 3, 7)], True),
        ([at("read", 1, 2, 7), at("write", 3, 4, 7)], False),
        # Two reads during a write may not see new, then old.
        ([at("write", 1, 8, 7), at("read", 2, 3, 7), at("read", 4, 5, 0)], False),
        ([at("write", 1, 8, 7), at("read", 2, 3, 0), at("read", 4, 5, 7)], True),
        # Concurrent writes: any order, but one.
        ([at("write", 1, 4, 7), at("write", 2, 3, 8), at("read", 5, 6, 7), at("read", 7, 8, 8)], False),
        ([at("write", 1, 4, 7), at("write", 2, 3, 8), at("read", 5, 6, 8), at("read", 7, 8, 8)], True),
        ([at("write", 1, 2, 7), at("write", 3, 4, 8), at("read", 5, 6, 7)], False),
        ([at("write", 1, 2, 7), at("read", 3, 4, TORN)], False),
        ([at("write", 1, 2, 7), at("discard", 3, 4), at("read", 5, 6, 9), at("read", 7, 8, 9)], True),
        ([at("write", 1, 2, 7), at("discard", 3, 4), at("read", 5, 6, 9), at("read", 7, 8, 7)], False),
        ([at("write", 1, 2, 7), at("truncate", 3, 4, 0), at("read", 5, 6, 0)], True),
        ([at("write", 1, 2, 7), at("truncate", 3, 4, 0), at("truncate", 5, 6, 1), at("read", 7, 8, 7)], False),
        ([at("truncate", 1, 2, 0), at("write", 3, 4, 7)], False),
        ([at("write", 1, 1 << 62, 7, maybe=True), at("read", 5, 6, 0), at("read", 7, 8, 7)], True),
        ([at("write", 1, 1 << 62, 7, maybe=True), at("read", 5, 6, 7), at("read", 7, 8, 0)], False),
    ],
)
def test_small_histories_are_judged_as_they_should_be(history: list[Operation], is_good: bool):
    assert linearisable(history, 0, 0, below=9) is is_good


def test_what_is_gone_reads_as_zeroes_and_takes_no_write():
    assert linearisable([at("read", 1, 2, 0)], 0, GONE)
    assert not linearisable([at("write", 1, 2, 7)], 0, GONE)


def test_units_are_told_by_their_values_and_torn_ones_are_noticed():
    content = content_of(0x1234, 2) + content_of(0)
    assert values_of(content) == [0x1234, 0x1234, 0]
    assert values_of(content[:-1] + b"x") == [0x1234, 0x1234, TORN]
