"""Jobs over the wire on a real node: what clients see, and where the data is."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from blockyard.base.errors import (
    InvalidArgument,
    JobVerbNotAllowed,
    NodeNotFound,
    ResourceExists,
    ResourceNotFound,
    RevisionTooOld,
)
from blockyard.client.definitions import blkdebug, memory
from blockyard.v1 import job_pb2 as job
from blockyard.v1 import types_pb2 as types
from blockyard.v1.drivers_pb2 import BlkdebugInjectError
from tests.support import peers
from tests.support.real_services import CLUSTER, House, house, jobs_service, node_service

SIZE = 64 * CLUSTER
READY, CONCLUDED = job.JOB_STATE_READY, job.JOB_STATE_CONCLUDED


@pytest.fixture
async def yard(tmp_path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


async def until(yard: House, job_id: str, *states: int) -> job.Job:
    """The job as it is when it reaches one of the states; fails if it ends before."""
    async for event in yard.jobs.watch(job_id):
        if event.job.state in states:
            return event.job
        assert event.job.state != CONCLUDED, event.job
    raise AssertionError("the watch ended")


@asynccontextmanager
async def guest(yard: House, name: str, content: bytearray) -> AsyncIterator[None]:
    """Writes at random places of a node, and notes in `content` what it must read."""
    chance = random.Random(7)

    async def write_on() -> None:
        while True:
            offset = chance.randrange(SIZE // 512) * 512
            data = chance.randbytes(min(chance.choice((512, 4096, 70000)) // 512 * 512, SIZE - offset))
            await session.write(offset, data)
            content[offset : offset + len(data)] = data
            await asyncio.sleep(0)

    async with yard.node.data.session(name) as session:
        writing = asyncio.create_task(write_on())
        try:
            yield
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            # A write that was cancelled half-way may or may not have happened: read it back.
            content[:] = await session.read(0, SIZE)


async def chain(yard: House) -> bytes:
    """base <- mid <- top, each holding other clusters; what top reads."""
    await yard.image("base", SIZE)
    await yard.write("base", 0, random.Random(1).randbytes(SIZE // 2))
    await yard.image("mid", SIZE, below="base")
    await yard.write("mid", 10 * CLUSTER, random.Random(2).randbytes(5 * CLUSTER))
    await yard.image("top", SIZE, below="mid")
    await yard.write("top", 40 * CLUSTER, random.Random(3).randbytes(3 * CLUSTER))
    return await yard.content("top")


async def test_a_mirror_pivots_under_a_writing_guest(yard):
    content = bytearray(await chain(yard))
    await yard.image("copy", SIZE)
    async with guest(yard, "top", content):
        await yard.jobs.mirror("top", "copy", job_id="m")
        await until(yard, "m", READY)
        await yard.jobs.complete("m")
        ended = await until(yard, "m", CONCLUDED)
    assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED
    assert ended.progress.done_bytes == ended.progress.total_bytes
    assert await yard.content("copy") == content
    peers.run("qemu-img", "check", "-q", "-U", yard.folder / "copy.qcow2")


async def test_a_backup_keeps_the_instant_under_a_writing_guest(yard):
    before = await chain(yard)
    content = bytearray(before)
    await yard.image("copy", SIZE)
    await yard.jobs.backup("top", "copy", job_id="b", speed_bytes_per_second=1, auto_dismiss=False)
    async with guest(yard, "top", content):
        await yard.jobs.set_speed("b", 0)
        ended = await until(yard, "b", CONCLUDED)
    assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED
    assert await yard.content("copy") == before


async def test_a_stream_flattens_the_chain(yard):
    content = bytearray(await chain(yard))
    async with guest(yard, "top", content):
        await yard.jobs.stream("top", job_id="s")
        ended = await until(yard, "s", CONCLUDED)
    assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED
    assert await yard.below("top") == []
    assert await yard.content("top") == content


async def test_a_stream_to_a_base_keeps_the_base(yard):
    content = await chain(yard)
    await yard.jobs.stream("top", base_node_name="base", job_id="s")
    assert (await until(yard, "s", CONCLUDED)).outcome == job.JOB_OUTCOME_SUCCEEDED
    assert await yard.below("top") == ["base"]
    assert await yard.content("top") == content


async def test_a_commit_takes_a_layer_out_of_the_chain(yard):
    content = bytearray(await chain(yard))
    async with guest(yard, "top", content):
        await yard.jobs.commit("top", top_node_name="mid", base_node_name="base", job_id="c")
        ended = await until(yard, "c", CONCLUDED)
    assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED
    assert await yard.below("top") == ["base"]
    assert await yard.content("top") == content


async def test_an_active_commit_moves_the_guest_to_the_base(yard):
    content = bytearray(await chain(yard))
    async with guest(yard, "top", content):
        await yard.jobs.commit("top", job_id="c")
        await until(yard, "c", READY)
        await yard.jobs.complete("c")
        ended = await until(yard, "c", CONCLUDED)
    assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED
    assert await yard.content("base") == content


async def test_a_full_target_pauses_a_job_by_policy_and_resume_goes_on(yard):
    await yard.memory("a", random.Random(1).randbytes(SIZE))
    await yard.memory("t", SIZE // 2)
    with pytest.raises(InvalidArgument):
        await yard.jobs.mirror("a", "t", job_id="m", on_target_error="stop")


async def test_both_nodes_of_a_job_name_it(yard):
    await yard.memory("a", random.Random(1).randbytes(SIZE))
    await yard.memory("t", SIZE)
    await yard.jobs.backup("a", "t", job_id="b", speed_bytes_per_second=1)
    for name in ("a", "t"):
        assert list((await yard.node.nodes.get(name)).jobs) == ["b"]
    await yard.jobs.cancel("b")
    await until(yard, "b", CONCLUDED)
    assert list((await yard.node.nodes.get("a")).jobs) == []


async def test_a_job_can_be_paused_slowed_changed_and_cancelled(yard):
    await yard.memory("a", random.Random(1).randbytes(SIZE))
    await yard.memory("t", SIZE)
    await yard.jobs.mirror("a", "t", job_id="m", speed_bytes_per_second=CLUSTER, labels={"who": "me"})
    await yard.jobs.pause("m")
    paused = await until(yard, "m", job.JOB_STATE_PAUSED)
    assert paused.user_paused
    assert dict(paused.labels) == {"who": "me"}
    await yard.jobs.set_speed("m", 0)
    assert (await yard.jobs.change("m", copy_mode="write-blocking")).mirror.copy_mode == 2
    await yard.jobs.resume("m")
    await until(yard, "m", READY)
    with pytest.raises(JobVerbNotAllowed) as refused:
        await yard.jobs.finalize("m")
    assert (refused.value.state, refused.value.verb) == ("READY", "FINALIZE")
    await yard.jobs.cancel("m")
    ended = await until(yard, "m", CONCLUDED)
    assert ended.outcome == job.JOB_OUTCOME_CANCELLED
    assert ended.error.reason == "JOB_CANCELLED"
    await yard.jobs.dismiss("m")
    await yard.jobs.dismiss("m", allow_missing=True)
    with pytest.raises(ResourceNotFound):
        await yard.jobs.get("m")
    assert [node.node_name for node in await yard.node.nodes.list()] == ["a", "t"]


async def test_a_job_id_may_be_used_again_for_another_job(yard):
    for name in ("a", "b", "t"):
        await yard.memory(name, SIZE)
    for source in ("a", "b"):
        await yard.jobs.backup(source, "t", job_id="same")
        await until(yard, "same", CONCLUDED)
        await yard.jobs.dismiss("same")


async def test_errors_come_back_as_what_they_are(yard):
    await yard.memory("a", SIZE)
    await yard.memory("t", SIZE)
    with pytest.raises(NodeNotFound):
        await yard.jobs.mirror("nobody", "t", job_id="m")
    with pytest.raises(InvalidArgument) as refused:
        await yard.jobs.mirror("a", "t", job_id="m", granularity_bytes=5)
    assert refused.value.name == "mirror.granularity_bytes"
    await yard.jobs.mirror("a", "t", job_id="m")
    with pytest.raises(ResourceExists):
        await yard.jobs.mirror("a", "t", job_id="m", sync="top")


async def test_a_dry_run_shows_the_job_and_makes_none(yard):
    await yard.memory("a", SIZE)
    await yard.memory("t", SIZE)
    wanted = job.Job(job_id="m", mirror=job.MirrorOptions(node_name="a", target_node_name="t", sync=1))
    shown = await yard.jobs.create(wanted, validate_only=True)
    assert shown.progress.total_bytes == SIZE
    with pytest.raises(ResourceNotFound):
        await yard.jobs.get("m")
    wanted.mirror.node_name = "nobody"
    with pytest.raises(NodeNotFound):
        await yard.jobs.create(wanted, validate_only=True)


async def test_jobs_are_listed_in_pages(yard):
    for number in range(5):
        await yard.memory(f"n{number}", CLUSTER)
        await yard.memory(f"t{number}", CLUSTER)
        await yard.jobs.backup(f"n{number}", f"t{number}", job_id=f"j{number}")
    call = yard.jobs._service.unary
    first = await call("ListJobs", job.ListJobsRequest(page_size=2), job.ListJobsResponse)
    assert [item.job_id for item in first.jobs] == ["j0", "j1"]
    rest = job.ListJobsRequest(page_size=9, page_token=first.next_page_token)
    last = await call("ListJobs", rest, job.ListJobsResponse)
    assert [item.job_id for item in last.jobs] == ["j2", "j3", "j4"]
    assert last.next_page_token == ""
    with pytest.raises(InvalidArgument, match="page_size"):
        await call("ListJobs", job.ListJobsRequest(page_size=-1), job.ListJobsResponse)


async def test_a_watch_that_drops_again_and_again_sees_every_state(yard):
    await yard.memory("a", random.Random(1).randbytes(SIZE))
    await yard.memory("t", SIZE)
    revision, seen = 0, []

    async def take(count: int) -> None:
        nonlocal revision
        request = job.WatchJobsRequest(start_revision=revision)
        async for event in yard.jobs._service.stream("WatchJobs", request, job.WatchJobsResponse):
            revision = event.revision
            if event.change != types.CHANGE_TYPE_BOOKMARK and (not seen or seen[-1] != event.job.state):
                seen.append(event.job.state)
            count -= 1
            if count <= 0:
                return

    await take(1)
    await yard.jobs.mirror("a", "t", job_id="m")
    while READY not in seen:
        await take(1)
    await yard.jobs.cancel("m")
    while CONCLUDED not in seen:
        await take(1)
    await yard.jobs.dismiss("m")
    while job.JOB_STATE_NULL not in seen:
        await take(1)
    assert seen == [2, 3, 5, 9, 10, 11]
    with pytest.raises(RevisionTooOld):
        revision = 1
        await take(1)


async def test_a_node_that_restarts_fails_the_job_and_the_service_lives_on(tmp_path):
    async with jobs_service(tmp_path, node_patience_seconds=5.0) as client:
        async with node_service(tmp_path) as (running, node):
            yard = House(tmp_path, node, client, running)
            await yard.memory("a", SIZE)
            await yard.memory("t", SIZE)
            await yard.jobs.mirror("a", "t", job_id="m")
            await until(yard, "m", READY)
        async with node_service(tmp_path) as (running, node):
            yard = House(tmp_path, node, client, running)
            ended = await until(yard, "m", CONCLUDED)
            assert ended.outcome == job.JOB_OUTCOME_FAILED
            await yard.memory("a", SIZE)
            await yard.memory("t", SIZE)
            await yard.jobs.backup("a", "t", job_id="b")
            assert (await until(yard, "b", CONCLUDED)).outcome == job.JOB_OUTCOME_SUCCEEDED


async def test_a_stopping_service_leaves_nothing_at_the_node(tmp_path):
    async with node_service(tmp_path) as (running, node):
        async with jobs_service(tmp_path) as client:
            yard = House(tmp_path, node, client, running)
            await yard.memory("a", SIZE)
            await yard.memory("t", SIZE)
            await yard.jobs.mirror("a", "t", job_id="m")
            await until(yard, "m", READY)
        assert running.copies.all() == []
        assert [item.node_name for item in await node.nodes.list()] == ["a", "t"]


async def test_a_new_incarnation_takes_over_a_job_that_is_created_again(tmp_path):
    async with node_service(tmp_path) as (running, node):
        async with jobs_service(tmp_path, stop_seconds=0.0) as client:
            yard = House(tmp_path, node, client, running)
            await yard.memory("a", random.Random(1).randbytes(SIZE))
            await yard.memory("t", SIZE)
            await yard.jobs.mirror("a", "t", job_id="m")
            await until(yard, "m", READY)
        assert [item.spec.session_id for item in running.copies.all()] == ["m"]
        async with jobs_service(tmp_path) as client:
            yard = House(tmp_path, node, client, running)
            await yard.jobs.mirror("a", "t", job_id="m")
            ready = await until(yard, "m", READY)
            assert ready.progress.copied_bytes == SIZE


async def test_the_state_machine_can_be_asked_for(yard):
    assert len(await yard.jobs.state_machine()) == 10


async def test_a_real_full_disk_pauses_a_mirror_until_there_is_room(yard: House):
    content = random.Random(5).randbytes(SIZE)
    await yard.memory("a", content)
    full = BlkdebugInjectError(event="none", iotype="write", errno=28, once=True)
    await yard.node.nodes.open(blkdebug(memory(SIZE), inject_error=[full], node_name="t"))
    await yard.jobs.mirror("a", "t", job_id="m", on_target_error="enospc")
    paused = await until(yard, "m", job.JOB_STATE_PAUSED)
    assert paused.io_status == types.IO_STATUS_NOSPACE
    await yard.jobs.resume("m")
    await until(yard, "m", READY)
    await yard.jobs.complete("m", "pivot")
    assert await yard.content("t") == content


@pytest.mark.parametrize("kind", ["backup", "mirror"])
async def test_a_job_reads_through_the_filters_of_its_source(tmp_path, kind):
    rule = BlkdebugInjectError(event="none", iotype="read", errno=5)
    async with house(tmp_path) as yard:
        await yard.node.nodes.open(blkdebug(memory(SIZE), inject_error=[rule], node_name="source"))
        await yard.write("source", 0, b"what the filter lets nobody read")
        await yard.memory("target", SIZE)
        await getattr(yard.jobs, kind)("source", "target", job_id="j", auto_dismiss=False)
        ended = await yard.jobs.wait("j")
        assert ended.outcome == job.JOB_OUTCOME_FAILED and ended.error.reason == "IO_ERROR"
