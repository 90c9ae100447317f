"""Guests, orders and ends of sessions that meet at the worst instant, brought about one by one."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from blockyard.base.errors import IoError
from blockyard.base.units import MIB
from blockyard.node.copying.mirror import MirrorSession
from blockyard.node.copying.spec import BitmapMode, CopyKind, CopyMode, FinishAction, Order, SyncMode
from blockyard.node.graph import recording
from blockyard.node.interface.flags import NO_FALLBACK
from tests.support.gated import Gate, Gates
from tests.support.scenes import GRANULE, job, source_and_target
from tests.support.yard import Yard, random_bytes, work_off

BROKEN = IoError("target", "write", 5, "Input/output error")


async def started(gate: Gate, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """The work as a task that has come to the gate."""
    task = asyncio.create_task(work)
    await gate.reached.wait()
    return task


async def turns(count: int = 100) -> None:
    """Let everyone go on who can without the disk."""
    for _ in range(count):
        await asyncio.sleep(0)


ENDS = [
    (CopyKind.MIRROR, FinishAction.PIVOT),
    (CopyKind.MIRROR, FinishAction.ABORT),
    (CopyKind.BACKUP, FinishAction.COMPLETE),
    (CopyKind.BACKUP, FinishAction.ABORT),
]


@pytest.mark.parametrize(("kind", "action"), ENDS)
async def test_an_end_waits_for_what_orders_still_move(
    ground: Yard, gates: Gates, kind: CopyKind, action: FinishAction
) -> None:
    data = await source_and_target(ground)
    session = await ground.sessions.create(job(kind), 1)
    gate = gates.hold("target.raw", "write")
    order = await started(gate, session.run(Order(1, 8 * MIB)))
    ending = asyncio.create_task(ground.sessions.finish("j", 1, action))
    await turns()
    assert not ending.done()
    gate.open()
    await ending
    if action is not FinishAction.ABORT:
        assert await ground.content("target") == data
    writes = gates.seen.count(("target.raw", "write"))
    await order
    assert gates.seen.count(("target.raw", "write")) == writes


async def test_an_order_that_arrives_while_an_end_fails_goes_on_with_the_session(
    ground: Yard, gates: Gates
) -> None:
    data = await source_and_target(ground)
    session = await ground.sessions.create(job(CopyKind.MIRROR), 1)
    gate = gates.hold("target.raw", "write")
    ending = await started(gate, ground.sessions.finish("j", 1, FinishAction.PIVOT))
    order = asyncio.create_task(session.run(Order(1, 8 * MIB)))
    await turns()
    assert not order.done()
    gate.error = BROKEN
    gate.open()
    with pytest.raises(IoError):
        await ending
    gates.gates.clear()
    assert (await order).failure is None
    await ground.sessions.finish("j", 1, FinishAction.PIVOT)
    assert await ground.content("target") == data


async def test_a_write_across_the_cut_last_granule_leaves_its_rest_to_be_copied(ground: Yard) -> None:
    data = bytearray(await source_and_target(ground, 2 * GRANULE + GRANULE // 2))
    session = await ground.sessions.create(job(CopyKind.MIRROR, CopyMode.WRITE_BLOCKING), 1)
    guest = ground.use("source")
    await guest.write(GRANULE, b"a" * (GRANULE + 4096))
    data[GRANULE : 2 * GRANULE + 4096] = b"a" * (GRANULE + 4096)
    await work_off(session)
    await ground.sessions.finish("j", 1, FinishAction.PIVOT)
    assert await ground.content("target") == bytes(data)
    ground.graph.release(guest)


async def test_a_write_from_before_write_blocking_is_copied_although_one_beside_it_was_not_left(
    ground: Yard, gates: Gates
) -> None:
    data = bytearray(await source_and_target(ground))
    session = await ground.sessions.create(job(CopyKind.MIRROR), 1)
    assert isinstance(session, MirrorSession)
    await work_off(session)
    guest = ground.use("source")
    early, late = gates.hold("source.raw", "write", after=True, at=0), gates.hold("target.raw", "write", at=8192)
    first = await started(early, guest.write(0, b"1" * 512))
    session.set_copy_mode(CopyMode.WRITE_BLOCKING)
    second = await started(late, guest.write(8192, b"2" * 512))
    early.open()
    await first
    late.open()
    await second
    data[:512], data[8192:8704] = b"1" * 512, b"2" * 512
    await work_off(session)
    await ground.sessions.finish("j", 1, FinishAction.PIVOT)
    assert await ground.content("target") == bytes(data)
    ground.graph.release(guest)


async def test_two_sides_that_make_different_things_of_a_discard_are_equal_after_the_mirror(ground: Yard) -> None:
    for name, cluster_size in (("source", GRANULE), ("target", 4096)):
        await ground.create_qcow2(f"{name}.qcow2", 4 * GRANULE, cluster_size=cluster_size)
        await ground.open("qcow2", name, f"{name}.qcow2")
    guest = ground.use("source")
    data = random_bytes(2, 4 * GRANULE)
    await guest.write(0, data)
    session = await ground.run(job(CopyKind.MIRROR, CopyMode.WRITE_BLOCKING))
    await guest.discard(4096, 8192)  # less than a cluster of the source: it stays
    await work_off(session)
    await ground.sessions.finish("j", 1, FinishAction.PIVOT)
    assert await ground.content("target") == data
    ground.graph.release(guest)


async def test_a_fast_zero_that_only_the_source_can_do_is_no_fault_of_the_mirror(ground: Yard) -> None:
    for name, cluster_size in (("source", GRANULE), ("target", 2 * MIB)):
        await ground.create_qcow2(f"{name}.qcow2", 4 * GRANULE, cluster_size=cluster_size)
        await ground.open("qcow2", name, f"{name}.qcow2")
    guest = ground.use("source")
    await guest.write(0, b"x" * 4 * GRANULE)
    session = await ground.run(job(CopyKind.MIRROR, CopyMode.WRITE_BLOCKING, granularity=GRANULE))
    await guest.zero(0, GRANULE, NO_FALLBACK)
    await work_off(session)
    await ground.sessions.finish("j", 1, FinishAction.PIVOT)
    assert await ground.content("target") == bytes(GRANULE) + b"x" * 3 * GRANULE
    ground.graph.release(guest)


@pytest.mark.parametrize("kind", [CopyKind.MIRROR, CopyKind.BACKUP])
async def test_a_flush_through_a_new_filter_covers_what_was_written_before_it_came(
    ground: Yard, gates: Gates, kind: CopyKind
) -> None:
    await source_and_target(ground)
    guest = ground.use("source")
    await guest.write(0, b"x" * 512)
    await ground.sessions.create(job(kind), 1)
    gates.seen.clear()
    await guest.flush()
    assert ("source.raw", "flush") in gates.seen
    ground.graph.release(guest)


async def test_a_source_that_cannot_flush_any_more_does_not_spoil_the_pivot_away_from_it(
    ground: Yard, gates: Gates
) -> None:
    await source_and_target(ground)
    guest = ground.use("source")
    session = await ground.sessions.create(job(CopyKind.MIRROR), 1)
    await guest.write(0, b"x" * 512)
    await work_off(session)
    broken = gates.fail("source.raw", "flush", IoError("source", "flush", 5, "Input/output error"))
    await ground.sessions.finish("j", 1, FinishAction.PIVOT)
    assert guest.node.name == "target"
    gates.heal(broken)
    ground.graph.release(guest)


async def test_a_broken_backup_gives_its_whole_bitmap_back(ground: Yard, gates: Gates) -> None:
    await source_and_target(ground)
    bitmap = recording.create(ground.graph, ground.graph.get("source"), "b0")
    guest = ground.use("source")
    await guest.write(0, b"x")
    await guest.write(2 * GRANULE, b"x")
    spec = job(
        CopyKind.BACKUP,
        sync=SyncMode.BITMAP,
        bitmap="b0",
        bitmap_mode=BitmapMode.ALWAYS,
        break_snapshot=True,
    )
    session = await ground.sessions.create(spec, 1)
    gates.fail("target.raw", "write", BROKEN)
    await guest.write(0, b"y")
    assert session.broken is not None
    await ground.sessions.finish("j", 1, FinishAction.ABORT)
    assert [item.offset for item in bitmap.bits.extents()] == [0, 2 * GRANULE]
    ground.graph.release(guest)


async def test_an_aborted_backup_keeps_in_its_bitmap_what_was_on_its_way(ground: Yard, gates: Gates) -> None:
    await source_and_target(ground)
    bitmap = recording.create(ground.graph, ground.graph.get("source"), "b0")
    guest = ground.use("source")
    await guest.write(0, b"x")
    spec = job(CopyKind.BACKUP, sync=SyncMode.BITMAP, bitmap="b0", bitmap_mode=BitmapMode.ALWAYS)
    session = await ground.sessions.create(spec, 1)
    gate = gates.hold("target.raw", "write")
    gate.error = BROKEN
    order = await started(gate, session.run(Order(1, 8 * MIB)))
    ending = asyncio.create_task(ground.sessions.finish("j", 1, FinishAction.ABORT))
    await turns()
    gate.open()
    await asyncio.gather(order, ending)
    assert [item.offset for item in bitmap.bits.extents()] == [0]
    ground.graph.release(guest)


async def test_an_ended_session_keeps_its_answer_but_neither_map_nor_nodes(ground: Yard) -> None:
    await source_and_target(ground)
    await ground.run(job(CopyKind.MIRROR, CopyMode.WRITE_BLOCKING))
    await ground.sessions.finish("j", 1, FinishAction.DETACH)
    session = ground.sessions.get("j")
    assert isinstance(session, MirrorSession)
    assert session.work.size == 4 * GRANULE and not session.work.remaining
    assert session.copy_mode is CopyMode.WRITE_BLOCKING
    assert not session.work.bits.size and not hasattr(session, "source")
    assert (await session.run(Order(2, MIB))).tally.copied == 0
