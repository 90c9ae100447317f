"""Streams that drop, a node that goes away, answers that are lost, another incarnation."""

import pytest

from blockyard.base.errors import PeerUnavailable
from blockyard.jobs.copying.policy import OnError
from blockyard.jobs.lifecycle.spec import JobOutcome
from blockyard.jobs.lifecycle.table import JobState as S
from blockyard.jobs.node.port import FinishAction, SyncMode
from blockyard.jobs.store.memory import MemoryStore
from tests.support.living_jobs import Scene, living, spec_of
from tests.support.small_node import GRANULE

MIRROR = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}


def stage(scene: Scene) -> None:
    scene.node.disk("a", fill=b"a")
    scene.node.disk("t")
    scene.node.guest("vm", "a")


async def halfway(scene: Scene, **options) -> None:
    stage(scene)
    scene.node.bytes_per_second = 16 * GRANULE
    await scene.start("backup", **MIRROR, max_chunk_bytes=GRANULE, **options)
    await scene.until_true(lambda: scene.view().progress.done_bytes >= 20 * GRANULE)


async def test_a_dropped_stream_is_taken_up_again_and_nothing_is_counted_twice():
    async with living() as scene:
        await halfway(scene)
        for _ in range(5):
            scene.node.drop_streams()
            await scene.pass_time(0.3)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert view.progress.copied_bytes == view.progress.total_bytes == 64 * GRANULE
        assert scene.node.disks["t"].content == scene.node.disks["a"].content


async def test_progress_never_goes_back_while_streams_drop():
    async with living() as scene:
        await halfway(scene)
        seen = []
        for step in range(60):
            if step % 7 == 0:
                scene.node.drop_streams()
            await scene.pass_time(0.05)
            seen.append(scene.view().progress.done_bytes)
        assert seen == sorted(seen)


async def test_a_node_that_is_away_for_a_while_is_waited_for():
    async with living() as scene:
        await halfway(scene)
        scene.node.go_away()
        await scene.pass_time(8)
        assert scene.view().state is S.RUNNING
        scene.node.come_back()
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED


async def test_a_node_that_stays_away_fails_a_reporting_job_which_says_what_is_left():
    async with living() as scene:
        await halfway(scene)
        scene.node.go_away()
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.FAILED
        assert view.fault.reason == PeerUnavailable.reason
        assert "session_left" in view.fault.metadata


async def test_a_node_that_stays_away_pauses_a_stopping_job_which_goes_on_when_resumed():
    async with living() as scene:
        await halfway(scene, on_source_error=OnError.STOP)
        scene.node.go_away()
        view = await scene.until(S.PAUSED)
        assert view.fault.reason == PeerUnavailable.reason
        scene.node.come_back()
        await scene.manager.resume("job")
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED


async def test_an_ignoring_job_waits_for_ever():
    async with living() as scene:
        await halfway(scene, on_source_error=OnError.IGNORE)
        scene.node.go_away()
        await scene.pass_time(300)
        assert scene.view().state is S.RUNNING
        scene.node.come_back()
        assert (await scene.until(S.CONCLUDED)).outcome is JobOutcome.SUCCEEDED


async def test_verbs_work_while_the_node_is_away():
    async with living() as scene:
        await halfway(scene, on_source_error=OnError.IGNORE)
        scene.node.go_away()
        await scene.pass_time(20)
        await scene.manager.pause("job")
        await scene.until(S.PAUSED, seconds=5)
        await scene.manager.resume("job")
        await scene.until(S.RUNNING, seconds=5)
        await scene.manager.cancel("job", force=True)
        view = await scene.until(S.CONCLUDED, seconds=1)
        assert view.outcome is JobOutcome.CANCELLED


async def test_a_node_that_forgot_the_session_fails_the_job():
    async with living() as scene:
        await halfway(scene)
        scene.node.restart()
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.FAILED
        assert view.fault.reason == "RESOURCE_NOT_FOUND"


async def test_a_lost_answer_to_the_pivot_is_asked_for_again():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        scene.node.lose_answers = 2
        await scene.manager.complete("job", FinishAction.PIVOT)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert scene.node.calls.count("finish_session PIVOT") == 3
        assert scene.node.guests["vm"] == "t"


async def test_a_lost_answer_to_the_creation_refuses_the_job_and_leaves_no_session():
    async with living() as scene:
        stage(scene)
        scene.node.lose_answers = 1
        with pytest.raises(PeerUnavailable):
            await scene.start("mirror", **MIRROR)
        assert scene.manager.present() == {}
        assert scene.node.sessions["job"].finished is FinishAction.ABORT


async def test_a_fenced_job_ends_and_leaves_the_session_to_its_new_owner():
    async with living() as scene:
        await halfway(scene)
        scene.store = MemoryStore()  # it knows nothing of the other
        successor = scene.another_manager(2)
        await successor.create(spec_of("backup", **MIRROR, max_chunk_bytes=GRANULE))
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.FAILED
        assert view.fault.reason == "OWNER_MISMATCH"
        await scene.pass_time(20)
        assert successor.get("job").outcome is JobOutcome.SUCCEEDED
        assert successor.get("job").progress.copied_bytes == 64 * GRANULE
        assert scene.node.disks["t"].content == scene.node.disks["a"].content
        await scene.stop(successor)


async def test_a_session_that_somebody_else_ended_fails_the_job():
    async with living() as scene:
        await halfway(scene)
        scene.node.sessions["job"].finished = FinishAction.ABORT
        scene.node.drop_streams()
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.FAILED


async def test_stopping_the_service_cancels_what_can_be_cancelled():
    async with living() as scene:
        await halfway(scene)
        await scene.stop()
        assert scene.node.sessions["job"].finished is FinishAction.ABORT
        assert scene.seen_states()[-3:] == [S.ABORTING, S.CONCLUDED, S.NULL]


async def test_a_stop_that_cannot_reach_the_node_leaves_the_session_safe():
    async with living() as scene:
        await halfway(scene)
        scene.node.go_away()
        await scene.stop()
        assert scene.node.sessions["job"].finished is None
        assert scene.manager.present() == {}


async def test_a_pivot_whose_answer_never_came_is_not_undone_and_the_job_says_so():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        scene.node.lose_answers = 1 << 30
        await scene.manager.complete("job", FinishAction.PIVOT)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.FAILED
        assert view.fault.reason == PeerUnavailable.reason
        assert "PIVOT" in view.fault.metadata["session_left"]
        assert scene.node.guests["vm"] == "t"


async def test_a_resumed_job_shows_what_it_does_again():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **MIRROR, speed_bytes_per_second=GRANULE)
        await scene.until(S.RUNNING)
        await scene.manager.pause("job")
        assert (await scene.until(S.PAUSED)).progress.phase == "paused"
        await scene.manager.resume("job")
        assert (await scene.until(S.RUNNING)).progress.phase == "copying"
