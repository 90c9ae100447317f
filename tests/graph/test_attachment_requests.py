"""Requests through an attachment over a failing file: policies, the line of those that wait, blocks."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    AttachmentReadOnly,
    BlockError,
    InvalidArgument,
    IoError,
    LimitReached,
    RangeMisaligned,
    RangeOutside,
    ResourceBusy,
)
from blockyard.node.graph import held
from blockyard.node.graph.attachment import AttachmentDefinition, IoStatus, OnError
from blockyard.node.graph.drain import drained
from blockyard.node.interface.flags import FUA
from tests.support.attachment_ground import CORRUPT, EIO, FULL, MIB, OPERATIONS, QUOTA, Ground, attachment_ground
from tests.support.eventually import eventually


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with attachment_ground(tmp_path) as made:
        yield made


EXPECTED = {
    # policy: (what EIO does, what a full disk does)
    "report": ("report", "report"),
    "ignore": ("ignore", "ignore"),
    "enospc": ("report", "stop"),
    "stop": ("stop", "stop"),
}


# --- policies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("error", [EIO, CORRUPT, FULL, QUOTA], ids=["eio", "corrupt", "full", "quota"])
@pytest.mark.parametrize("policy", EXPECTED)
async def test_every_policy_does_with_every_error_of_every_request_what_qemu_does(
    ground: Ground, policy: str, error: BlockError, operation: str
):
    on_read, on_write = (policy, "report") if operation == "read" else ("report", policy)
    user = await ground.attach(on_read_error=on_read, on_write_error=on_write)
    await user.write(0, b"before" * 100)
    below, request = OPERATIONS[operation]
    gate = ground.fail(below, error)
    expected = EXPECTED[policy][error in (FULL, QUOTA)]
    task = asyncio.ensure_future(request(user))
    await eventually(lambda: gate.caught)
    if expected == "stop":
        await eventually(lambda: user.waiting == 1)
        wanted = IoStatus.NOSPACE if error in (FULL, QUOTA) else IoStatus.FAILED
        assert user.stopped and not task.done() and user.io_status is wanted
        ground.gates.heal(gate)
        ground.attachments.reset("vda")
        await task
        assert not user.stopped and user.io_status is IoStatus.OK and gate.caught == 1
    elif expected == "ignore":
        await task
        ground.gates.heal(gate)
    else:
        with pytest.raises(type(error)):
            await task
        ground.gates.heal(gate)
    event = ground.events[0]
    assert (event.kind, event.node_name, event.details["attachment"]) == ("io-error", "disk", "vda")
    assert (event.details["operation"], event.details["action"]) == (operation, expected)
    assert event.details["nospace"] == str(error in (FULL, QUOTA)).lower() and event.details["reason"] == str(error)


async def test_an_ignored_read_gives_zeroes_and_an_ignored_write_changes_nothing(ground: Ground):
    user = await ground.attach(on_read_error="ignore", on_write_error="ignore")
    await user.write(0, b"a" * 4096)
    buffer = bytearray(b"x" * 8192)
    gate = ground.fail("read", EIO)
    await user.read(0, memoryview(buffer))
    assert buffer == bytes(8192)
    ground.gates.heal(gate)
    gate = ground.fail("write", EIO)
    await user.write(0, b"b" * 4096)
    ground.gates.heal(gate)
    await user.read(0, memoryview(buffer))
    assert buffer == b"a" * 4096 + bytes(4096)


async def test_what_may_not_be_asked_is_refused_whatever_the_policy(ground: Ground):
    user = await ground.attach(on_read_error="stop", on_write_error="stop", writable=False)
    with pytest.raises(RangeOutside):
        await user.read(MIB, memoryview(bytearray(512)))
    with pytest.raises(AttachmentReadOnly):
        await user.write(0, b"x" * 512)
    assert not user.write_now(0, b"x" * 512), "the inline form leaves the refusal to the awaiting one"
    assert not user.stopped and not ground.events


@pytest.mark.parametrize(
    ("given", "read", "write"),
    [({}, "report", "enospc"), ({"on_read_error": "auto", "on_write_error": "auto"}, "report", "enospc")],
)
async def test_defaults_are_those_of_qemu(ground: Ground, given: dict[str, str], read: str, write: str):
    user = await ground.attach(**given)
    assert (user.on_read_error, user.on_write_error) == (read, write)


async def test_a_status_is_kept_only_where_something_can_stop(ground: Ground):
    await ground.attach(on_write_error="report")
    assert ground.attachments.get("vda").io_status is None
    await ground.attachments.update("vda", {"on_read_error": OnError.STOP})
    assert ground.attachments.get("vda").io_status is IoStatus.OK


async def test_a_fault_storm_is_told_once_a_second_with_what_was_left_out(ground: Ground):
    user = await ground.attach(on_write_error="ignore")
    ground.fail("write", EIO)
    clock = ground.ground.clock
    assert isinstance(clock, VirtualClock)
    for _ in range(100):
        await user.write(0, b"x" * 512)
    assert len(ground.events) == 1
    await clock.advance(1)
    await user.write(0, b"x" * 512)
    assert [event.details.get("suppressed") for event in ground.events] == [None, "99"]


# --- the line --------------------------------------------------------------------------------------------


async def test_requests_wait_while_it_is_stopped_and_go_on_in_order_the_failed_one_first(ground: Ground):
    user = await ground.attach(on_write_error="stop")
    gate = ground.fail("write", EIO)
    tasks = [asyncio.create_task(user.write(0, b"\0" * 512))]
    await eventually(lambda: user.stopped)
    assert not user.read_now(0, memoryview(bytearray(512))) and not user.write_now(0, b"x" * 512)
    tasks += [asyncio.create_task(user.write(512 * at, bytes([at]) * 512)) for at in range(1, 9)]
    tasks.append(asyncio.create_task(user.read(0, memoryview(bytearray(512)))))
    await eventually(lambda: user.waiting == 10)
    assert gate.caught == 1
    begun = ground.note_begun()
    ground.gates.heal(gate)
    ground.attachments.reset("vda")
    later = asyncio.create_task(user.write(9 * 512, b"\x09" * 512))
    assert not user.write_now(0, b"late" * 128), "nobody passes those who wait"
    await asyncio.gather(*tasks, later)
    assert begun == [*(512 * at for at in range(9)), "read", 9 * 512] and not user.waiting


async def test_what_was_in_flight_when_it_stopped_is_tried_again_in_the_order_it_came(ground: Ground):
    user = await ground.attach(on_write_error="stop")
    gates = [ground.gates.hold("disk.raw", "write", at=at * 512) for at in range(3)]
    tasks = [asyncio.create_task(user.write(at * 512, bytes([at]) * 512)) for at in range(3)]
    await eventually(lambda: all(gate.caught for gate in gates))
    for gate in reversed(gates):
        gate.error = EIO
        gate.open()
        await eventually(lambda gate=gate: gate.caught and user.stopped)
    await eventually(lambda: user.waiting == 3)
    begun = ground.note_begun()
    for gate in gates:
        ground.gates.heal(gate)
    ground.attachments.reset("vda")
    await asyncio.gather(*tasks)
    assert begun == [0, 512, 1024]


async def test_the_first_failing_again_stops_the_others_before_they_begin(ground: Ground):
    user = await ground.attach(on_write_error="stop")
    gate = ground.fail("write", EIO)
    tasks = [asyncio.create_task(user.write(at * 4096, b"x" * 4096)) for at in range(5)]
    await eventually(lambda: user.waiting == 5)
    caught = gate.caught
    ground.attachments.reset("vda")
    await eventually(lambda: user.stopped and user.waiting == 5)
    assert gate.caught > caught
    ground.gates.heal(gate)
    ground.attachments.reset("vda")
    await asyncio.gather(*tasks)


async def test_a_cancelled_request_leaves_nothing_and_the_next_goes_on(ground: Ground):
    user = await ground.attach(on_write_error="stop")
    gate = ground.fail("write", EIO)
    tasks = [asyncio.create_task(user.write(0, bytes([at]) * 512)) for at in range(3)]
    await eventually(lambda: user.waiting == 3)
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.wait((tasks[0], tasks[2]))
    assert user.waiting == 1
    ground.gates.heal(gate)
    ground.attachments.reset("vda")
    await tasks[1]
    assert user.write_now(0, b"") in (True, False) and not user.closed


async def test_one_that_is_cancelled_when_it_has_been_called_calls_the_next(ground: Ground):
    user = await ground.attach(on_write_error="stop")
    gate = ground.fail("write", EIO)
    tasks = [asyncio.create_task(user.write(0, bytes([at]) * 512)) for at in range(3)]
    await eventually(lambda: user.waiting == 3)
    ground.gates.heal(gate)
    ground.attachments.reset("vda")
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True, False, False] and not user.closed


async def test_the_line_has_a_bound(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(held, "MAX_HELD", 2)
    user = await ground.attach(on_write_error="stop")
    gate = ground.fail("write", EIO)
    tasks = [asyncio.create_task(user.write(0, b"x" * 512)) for _ in range(2)]
    await eventually(lambda: user.waiting == 2)
    with pytest.raises(LimitReached):
        await user.write(0, b"x" * 512)
    ground.gates.heal(gate)
    ground.attachments.reset("vda")
    await asyncio.gather(*tasks)


async def test_a_drain_never_waits_for_those_who_wait(ground: Ground):
    user = await ground.attach(on_write_error="stop")
    gate = ground.fail("write", EIO)
    task = asyncio.create_task(user.write(0, b"x" * 512))
    await eventually(lambda: user.waiting == 1)
    node = ground.graph.get("disk")
    ground.gates.heal(gate)
    async with drained(node):
        ground.attachments.reset("vda")
        await asyncio.sleep(0)
        assert not task.done(), "let go, it waits for the drain's end"
    await task


async def test_a_policy_that_changes_while_it_is_stopped_is_that_of_the_next_try(ground: Ground):
    user = await ground.attach(on_write_error="stop")
    ground.fail("write", EIO)
    task = asyncio.create_task(user.write(0, b"x" * 512))
    await eventually(lambda: user.stopped)
    await ground.attachments.update("vda", {"on_write_error": OnError.REPORT})
    assert user.stopped
    ground.attachments.reset("vda")
    with pytest.raises(IoError):
        await task


# --- cache and blocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["write", "write-zeroes", "discard"])
async def test_without_write_cache_every_change_is_durable_before_it_is_acknowledged(
    ground: Ground, operation: str
):
    user = await ground.attach(write_cache=False)
    driver, flags_seen = ground.graph.get("disk").driver, []
    write, zero = driver.write, driver.zero

    async def noted_write(offset, data, flags):
        flags_seen.append(flags)
        await write(offset, data, flags)

    async def noted_zero(offset, length, flags):
        flags_seen.append(flags)
        return await zero(offset, length, flags)

    driver.write, driver.zero = noted_write, noted_zero
    for cached in (False, True):
        await ground.attachments.update("vda", {"write_cache": cached})
        flags_seen.clear()
        ground.gates.seen.clear()
        await OPERATIONS[operation][1](user)
        durable = any(flags & FUA for flags in flags_seen) or ("disk.raw", "flush") in ground.gates.seen
        assert durable is not cached


async def test_the_last_part_of_a_block_is_not_shown(ground: Ground):
    await ground.disk("odd", MIB + 512)
    user = await ground.attach("big", "odd", logical_block_size=4096)
    assert user.size == MIB
    assert (await ground.attach("small", "odd")).size == MIB + 512
    with pytest.raises(RangeMisaligned):
        user.check_blocks(512, 4096)
    user.check_blocks(4096, 8192)


@pytest.mark.parametrize(
    "fields",
    [
        {"logical_block_size": 256},
        {"logical_block_size": 1000},
        {"logical_block_size": 128 * 1024},
        {"logical_block_size": 4096, "physical_block_size": 512},
        {"physical_block_size": 4 * MIB},
        {"on_read_error": "panic"},
        {"name": "no spaces"},
        {"node_name": ""},
        {"tray_open": True},
        {"locked": True},
        {"trayless": True},
        {"node_name": "", "removable": True, "trayless": True, "locked": True},
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_nothing(ground: Ground, fields):
    definition = replace(AttachmentDefinition("vda", "disk"), **fields)
    with pytest.raises(InvalidArgument):
        await ground.attachments.create(definition)
    assert not ground.attachments.all() and not ground.graph.get("disk").parents


async def test_the_physical_size_is_the_logical_one_unless_given(ground: Ground):
    user = await ground.attach(logical_block_size=4096)
    assert user.block_sizes == (4096, 4096)


async def test_block_sizes_change_only_while_nothing_uses_it(ground: Ground):
    await ground.attach()
    with ground.attachments.used("vda", "export/x"):
        await ground.attachments.update("vda", {"write_cache": False})
        with pytest.raises(ResourceBusy) as busy:
            await ground.attachments.update("vda", {"logical_block_size": 4096, "physical_block_size": 4096})
        assert busy.value.owner == "export/x"
    changed = await ground.attachments.update("vda", {"logical_block_size": 4096, "physical_block_size": 4096})
    assert changed.user.block_sizes == (4096, 4096)
