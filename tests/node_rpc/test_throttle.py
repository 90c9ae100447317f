"""Throttle groups over the API: made, shared by nodes, changed live, seen while requests wait, removed."""

import asyncio
import json
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    EtagMismatch,
    InvalidArgument,
    MissingOption,
    RequestIdReused,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.client.definitions import generic, memory, throttle
from blockyard.client.throttling import NO_LIMIT, limit
from blockyard.v1 import control_pb2 as control
from blockyard.v1 import types_pb2 as types
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


async def limited(house: NodeHouse, group: str, name: str) -> None:
    """A node of a group, over memory."""
    await house.client.nodes.open(throttle(memory(MIB), group, node_name=name))


async def wait_for(house: NodeHouse, name: str, count: int) -> None:
    await eventually(lambda: sum(house.graph.get(name).throttle.queued) == count)


async def test_a_group_is_made_shown_listed_and_deleted(house: NodeHouse):
    groups = house.client.throttle
    made = await groups.create(
        "gold",
        iops_total=limit(200, max=1000, burst_length=2.5),
        bps_read=10 * MIB,
        bps_write=MIB,
        iops_size_bytes=4096,
    )
    assert made == control.ThrottleGroup(
        name="gold",
        iops_total=control.ThrottleLimit(avg=200, max=1000, burst_length=Duration(seconds=2, nanos=500_000_000)),
        bps_read=control.ThrottleLimit(avg=10 * MIB),
        bps_write=control.ThrottleLimit(avg=MIB),
        iops_size_bytes=4096,
        wait_time=Duration(),
        etag=made.etag,
    )
    await groups.create("a")
    assert [group.name for group in await groups.list()] == ["a", "gold"]
    assert await groups.get("gold") == made
    await groups.remove("gold")
    with pytest.raises(ResourceNotFound):
        await groups.get("gold")


async def test_a_burst_without_a_length_lasts_a_second(house: NodeHouse):
    made = await house.client.throttle.create("g", iops_read=limit(10, max=20))
    assert made.iops_read.burst_length == Duration(seconds=1)


async def test_nodes_share_a_group_which_names_them_and_stays_while_they_do(house: NodeHouse):
    await house.client.throttle.create("g")
    for name in ("b", "a"):
        await limited(house, "g", name)
    assert list((await house.client.throttle.get("g")).node_names) == ["b", "a"]
    assert (await house.client.nodes.get("a")).throttle.group == "g"
    with pytest.raises(ResourceBusy) as refusal:
        await house.client.throttle.remove("g")
    assert refusal.value.owner == "node/b, node/a"
    for name in ("a", "b"):
        await house.client.nodes.close(name)
    await house.client.throttle.remove("g")


