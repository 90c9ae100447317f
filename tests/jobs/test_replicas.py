"""Real jobs services that are killed, stopped and started again: alone with SQLite, several with a real
PostgreSQL."""

import asyncio
import random
import signal

import pytest

from blockyard.base.errors import BlockError
from blockyard.client import Client
from blockyard.client.definitions import file, raw
from blockyard.v1 import job_pb2 as job
from tests.support.postgres import postgres
from tests.support.processes import jobs_of, node_of, running

SIZE = 32 << 20
LEASE = ("--lease-seconds", "1")


async def disks(node: Client, folder) -> bytes:
    """A source `a` with content and an empty target `t`, as raw files."""
    content = random.Random(1).randbytes(SIZE)
    (folder / "images" / "a.raw").write_bytes(content)
    (folder / "images" / "t.raw").write_bytes(bytes(SIZE))
    for name in ("a", "t"):
        await node.nodes.open(raw(file(f"{name}.raw"), node_name=name))
    return content


async def until(client: Client, job_id: str, *states: int) -> job.Job:
    """The job when it is in one of these states, asked again and again: its service may be away."""
    async with asyncio.timeout(60):
        while True:
            try:
                found = await client.jobs.get(job_id)
            except BlockError as problem:
                assert problem.retryable or problem.canonical() == "UNAVAILABLE", problem
            else:
                if found.state in states:
                    return found
                assert found.state != job.JOB_STATE_CONCLUDED, found
            await asyncio.sleep(0.02)


async def test_a_killed_service_goes_on_with_its_jobs_when_it_is_started_again(tmp_path):
    node, jobs = node_of(tmp_path), jobs_of(tmp_path)
    async with running(node, jobs) as (at_node, at_jobs):
        content = await disks(at_node, tmp_path)
        await at_jobs.jobs.backup("a", "t", job_id="b", speed_bytes_per_second=8 << 20, labels={"who": "me"})
        for _ in range(3):
            await jobs.kill()
            await jobs.start()
            await until(at_jobs, "b", job.JOB_STATE_RUNNING)
        await at_jobs.jobs.set_speed("b", 0)
        ended = await until(at_jobs, "b", job.JOB_STATE_CONCLUDED)
        assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED
        assert ended.labels["who"] == "me"
        assert ended.progress.copied_bytes == SIZE
        assert sum("taken over by jobs service" in step.note for step in ended.history) == 3
        assert [step.state for step in ended.history][-1] == job.JOB_STATE_CONCLUDED
        assert (tmp_path / "images" / "t.raw").read_bytes() == content


async def test_a_service_that_is_asked_to_end_leaves_its_jobs_to_the_next(tmp_path):
    node, jobs = node_of(tmp_path), jobs_of(tmp_path)
    async with running(node, jobs) as (at_node, at_jobs):
        content = await disks(at_node, tmp_path)
        await at_jobs.jobs.mirror("a", "t", job_id="m")
        await until(at_jobs, "m", job.JOB_STATE_READY)
        assert await jobs.terminate() == 0
        await at_node.data.write("a", 0, b"n" * 65536)
        await jobs.start()
        await until(at_jobs, "m", job.JOB_STATE_READY)
        await at_jobs.jobs.complete("m", "detach")
        await until(at_jobs, "m", job.JOB_STATE_CONCLUDED)
        assert (tmp_path / "images" / "t.raw").read_bytes() == b"n" * 65536 + content[65536:]


@pytest.mark.peer("postgres")
async def test_of_two_replicas_one_is_killed_and_the_other_goes_on(tmp_path):
    with postgres() as server:
        database = ("--database", server.new_database(), *LEASE)
        node, first, second = node_of(tmp_path), *(jobs_of(tmp_path, name, *database) for name in ("j1", "j2"))
        async with running(node, first, second) as (at_node, at_first, at_second):
            content = await disks(at_node, tmp_path)
            await at_first.jobs.backup("a", "t", job_id="b", speed_bytes_per_second=1 << 20)
            await until(at_second, "b", job.JOB_STATE_RUNNING)
            # Any replica takes a verb and a watch: it goes to the one that works on the job.
            assert (await at_second.jobs.set_speed("b", 2 << 20)).speed_bytes_per_second == 2 << 20
            async for event in at_second.jobs.watch("b"):
                assert event.job.speed_bytes_per_second == 2 << 20
                break
            await first.kill()
            await until_owner(at_second, "b")
            ended = await until(at_second, "b", job.JOB_STATE_CONCLUDED)
            assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED
            assert (tmp_path / "images" / "t.raw").read_bytes() == content


@pytest.mark.peer("postgres")
async def test_a_replica_that_sleeps_two_leases_and_wakes_can_write_nothing(tmp_path):
    with postgres() as server:
        database = ("--database", server.new_database(), *LEASE)
        node, first, second = node_of(tmp_path), *(jobs_of(tmp_path, name, *database) for name in ("j1", "j2"))
        async with running(node, first, second) as (at_node, at_first, at_second):
            await disks(at_node, tmp_path)
            await at_first.jobs.mirror("a", "t", job_id="m")
            await until(at_first, "m", job.JOB_STATE_READY)
            first.signal(signal.SIGSTOP)
            completing = asyncio.create_task(at_first.jobs.complete("m", "pivot"))
            await until_owner(at_second, "m")
            await at_second.jobs.pause("m")
            await until(at_second, "m", job.JOB_STATE_STANDBY)
            first.signal(signal.SIGCONT)
            # The verb that it was sent before it slept reaches it now, and is refused.
            with pytest.raises(BlockError) as refused:
                await completing
            # On a busy machine its client may have given up before.
            assert refused.value.reason in ("OWNER_MISMATCH", "JOB_ELSEWHERE", "DEADLINE_PASSED")
            assert (await at_second.jobs.get("m")).state == job.JOB_STATE_STANDBY
            await until(at_first, "m", job.JOB_STATE_STANDBY)
            assert [each.session_id for each in await sessions(at_node)] == ["m"]
            await at_second.jobs.resume("m")
            await at_second.jobs.complete("m", "detach")
            ended = await until(at_second, "m", job.JOB_STATE_CONCLUDED)
            assert ended.outcome == job.JOB_OUTCOME_SUCCEEDED


async def until_owner(client: Client, job_id: str) -> None:
    """The replica works on the job."""
    async with asyncio.timeout(80):
        while True:
            try:
                await client.jobs.set_speed(job_id, 0)
                return
            except BlockError as away:
                assert away.reason in ("JOB_ELSEWHERE", "PEER_UNAVAILABLE", "DEADLINE_PASSED"), away
                await asyncio.sleep(0.05)


async def sessions(node: Client) -> list:
    from blockyard.v1 import copy_pb2
    from blockyard.v1.copy_pb2_grpc import CopyServiceStub

    stub = CopyServiceStub(node.jobs._service._channel)
    return list((await stub.ListCopySessions(copy_pb2.ListCopySessionsRequest())).sessions)
