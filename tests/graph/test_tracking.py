"""Requests in flight: who waits for whom, and that nobody waits for ever."""

import asyncio
import random
from collections.abc import Callable

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.node.core.accounting import READ, WRITE
from blockyard.node.graph.tracking import TrackedRequest, Tracker
from blockyard.node.interface.waiting import present


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(VirtualClock())


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def starting(tracker: Tracker, offset: int, length: int, serialise: int = 0) -> "asyncio.Task[TrackedRequest]":
    return asyncio.ensure_future(tracker.begin(WRITE, offset, length, serialise))


async def test_ordinary_requests_do_not_wait_for_each_other(tracker: Tracker):
    for _ in range(3):
        await tracker.begin(WRITE, 0, 100)
    assert len(tracker.requests) == 3 and not tracker.waits


async def test_a_serialising_request_waits_for_all_that_overlap_its_units(tracker: Tracker):
    inside, beside = await tracker.begin(READ, 4000, 10), await tracker.begin(READ, 8192, 10)
    task = starting(tracker, 100, 10, 4096)
    await turns()
    assert not task.done()
    tracker.end(inside)
    request = await task
    assert (request.overlap_offset, request.overlap_length) == (0, 4096)
    tracker.end(request)
    tracker.end(beside)


async def test_an_ordinary_request_waits_for_a_serialising_one_that_overlaps(tracker: Tracker):
    first = await tracker.begin(WRITE, 100, 10, 4096)
    overlapping, apart = starting(tracker, 4000, 10), starting(tracker, 4096, 10)
    await turns()
    assert apart.done() and not overlapping.done()
    assert tracker.blocks(0, 1) and not tracker.blocks(4096, 1)
    tracker.end(first)
    await overlapping
    assert not tracker.serialising


async def test_the_wait_graph_names_both_sides(tracker: Tracker):
    first = await tracker.begin(WRITE, 0, 10, 512)
    task = starting(tracker, 0, 10)
    await turns()
    ((waiting, holder),) = tracker.edges()
    assert holder is first and waiting is not first and first.blocking == 1
    tracker.end(first)
    await task
    assert not list(tracker.edges())


async def test_requests_that_become_serialising_at_once_do_not_wait_in_a_circle(tracker: Tracker):
    requests = [await tracker.begin(WRITE, offset, 600) for offset in (0, 500, 1000)]
    tasks = [asyncio.ensure_future(tracker.serialise(item, 4096)) for item in requests]
    for _ in requests:
        await turns()
        ready = [item for item, task in zip(requests, tasks, strict=True) if task.done()]
        ready = [item for item in ready if item.request_id in tracker.requests]
        assert len(ready) == 1, "one at a time, and always one"
        tracker.end(ready[0])
    assert not tracker.requests


async def test_cancelling_a_request_that_waits_leaves_nothing(tracker: Tracker):
    first = await tracker.begin(WRITE, 0, 10, 512)
    tasks = [starting(tracker, 0, 10, 512), starting(tracker, 0, 10)]
    await turns()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert list(tracker.requests.values()) == [first]
    assert tracker.serialising == 1 and first.blocking == 0
    tracker.end(first)


async def test_idle_comes_when_the_last_request_ends(tracker: Tracker):
    first, second = await tracker.begin(READ, 0, 1), await tracker.begin(READ, 0, 1)
    idle = asyncio.ensure_future(tracker.idle())
    tracker.end(first)
    await turns()
    assert not idle.done()
    tracker.end(second)
    await idle
    await tracker.idle()


async def test_two_can_wait_for_idle_and_one_may_give_up(tracker: Tracker):
    request = await tracker.begin(READ, 0, 1)
    patient, impatient = asyncio.ensure_future(tracker.idle()), asyncio.ensure_future(tracker.idle())
    await turns()
    impatient.cancel()
    await turns()
    tracker.end(request)
    await patient


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(20))
async def test_a_serialising_request_is_alone_in_its_range_whatever_comes(tracker: Tracker, seed: int):
    numbers = random.Random(seed)
    inside: list[TrackedRequest] = []

    async def one() -> None:
        offset, length = numbers.randrange(3000), numbers.randrange(1, 600)
        request = await tracker.begin(WRITE, offset, length, numbers.choice((0, 0, 64, 512)))
        try:
            if numbers.random() < 0.2:
                await tracker.serialise(request, 1024)
            check(request, inside)
            inside.append(request)
            try:
                await turns(numbers.randrange(6))
            finally:
                inside.remove(request)
        finally:
            tracker.end(request)

    tasks = []
    for _ in range(80):
        tasks.append(asyncio.ensure_future(one()))
        await turns(numbers.randrange(3))
        if numbers.random() < 0.2:
            numbers.choice(tasks).cancel()
    done, pending = await asyncio.wait(tasks, timeout=20)
    assert not pending, "someone waits for ever"
    for task in done:
        if not task.cancelled() and (problem := task.exception()) is not None:
            raise problem
    assert not tracker.requests and not tracker.serialising


def check(request: TrackedRequest, inside: list[TrackedRequest]) -> None:
    overlap: Callable[[TrackedRequest], bool] = lambda other: other.overlaps(  # noqa: E731
        request.overlap_offset, request.overlap_length
    )
    for other in filter(overlap, inside):
        assert not request.serialising and not other.serialising, (request, other)


# --- fairness --------------------------------------------------------------------------------------------


async def test_those_who_come_later_do_not_overtake_a_serialising_request_that_waits(tracker: Tracker):
    reader = await tracker.begin(READ, 0, 512)
    writer = starting(tracker, 0, 512, 512)
    await turns()
    later = [starting(tracker, 0, 512) for _ in range(3)]
    await turns()
    assert not writer.done() and not any(task.done() for task in later)
    tracker.end(reader)
    await turns()
    assert writer.done() and not any(task.done() for task in later)
    tracker.end(writer.result())
    for task in later:
        tracker.end(await task)


async def test_a_stream_of_overlapping_reads_does_not_keep_a_write_out(tracker: Tracker):
    served = 0

    async def reading() -> None:
        nonlocal served
        while not writer.done():
            request = await tracker.begin(READ, 0, 512)
            await turns(3)
            tracker.end(request)
            served += 1

    writer: asyncio.Future[TrackedRequest] = asyncio.get_running_loop().create_future()
    readers = [asyncio.ensure_future(reading()) for _ in range(3)]
    await turns(2)
    writer = starting(tracker, 0, 512, 512)
    before = served
    request = await asyncio.wait_for(writer, 10)
    assert served - before <= 3, "only those inside when it came"
    tracker.end(request)
    await asyncio.gather(*readers)


async def test_what_serves_a_request_inside_does_not_wait_for_one_that_waits_for_that(tracker: Tracker):
    outer = await tracker.begin(READ, 0, 512)
    writer = starting(tracker, 0, 512, 512)
    await turns()
    token = present.set(outer)
    inner = await asyncio.wait_for(tracker.begin(READ, 0, 512), 10)
    present.reset(token)
    tracker.end(inner)
    tracker.end(outer)
    tracker.end(await writer)