async def test_a_node_without_a_filter_has_no_group(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    assert (await house.client.nodes.get("m")).throttle == types.ThrottleState()


async def test_a_group_must_exist_before_its_nodes(house: NodeHouse):
    with pytest.raises(ResourceNotFound, match="throttle group named 'nothing'"):
        await limited(house, "nothing", "t")
    with pytest.raises(MissingOption):
        await limited(house, "", "t")
    assert not house.graph.nodes


async def test_the_generic_form_takes_the_filter_too(house: NodeHouse):
    await house.client.throttle.create("g")
    definition = generic("throttle", {"throttle-group": "g"}, {"file": memory(MIB)}, node_name="t")
    assert (await house.client.nodes.open(definition)).driver == "throttle"


async def test_what_waits_is_seen_and_what_waited_is_in_every_account(still: NodeHouse, clock: VirtualClock):
    await still.client.throttle.create("g", iops_write=10)
    await limited(still, "g", "t")
    writes = [asyncio.ensure_future(still.client.data.write("t", at * 4096, b"x" * 4096)) for at in range(5)]
    await wait_for(still, "t", 3)
    state = await still.client.nodes.get("t")
    assert (state.throttle.queued_reads, state.throttle.queued_writes, state.in_flight) == (0, 3, 3)
    assert (await still.client.throttle.get("g")).queued_operations == 3
    await clock.advance(1)
    await asyncio.gather(*writes)
    waited = Duration(nanos=600_000_000)
    state = await still.client.nodes.get("t")
    assert (state.throttle.throttled_operations, state.throttle.wait_time) == (3, waited)
    (written,) = (each for each in state.stats.operations if each.type == types.REQUEST_TYPE_WRITE)
    assert (written.operations, written.throttled_operations, written.throttle_wait_time) == (5, 3, waited)
    group = await still.client.throttle.get("g")
    assert (group.queued_operations, group.throttled_operations, group.wait_time) == (0, 3, waited)


async def test_a_request_in_flight_says_that_it_is_throttled(still: NodeHouse, clock: VirtualClock):
    await still.client.throttle.create("g", iops_write=10)
    await limited(still, "g", "t")
    writes = [asyncio.ensure_future(still.client.data.write("t", 0, b"x")) for _ in range(3)]
    await wait_for(still, "t", 1)
    (found,) = await still.client.nodes.in_flight("t")
    assert found.wait_reason == types.WAIT_REASON_THROTTLED
    await clock.advance(1)
    await asyncio.gather(*writes)


async def test_new_limits_reach_who_waits(still: NodeHouse, clock: VirtualClock):
    await still.client.throttle.create("g", bps_total=1)
    await limited(still, "g", "t")
    await still.client.data.write("t", 0, b"x" * 4096)
    waiting = asyncio.ensure_future(still.client.data.read("t", 0, 4096))
    await wait_for(still, "t", 1)
    await still.client.throttle.update("g", bps_total=NO_LIMIT)
    assert await waiting == b"x" * 4096


async def test_a_throttle_is_put_under_a_users_feet_and_taken_away(still: NodeHouse, clock: VirtualClock):
    await still.client.throttle.create("g", iops_total=1)
    await still.client.nodes.open(memory(MIB, node_name="m"))
    async with still.client.data.session("m") as session:
        await still.client.nodes.insert_filter("m", throttle("m", "g", node_name="t"))
        await session.write(0, b"1")
        waiting = asyncio.ensure_future(session.write(0, b"2"))
        await wait_for(still, "t", 1)
        await still.client.nodes.remove_filter("t")
        await waiting
        await session.write(0, b"3")
    await still.client.throttle.remove("g")


async def test_only_the_limits_of_the_mask_change(house: NodeHouse):
    await house.client.throttle.create("g", iops_read=limit(10, max=100), iops_write=20, bps_total=MIB)
    changed = await house.client.throttle.update("g", iops_write=30)
    assert (changed.iops_read.avg, changed.iops_write.avg, changed.bps_total.avg) == (10, 30, MIB)
    part = control.ThrottleGroup(name="g", iops_read=control.ThrottleLimit(avg=50))
    request = control.UpdateThrottleGroupRequest(group=part, update_mask=FieldMask(paths=["iops_read.avg"]))
    changed = await house.throttle.UpdateThrottleGroup(request)
    assert (changed.iops_read.avg, changed.iops_read.max) == (50, 100)
    whole = control.UpdateThrottleGroupRequest(
        group=control.ThrottleGroup(name="g", bps_read=control.ThrottleLimit(avg=5))
    )
    changed = await house.throttle.UpdateThrottleGroup(whole)
    assert not changed.HasField("iops_read") and not changed.HasField("bps_total") and changed.bps_read.avg == 5


async def test_a_total_takes_the_place_of_two_sides_in_one_step(house: NodeHouse):
    await house.client.throttle.create("g", iops_read=10, iops_write=20)
    with pytest.raises(InvalidArgument):
        await house.client.throttle.update("g", iops_total=25)
    changed = await house.client.throttle.update("g", iops_total=25, iops_read=NO_LIMIT, iops_write=NO_LIMIT)
    assert changed.iops_total.avg == 25 and not changed.HasField("iops_read")


async def test_a_lost_update_is_refused(house: NodeHouse):
    made = await house.client.throttle.create("g", iops_total=1)
    changed = await house.client.throttle.update("g", iops_total=2, etag=made.etag)
    assert changed.etag != made.etag
    with pytest.raises(EtagMismatch):
        await house.client.throttle.update("g", iops_total=3, etag=made.etag)
    assert (await house.client.throttle.get("g")).iops_total.avg == 2
    assert await house.client.throttle.update("g") == changed, "nothing to change"


async def test_a_repeated_call_is_harmless(house: NodeHouse):
    create = house.client.throttle.create
    assert await create("g", iops_total=1, request_id="one") == await create("g", iops_total=1, request_id="one")
    with pytest.raises(RequestIdReused):
        await create("g", iops_total=2, request_id="one")
    with pytest.raises(ResourceExists):
        await create("g", iops_total=1)
    await house.client.throttle.remove("g")
    with pytest.raises(ResourceNotFound):
        await house.client.throttle.remove("g")
    await house.client.throttle.remove("g", allow_missing=True)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"iops_total": 1, "iops_read": 1}, "iops_total.avg"),
        ({"bps_read": -1}, "bps_read.avg"),
        ({"bps_read": 10**15 + 1}, "bps_read.avg"),
        ({"bps_read": control.ThrottleLimit(max=1)}, "bps_read.max"),
        ({"bps_read": limit(10, max=5)}, "bps_read.max"),
        ({"bps_read": limit(10, max=20, burst_length=0.5)}, "bps_read.burst_length"),
        ({"bps_read": control.ThrottleLimit(avg=1, max=2, burst_length=Duration())}, "bps_read.burst_length"),
        (
            {"bps_read": control.ThrottleLimit(avg=1, max=2, burst_length=Duration(seconds=-1))},
            "bps_read.burst_length",
        ),
        ({"bps_read": limit(1, burst_length=2)}, "bps_read.burst_length"),
        ({"bps_read": limit(1, max=10**15, burst_length=2)}, "bps_read.burst_length"),
        ({"iops_size_bytes": 4096}, "iops_size_bytes"),
    ],
)
async def test_limits_that_cannot_be_are_refused_by_name_and_leave_nothing(house: NodeHouse, fields, name: str):
    with pytest.raises(InvalidArgument) as refusal:
        await house.client.throttle.create("g", **fields)
    assert refusal.value.name == name
    assert await house.client.throttle.list() == ()
    await house.client.throttle.create("g")
    with pytest.raises(InvalidArgument):
        await house.client.throttle.update("g", **fields)
    assert (await house.client.throttle.get("g")).iops_size_bytes == 0


