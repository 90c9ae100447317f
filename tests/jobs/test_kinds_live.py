"""Every kind through its life on a small node: what it does to the data, and the states it passes."""

import pytest

from blockyard.base.errors import InvalidArgument, MissingOption, NodeNotFound
from blockyard.jobs.lifecycle.spec import JobOutcome
from blockyard.jobs.lifecycle.table import JobState as S
from blockyard.jobs.node.port import BitmapMode, CopyMode, CopySide, FinishAction, OnCbwError, SyncMode
from tests.support.living_jobs import living
from tests.support.small_node import GRANULE

STRAIGHT = [S.CREATED, S.RUNNING, S.WAITING, S.PENDING, S.CONCLUDED]
CONVERGED = [S.CREATED, S.RUNNING, S.READY, S.WAITING, S.PENDING, S.CONCLUDED]


def mirror(**options):
    return {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL, **options}


async def test_a_mirror_copies_everything_and_waits_ready():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        await scene.start("mirror", **mirror())
        view = await scene.until(S.READY)
        assert scene.node.disks["t"].content == scene.node.disks["a"].content
        assert view.progress.done_bytes == view.progress.total_bytes == view.progress.copied_bytes == 64 * GRANULE
        assert view.progress.phase == "ready"


async def test_a_completed_mirror_moves_the_guest_to_the_target():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        await scene.start("mirror", **mirror())
        await scene.until(S.READY)
        await scene.manager.complete("job", FinishAction.PIVOT)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert scene.node.guests["vm"] == "t"
        assert scene.seen_states() == CONVERGED


async def test_a_detached_mirror_leaves_the_guest_and_a_copy_of_that_instant():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        await scene.start("mirror", **mirror())
        await scene.until(S.READY)
        scene.node.guest_write("vm", 3, b"x" * GRANULE)
        await scene.manager.complete("job", FinishAction.DETACH)
        await scene.until(S.CONCLUDED)
        instant = scene.node.disks["a"].content
        scene.node.guest_write("vm", 4, b"y" * GRANULE)
        assert scene.node.guests["vm"] == "a"
        assert scene.node.disks["t"].content == instant


async def test_a_ready_mirror_follows_the_guest():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        await scene.start("mirror", **mirror())
        await scene.until(S.READY)
        scene.node.guest_write("vm", 7, b"x" * GRANULE)
        await scene.pass_time(0.1)
        assert scene.node.disks["t"].content == scene.node.disks["a"].content
        view = scene.view()
        assert view.progress.total_bytes == 65 * GRANULE
        assert view.state is S.READY


async def test_a_mirror_of_nothing_is_ready_at_once_and_copies_new_writes_only():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        await scene.start("mirror", **mirror(sync=SyncMode.NONE))
        view = await scene.until(S.READY, seconds=0.1)
        assert view.progress.total_bytes == 0
        scene.node.guest_write("vm", 5, b"x" * GRANULE)
        await scene.pass_time(0.1)
        assert scene.node.disks["t"].held == {5}


async def test_a_top_mirror_copies_what_the_top_layer_holds():
    async with living() as scene:
        scene.node.disk("base", fill=b"b")
        scene.node.disk("a", backing="base").write(9, b"n" * GRANULE)
        scene.node.disk("t", backing="base")
        await scene.start("mirror", **mirror(sync=SyncMode.TOP))
        await scene.until(S.READY)
        assert scene.node.disks["t"].held == {9}


async def test_completing_acts_under_a_guest_that_never_rests():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        await scene.start("mirror", **mirror())
        await scene.until(S.READY)
        scene.node.bytes_per_second = 20 * GRANULE
        await scene.manager.complete("job", FinishAction.PIVOT)
        for step in range(100):
            if scene.view().state is S.CONCLUDED:
                break
            scene.node.guest_write("vm", step % 64, bytes([step % 255 + 1]) * GRANULE)
            await scene.pass_time(0.01)
        assert scene.view().outcome is JobOutcome.SUCCEEDED
        assert scene.node.guests["vm"] == "t"


async def test_a_mirror_can_be_changed_to_write_blocking_while_it_runs():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        await scene.start("mirror", **mirror())
        await scene.until(S.READY)
        view = await scene.manager.change("job", CopyMode.WRITE_BLOCKING)
        assert view.spec.kind.options.copy_mode is CopyMode.WRITE_BLOCKING
        scene.node.guest_write("vm", 1, b"x" * GRANULE)
        assert scene.node.disks["t"].read(1) == b"x" * GRANULE


