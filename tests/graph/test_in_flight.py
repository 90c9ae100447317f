"""What can be seen of a request in flight: who asked, what it serves, for what it waits, of which trace."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from blockyard.base.units import KIB
from blockyard.node.core.accounting import FLUSH, READ, TRUNCATE, WRITE
from blockyard.node.graph.debugging import Debugging
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.drain import drained
from blockyard.node.graph.node import Node
from blockyard.node.graph.tracking import TrackedRequest
from blockyard.node.interface import tracing
from blockyard.node.interface.waiting import WaitReason, waiting
from tests.support.attachment_ground import EIO, attachment_ground
from tests.support.eventually import eventually
from tests.support.graphs import GraphGround


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def hold(node: Node) -> asyncio.Event:
    """Requests of a strict node wait from now on, until the event."""
    event = node.driver.hold = asyncio.Event()  # type: ignore[attr-defined]
    return event


def only(node: Node) -> TrackedRequest:
    (request,) = node.tracker.requests.values()
    return request


async def test_a_request_names_who_asked_in_every_layer(ground: GraphGround):
    disk = await ground.strict(size=64 * KIB, inline=0)
    raw = await ground.raw("raw", disk)
    event = hold(disk)
    user = ground.graph.use("raw", "export", "vm", writable=True)
    task = asyncio.ensure_future(user.write(0, b"x"))
    await turns()
    above, below = only(raw), only(disk)
    assert (above.owner, below.owner) == ("export/vm", "export/vm")
    assert above.parent is None and below.parent is above
    event.set()
    await task
    assert above.over and below.parent is None


async def test_requests_of_several_users_in_one_task_keep_their_own_names(ground: GraphGround):
    disk = await ground.strict(size=64 * KIB, inline=0)
    users = [ground.graph.use(disk.name, "session", str(number), writable=True) for number in range(2)]
    seen = []
    for user in users:
        event = hold(disk)
        task = asyncio.ensure_future(user.read(0, memoryview(bytearray(9))))
        await turns()
        seen.append(only(disk).owner)
        event.set()
        await task
    assert seen == ["session/0", "session/1"]


async def test_a_request_that_is_held_by_a_drain_shows_and_is_not_in_flight(ground: GraphGround):
    disk = await ground.strict(size=64 * KIB, inline=0)
    user = ground.use(disk, "guest")
    async with drained(disk):
        tasks = [
            asyncio.ensure_future(call)
            for call in (user.read(4096, memoryview(bytearray(10))), user.write(0, b"x"), user.flush())
        ]
        tasks.append(asyncio.ensure_future(user.truncate(32 * KIB)))
        await turns()
        assert not disk.tracker.requests
        held = list(disk.tracker.held.values())
        assert [item.type for item in held] == [READ, WRITE, FLUSH, TRUNCATE]
        assert {(item.owner, item.wait_reason) for item in held} == {("session/guest", WaitReason.DRAINED)}
        assert (held[0].offset, held[0].length) == (4096, 10)
        assert disk.tracker.oldest() is held[0]
        tasks[0].cancel()
        await turns()
        assert len(disk.tracker.held) == 3
    await asyncio.gather(*tasks[1:])
    assert not disk.tracker.held and disk.tracker.oldest() is None


async def test_a_request_that_is_held_below_says_for_whom_it_came(ground: GraphGround):
    disk = await ground.strict(size=64 * KIB, inline=0)
    raw = await ground.raw("raw", disk)
    async with drained(disk):
        task = asyncio.ensure_future(ground.use(raw, "guest").write(0, b"x"))
        await turns()
        (held,) = disk.tracker.held.values()
        assert held.parent is only(raw) and held.owner == "session/guest"
    await task


async def test_an_overlap_and_a_lock_are_told_apart(ground: GraphGround):
    disk = await ground.strict(size=64 * KIB, alignment=512, inline=0)
    user = ground.use(disk)
    event = hold(disk)
    tasks = [asyncio.ensure_future(user.write(at, b"x")) for at in (0, 1)]
    await turns()
    first, second = disk.tracker.requests.values()
    assert first.wait_reason is WaitReason.NONE and second.wait_reason is WaitReason.OVERLAP
    assert second.waiting_for is first
    event.set()
    await asyncio.gather(*tasks)
    event = hold(disk)
    flushes = [asyncio.ensure_future(user.flush())]
    await turns()
    disk.write_generation += 1
    flushes.append(asyncio.ensure_future(user.flush()))
    await turns()
    assert [item.wait_reason for item in disk.tracker.requests.values()] == [WaitReason.NONE, WaitReason.LOCK]
    event.set()
    await asyncio.gather(*flushes)


async def test_a_driver_says_why_it_makes_a_request_wait(ground: GraphGround):
    disk = await ground.strict(size=64 * KIB, inline=0)
    turn = asyncio.Event()

    async def slow() -> None:
        with waiting(WaitReason.THROTTLED):
            await turn.wait()

    disk.driver._pause = slow  # type: ignore[attr-defined, method-assign]
    task = asyncio.ensure_future(ground.use(disk).read(0, memoryview(bytearray(9))))
    await turns()
    request = only(disk)
    assert request.wait_reason is WaitReason.THROTTLED
    turn.set()
    await task
    assert request.wait_reason is WaitReason.NONE


async def test_a_request_that_an_error_stopped_shows_with_its_attachment(tmp_path: Path):
    async with attachment_ground(tmp_path) as stopped:
        user = await stopped.attach(on_write_error="stop")
        gate = stopped.fail("write", EIO)
        task = asyncio.ensure_future(user.write(4096, b"x" * 512))
        disk = stopped.graph.get("disk")
        await eventually(lambda: disk.tracker.held)
        (held,) = disk.tracker.held.values()
        assert (held.type, held.offset, held.length, held.wait_reason) == (WRITE, 4096, 512, WaitReason.STOPPED)
        assert held.owner == user.holder
        stopped.gates.heal(gate)
        stopped.attachments.reset("vda")
        await task
        assert not disk.tracker.held


async def test_a_request_at_a_breakpoint_says_so(ground: GraphGround):
    disk = await ground.memory("disk", 64 * KIB)
    bug = await ground.graph.open(NodeDefinition("blkdebug", "bug", children={"image": disk.name}))
    debugging = Debugging(ground.graph)
    debugging.set_breakpoint("bug", "pwritev", "here")
    task = asyncio.ensure_future(ground.use(bug).write(0, b"x"))
    await eventually(lambda: debugging.breakpoints()[0].state.suspended == 1)
    assert only(bug).wait_reason is WaitReason.SUSPENDED
    debugging.remove_breakpoint("here")
    await task
    debugging.end()


async def test_a_wait_outside_of_requests_is_nobodys(ground: GraphGround):
    with waiting(WaitReason.THROTTLED):
        pass


async def test_a_sampled_request_names_its_trace_in_every_layer(ground: GraphGround):
    class Starter:
        trace_id = "1f" * 16

        def __call__(self, name: str, attributes: dict[str, str | int]) -> nullcontext[None]:
            return nullcontext()

    disk = await ground.strict(size=64 * KIB)
    raw = await ground.raw("raw", disk)
    event = hold(disk)

    async def sampled() -> None:
        tracing.active.set(Starter())
        await ground.use(raw).write(0, b"x")

    tasks = [asyncio.ensure_future(sampled()), asyncio.ensure_future(ground.use(disk).write(9, b"x"))]
    await turns()
    assert only(raw).trace_id == "1f" * 16
    assert [item.trace_id for item in disk.tracker.requests.values()] == ["1f" * 16, ""]
    event.set()
    await asyncio.gather(*tasks)