@pytest.mark.parametrize("name", ["", "no spaces", "#auto", "1", "x" * 129])
async def test_a_name_that_cannot_be_is_refused(house: NodeHouse, name: str):
    with pytest.raises(InvalidArgument):
        await house.client.throttle.create(name)


@pytest.mark.parametrize(
    "path", ["name", "etag", "node_names", "iops_total.burst", "iops_size", "iops_total.avg.x", ""]
)
async def test_a_path_that_is_no_limit_is_refused(house: NodeHouse, path: str):
    await house.client.throttle.create("g")
    group = control.ThrottleGroup(name="g")
    request = control.UpdateThrottleGroupRequest(group=group, update_mask=FieldMask(paths=[path]))
    with pytest.raises(InvalidArgument) as refusal:
        await house.throttle.UpdateThrottleGroup(request)
    assert refusal.value.name == "update_mask"


# --- a restart ---------------------------------------------------------------------------------------------


async def test_groups_come_back_after_a_restart_before_their_nodes(tmp_path: Path):
    def life():
        return node_house(tmp_path, state_directory=str(tmp_path / "state"))

    async with life() as house:
        await house.client.throttle.create("g", iops_total=limit(10, max=20, burst_length=2.5))
        await house.client.throttle.create("gone")
        await house.client.throttle.update("g", bps_read=MIB)
        await house.client.throttle.remove("gone")
        await limited(house, "g", "t")
        before = await house.client.throttle.get("g")
        (entry,) = (each for each in (await house.client.catalogue.list()).entries if each.kind == "throttle-group")
        told = {"iops-total": 10, "iops-total-max": 20, "iops-total-max-length": 2.5, "bps-read": MIB}
        assert (entry.name, json.loads(entry.definition.removeprefix("json:"))) == ("g", told)
    async with life() as house:
        (after,) = await house.client.throttle.list()
        assert (after.iops_total, after.bps_read, list(after.node_names)) == (
            before.iops_total,
            before.bps_read,
            ["t"],
        )
        assert (await house.client.nodes.get("t")).throttle.group == "g"