async def test_a_mirror_cannot_be_changed_back_to_background():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        await scene.start("mirror", **mirror(copy_mode=CopyMode.WRITE_BLOCKING))
        with pytest.raises(InvalidArgument, match="WRITE_BLOCKING"):
            await scene.manager.change("job", CopyMode.BACKGROUND)


async def test_a_backup_keeps_the_instant_of_its_start():
    async with living() as scene:
        source = scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        instant = source.content
        scene.node.bytes_per_second = 64 * GRANULE
        await scene.start(
            "backup", node_name="a", target_node_name="t", sync=SyncMode.FULL, max_chunk_bytes=GRANULE
        )
        for step in range(20):
            scene.node.guest_write("vm", 63 - step, b"x" * GRANULE)
            await scene.pass_time(0.05)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.SUCCEEDED
        assert scene.node.disks["t"].content == instant
        assert scene.seen_states() == STRAIGHT


async def test_a_bitmap_backup_copies_what_the_bitmap_says():
    async with living() as scene:
        scene.node.disk("a", fill=b"a").bitmaps["since"] = {2, 40}
        scene.node.disk("t")
        options = {"sync": SyncMode.BITMAP, "bitmap": "since", "bitmap_mode": BitmapMode.NEVER}
        await scene.start("backup", node_name="a", target_node_name="t", **options)
        await scene.until(S.CONCLUDED)
        assert scene.node.disks["t"].held == {2, 40}


async def test_a_backup_of_nothing_runs_until_it_is_cancelled():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        await scene.start("backup", node_name="a", target_node_name="t", sync=SyncMode.NONE)
        await scene.pass_time(100)
        old = scene.node.disks["a"].read(6)
        scene.node.guest_write("vm", 6, b"x" * GRANULE)
        await scene.pass_time(10)
        view = scene.view()
        assert view.state is S.RUNNING
        assert view.progress.copied_bytes == GRANULE
        assert scene.node.disks["t"].read(6) == old
        await scene.manager.cancel("job")
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.CANCELLED
        assert scene.seen_states() == [S.CREATED, S.RUNNING, S.ABORTING, S.CONCLUDED]


async def test_a_backup_whose_instant_was_broken_fails():
    async with living() as scene:
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.guest("vm", "a")
        scene.node.bytes_per_second = 64 * GRANULE
        options = {"sync": SyncMode.FULL, "on_cbw_error": OnCbwError.BREAK_SNAPSHOT, "max_chunk_bytes": GRANULE}
        await scene.start("backup", node_name="a", target_node_name="t", **options)
        await scene.pass_time(0.1)
        scene.node.fail(CopySide.TARGET, range(60, 61))
        scene.node.guest_write("vm", 60, b"x" * GRANULE)
        view = await scene.until(S.CONCLUDED)
        assert view.outcome is JobOutcome.FAILED
        assert view.fault.reason == "SNAPSHOT_BROKEN"


async def test_a_stream_frees_the_node_of_its_chain():
    async with living() as scene:
        scene.node.disk("base", fill=b"b")
        scene.node.disk("mid", backing="base").write(1, b"m" * GRANULE)
        top = scene.node.disk("top", backing="mid")
        top.write(2, b"t" * GRANULE)
        before = top.content
        await scene.start("stream", node_name="top")
        view = await scene.until(S.CONCLUDED)
        assert top.backing is None
        assert top.content == before
        assert view.progress.skipped_bytes == GRANULE
        assert scene.seen_states() == STRAIGHT


async def test_a_stream_to_a_base_keeps_what_is_below_it():
    async with living() as scene:
        base = scene.node.disk("base", fill=b"b")
        scene.node.disk("mid", backing="base").write(1, b"m" * GRANULE)
        top = scene.node.disk("top", backing="mid")
        before = top.content
        await scene.start("stream", node_name="top", base_node_name="base")
        await scene.until(S.CONCLUDED)
        assert top.backing is base
        assert top.held == {1}
        assert top.content == before


async def test_a_commit_between_layers_puts_their_data_into_the_base():
    async with living() as scene:
        base = scene.node.disk("base", fill=b"b")
        scene.node.disk("mid", backing="base").write(1, b"m" * GRANULE)
        top = scene.node.disk("top", backing="mid")
        before = top.content
        await scene.start("commit", node_name="top", top_node_name="mid", base_node_name="base")
        await scene.until(S.CONCLUDED)
        assert top.backing is base
        assert base.read(1) == b"m" * GRANULE
        assert top.content == before
        assert scene.seen_states() == STRAIGHT


