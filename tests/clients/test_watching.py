"""Watches that outlive their streams, and jobs that are followed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    InvalidArgument,
    JobCancelled,
    NoSpace,
    PeerUnavailable,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.client import Client
from blockyard.client.jobs import raise_unless_succeeded
from blockyard.client.watching import Persistence, watch
from blockyard.v1 import copy_pb2, job_pb2
from blockyard.v1.job_pb2 import Job, WatchJobsResponse
from tests.support.fake_services import FakeServices

QUICK = Persistence(first_wait_s=0.001, longest_wait_s=0.01)


async def test_a_job_is_followed_until_it_is_concluded(client: Client, fakes: FakeServices):
    await client.jobs.mirror("disk", "copy", job_id="m1")

    async def live() -> None:
        await fakes.jobs.until(lambda: fakes.jobs.streams)
        await fakes.jobs.move("m1", "running", done_bytes=10, total_bytes=100)
        await fakes.jobs.move("m1", "ready", done_bytes=100)
        await fakes.jobs.move("m1", "concluded", "succeeded")

    async with asyncio.TaskGroup() as group:
        group.create_task(live())
        states = [job.state async for job in client.jobs.follow("m1")]
    assert states[0] == job_pb2.JOB_STATE_RUNNING
    assert states[-1] == job_pb2.JOB_STATE_CONCLUDED


async def test_a_dropped_watch_is_taken_up_after_the_last_revision(client: Client, fakes: FakeServices):
    await client.jobs.mirror("disk", "copy", job_id="m1")

    async def live() -> None:
        for done in range(1, 6):
            await fakes.jobs.until(lambda done=done: len(fakes.jobs.streams) >= done)
            await fakes.jobs.move("m1", "running", done_bytes=done)
            await fakes.jobs.break_watches()
        await fakes.jobs.move("m1", "concluded", "succeeded")

    async with asyncio.TaskGroup() as group:
        group.create_task(live())
        seen = [job.progress.done_bytes async for job in client.jobs.follow("m1", persistence=QUICK)]
    assert seen == [0, 1, 2, 3, 4, 5, 5]
    assert fakes.jobs.streams[0] == 0
    assert all(fakes.jobs.streams[1:])


async def test_a_forgotten_revision_begins_the_watch_again(client: Client, fakes: FakeServices):
    await client.jobs.mirror("disk", "copy", job_id="m1")

    async def live() -> None:
        await fakes.jobs.until(lambda: fakes.jobs.streams)
        fakes.jobs.oldest, fakes.jobs.log = 100, []
        await fakes.jobs.break_watches()
        await fakes.jobs.until(lambda: len(fakes.jobs.streams) >= 3)
        await fakes.jobs.move("m1", "concluded", "succeeded")

    async with asyncio.TaskGroup() as group:
        group.create_task(live())
        last = await client.jobs.wait("m1", persistence=QUICK)
    assert last.outcome == job_pb2.JOB_OUTCOME_SUCCEEDED
    assert fakes.jobs.streams == [0, 1, 0]


async def test_waiting_for_a_state_ends_there_and_leaves_the_job_alone(client: Client, fakes: FakeServices):
    await client.jobs.mirror("disk", "copy", job_id="m1")
    await fakes.jobs.move("m1", "ready")
    assert (await client.jobs.wait("m1", "ready")).state == job_pb2.JOB_STATE_READY
    assert fakes.jobs.verbs == []


async def test_a_watch_of_no_job_fails_at_once(client: Client):
    with pytest.raises(ResourceNotFound, match="absent"):
        await client.jobs.wait("absent")


def event(revision: int) -> WatchJobsResponse:
    return WatchJobsResponse(revision=revision)


async def test_a_watch_gives_up_when_there_was_no_stream_for_too_long():
    clock = VirtualClock()
    starts = 0

    async def start(revision: int) -> AsyncIterator[WatchJobsResponse]:
        nonlocal starts
        starts += 1
        raise PeerUnavailable("jobs", "somewhere", "down")
        yield event(0)

    async def consume() -> None:
        async for _ in watch(start, lambda event: False, clock=clock):
            pass

    task = asyncio.create_task(consume())
    while not task.done():
        await clock.advance(5)
    with pytest.raises(PeerUnavailable, match="down"):
        await task
    assert 24 <= starts <= 60


async def test_a_quiet_watch_that_lived_for_hours_has_its_whole_patience_again():
    clock = VirtualClock()
    lives = iter([7200.0, 7200.0, 0.0])

    async def start(revision: int) -> AsyncIterator[WatchJobsResponse]:
        life = next(lives)
        if life:
            await clock.sleep(life)
            raise PeerUnavailable("jobs", "somewhere", "restarting")
        yield event(revision + 1)

    async def consume() -> int:
        async for found in watch(start, lambda event: True, clock=clock):
            return found.revision
        return 0

    task = asyncio.create_task(consume())
    while not task.done():
        await clock.advance(3600)
    assert await task == 1


async def test_an_error_that_is_no_interruption_is_raised():
    async def start(revision: int) -> AsyncIterator[WatchJobsResponse]:
        raise InvalidArgument("job_id", "a name", "nothing")
        yield event(0)

    with pytest.raises(InvalidArgument):
        async for _ in watch(start, lambda event: False):
            pass


async def test_the_kinds_of_job_carry_their_options(client: Client, fakes: FakeServices):
    mirror = await client.jobs.mirror("disk", "copy", sync="top", copy_mode="write-blocking", unmap=False)
    assert mirror.job_id.startswith("mirror-")
    assert mirror.mirror.sync == copy_pb2.SYNC_MODE_TOP
    assert mirror.mirror.copy_mode == copy_pb2.COPY_MODE_WRITE_BLOCKING
    assert mirror.mirror.HasField("unmap")
    backup = await client.jobs.backup(
        "disk", "copy", sync="bitmap", bitmap="b0", bitmap_mode="never", job_id="b1", speed_bytes_per_second=5
    )
    assert backup.backup.bitmap_mode == copy_pb2.BITMAP_MODE_NEVER
    assert backup.speed_bytes_per_second == 5
    stream = await client.jobs.stream("disk", base_node_name="base", on_error="enospc", auto_finalize=False)
    assert stream.HasField("auto_finalize")
    assert not stream.auto_finalize
    commit = await client.jobs.commit("disk", top_node_name="mid")
    assert commit.commit.top_node_name == "mid"
    assert len(await client.jobs.list()) == 4


async def test_a_name_that_is_taken_is_refused(client: Client):
    await client.jobs.stream("disk", job_id="s1")
    with pytest.raises(ResourceExists, match="s1"):
        await client.jobs.stream("disk", job_id="s1")


async def test_verbs_reach_the_job(client: Client, fakes: FakeServices):
    await client.jobs.mirror("disk", "copy", job_id="m1")
    assert (await client.jobs.pause("m1")).state == job_pb2.JOB_STATE_PAUSED
    assert (await client.jobs.resume("m1")).state == job_pb2.JOB_STATE_RUNNING
    assert (await client.jobs.set_speed("m1", 7)).speed_bytes_per_second == 7
    changed = await client.jobs.change("m1", copy_mode="write-blocking")
    assert changed.mirror.copy_mode == copy_pb2.COPY_MODE_WRITE_BLOCKING
    await fakes.jobs.move("m1", "ready")
    await client.jobs.complete("m1", "detach")
    assert fakes.jobs.verbs == [f"complete {job_pb2.COMPLETE_ACTION_DETACH}"]
    await client.jobs.dismiss("m1")
    await client.jobs.dismiss("m1", allow_missing=True)


def test_a_failed_job_raises_what_it_failed_with():
    job = Job(job_id="m1", outcome=job_pb2.JOB_OUTCOME_FAILED)
    job.error.reason, job.error.message, job.error.advice = "NO_SPACE", "the disk is full", "Make room."
    job.error.metadata["node_name"] = "copy"
    with pytest.raises(NoSpace, match="the disk is full") as raised:
        raise_unless_succeeded(job)
    assert raised.value.hint == "Make room."
    assert raised.value.node_name == "copy"


def test_a_cancelled_job_raises_that():
    with pytest.raises(JobCancelled):
        raise_unless_succeeded(Job(job_id="m1", outcome=job_pb2.JOB_OUTCOME_CANCELLED))


async def test_a_dropped_watch_of_statistics_is_taken_up_again(client: Client, fakes: FakeServices):
    client.stats._clock = clock = VirtualClock()
    messages = client.stats.watch(["disk"])
    await anext(messages)
    second = asyncio.ensure_future(anext(messages))
    while not second.done():
        await clock.advance(1)
        await asyncio.sleep(0.001)
    assert (await second).rates[0].node_name == "disk"
    assert fakes.stats.streams == 2
    await messages.aclose()
