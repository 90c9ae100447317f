"""Every verb in every state: accepted or refused as the table says, and what then happens."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import product

import pytest

from blockyard.base.errors import JobVerbNotAllowed
from blockyard.jobs.lifecycle import table
from blockyard.jobs.lifecycle.spec import JobOutcome
from blockyard.jobs.lifecycle.table import JobState as S
from blockyard.jobs.lifecycle.table import JobVerb as V
from blockyard.jobs.node.port import CopyMode, FinishAction, SyncMode
from tests.support.living_jobs import Scene, living
from tests.support.small_node import GRANULE

MIRROR = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}


async def created(scene: Scene) -> None:
    scene.node.create_gate.clear()
    scene.creation = asyncio.create_task(scene.start("mirror", **MIRROR))
    await scene.pass_time()


async def running(scene: Scene) -> None:
    scene.node.bytes_per_second = GRANULE
    await scene.start("mirror", **MIRROR, buf_size_bytes=65536)
    await scene.until(S.RUNNING)


async def paused(scene: Scene) -> None:
    await running(scene)
    await scene.manager.pause("job")
    await scene.until(S.PAUSED)


async def ready(scene: Scene) -> None:
    await scene.start("mirror", **MIRROR, auto_finalize=False)
    await scene.until(S.READY)


async def standby(scene: Scene) -> None:
    await ready(scene)
    await scene.manager.pause("job")
    await scene.until(S.STANDBY)


async def waiting(scene: Scene) -> None:
    scene.transaction.gate.clear()
    await ready(scene)
    await scene.manager.complete("job", FinishAction.PIVOT)
    await scene.until(S.WAITING)


async def pending(scene: Scene) -> None:
    await ready(scene)
    await scene.manager.complete("job", FinishAction.PIVOT)
    await scene.until(S.PENDING)


async def aborting(scene: Scene) -> None:
    await ready(scene)
    scene.node.finish_gate.clear()
    await scene.manager.cancel("job")
    await scene.until(S.ABORTING)


async def concluded(scene: Scene) -> None:
    await pending(scene)
    await scene.manager.finalize("job")
    await scene.until(S.CONCLUDED)


BRING: dict[S, Callable[[Scene], Awaitable[None]]] = {
    S.CREATED: created,
    S.RUNNING: running,
    S.PAUSED: paused,
    S.READY: ready,
    S.STANDBY: standby,
    S.WAITING: waiting,
    S.PENDING: pending,
    S.ABORTING: aborting,
    S.CONCLUDED: concluded,
}

SAY: dict[V, Callable[[Scene], Awaitable[object]]] = {
    V.CANCEL: lambda scene: scene.manager.cancel("job"),
    V.PAUSE: lambda scene: scene.manager.pause("job"),
    V.RESUME: lambda scene: scene.manager.resume("job"),
    V.SET_SPEED: lambda scene: scene.manager.set_speed("job", 1 << 20),
    V.COMPLETE: lambda scene: scene.manager.complete("job", FinishAction.PIVOT),
    V.FINALIZE: lambda scene: scene.manager.finalize("job"),
    V.DISMISS: lambda scene: scene.manager.dismiss("job"),
    V.CHANGE: lambda scene: scene.manager.change("job", CopyMode.WRITE_BLOCKING),
}


def release(scene: Scene) -> None:
    scene.node.create_gate.set()
    scene.node.finish_gate.set()
    scene.transaction.gate.set()


def stage(scene: Scene) -> None:
    scene.node.disk("a", fill=b"a")
    scene.node.disk("t")
    scene.node.guest("vm", "a")


@pytest.mark.parametrize(("state", "verb"), list(product(BRING, SAY)))
async def test_a_verb_is_accepted_exactly_in_the_states_of_the_table(state, verb):
    async with living() as scene:
        stage(scene)
        await BRING[state](scene)
        assert scene.view().state is state
        assert (verb in scene.view().allowed_verbs) is table.accepts(state, verb)
        said = asyncio.create_task(SAY[verb](scene))
        await scene.pass_time()
        release(scene)
        if table.accepts(state, verb):
            await said
        else:
            with pytest.raises(JobVerbNotAllowed) as refused:
                await said
            assert refused.value.state == state
            assert refused.value.verb == verb
        await scene.pass_time(1)


@pytest.mark.parametrize("state", [S.CREATED, S.RUNNING, S.PAUSED, S.READY, S.STANDBY, S.WAITING, S.PENDING])
async def test_cancel_ends_without_effect_from_every_state_that_accepts_it(state):
    async with living() as scene:
        stage(scene)
        await BRING[state](scene)
        await scene.manager.cancel("job")
        release(scene)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.CANCELLED
        assert view.fault.reason == "JOB_CANCELLED"
        assert scene.node.guests["vm"] == "a"
        assert scene.node.sessions["job"].finished is FinishAction.ABORT


async def test_cancelling_a_paused_job_passes_through_running():
    async with living() as scene:
        stage(scene)
        await paused(scene)
        await scene.manager.cancel("job")
        await scene.until(S.CONCLUDED)
        assert scene.seen_states()[2:] == [S.PAUSED, S.RUNNING, S.ABORTING, S.CONCLUDED]


async def test_cancelling_a_job_in_standby_passes_through_ready():
    async with living() as scene:
        stage(scene)
        await standby(scene)
        await scene.manager.cancel("job")
        await scene.until(S.CONCLUDED)
        assert scene.seen_states()[2:] == [S.READY, S.STANDBY, S.READY, S.ABORTING, S.CONCLUDED]


async def test_cancelling_a_job_that_was_never_started_skips_running():
    async with living() as scene:
        stage(scene)
        await created(scene)
        await scene.manager.cancel("job")
        release(scene)
        await scene.until(S.CONCLUDED)
        assert scene.seen_states() == [S.CREATED, S.ABORTING, S.CONCLUDED]


async def test_complete_in_standby_is_accepted_at_once_and_acts_after_resume():
    async with living() as scene:
        stage(scene)
        await standby(scene)
        view = await scene.manager.complete("job", FinishAction.PIVOT)
        await scene.pass_time(5)
        assert view.state is scene.view().state is S.STANDBY
        await scene.manager.resume("job")
        await scene.until(S.PENDING)
        assert scene.seen_states() == [S.CREATED, S.RUNNING, S.READY, S.STANDBY, S.READY, S.WAITING, S.PENDING]


async def test_a_pause_before_the_start_takes_effect_after_it():
    async with living() as scene:
        stage(scene)
        await created(scene)
        await scene.manager.pause("job")
        release(scene)
        view = await scene.until(S.PAUSED)
        assert view.user_paused
        assert view.progress.done_bytes == 0
        assert scene.seen_states() == [S.CREATED, S.RUNNING, S.PAUSED]


async def test_a_paused_job_copies_nothing_and_goes_on_where_it_stopped():
    async with living() as scene:
        stage(scene)
        await paused(scene)
        done, orders = scene.view().progress.done_bytes, len(scene.node.orders)
        await scene.pass_time(100)
        assert (scene.view().progress.done_bytes, len(scene.node.orders)) == (done, orders)
        scene.node.bytes_per_second = 0
        await scene.manager.resume("job")
        view = await scene.until(S.READY)
        assert view.progress.copied_bytes == 64 * GRANULE


async def test_pausing_and_resuming_twice_is_harmless():
    async with living() as scene:
        stage(scene)
        await paused(scene)
        assert (await scene.manager.pause("job")).state is S.PAUSED
        await scene.manager.resume("job")
        await scene.until(S.RUNNING)
        assert (await scene.manager.resume("job")).state is S.RUNNING


async def test_a_standby_job_does_not_follow_the_guest_until_it_is_resumed():
    async with living() as scene:
        stage(scene)
        await standby(scene)
        scene.node.guest_write("vm", 3, b"x" * GRANULE)
        await scene.pass_time(10)
        assert scene.node.disks["t"].read(3) != b"x" * GRANULE
        await scene.manager.resume("job")
        await scene.pass_time(1)
        assert scene.node.disks["t"].read(3) == b"x" * GRANULE


async def test_a_pending_mirror_still_follows_the_guest():
    async with living() as scene:
        stage(scene)
        await pending(scene)
        scene.node.guest_write("vm", 3, b"x" * GRANULE)
        await scene.pass_time(1)
        assert scene.node.disks["t"].read(3) == b"x" * GRANULE
        assert scene.node.guests["vm"] == "a"
        await scene.manager.finalize("job")
        await scene.until(S.CONCLUDED)
        assert scene.node.guests["vm"] == "t"


async def test_the_last_action_asked_of_complete_counts():
    async with living() as scene:
        stage(scene)
        await standby(scene)
        await scene.manager.complete("job", FinishAction.PIVOT)
        await scene.manager.complete("job", FinishAction.DETACH)
        await scene.manager.resume("job")
        await scene.until(S.PENDING)
        await scene.manager.finalize("job")
        await scene.until(S.CONCLUDED)
        assert scene.node.guests["vm"] == "a"


async def test_complete_after_cancel_is_refused():
    async with living() as scene:
        stage(scene)
        await standby(scene)
        await scene.manager.cancel("job")
        with pytest.raises(JobVerbNotAllowed):
            await scene.manager.complete("job", FinishAction.PIVOT)


async def test_while_the_graph_changes_only_finalize_is_accepted():
    async with living() as scene:
        stage(scene)
        await pending(scene)
        scene.node.finish_gate.clear()
        await scene.manager.finalize("job")
        await scene.pass_time()
        assert scene.view().allowed_verbs == (V.FINALIZE,)
        with pytest.raises(JobVerbNotAllowed):
            await scene.manager.cancel("job")
        await scene.manager.finalize("job")
        release(scene)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED


async def test_a_dismissed_job_is_gone_and_its_name_is_free():
    async with living() as scene:
        stage(scene)
        await concluded(scene)
        await scene.manager.dismiss("job")
        assert scene.manager.present() == {}
        assert scene.seen_states()[-1] is S.NULL
        assert await scene.store.load() == []
        scene.node.guest("vm", "a")
        await scene.start("mirror", **MIRROR)


async def test_with_auto_dismiss_a_job_is_gone_when_it_ends():
    async with living() as scene:
        stage(scene)
        await scene.start("stream", node_name="a", auto_dismiss=True)
        await scene.pass_time(1)
        assert scene.manager.present() == {}
        assert scene.seen_states()[-2:] == [S.CONCLUDED, S.NULL]


async def test_forced_cancel_does_not_wait_for_what_is_in_flight():
    async with living() as scene:
        stage(scene)
        scene.node.bytes_per_second = 1
        await scene.start("mirror", **MIRROR)
        await scene.pass_time(1)
        await scene.manager.cancel("job")
        await scene.pass_time(1)
        assert scene.view().state is S.RUNNING
        await scene.manager.cancel("job", force=True)
        await scene.until(S.CONCLUDED, seconds=1)
