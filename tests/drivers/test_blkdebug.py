"""Driver `blkdebug`: passes on, and strikes, delays, corrupts and stops what rules, faults and breakpoints say."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    IoError,
    LimitReached,
    NoSpace,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.core.injection import Effect, Fault
from blockyard.node.drivers.blkdebug import BlkdebugDriver
from blockyard.node.drivers.blkdebug.breakpoints import MAX_BREAKPOINTS
from blockyard.node.interface import permissions
from blockyard.node.interface.child import Child
from blockyard.node.interface.debugging import BreakpointState
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import Permissions
from tests.support.contract import DriverContract
from tests.support.eventually import eventually
from tests.support.ground import DriverChild, Ground


def quiet(state: BreakpointState, gone: bool) -> None:
    """Nobody watches."""


def driver_of(node: DriverChild) -> BlkdebugDriver:
    assert isinstance(node.driver, BlkdebugDriver)
    return node.driver


class BlkdebugContract(DriverContract):
    survives_close = False
    discard_zeroes = True

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"image": await ground.open("memory", {"size": self.size}, name="image", read_only=read_only)}


class TestBlkdebug(BlkdebugContract):
    driver = "blkdebug"


class TestBlkdebugThatListens(BlkdebugContract):
    """A rule that never strikes: everything takes the awaiting way."""

    driver = "blkdebug"

    def options(self) -> dict[str, object]:
        return {"set_state": [{"event": "l2_load", "new_state": 2}]}


async def opened(ground: Ground, size: int = MIB, **options: Any) -> DriverChild:
    image = await ground.open("memory", {"size": size}, name="image", node_name="memory")
    return await ground.open("blkdebug", options, {"image": image}, node_name="bug")


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


REQUESTS = {
    "read": lambda node: node.content(0, 512),
    "write": lambda node: node.write(0, bytes(512)),
    "write-zeroes": lambda node: node.driver.zero(0, 512, 0),
    "discard": lambda node: node.driver.discard(0, 512),
    "flush": lambda node: node.flush(),
    "block-status": lambda node: node.map(0, 512),
}


@pytest.mark.parametrize("iotype", REQUESTS)
async def test_a_rule_strikes_the_requests_of_its_type_and_no_others(ground: Ground, iotype: str):
    node = await opened(ground, inject_error=[{"event": "none", "iotype": iotype, "errno": 5}])
    for name, request in REQUESTS.items():
        if name == iotype:
            with pytest.raises(IoError, match="injected") as refusal:
                await request(node)
            assert (refusal.value.node_name, refusal.value.operation) == ("bug", iotype)
        else:
            await request(node)


async def test_enospc_is_the_error_of_a_full_disk(ground: Ground):
    node = await opened(ground, inject_error=[{"event": "none", "errno": 28}])
    with pytest.raises(NoSpace):
        await node.write(0, b"x")


async def test_a_text_and_options_are_rules_alike(ground: Ground):
    node = await opened(
        ground,
        config='[inject-error]\nevent = "write_aio"\nsector = "2"\nonce = "on"\n',
        set_state=[{"event": "write_aio", "new_state": 2}],
        inject_error=[{"event": "write_aio", "state": 2, "errno": 28}],
    )
    await node.debug_event("write_aio")
    await node.write(0, bytes(512))
    with pytest.raises(IoError):
        await node.write(1024, bytes(512))
    await node.write(1024, bytes(512))
    await node.debug_event("write_aio")
    with pytest.raises(NoSpace):
        await node.write(0, bytes(512))


async def test_what_failed_has_not_reached_the_image(ground: Ground):
    node = await opened(ground, inject_error=[{"event": "none", "iotype": "write", "once": True}])
    with pytest.raises(IoError):
        await node.write(0, b"x" * 512)
    assert await node.content(0, 512) == bytes(512)


async def test_without_rules_it_passes_on_inline_and_with_one_it_does_not(ground: Ground):
    node = await opened(ground)
    driver, buffer = driver_of(node), memoryview(bytearray(512))
    assert driver.read_now(0, buffer)
    assert driver.write_now(0, bytes(512), 0)
    driver.inject(Fault("a", "flush", Effect(5)))
    assert not driver.read_now(0, buffer)
    assert not driver.write_now(0, bytes(512), 0)
    driver.withdraw("a")
    assert driver.read_now(0, buffer)
    driver.set_breakpoint("b", "l2_load", quiet)
    assert not driver.read_now(0, buffer)
    driver.remove_breakpoint("b")
    assert driver.write_now(0, bytes(512), 0)


async def test_it_is_inline_again_when_its_only_rule_is_used_up(ground: Ground):
    node = await opened(ground, inject_error=[{"event": "none", "once": True}])
    with pytest.raises(IoError):
        await node.content(0, 512)
    assert driver_of(node).read_now(0, memoryview(bytearray(512)))


# --- corruption and delay -------------------------------------------------------------------------------------


async def test_one_bit_of_what_is_read_is_wrong_and_the_image_is_not(ground: Ground):
    node = await opened(ground, inject_error=[{"event": "none", "iotype": "read", "corrupt": True, "once": True}])
    await node.write(0, b"\x55" * 4096)
    read, again = await node.content(0, 4096), await node.content(0, 4096)
    assert sum((a ^ 0x55).bit_count() for a in read) == 1
    assert again == b"\x55" * 4096


async def test_one_bit_of_what_is_written_is_wrong_and_the_writers_buffer_is_not(ground: Ground):
    node = await opened(ground, inject_error=[{"event": "none", "corrupt": True, "offset": 100, "once": True}])
    mine = bytearray(b"\x55" * 4096)
    await node.write(0, mine)
    assert mine == b"\x55" * 4096
    wrong = await node.content(0, 4096)
    assert [at for at, byte in enumerate(wrong) if byte != 0x55] == [100]
    assert (wrong[100] ^ 0x55).bit_count() == 1


async def test_a_delay_takes_its_time_and_then_the_request_goes_on(tmp_path: Path):
    clock = VirtualClock()
    ground = Ground(tmp_path, clock)
    node = await opened(ground, inject_error=[{"event": "none", "errno": 0, "delay_ns": 2 * 10**9, "once": True}])
    writing = asyncio.create_task(node.write(0, b"x" * 512))
    await eventually(lambda: clock.sleepers == 1)
    await clock.advance(1.9)
    assert not writing.done()
    await clock.advance(0.2)
    await writing
    assert await node.content(0, 512) == b"x" * 512


async def test_a_delay_may_end_in_an_error(tmp_path: Path):
    clock = VirtualClock()
    node = await opened(Ground(tmp_path, clock), inject_error=[{"event": "none", "delay_ns": 10**9}])
    flushing = asyncio.create_task(node.flush())
    await eventually(lambda: clock.sleepers == 1)
    await clock.advance(0.5)
    assert not flushing.done()
    await clock.advance(0.6)
    with pytest.raises(IoError):
        await flushing


async def test_rates_with_a_seed_strike_the_same_requests_in_every_run(tmp_path: Path):
    async def struck() -> list[int]:
        node = await opened(Ground(tmp_path), inject_error=[{"event": "none", "rate": 0.3}], seed=42)
        found = []
        for number in range(40):
            try:
                await node.content(0, 512)
            except IoError:
                found.append(number)
        return found

    first = await struck()
    assert first == await struck()
    assert 3 < len(first) < 25


# --- breakpoints ----------------------------------------------------------------------------------------------


async def test_who_comes_to_a_breakpoint_waits_and_goes_on_in_order(ground: Ground):
    node = await opened(ground)
    driver, order = driver_of(node), []
    driver.set_breakpoint("here", "cow_write", quiet)

    async def pass_(number: int) -> None:
        await node.debug_event("cow_write")
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(pass_(number))
        await eventually(lambda: driver.breakpoints()[0].suspended == 3)
        await node.debug_event("cow_read")
        assert order == []
        assert driver.resume("here") == ("here", "cow_write", 0)
    assert order == [0, 1, 2]


async def test_a_breakpoint_stays_after_a_resume(ground: Ground):
    node = await opened(ground)
    driver = driver_of(node)
    driver.set_breakpoint("here", "l2_load", quiet)
    for _ in range(2):
        waiting = asyncio.create_task(node.debug_event("l2_load"))
        await eventually(lambda: driver.breakpoints()[0].suspended == 1)
        driver.resume("here")
        await waiting


@pytest.mark.parametrize("end", ["remove", "close", "pass", "cancel"])
async def test_whatever_ends_the_waiting_nobody_is_left_behind(ground: Ground, end: str):
    node = await opened(ground)
    driver, told = driver_of(node), []
    driver.set_breakpoint("here", "l2_load", lambda state, gone: told.append((state.suspended, gone)))
    waiting = [asyncio.create_task(node.debug_event("l2_load")) for _ in range(2)]
    await eventually(lambda: driver.breakpoints()[0].suspended == 2)
    if end == "remove":
        driver.remove_breakpoint("here")
    elif end == "close":
        await ground.close_all()
    elif end == "pass":
        driver.let_pass(True)
        await node.debug_event("l2_load")
    else:
        for task in waiting:
            task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert told[:2] == [(1, False), (2, False)]
    assert told[-1] == (0, end in ("remove", "close"))


async def test_breakpoints_are_told_apart_by_their_tags(ground: Ground):
    driver = driver_of(await opened(ground))
    driver.set_breakpoint("a", "l2_load", quiet)
    with pytest.raises(ResourceExists):
        driver.set_breakpoint("a", "cow_write", quiet)
    with pytest.raises(ResourceNotFound):
        driver.resume("b")
    with pytest.raises(ResourceNotFound):
        driver.remove_breakpoint("b")
    with pytest.raises(InvalidArgument) as refusal:
        driver.set_breakpoint("c", "l2_lode", quiet)
    assert refusal.value.name == "event"
    for number in range(MAX_BREAKPOINTS - 1):
        driver.set_breakpoint(str(number), "l2_load", quiet)
    with pytest.raises(LimitReached):
        driver.set_breakpoint("one more", "l2_load", quiet)


# --- limits and permissions -----------------------------------------------------------------------------------


async def test_limits_take_the_place_of_the_images(ground: Ground):
    limits = (
        await opened(
            ground, align=4096, max_transfer=8192, opt_write_zero=16384, max_write_zero=32768, max_discard=8192
        )
    ).limits
    assert limits.request_alignment == 4096
    assert (limits.max_transfer, limits.zero_alignment, limits.max_zeroes) == (8192, 16384, 32768)
    assert (limits.discard_alignment, limits.max_discard) == (4096, 8192)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"align": 3}, "align"),
        ({"align": 128 * KIB}, "align"),
        ({"align": -1}, "align"),
        ({"align": 4096, "max_transfer": 1024}, "max_transfer"),
        ({"max_transfer": 2**31}, "max_transfer"),
        ({"max_transfer": -4096}, "max_transfer"),
        ({"align": 4096, "opt_write_zero": 6144}, "opt_write_zero"),
        ({"opt_write_zero": 65536, "max_write_zero": 4096}, "max_write_zero"),
        ({"align": 4096, "opt_discard": 512}, "opt_discard"),
        ({"opt_discard": 65536, "max_discard": 32768}, "max_discard"),
        ({"config": "[inject]"}, "config, line 1"),
        ({"inject_error": [{"event": "none", "errno": 5000}]}, "inject_error.0.errno"),
        ({"set_state": [{"event": "none"}, {"event": "no"}]}, "set_state.1.event"),
        ({"take_child_perms": ["writing"]}, "take_child_perms.0"),
    ],
)
async def test_options_that_cannot_be_are_refused_by_name(ground: Ground, options: dict[str, object], name: str):
    with pytest.raises(InvalidArgument) as refusal:
        await opened(ground, **options)
    assert refusal.value.name == name


async def test_permissions_are_taken_and_not_shared_as_the_options_say(ground: Ground):
    node = await opened(ground, take_child_perms=["write", "resize"], unshare_child_perms=["consistent-read"])
    above = Permissions(permissions.CONSISTENT_READ, permissions.ALL)
    found = driver_of(node).child_permissions("image", Role.FILTERED, above, writable=True)
    assert permissions.names(found.used) == ["consistent-read", "write", "resize"]
    assert permissions.names(found.shared) == ["write", "write-unchanged", "resize"]


async def test_more_rules_than_there_may_be_are_refused(ground: Ground):
    with pytest.raises(BlockError):
        await opened(ground, config='[set-state]\nevent = "none"\n' * 1024, set_state=[{"event": "none"}])
