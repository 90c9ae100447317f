"""A copy that fails, hangs or is lost by a restart; and who else may write to the disk."""

import asyncio

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    BlockError,
    CopyTooSlow,
    IoError,
    NoSpace,
    PointInTimeLost,
)
from blockyard.node.drivers._preserving import LATE_MAX
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import (
    ALL,
    CONSISTENT_READ,
    NOTHING,
    RESIZE,
    WRITE,
    Permissions,
)
from tests.drivers import test_copy_before_write as whole
from tests.drivers.test_copy_before_write import GRANULE, OLD, SIZE, Past, turns

past = whole.past


# --- failures --------------------------------------------------------------------------------------------------


async def test_a_failed_copy_fails_the_guest_s_write_and_the_snapshot_stays_whole(past: Past):
    await past.open()
    past.target.error = NoSpace("target", 0)
    for _ in range(2):
        with pytest.raises(NoSpace):
            await past.guest.write(0, b"x")
    assert await past.guest.content() == OLD
    past.target.error = None
    await past.guest.write(0, b"x")
    assert await past.snapshot.content() == OLD
    assert not past.events


async def test_or_it_breaks_the_snapshot_and_the_guest_goes_on(past: Past):
    await past.open(OLD, None, on_cbw_error="break-snapshot")
    await past.guest.write(GRANULE, b"y")
    past.target.error = NoSpace("target", 0)
    await past.guest.write(0, b"x")
    assert await past.disk.content(0, 1) == b"x"
    for request in (
        past.snapshot.content(GRANULE, 1),
        past.snapshot.map(GRANULE, 1),
        past.snapshot.discard(0, SIZE),
    ):
        with pytest.raises(PointInTimeLost) as lost:
            await request
    assert "NO_SPACE" in lost.value.failure or "space" in lost.value.failure
    ((kind, details),) = past.events
    assert (kind, details["target"]) == ("point-in-time-lost", past.target.node_name)
    writes = len(past.target.writes)
    await past.guest.zero(0, SIZE)
    assert len(past.target.writes) == writes, "nothing is copied any more"
    info = (await past.guest.driver.info()).specific
    assert (info["lost"], info["left-to-copy"]) == (True, 0)


async def test_a_read_under_way_when_the_snapshot_breaks_is_not_believed(past: Past):
    await past.open(OLD, None, on_cbw_error="break-snapshot")
    past.target.error = IoError("target", "write", 5, "Input/output error")
    past.disk.reading = asyncio.Event()
    reading = asyncio.create_task(past.snapshot.content(0, 4096))
    await turns()
    held, past.disk.reading = past.disk.reading, asyncio.Event()
    past.disk.reading.set()
    await past.guest.write(0, b"x" * 4096)
    held.set()
    with pytest.raises(PointInTimeLost):
        await reading


async def test_a_copy_that_takes_too_long_fails_the_write_and_goes_on(past: Past):
    await past.open(OLD, None, cbw_timeout=5)
    clock = past.ground.clock
    assert isinstance(clock, VirtualClock)
    past.target.writing = asyncio.Event()
    writing = asyncio.create_task(past.guest.write(0, b"x"))
    await turns()
    await clock.advance(4.9)
    assert not writing.done()
    await clock.advance(0.2)
    with pytest.raises(CopyTooSlow) as slow:
        await writing
    assert slow.value.seconds == 5
    assert await past.disk.content() == OLD
    past.target.writing.set()
    await turns()
    assert await past.left() == SIZE - GRANULE, "the copy went on"
    await past.guest.write(0, b"x")
    assert len(past.target.writes) == 1
    assert await past.snapshot.content() == OLD


async def test_or_breaks_the_snapshot_after_its_time(past: Past):
    await past.open(OLD, None, cbw_timeout=5, on_cbw_error="break-snapshot")
    clock = past.ground.clock
    assert isinstance(clock, VirtualClock)
    past.target.writing = asyncio.Event()
    writing = asyncio.create_task(past.guest.write(0, b"x"))
    await turns()
    await clock.advance(5)
    await writing
    assert await past.disk.content(0, 1) == b"x"
    with pytest.raises(PointInTimeLost):
        await past.snapshot.content()
    past.target.writing.set()


async def test_a_copy_in_time_leaves_no_timer(past: Past):
    await past.open(OLD, None, cbw_timeout=5)
    await past.guest.write(0, b"x")
    await turns()
    assert isinstance(past.ground.clock, VirtualClock)
    assert past.ground.clock.sleepers == 0


async def test_copies_that_hang_are_bounded(past: Past):
    await past.open(OLD, None, cbw_timeout=5)
    assert isinstance(past.ground.clock, VirtualClock)
    past.target.writing = asyncio.Event()
    for _ in range(LATE_MAX // 16 + 1):
        writes = [asyncio.create_task(past.guest.write(at * GRANULE, b"x")) for at in range(16)]
        await turns()
        await past.ground.clock.advance(6)
        ended = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(each, CopyTooSlow) for each in ended)
    assert len(past.target.writes) <= LATE_MAX
    with pytest.raises(BlockError):
        past.guest.driver.begin_snapshot()


async def test_after_a_restart_there_is_no_point_in_time_and_guests_go_on(past: Past):
    disk = await past.ground.open("memory", {"size": SIZE})
    target = await past.ground.open("memory", {"size": SIZE})
    events: list[tuple[str, dict[str, str]]] = []
    guest = await past.ground.open(
        "copy-before-write",
        {"bitmap_node": "n", "bitmap_name": "gone"},
        {"file": disk, "target": target},
        restored=True,
        report=lambda kind, details: events.append((kind, dict(details))),
    )
    snapshot = await past.ground.open("snapshot-access", {}, {"file": guest})
    await guest.write(0, b"x")
    with pytest.raises(PointInTimeLost) as lost:
        await snapshot.content(0, 1)
    assert "restarted" in lost.value.failure
    assert [kind for kind, _ in events] == ["point-in-time-lost"]
    assert await target.content() == bytes(SIZE)


# --- permissions -----------------------------------------------------------------------------------------------


async def test_nobody_writes_the_disk_past_a_filter_that_has_users(past: Past):
    await past.open()
    ask = past.guest.driver.child_permissions
    alone = ask("file", Role.FILTERED, NOTHING, writable=True)
    inserted = ask("file", Role.FILTERED, Permissions(WRITE, ALL), writable=True)
    assert alone == NOTHING
    assert inserted == Permissions(WRITE | CONSISTENT_READ, ALL & ~(WRITE | RESIZE))
    assert ask("target", Role.TARGET, NOTHING, writable=True) == Permissions(WRITE, ALL & ~RESIZE)
    assert not ask("target", Role.TARGET, NOTHING, writable=False).used
