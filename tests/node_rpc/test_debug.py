"""DebugService over the wire: breakpoints, faults, their watch, and that it is off unless it was asked for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, message_factory

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    InvalidArgument,
    IoError,
    NodeNotFound,
    NoSpace,
    OperationUnsupported,
    PermissionConflict,
    ResourceExists,
    ResourceNotFound,
    ServiceDisabled,
)
from blockyard.base.units import MIB
from blockyard.client.definitions import blkdebug, file, memory, qcow2
from blockyard.v1 import node_pb2 as node
from blockyard.v1.drivers_pb2 import BlkdebugInjectError, BlkdebugSetState
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse, node_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(tmp_path, debug=True) as made:
        yield made


async def opened(house: NodeHouse, name: str = "disk") -> None:
    """A qcow2 node above a blkdebug node named `bug`."""
    await house.client.images.create(f"{name}.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(blkdebug(file(f"{name}.qcow2"), node_name="bug"), node_name=name))


async def test_the_service_is_off_unless_it_was_switched_on(tmp_path: Path):
    async with node_house(tmp_path) as house:
        described = descriptor_pool.Default().FindServiceByName("blockyard.v1.DebugService")
        for method in described.methods:
            if method.server_streaming:
                continue
            with pytest.raises(ServiceDisabled) as refusal:
                await getattr(house.debug, method.name)(message_factory.GetMessageClass(method.input_type)())
            assert (refusal.value.service, refusal.value.option) == ("DebugService", "debug")
        with pytest.raises(ServiceDisabled):
            await anext(house.client.debug.watch())


async def test_a_blkdebug_node_needs_no_switch(tmp_path: Path):
    async with node_house(tmp_path) as house:
        rule = BlkdebugInjectError(event="none", iotype="write", errno=28)
        await house.client.nodes.open(blkdebug(memory(MIB), inject_error=[rule], node_name="bug"))
        with pytest.raises(NoSpace):
            await house.client.data.write("bug", 0, b"x")


async def test_events_are_listed_by_qemus_names(house: NodeHouse):
    events = await house.client.debug.events()
    assert len(events) == 48
    assert {"l2_update", "cow_write", "none"} <= set(events)


# --- breakpoints ----------------------------------------------------------------------------------------------


async def test_a_write_stops_at_a_breakpoint_and_goes_on(house: NodeHouse):
    await opened(house)
    debug = house.client.debug
    made = await debug.set_breakpoint("disk", "write_aio", "here")
    assert (made.node_name, made.event, made.suspended) == ("bug", "write_aio", 0)
    writing = asyncio.create_task(house.client.data.write("disk", 0, b"x" * 512))
    await waiting(house, 1)
    assert not writing.done()
    resumed = await debug.resume("here")
    assert resumed.suspended == 0
    await writing
    assert bytes(await house.client.data.read("disk", 0, 512)) == b"x" * 512


async def waiting(house: NodeHouse, count: int) -> None:
    """Return when so many wait at all breakpoints together."""
    debug = house.client.debug
    while sum(found.suspended for found in await debug.breakpoints()) != count:
        await asyncio.sleep(0.001)


async def test_a_watch_begins_with_the_present_and_tells_of_every_stop(house: NodeHouse):
    await opened(house)
    debug = house.client.debug
    await debug.set_breakpoint("bug", "write_aio", "a")
    await debug.set_breakpoint("bug", "flush_to_disk", "other")
    watch = debug.watch("a")

    async def told() -> tuple[str, int, bool]:
        change = await anext(watch)
        return change.breakpoint.tag, change.breakpoint.suspended, change.removed

    assert await told() == ("a", 0, False)
    writing = asyncio.create_task(house.client.data.write("disk", 0, b"x"))
    assert await told() == ("a", 1, False)
    await debug.remove_breakpoint("a")
    assert await told() == ("a", 0, True)
    await writing
    await watch.aclose()  # type: ignore[attr-defined]


async def test_the_service_stops_though_someone_stands_at_a_breakpoint(tmp_path: Path):
    async with node_house(tmp_path, debug=True) as house:
        await opened(house)
        for event in ("write_aio", "cluster_alloc", "l2_update", "flush_to_disk"):
            await house.client.debug.set_breakpoint("bug", event, event)
        writing = asyncio.create_task(house.client.data.write("disk", 0, b"x"))
        await waiting(house, 1)
    await asyncio.gather(writing, return_exceptions=True)


async def test_what_is_no_breakpoint_is_told(house: NodeHouse):
    await opened(house)
    debug = house.client.debug
    await house.client.nodes.open(memory(MIB, node_name="plain"))
    with pytest.raises(NodeNotFound):
        await debug.set_breakpoint("nobody", "l2_load", "a")
    with pytest.raises(OperationUnsupported):
        await debug.set_breakpoint("plain", "l2_load", "a")
    with pytest.raises(InvalidArgument):
        await debug.set_breakpoint("bug", "l2_lode", "a")
    await debug.set_breakpoint("bug", "l2_load", "a")
    with pytest.raises(ResourceExists):
        await debug.set_breakpoint("bug", "l2_load", "a")
    with pytest.raises(ResourceNotFound):
        await debug.resume("b")
    with pytest.raises(ResourceNotFound):
        await debug.remove_breakpoint("b")


# --- faults ---------------------------------------------------------------------------------------------------


async def test_a_fault_strikes_until_it_is_removed(house: NodeHouse):
    await opened(house)
    debug, data = house.client.debug, house.client.data
    made = await debug.inject_fault("disk", "write", errno=5)
    assert (made.node_name, made.rate, made.struck) == ("bug", 1.0, 0)
    with pytest.raises(IoError) as refusal:
        await data.write("disk", 0, b"x")
    assert refusal.value.errno == 5
    (listed,) = await debug.faults("disk")
    assert listed.struck == 1
    await debug.remove_fault(made.fault_id)
    assert await debug.faults() == ()
    await data.write("disk", 0, b"x")


async def test_a_fault_says_all_that_was_asked(house: NodeHouse):
    await opened(house)
    made = await house.client.debug.inject_fault(
        "bug", "l2_update", errno=28, delay_s=0.25, rate=0.5, times=3, offset=4096, fault_id="mine"
    )
    assert (made.fault_id, made.event, made.errno, made.rate, made.times) == ("mine", "l2_update", 28, 0.5, 3)
    assert (made.delay.ToNanoseconds(), made.offset_bytes, made.corrupt) == (250_000_000, 4096, False)


async def test_a_silent_corruption_is_seen_by_the_reader(house: NodeHouse):
    await opened(house)
    await house.client.data.write("disk", 0, b"\0" * 4096)
    await house.client.debug.inject_fault("bug", "read_aio", corrupt=True, times=1)
    found = bytes(await house.client.data.read("disk", 0, 4096))
    assert sum(byte.bit_count() for byte in found) == 1
    assert not any(bytes(await house.client.data.read("disk", 0, 4096)))


async def test_a_delay_is_the_clocks(tmp_path: Path):
    clock = VirtualClock()
    async with node_house(tmp_path, clock=clock, debug=True) as house:
        await house.client.nodes.open(blkdebug(memory(MIB), node_name="bug"))
        await house.client.debug.inject_fault("bug", "write", delay_s=5, times=1)
        sleepers = clock.sleepers
        writing = asyncio.create_task(house.client.data.write("bug", 0, b"x"))
        await eventually(lambda: clock.sleepers > sleepers)
        await clock.advance(4.9)
        assert not writing.done()
        await clock.advance(0.2)
        await writing


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "nothing"},
        {"event": ""},
        {"errno": 0},
        {"errno": -1},
        {"errno": 5, "corrupt": True},
        {"rate": 1.5},
        {"times": -1},
        {"delay_s": 4000.0},
    ],
)
async def test_a_fault_that_cannot_be_is_refused(house: NodeHouse, wrong: dict[str, object]):
    await opened(house)
    with pytest.raises(InvalidArgument):
        await house.client.debug.inject_fault("bug", **{"event": "write", "errno": 5, **wrong})  # type: ignore[arg-type]
    assert await house.client.debug.faults() == ()


# --- rules in definitions -------------------------------------------------------------------------------------


async def test_rules_and_limits_come_back_in_the_specification_and_open_the_same_node_again(house: NodeHouse):
    rules = [BlkdebugInjectError(event="write_aio", state=2, errno=28, rate=0.5, delay_ns=1000, once=True)]
    changes = [BlkdebugSetState(event="read_aio", state=1, new_state=2)]
    definition = blkdebug(
        memory(MIB), inject_error=rules, set_state=changes, align=4096, take_child_perms=["write"], node_name="bug"
    )
    first = await house.client.nodes.open(definition)
    await house.client.nodes.close("bug")
    parsed = await house.nodes.ParseFilename(node.ParseFilenameRequest(filename=first.full_open_options))
    second = await house.client.nodes.open(parsed.definition)
    assert second.full_open_options == first.full_open_options
    assert second.effective_options == first.effective_options.replace('"#1"', '"#2"')
    assert '"rate": 0.5' in second.effective_options
    assert second.limits.request_alignment_bytes == 4096


async def test_a_rule_that_cannot_be_is_named_by_its_place(house: NodeHouse):
    rules = [BlkdebugInjectError(event="none"), BlkdebugInjectError(event="l2_lode")]
    with pytest.raises(InvalidArgument) as refusal:
        await house.client.nodes.open(blkdebug(memory(MIB), inject_error=rules))
    assert refusal.value.name == "inject_error.1.event"
    with pytest.raises(InvalidArgument) as refusal:
        await house.client.nodes.open(blkdebug(memory(MIB), config="\n[inject-error]\nevent = l2_load\n"))
    assert refusal.value.name == "config, line 3"


async def test_a_specification_names_open_nodes_as_children(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="below"))
    first = await house.client.nodes.open(
        blkdebug("below", config='[set-state]\nevent = "none"\n', node_name="bug")
    )
    await house.client.nodes.close("bug")
    parsed = await house.nodes.ParseFilename(node.ParseFilenameRequest(filename=first.explicit_options))
    second = await house.client.nodes.open(parsed.definition)
    assert second.explicit_options == first.explicit_options
    assert [child.node_name for child in second.children] == ["below"]


async def test_a_blkdebug_node_is_back_with_its_rules_after_a_restart(tmp_path: Path):
    rule = BlkdebugInjectError(event="none", iotype="write", errno=28)
    options = {"state_directory": str(tmp_path / "state")}
    async with node_house(tmp_path, **options) as house:
        await house.client.nodes.open(
            blkdebug(memory(MIB), inject_error=[rule], max_transfer=4096, node_name="bug")
        )
    async with node_house(tmp_path, **options) as house:
        assert (await house.client.nodes.get("bug")).limits.max_transfer_bytes == 4096
        with pytest.raises(NoSpace):
            await house.client.data.write("bug", 0, b"x")


async def test_permissions_that_are_taken_or_not_shared_keep_others_away(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="below"))
    await house.client.nodes.open(blkdebug("below", unshare_child_perms=["write"], node_name="bug"))
    with pytest.raises(PermissionConflict) as refusal:
        await house.client.nodes.open(blkdebug("below", take_child_perms=["write"], node_name="other"))
    assert "bug" in str(refusal.value)
