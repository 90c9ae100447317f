"""Pacing, window, progress and the bell, each on its own."""

import asyncio

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.units import KIB, MIB
from blockyard.jobs.copying.bell import LONGEST_DELAY_NS, Bell, Tries
from blockyard.jobs.copying.pacing import SLICE_NS, Pacer
from blockyard.jobs.copying.progress import SAMPLE_NS, SPAN_NS, Progress
from blockyard.jobs.copying.window import MAX_ORDERS, Window
from blockyard.jobs.node.port import Report, Session, SyncMode
from tests.support.living_jobs import living
from tests.support.small_node import GRANULE

SECOND = 1_000_000_000


def bytes_in(pacer: Pacer, seconds: float, piece: int, start_ns: int = 0) -> int:
    """How much a copier that is otherwise infinitely fast moves."""
    now, end, total = start_ns, start_ns + round(seconds * SECOND), 0
    while now < end:
        delay = pacer.delay_ns(now)
        if delay:
            now += delay
            continue
        pacer.account(piece, now)
        total += piece
    return total


@pytest.mark.parametrize("piece", [64 * KIB, 100 * KIB, MIB, 4 * MIB])
@pytest.mark.parametrize("speed", [MIB, 10 * MIB, 333 * MIB])
def test_a_limit_holds_on_average_within_a_piece(speed, piece):
    moved = bytes_in(Pacer(speed), 20, piece)
    assert abs(moved - 20 * speed) <= piece + speed * SLICE_NS // SECOND


def test_no_limit_never_waits():
    pacer = Pacer(0)
    pacer.account(1 << 40, 0)
    assert pacer.delay_ns(0) == 0


def test_an_unused_slice_is_not_saved_up():
    pacer = Pacer(10 * MIB)
    pacer.account(64 * KIB, 0)
    moved = bytes_in(pacer, 1, 64 * KIB, start_ns=100 * SECOND)
    assert moved <= 11 * MIB + 128 * KIB


def test_a_raised_limit_acts_at_once():
    pacer = Pacer(1)
    pacer.account(MIB, 0)
    assert pacer.delay_ns(0) > 1000 * SECOND
    pacer.set_speed(0)
    assert pacer.delay_ns(0) == 0
    pacer.set_speed(MIB)
    assert pacer.delay_ns(0) == 0


def test_a_limit_keeps_little_in_flight():
    assert Pacer(0).allowance(16 * MIB, 64 * KIB) == 16 * MIB
    assert Pacer(10 * MIB).allowance(16 * MIB, 64 * KIB) == MIB
    assert Pacer(1000).allowance(16 * MIB, 64 * KIB) == 64 * KIB
    assert Pacer(1 << 40).allowance(16 * MIB, 64 * KIB) == 16 * MIB


def test_a_window_is_filled_with_whole_orders_up_to_its_bytes():
    window = Window(16 * MIB, 4 * MIB)
    sizes = []
    while size := window.room(16 * MIB, 1 << 40):
        window.take(size)
        sizes.append(size)
    assert sizes == [4 * MIB] * 4


def test_a_window_bounds_the_number_of_orders():
    window = Window(16 * MIB, 64 * KIB, max_orders=3)
    for _ in range(3):
        window.take(window.room(16 * MIB, 1 << 40))
    assert window.room(16 * MIB, 1 << 40) == 0


def test_no_more_orders_go_out_than_there_is_work_but_one_always_may():
    window = Window(16 * MIB, 4 * MIB)
    assert window.room(16 * MIB, 0) == 4 * MIB
    window.take(4 * MIB)
    assert window.room(16 * MIB, 3 * MIB) == 0
    assert window.room(16 * MIB, 5 * MIB) == 4 * MIB


def test_an_order_ends_once_and_ids_are_never_used_again():
    window = Window()
    first = window.take(100)
    assert window.give_back(first)
    assert not window.give_back(first)
    assert window.take(100) != first
    window.clear()
    assert (window.orders, window.bytes_in_flight) == (0, 0)


def session(**figures: int) -> Session:
    base = {"remaining_bytes": 0, "copied_bytes": 0, "zero_bytes": 0, "skipped_bytes": 0}
    return Session("s", "f", 4096, 1 << 30, **{**base, **figures})


def test_progress_adds_up_reports():
    progress = Progress()
    progress.add(Report(1, 10, 20, 30, remaining_bytes=40), 0, 0)
    progress.add(Report(2, 1, 2, 3, remaining_bytes=34), 0, 0)
    view = progress.view(0)
    assert (view.copied_bytes, view.zero_bytes, view.skipped_bytes) == (11, 22, 33)
    assert (view.done_bytes, view.total_bytes) == (66, 100)


def test_progress_takes_the_sessions_figures_and_never_goes_back():
    progress = Progress()
    progress.add(Report(1, copied_bytes=10, remaining_bytes=90), 0, 0)
    progress.adopt(session(copied_bytes=30, remaining_bytes=70), 0, 0)
    assert progress.done_bytes == 30
    progress.adopt(session(copied_bytes=5, remaining_bytes=95), 0, 0)
    assert progress.done_bytes == 30


