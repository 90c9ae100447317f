"""What a job does when copying fails, by policy and side, for every kind."""

from itertools import product

import pytest

from blockyard.base.errors import IoError, NoSpace
from blockyard.jobs.copying.policy import IoStatus, OnError, Reaction, react
from blockyard.jobs.lifecycle.spec import JobOutcome
from blockyard.jobs.lifecycle.table import JobState as S
from blockyard.jobs.node.port import CopySide, FinishAction, SyncMode
from tests.support.living_jobs import Scene, living
from tests.support.small_node import GRANULE

FULL, OTHER = NoSpace.reason, IoError.reason
SIDES = (CopySide.SOURCE, CopySide.TARGET)
STOPS = {(OnError.STOP, FULL), (OnError.STOP, OTHER), (OnError.ENOSPC, FULL), (OnError.AUTO, FULL)}
FAILS = {(OnError.REPORT, FULL), (OnError.REPORT, OTHER), (OnError.ENOSPC, OTHER), (OnError.AUTO, OTHER)}
TWO_SIDED = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}


def stage(scene: Scene) -> None:
    scene.node.disk("base", fill=b"b")
    scene.node.disk("a", backing="base")
    scene.node.disk("t")
    scene.node.guest("vm", "a")


def options(kind: str, side: CopySide, policy: OnError) -> dict:
    if kind in ("mirror", "backup"):
        return {**TWO_SIDED, f"on_{side.lower()}_error": policy}
    return {"node_name": "a", "on_error": policy}


@pytest.mark.parametrize(("policy", "reason"), list(product(OnError, (FULL, OTHER))))
def test_the_table_of_reactions_is_qemus(policy, reason):
    expected = Reaction.STOP if (policy, reason) in STOPS else Reaction.IGNORE
    assert react(policy, reason) is (Reaction.REPORT if (policy, reason) in FAILS else expected)


@pytest.mark.parametrize(
    ("kind", "side", "policy_and_reason"),
    list(product(("mirror", "backup", "commit", "stream"), SIDES, sorted(FAILS))),
)
async def test_a_reported_error_fails_the_job_and_undoes_the_session(kind, side, policy_and_reason):
    policy, reason = policy_and_reason
    async with living() as scene:
        stage(scene)
        scene.node.fail(side, range(20, 21), reason)
        await scene.start(kind, **options(kind, side, policy))
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.FAILED
        assert (view.fault.reason, view.fault.side) == (reason, side)
        assert view.fault.metadata == {"offset": str(20 * GRANULE), "length": str(GRANULE)}
        assert view.io_status is IoStatus.OK
        assert scene.node.sessions["job"].finished is FinishAction.ABORT
        assert scene.seen_states() == [S.CREATED, S.RUNNING, S.ABORTING, S.CONCLUDED]


@pytest.mark.parametrize(
    ("kind", "side", "policy_and_reason"),
    list(product(("mirror", "backup", "commit", "stream"), SIDES, sorted(STOPS))),
)
async def test_a_stopping_error_pauses_until_resume_which_clears_io_status(kind, side, policy_and_reason):
    policy, reason = policy_and_reason
    async with living() as scene:
        stage(scene)
        scene.node.fail(side, range(20, 21), reason)
        await scene.start(kind, **options(kind, side, policy))
        view = await scene.until(S.PAUSED)
        assert view.io_status is (IoStatus.NOSPACE if reason == FULL else IoStatus.FAILED)
        assert (view.fault.reason, view.user_paused) == (reason, False)
        assert (await scene.manager.resume("job")).io_status is IoStatus.OK
        view = await scene.until(S.READY, S.CONCLUDED)
        assert view.outcome in (None, JobOutcome.SUCCEEDED)
        assert scene.seen_states()[:4] == [S.CREATED, S.RUNNING, S.PAUSED, S.RUNNING]


@pytest.mark.parametrize(
    ("kind", "side", "reason"), list(product(("mirror", "backup", "commit"), SIDES, (FULL, OTHER)))
)
async def test_an_ignored_error_is_tried_again_until_it_works(kind, side, reason):
    async with living() as scene:
        stage(scene)
        scene.node.fail(side, range(20, 21), reason, times=3)
        await scene.start(kind, **options(kind, side, OnError.IGNORE))
        view = await scene.until(S.READY, S.CONCLUDED)
        assert view.ignored_errors == 3
        assert view.progress.done_bytes == 64 * GRANULE
        assert view.outcome in (None, JobOutcome.SUCCEEDED)


async def test_an_error_that_never_ends_is_not_tried_in_a_hurry():
    async with living() as scene:
        stage(scene)
        scene.node.fail(CopySide.TARGET, range(20, 21), FULL, times=1 << 30)
        await scene.start("mirror", **options("mirror", CopySide.TARGET, OnError.IGNORE))
        await scene.pass_time(60)
        assert scene.view().state is S.RUNNING
        assert 20 < scene.view().ignored_errors < 50


@pytest.mark.parametrize("reason", [FULL, OTHER])
async def test_a_stream_leaves_out_what_it_ignores_and_fails_in_the_end(reason):
    async with living() as scene:
        stage(scene)
        scene.node.fail(CopySide.SOURCE, range(20, 22), reason, times=1 << 30)
        await scene.start("stream", **options("stream", CopySide.SOURCE, OnError.IGNORE))
        view = await scene.until(S.CONCLUDED)
        top = scene.node.disks["a"]
        assert view.outcome is JobOutcome.FAILED
        assert view.fault.reason == reason
        assert view.ignored_errors == 2
        assert top.held == set(top.granules) - {20, 21}
        assert top.backing is scene.node.disks["base"]


async def test_an_error_makes_a_ready_job_unready_until_it_has_caught_up():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **options("mirror", CopySide.TARGET, OnError.IGNORE))
        await scene.until(S.READY)
        scene.node.fail(CopySide.TARGET, range(5, 6), OTHER, times=6)
        scene.node.guest_write("vm", 5, b"x" * GRANULE)
        await scene.pass_time(0.01)
        await scene.manager.complete("job", FinishAction.PIVOT)
        await scene.pass_time(0.3)
        assert scene.view().state is S.READY
        assert scene.view().progress.phase == "converging"
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert scene.node.disks["t"].read(5) == b"x" * GRANULE


async def test_a_stopping_error_in_ready_leads_to_standby():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **options("mirror", CopySide.TARGET, OnError.STOP))
        await scene.until(S.READY)
        scene.node.fail(CopySide.TARGET, range(5, 6), OTHER)
        scene.node.guest_write("vm", 5, b"x" * GRANULE)
        view = await scene.until(S.STANDBY)
        assert view.io_status is IoStatus.FAILED
        await scene.manager.resume("job")
        await scene.until(S.READY)
        await scene.pass_time(1)
        assert scene.node.disks["t"].read(5) == b"x" * GRANULE


@pytest.mark.parametrize("kind", ["mirror", "backup", "commit", "stream"])
async def test_an_error_of_the_graph_change_fails_the_job(kind):
    async with living() as scene:
        stage(scene)
        scene.node.finish_errors.append(IoError("t", "flush", 5, "injected"))
        await scene.start(kind, **options(kind, CopySide.TARGET, OnError.IGNORE))
        if (await scene.until(S.READY, S.CONCLUDED)).state is S.READY:
            await scene.manager.complete("job", FinishAction.PIVOT)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.FAILED
        assert scene.node.guests["vm"] == "a"
        assert scene.seen_states()[-3:] == [S.PENDING, S.ABORTING, S.CONCLUDED]
