"""Jobs that outlive their service: taken up in every state, by the next incarnation or by another replica."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from blockyard.base.errors import (
    JobElsewhere,
    JobStoreUnavailable,
    OwnerMismatch,
    RequestIdReused,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.jobs.copying.policy import OnError
from blockyard.jobs.lifecycle.job import Job
from blockyard.jobs.lifecycle.manager import Manager
from blockyard.jobs.lifecycle.recalling import recall, record_of, requested_of, spec_of
from blockyard.jobs.lifecycle.spec import JobOutcome
from blockyard.jobs.lifecycle.table import JobState as S
from blockyard.jobs.node.port import CopyKind, CopyMode, CopySide, FinishAction, SessionRequest, SyncMode
from blockyard.jobs.store.memory import MemoryStore
from blockyard.jobs.store.records import read_record, record_text
from tests.support.living_jobs import Scene
from tests.support.living_jobs import spec_of as wanted
from tests.support.small_node import GRANULE

MIRROR = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}


class LastingStore(MemoryStore):
    """Outlives the managers of a test, as text; can be away."""

    durable = True
    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    def __getattribute__(self, name):
        calls = ("create", "put", "remove", "load", "find", "request", "begin", "beat", "end", "orphans")
        if name in calls and object.__getattribute__(self, "away"):
            raise JobStoreUnavailable("test", "away")
        return object.__getattribute__(self, name)

    async def put(self, record):
        again = read_record(record_text(record))
        assert again == record
        await super().put(again)


class Lives(Scene):
    """One life of the service after another, on one store."""

    def __init__(self) -> None:
        super().__init__()
        self.store = LastingStore()
        self.node.disk("a", fill=b"a")
        self.node.disk("t")
        self.node.guest("vm", "a")

    async def begin(self) -> Manager:
        number = await self.store.begin(f"replica-{self.store._token + 1}", 0)
        self.manager = self.another_manager(number)
        await self.manager.start()
        await self.pass_time()
        return self.manager

    async def next_life(self) -> None:
        await self.manager.stop()
        await self.begin()


@asynccontextmanager
async def lives():
    scene = Lives()
    await scene.begin()
    try:
        yield scene
    finally:
        scene.store.away = False
        await scene.manager.stop()


async def halfway(scene: Lives, **options) -> None:
    scene.node.bytes_per_second = 16 * GRANULE
    await scene.start("backup", **MIRROR, max_chunk_bytes=GRANULE, **options)
    await scene.until_true(lambda: scene.view().progress.done_bytes >= 20 * GRANULE)


async def test_a_running_job_goes_on_and_copies_nothing_twice():
    async with lives() as scene:
        await halfway(scene)
        await scene.next_life()
        assert scene.view().state is S.RUNNING
        assert scene.view().progress.done_bytes >= 20 * GRANULE
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert scene.node.sessions["job"].copied == 64 * GRANULE
        assert scene.node.disks["t"].content == scene.node.disks["a"].content


async def test_a_job_lives_through_many_services():
    async with lives() as scene:
        await halfway(scene)
        for _ in range(20):
            await scene.next_life()
            await scene.pass_time(0.1)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert scene.node.disks["t"].content == scene.node.disks["a"].content


async def test_a_created_job_without_its_session_makes_it():
    async with lives() as scene:
        scene.node.create_gate.clear()
        call = asyncio.create_task(scene.start("mirror", **MIRROR))
        await scene.pass_time()
        await scene.manager.stop()
        scene.node.create_gate.set()
        await asyncio.gather(call, return_exceptions=True)
        await scene.begin()
        assert (await scene.until(S.READY)).progress.copied_bytes == 64 * GRANULE


async def test_a_paused_job_stays_paused_until_it_is_resumed():
    async with lives() as scene:
        await halfway(scene)
        await scene.manager.pause("job")
        await scene.until(S.PAUSED)
        done = scene.view().progress.done_bytes
        await scene.next_life()
        await scene.pass_time(5)
        view = scene.view()
        assert (view.state, view.user_paused, view.progress.done_bytes) == (S.PAUSED, True, done)
        await scene.manager.resume("job")
        assert (await scene.until(S.CONCLUDED)).outcome is JobOutcome.SUCCEEDED


async def test_a_pause_by_an_error_keeps_its_reason():
    async with lives() as scene:
        scene.node.fail(CopySide.TARGET, range(5, 6))
        await scene.start("mirror", **MIRROR, on_target_error=OnError.ENOSPC)
        before = await scene.until(S.PAUSED)
        await scene.next_life()
        view = scene.view()
        assert (view.state, view.io_status, view.fault) == (S.PAUSED, before.io_status, before.fault)
        await scene.manager.resume("job")
        await scene.until(S.READY)


async def test_a_ready_job_is_ready_and_can_be_completed():
    async with lives() as scene:
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        await scene.next_life()
        scene.node.guest_write("vm", 7, b"n" * GRANULE)
        assert scene.view().state is S.READY
        await scene.manager.complete("job", FinishAction.PIVOT)
        assert (await scene.until(S.CONCLUDED)).outcome is JobOutcome.SUCCEEDED
        assert scene.node.guests["vm"] == "t"
        assert scene.node.disks["t"].content == scene.node.disks["a"].content


async def test_a_standby_job_goes_back_to_ready():
    async with lives() as scene:
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        await scene.manager.pause("job")
        await scene.until(S.STANDBY)
        await scene.next_life()
        await scene.pass_time(1)
        assert scene.view().state is S.STANDBY
        await scene.manager.resume("job")
        await scene.until(S.READY)


async def test_a_waiting_job_waits_on_and_a_pending_one_pends():
    async with lives() as scene:
        scene.transaction.gate.clear()
        await scene.start("stream", node_name="a", auto_finalize=False)
        await scene.until(S.WAITING)
        await scene.next_life()
        await scene.pass_time(1)
        assert scene.view().state is S.WAITING
        scene.transaction.gate.set()
        await scene.until(S.PENDING)
        await scene.next_life()
        await scene.pass_time(1)
        assert scene.view().state is S.PENDING
        await scene.manager.finalize("job")
        assert (await scene.until(S.CONCLUDED)).outcome is JobOutcome.SUCCEEDED


@pytest.mark.parametrize("happened", [False, True])
async def test_a_pivot_that_was_under_way_happens_once(happened):
    async with lives() as scene:
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        if happened:
            scene.node.lose_answers = 1 << 30
        else:
            scene.node.finish_gate.clear()
        await scene.manager.complete("job", FinishAction.PIVOT)
        await scene.pass_time(1)
        assert scene.view().state is S.PENDING
        assert (scene.node.guests["vm"] == "t") is happened
        await scene.manager.stop()
        scene.node.lose_answers = 0
        scene.node.finish_gate.set()
        await scene.begin()
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert scene.node.guests["vm"] == "t"


async def test_an_aborting_job_ends_its_session_and_keeps_its_outcome():
    async with lives() as scene:
        await halfway(scene)
        scene.node.finish_gate.clear()
        await scene.manager.cancel("job")
        await scene.until(S.ABORTING)
        await scene.manager.stop()
        assert scene.node.sessions["job"].finished is None
        scene.node.finish_gate.set()
        await scene.begin()
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.CANCELLED
        assert scene.node.sessions["job"].finished is FinishAction.ABORT


async def test_a_concluded_job_can_still_be_read_and_dismissed():
    async with lives() as scene:
        await scene.start("stream", node_name="a", labels={"who": "me"})
        before = await scene.until(S.CONCLUDED)
        await scene.next_life()
        view = scene.view()
        assert (view.state, view.outcome, view.end_wall_ns) == (before.state, before.outcome, before.end_wall_ns)
        assert view.spec.labels == {"who": "me"}
        await scene.manager.dismiss("job")
        await scene.next_life()
        with pytest.raises(ResourceNotFound):
            await scene.manager.show("job")


async def test_a_job_tells_its_steps_over_several_lives():
    async with lives() as scene:
        await halfway(scene)
        await scene.next_life()
        await scene.until(S.CONCLUDED)
        history = (await scene.store.find("job")).history
        assert [step.state for step in history] == [
            *("CREATED", "RUNNING", "RUNNING", "WAITING", "PENDING", "CONCLUDED"),
        ]
        assert history[2].note == "taken over by jobs service #2"


async def test_a_session_that_the_node_forgot_fails_the_job_by_name():
    async with lives() as scene:
        await halfway(scene)
        await scene.manager.stop()
        scene.node.restart()
        await scene.begin()
        view = await scene.until(S.CONCLUDED)
        assert (view.outcome, view.fault.reason) == (JobOutcome.FAILED, "SESSION_LOST")


async def test_a_job_that_is_taken_up_waits_for_its_node_however_long():
    async with lives() as scene:
        await halfway(scene)
        await scene.manager.stop()
        scene.node.go_away()
        await scene.begin()
        await scene.pass_time(600)
        view = scene.view()
        assert (view.state, view.progress.phase) == (S.RUNNING, "waiting for the node")
        scene.node.come_back()
        assert (await scene.until(S.CONCLUDED)).outcome is JobOutcome.SUCCEEDED


async def test_a_range_that_was_passed_over_is_remembered():
    async with lives() as scene:
        scene.node.disk("below", fill=b"b")
        scene.node.disk("top", backing="below")
        scene.node.fail(CopySide.SOURCE, range(9, 10), reason="IO_ERROR", times=1)
        scene.node.bytes_per_second = 16 * GRANULE
        await scene.start("stream", node_name="top", on_error=OnError.IGNORE)
        await scene.until_true(lambda: scene.view().ignored_errors == 1)
        await scene.manager._runners["job"].job.save()
        await scene.next_life()
        view = await scene.until(S.CONCLUDED)
        assert (view.outcome, view.fault.reason, view.ignored_errors) == (JobOutcome.FAILED, "IO_ERROR", 1)


# --- requests ----------------------------------------------------------------------------------------------


async def test_a_request_is_remembered_over_lives():
    async with lives() as scene:
        spec = wanted("stream", node_name="a", auto_dismiss=True)
        await scene.manager.create(spec, "one")
        await scene.pass_time(1)
        await scene.next_life()
        assert (await scene.manager.create(spec, "one")).state is S.NULL
        with pytest.raises(RequestIdReused):
            await scene.manager.create(wanted("stream", "other", node_name="a"), "one")
        assert scene.node.calls.count("create_session") == 1


async def test_the_same_request_in_the_next_life_is_the_same_job_although_it_changed():
    async with lives() as scene:
        await halfway(scene)
        await scene.manager.set_speed("job", 5 * GRANULE)
        await scene.next_life()
        view = await scene.start("backup", **MIRROR, max_chunk_bytes=GRANULE)
        assert view.spec.speed_bytes_per_second == 5 * GRANULE
        with pytest.raises(ResourceExists):
            await scene.start("backup", **MIRROR, max_chunk_bytes=2 * GRANULE)


# --- replicas ----------------------------------------------------------------------------------------------


async def test_replicas_see_each_others_jobs_and_refuse_their_verbs():
    async with lives() as scene:
        await halfway(scene)
        first = scene.manager
        other = await scene.begin()
        assert (await other.show("job")).state is S.RUNNING
        views, more = await other.list("", 10)
        assert ([view.job_id for view in views], more) == (["job"], False)
        with pytest.raises(JobElsewhere, match="replica-1"):
            await other.pause("job")
        again = await other.create(wanted("backup", **MIRROR, max_chunk_bytes=GRANULE))
        assert again.state is S.RUNNING
        with pytest.raises(ResourceExists):
            await other.create(wanted("stream", node_name="a"))
        await first.stop()


async def test_a_silent_replica_loses_its_jobs_after_a_lease_and_not_before():
    async with lives() as scene:
        await halfway(scene)
        scene.node.bytes_per_second = GRANULE
        silent = scene.manager
        silent._living.cancel()
        await scene.begin()
        await scene.pass_time(9)
        assert (await scene.store.owner_of("job")).address == "replica-1"
        await scene.pass_time(8)
        assert (await scene.store.owner_of("job")).address == "replica-2"
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert scene.node.disks["t"].content == scene.node.disks["a"].content
        await scene.pass_time(5)
        assert silent.present() == {}
        await silent.stop()


async def test_a_replica_that_beats_keeps_its_jobs():
    async with lives() as scene:
        await scene.start("mirror", **MIRROR)
        first = scene.manager
        await scene.begin()
        await scene.pass_time(100)
        assert (await scene.store.owner_of("job")).address == "replica-1"
        await first.stop()
        await scene.pass_time(4)
        assert (await scene.store.owner_of("job")).address == "replica-2"
        assert (await scene.until(S.READY)).state is S.READY


async def test_a_verb_at_a_replica_that_was_fenced_off_is_refused_and_changes_nothing():
    async with lives() as scene:
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        asleep = scene.manager
        asleep._living.cancel()
        await scene.begin()
        await scene.pass_time(20)
        with pytest.raises((OwnerMismatch, JobElsewhere)):
            await asleep.complete("job", FinishAction.PIVOT)
        assert scene.node.guests["vm"] == "a"
        assert (await scene.store.find("job")).complete_action == ""
        await scene.pass_time(10)
        assert scene.node.guests["vm"] == "a"
        await asleep.stop()


async def test_a_service_that_was_thought_dead_keeps_what_nobody_took():
    async with lives() as scene:
        await halfway(scene)
        number = scene.manager._tenancy.number
        await scene.store.end(number)
        await scene.pass_time(5)
        assert scene.manager._tenancy.number > number
        assert await scene.store.orphans() == []
        assert (await scene.until(S.CONCLUDED)).outcome is JobOutcome.SUCCEEDED


# --- sessions without a job --------------------------------------------------------------------------------


async def test_a_session_that_no_job_knows_is_collected_and_those_of_others_are_not():
    async with lives() as scene:
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        await scene.pass_time(200)
        assert scene.view().state is S.READY
        for name, domain in (("b", await scene.store.identity()), ("c", "another"), ("d", "")):
            scene.node.disk(name)
            scene.node.disk(f"{name}t")
            request = SessionRequest(name, CopyKind.MIRROR, name, f"{name}t", domain=domain)
            await scene.node.port(99).create_session(request)
        await scene.pass_time(65)
        assert scene.node.sessions["b"].finished is None
        await scene.pass_time(65)
        ended = {name: session.finished for name, session in scene.node.sessions.items()}
        assert ended == {"job": None, "b": FinishAction.ABORT, "c": None, "d": None}


# --- a store that is away ----------------------------------------------------------------------------------


async def test_while_the_store_is_away_copying_goes_on_and_verbs_are_refused():
    async with lives() as scene:
        await halfway(scene)
        scene.store.away = True
        for call in (
            scene.manager.pause("job"),
            scene.manager.show("other"),
            scene.start("stream", "s", node_name="t"),
        ):
            with pytest.raises(JobStoreUnavailable):
                await call
        scene.manager._runners["job"].job.user_paused = False
        await scene.until_true(lambda: scene.node.sessions["job"].copied == 64 * GRANULE)
        await scene.pass_time(10)
        assert scene.node.sessions["job"].finished is None
        scene.store.away = False
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED


# --- records -----------------------------------------------------------------------------------------------


async def test_a_job_and_its_record_are_the_same():
    async with lives() as scene:
        await scene.start("mirror", **MIRROR, labels={"a": "b"}, speed_bytes_per_second=7)
        await scene.until(S.RUNNING)
        await scene.manager.set_speed("job", 1 << 30)
        await scene.manager.change("job", CopyMode.WRITE_BLOCKING)
        await scene.manager.pause("job")
        job: Job = scene.manager._runners["job"].job
        record = record_of(job)
        again = recall(scene.manager._new(spec_of(record)), record)
        again.fencing_token = job.fencing_token
        assert record_of(again) == record
        assert (again.spec, again.requested, again.fault) == (job.spec, job.requested, job.fault)
        assert requested_of(record).speed_bytes_per_second == 7
        assert spec_of(record).kind.options.copy_mode == "WRITE_BLOCKING"
        assert requested_of(record).kind.options.copy_mode == "BACKGROUND"