def test_rate_and_eta_come_from_the_last_seconds():
    progress = Progress()
    progress.adopt(session(remaining_bytes=1000 * MIB), 0, 0)
    for tick in range(1, 101):
        speed = MIB if tick <= 50 else 10 * MIB
        remaining = progress.remaining_bytes - speed
        progress.add(Report(tick, copied_bytes=speed, remaining_bytes=remaining), tick * SAMPLE_NS, tick)
    view = progress.view(100 * SAMPLE_NS)
    assert view.rate_bytes_per_second == pytest.approx(100 * MIB, rel=0.05)
    assert view.eta_seconds == pytest.approx(view.total_bytes / (100 * MIB) - 5.5, rel=0.3)
    assert view.last_movement_wall_ns == 100
    assert len(progress._samples) <= SPAN_NS // SAMPLE_NS + 2


def test_a_stalled_job_loses_its_rate_and_its_eta():
    progress = Progress()
    progress.adopt(session(remaining_bytes=100 * MIB), 0, 0)
    progress.add(Report(1, copied_bytes=MIB, remaining_bytes=99 * MIB), SECOND, 1)
    assert progress.view(SECOND).rate_bytes_per_second > 0
    late = progress.view(3600 * SECOND)
    assert late.rate_bytes_per_second < 1000


def test_a_guest_that_writes_as_fast_as_the_job_copies_leaves_no_eta():
    progress = Progress()
    progress.adopt(session(remaining_bytes=100 * MIB), 0, 0)
    progress.add(Report(1, copied_bytes=MIB, remaining_bytes=100 * MIB, dirtied_bytes=MIB), SECOND, 1)
    view = progress.view(SECOND)
    assert view.eta_seconds is None
    assert view.dirty_rate_bytes_per_second == MIB


def test_tries_wait_longer_each_time_and_come_to_an_end():
    tries, now, delays = Tries(30 * SECOND), 0, []
    while (delay := tries.failed(now)) is not None:
        delays.append(delay)
        now += delay
    assert delays[:3] == [50_000_000, 100_000_000, 200_000_000]
    assert max(delays) == LONGEST_DELAY_NS
    assert 30 * SECOND <= now <= 32 * SECOND
    tries.worked()
    assert tries.failed(now) == 50_000_000


async def test_a_bell_wakes_at_its_ringing_or_when_time_is_up():
    clock = VirtualClock()
    bell = Bell(clock)
    waits = asyncio.create_task(bell.wait(5))
    await clock.advance(0)
    await clock.advance(4.9)
    assert not waits.done()
    await clock.advance(0.2)
    assert waits.done()
    bell.clear()
    waits = asyncio.create_task(bell.wait(5))
    await clock.advance(0)
    await clock.advance(1)
    bell.ring()
    await clock.advance(0)
    assert waits.done()


async def test_a_bell_that_rings_while_its_waiter_is_cancelled_does_not_keep_it():
    clock = VirtualClock()
    bell = Bell(clock)

    async def listener():
        while True:
            bell.clear()
            await bell.wait(60)

    task = asyncio.create_task(listener())
    await clock.advance(0)
    bell.ring()
    task.cancel()
    await clock.advance(0)
    assert task.cancelled()


@pytest.mark.parametrize("speed", [8 * GRANULE, 32 * GRANULE])
async def test_a_job_keeps_its_speed_limit(speed):
    async with living() as scene:
        scene.node.disk("a", granules=512, fill=b"a")
        scene.node.disk("t", granules=512)
        options = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}
        await scene.start("mirror", **options, speed_bytes_per_second=speed)
        await scene.pass_time(5)
        assert scene.view().progress.done_bytes == pytest.approx(5 * speed, rel=0.15, abs=2 * GRANULE)
        assert scene.view().progress.rate_bytes_per_second == pytest.approx(speed, rel=0.2)


async def test_a_speed_limit_changes_while_the_job_runs():
    async with living() as scene:
        scene.node.disk("a", granules=512, fill=b"a")
        scene.node.disk("t", granules=512)
        options = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}
        await scene.start("mirror", **options, speed_bytes_per_second=1)
        await scene.pass_time(5)
        assert scene.view().progress.done_bytes <= 2 * GRANULE
        await scene.manager.set_speed("job", 10 * GRANULE)
        before = scene.view().progress.done_bytes
        await scene.pass_time(5)
        assert scene.view().progress.done_bytes - before == pytest.approx(50 * GRANULE, rel=0.15)
        await scene.manager.set_speed("job", 0)
        await scene.pass_time(0.1)
        assert scene.view().state == "READY"


async def test_zeroes_and_passed_over_ranges_are_not_limited():
    async with living() as scene:
        scene.node.disk("a", granules=512)
        scene.node.disk("t", granules=512)
        options = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}
        await scene.start("mirror", **options, speed_bytes_per_second=1)
        await scene.pass_time(1)
        assert scene.view().state == "READY"
        assert scene.view().progress.zero_bytes == 512 * GRANULE


async def test_large_copies_need_few_orders():
    async with living() as scene:
        scene.node.disk("a", granules=8192, fill=b"a")
        scene.node.disk("t", granules=8192)
        await scene.start("backup", node_name="a", target_node_name="t", sync=SyncMode.FULL)
        await scene.pass_time(1)
        assert scene.view().state == "CONCLUDED"
        assert len(scene.node.orders) <= 8192 * GRANULE // (4 * MIB) + MAX_ORDERS // 8