async def test_an_active_commit_becomes_ready_and_pivots_to_the_deepest_layer():
    async with living() as scene:
        base = scene.node.disk("base", fill=b"b")
        scene.node.disk("mid", backing="base").write(1, b"m" * GRANULE)
        top = scene.node.disk("top", backing="mid")
        top.write(2, b"t" * GRANULE)
        before = top.content
        scene.node.guest("vm", "top")
        await scene.start("commit", node_name="top")
        await scene.until(S.READY)
        await scene.manager.complete("job", FinishAction.PIVOT)
        await scene.until(S.CONCLUDED)
        assert scene.node.guests["vm"] == "base"
        assert base.content == before
        assert scene.seen_states() == CONVERGED


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("mirror", mirror(sync=SyncMode.BITMAP), "mirror.sync"),
        ("mirror", mirror(sync=None), "mirror.sync"),
        ("mirror", mirror(target_node_name="a"), "mirror.target_node_name"),
        ("mirror", mirror(granularity_bytes=5000), "mirror.granularity_bytes"),
        ("mirror", mirror(granularity_bytes=2048), "mirror.granularity_bytes"),
        ("mirror", mirror(granularity_bytes=-4096), "mirror.granularity_bytes"),
        ("mirror", mirror(buf_size_bytes=1), "mirror.buf_size_bytes"),
        ("mirror", mirror(buf_size_bytes=1 << 40), "mirror.buf_size_bytes"),
        ("mirror", mirror(sync=SyncMode.TOP, replaces_node_name="q"), "mirror.replaces_node_name"),
        ("backup", mirror(sync=None), "backup.sync"),
        ("backup", mirror(sync=SyncMode.BITMAP), "backup.bitmap"),
        ("backup", mirror(bitmap_mode=BitmapMode.ALWAYS), "backup.bitmap_mode"),
        ("backup", mirror(sync=SyncMode.NONE, bitmap="b"), "backup.bitmap"),
        ("backup", mirror(bitmap="b"), "backup.bitmap_mode"),
        ("backup", mirror(bitmap="b", bitmap_mode=BitmapMode.NEVER), "backup.bitmap_mode"),
        ("backup", mirror(max_workers=65), "backup.max_workers"),
        ("backup", mirror(max_workers=-1), "backup.max_workers"),
        ("backup", mirror(max_chunk_bytes=1 << 30), "backup.max_chunk_bytes"),
        ("backup", mirror(target_node_name="a"), "backup.target_node_name"),
        ("stream", {"node_name": "a", "base_node_name": "a"}, "stream.base_node_name"),
        ("stream", {"node_name": "a", "base_node_name": "t"}, "stream.base_node_name"),
        ("commit", {"node_name": "a", "base_node_name": "a"}, "commit.base_node_name"),
        ("commit", {"node_name": "a", "base_node_name": "t"}, "commit.base_node_name"),
        ("commit", {"node_name": "a", "top_node_name": "t"}, "commit.top_node_name"),
        ("commit", {"node_name": "t"}, "commit.base_node_name"),
        ("commit", {"node_name": "a", "backing_file": "x"}, "commit.backing_file"),
    ],
)
async def test_options_that_cannot_be_are_refused_by_the_name_of_their_field(kind, options, field):
    async with living() as scene:
        scene.node.disk("below", fill=b"b")
        scene.node.disk("a", backing="below")
        scene.node.disk("t")
        with pytest.raises(InvalidArgument) as caught:
            await scene.start(kind, **options)
        assert caught.value.name == field
        assert scene.manager.present() == {}
        assert not scene.node.sessions


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mirror", {"sync": SyncMode.FULL}),
        ("mirror", {"node_name": "a"}),
        ("backup", {}),
        ("stream", {}),
        ("commit", {}),
    ],
)
async def test_a_kind_says_which_node_it_cannot_do_without(kind, options):
    async with living() as scene:
        with pytest.raises(MissingOption, match="node_name"):
            await scene.start(kind, **options)


async def test_a_node_that_does_not_exist_refuses_the_job_and_leaves_nothing():
    async with living() as scene:
        scene.node.disk("t")
        with pytest.raises(NodeNotFound):
            await scene.start("mirror", **mirror())
        assert scene.manager.present() == {}
        assert await scene.store.load() == []
        assert scene.seen_states() == [S.CREATED, S.NULL]
