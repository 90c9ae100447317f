"""Checkpoints over the API: consumers side by side, deltas between any two, expiry, holders, restarts."""

import random
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    InvalidArgument,
    LimitReached,
    NodeNotFound,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.client.definitions import NO_NODE, file, memory, qcow2, raw
from blockyard.v1 import bitmap_pb2 as bitmap
from blockyard.v1 import bitmap_pb2_grpc
from tests.support.node_calls import NodeHouse, node_house

KIB, MIB = 1 << 10, 1 << 20
SIZE = 16 * MIB
GRANULARITY = 4096


@pytest.fixture
async def disk(house: NodeHouse) -> NodeHouse:
    await house.client.nodes.open(memory(SIZE, node_name="disk"))
    return house


async def write(house: NodeHouse, *offsets: int) -> None:
    for offset in offsets:
        await house.client.data.write("disk", offset, b"x")


async def delta(house: NodeHouse, base: str, target: str = "") -> list[int]:
    """Offsets of changed granules."""
    return [
        offset
        async for extent in house.client.checkpoints.delta("disk", base, target)
        for offset in range(extent.offset_bytes, extent.offset_bytes + extent.length_bytes, GRANULARITY)
    ]


async def take(house: NodeHouse, consumer: str, name: str, **options) -> bitmap.Checkpoint:
    options.setdefault("granularity_bytes", GRANULARITY)
    return await house.client.checkpoints.create("disk", consumer, name, **options)


async def names(house: NodeHouse, consumer: str = "") -> list[str]:
    return [f"{each.consumer}/{each.name}" for each in await house.client.checkpoints.list("disk", consumer)]


async def test_deltas_between_any_two_checkpoints_of_any_consumer_are_what_was_written_between(disk: NodeHouse):
    await write(disk, 0)
    await take(disk, "alpha", "one")
    await write(disk, MIB)
    await take(disk, "beta", "one")
    await write(disk, 2 * MIB, MIB)
    await take(disk, "alpha", "two")
    await write(disk, 3 * MIB)
    assert await delta(disk, "alpha/one", "beta/one") == [MIB]
    assert await delta(disk, "beta/one", "alpha/two") == [MIB, 2 * MIB]
    assert await delta(disk, "alpha/one", "alpha/two") == [MIB, 2 * MIB]
    assert await delta(disk, "alpha/one") == [MIB, 2 * MIB, 3 * MIB]
    assert await delta(disk, "alpha/two") == [3 * MIB]
    assert await names(disk) == ["alpha/one", "beta/one", "alpha/two"]
    assert await names(disk, "alpha") == ["alpha/one", "alpha/two"]


async def test_only_the_last_checkpoint_costs_a_write(disk: NodeHouse):
    for number in range(5):
        await take(disk, "alpha", f"c{number}")
    assert len(disk.graph.get("disk").recorders) == 1
    assert [each.sequence for each in await disk.client.checkpoints.list("disk")] == [1, 2, 3, 4, 5]


async def test_a_deleted_checkpoint_leaves_what_it_knew_to_the_one_before(disk: NodeHouse):
    for number in range(4):
        await take(disk, "alpha", f"c{number}")
        await write(disk, number * MIB)
    await disk.client.checkpoints.delete("disk", "alpha", "c1")
    assert await delta(disk, "alpha/c0", "alpha/c2") == [0, MIB]
    await disk.client.checkpoints.delete("disk", "alpha", "c3")  # the one that records
    await write(disk, 10 * MIB)
    assert await delta(disk, "alpha/c2") == [2 * MIB, 3 * MIB, 10 * MIB]
    await disk.client.checkpoints.delete("disk", "alpha", "c0")
    assert await delta(disk, "alpha/c2") == [2 * MIB, 3 * MIB, 10 * MIB]
    await disk.client.checkpoints.delete("disk", "alpha", "c2")
    assert disk.graph.get("disk").bitmaps == {}
    await disk.client.checkpoints.delete("disk", "alpha", "c2", allow_missing=True)
    with pytest.raises(ResourceNotFound):
        await disk.client.checkpoints.delete("disk", "alpha", "c2")


async def test_a_random_life_of_checkpoints_agrees_with_a_model(disk: NodeHouse):
    numbers, model, made = random.Random(3), list[tuple[str, set[int]]](), 0
    for _ in range(120):
        verb = numbers.choice(("write", "write", "take", "delete", "ask"))
        if verb == "write":
            offset = numbers.randrange(SIZE // GRANULARITY) * GRANULARITY
            await write(disk, offset)
            if model:
                model[-1][1].add(offset)
        elif verb == "take" and len(model) < 6:
            made += 1
            await take(disk, numbers.choice(("alpha", "beta")), f"c{made}")
            model.append(((await names(disk))[-1], set()))
        elif verb == "delete" and model:
            index = numbers.randrange(len(model))
            gone, changed = model.pop(index)
            await disk.client.checkpoints.delete("disk", *gone.split("/"))
            if index:
                model[index - 1][1].update(changed)
        elif model:
            first = numbers.randrange(len(model))
            last = numbers.randrange(first, len(model))
            expected = set().union(*(changed for _, changed in model[first : last if last > first else None]))
            target = model[last][0] if last > first else ""
            assert await delta(disk, model[first][0], target) == sorted(expected)


async def test_what_cannot_be_is_refused(disk: NodeHouse):
    checkpoints = disk.client.checkpoints
    await take(disk, "alpha", "one")
    await take(disk, "beta", "one")
    for call, error in (
        (take(disk, "alpha", "one"), ResourceExists),
        (take(disk, "", "x"), InvalidArgument),
        (take(disk, "a/b", "x"), InvalidArgument),
        (take(disk, "a", "x" * 64), InvalidArgument),
        (take(disk, "a", "x", granularity_bytes=1000), InvalidArgument),
        (take(disk, "a", "x", holders=["h", "h"]), InvalidArgument),
        (take(disk, "a", "x", holders=[""]), InvalidArgument),
        (checkpoints.get("disk", "alpha", "two"), ResourceNotFound),
        (checkpoints.create("nobody", "a", "b"), NodeNotFound),
        (delta(disk, "beta/one", "alpha/one"), InvalidArgument),
        (delta(disk, "beta/one", "beta/one"), InvalidArgument),
        (delta(disk, "beta/two"), ResourceNotFound),
        (checkpoints.hold("disk", "alpha", "one", "x" * 129), InvalidArgument),
    ):
        with pytest.raises(error):
            await call
    assert await names(disk) == ["alpha/one", "beta/one"]


async def test_bitmaps_of_checkpoints_are_changed_by_no_other_call(disk: NodeHouse):
    await take(disk, "alpha", "one")
    (name,) = disk.graph.get("disk").bitmaps
    bitmaps = disk.client.bitmaps
    await bitmaps.add("disk", "b")
    for call in (
        bitmaps.remove("disk", name),
        bitmaps.clear("disk", name),
        bitmaps.record("disk", name, False),
        bitmaps.merge(("disk", name), [("disk", "b")]),
        bitmaps.add("disk", "checkpoint:mine"),
    ):
        with pytest.raises(InvalidArgument):
            await call


async def test_a_held_checkpoint_is_not_deleted(disk: NodeHouse):
    checkpoints = disk.client.checkpoints
    await take(disk, "alpha", "one", holders=["restore-1"])
    held = await checkpoints.hold("disk", "alpha", "one", "restore-2")
    assert list(held.holders) == ["restore-1", "restore-2"]
    await checkpoints.hold("disk", "alpha", "one", "restore-2")  # counts once
    for holder in ("restore-1", "restore-2"):
        with pytest.raises(ResourceBusy) as refused:
            await checkpoints.delete("disk", "alpha", "one")
        assert holder in refused.value.owner
        await checkpoints.release("disk", "alpha", "one", holder)
    await checkpoints.release("disk", "alpha", "one", "nobody")
    await checkpoints.delete("disk", "alpha", "one")


async def test_a_checkpoint_expires_unless_it_is_held(tmp_path: Path):
    clock = VirtualClock()
    async with node_house(tmp_path, clock=clock) as house:
        await house.client.nodes.open(memory(SIZE, node_name="disk"))
        soon = clock.wall_ns() + 60 * 10**9
        await take(house, "alpha", "soon", expires_ns=soon)
        await take(house, "alpha", "held", expires_ns=soon, holders=["h"])
        await take(house, "alpha", "later", expires_ns=soon + 3600 * 10**9)
        await take(house, "alpha", "ever")
        await house.graph.checkpoints.expire()
        assert len(await names(house)) == 4
        await clock.advance(61)
        await house.graph.checkpoints.expire()
        assert await names(house) == ["alpha/held", "alpha/later", "alpha/ever"]
        await house.client.checkpoints.set_expiry("disk", "alpha", "ever", soon)
        await house.client.checkpoints.set_expiry("disk", "alpha", "held", 0)
        await house.client.checkpoints.release("disk", "alpha", "held", "h")
        await house.graph.checkpoints.expire()
        assert await names(house) == ["alpha/held", "alpha/later"]


async def test_a_node_has_a_bounded_number_of_checkpoints(disk: NodeHouse):
    for number in range(128):
        await take(disk, "alpha", f"c{number}", granularity_bytes=MIB)
    with pytest.raises(LimitReached):
        await take(disk, "alpha", "more")


async def test_a_delta_goes_on_where_it_broke_off(disk: NodeHouse):
    await take(disk, "alpha", "one")
    await write(disk, *range(0, SIZE, MIB))
    reference = bitmap.CheckpointReference(node_name="disk", consumer="alpha", name="one")
    stub = bitmap_pb2_grpc.BitmapServiceStub(disk.channel)
    offset, found = 0, []
    while offset < SIZE:
        request = bitmap.StreamCheckpointDeltaRequest(base=reference, offset_bytes=offset, max_results=3)
        async for reply in stub.StreamCheckpointDelta(request):
            assert reply.size_bytes == SIZE and len(reply.extents) <= 3
            found += [extent.offset_bytes for extent in reply.extents]
            offset = reply.next_offset_bytes
            break
    assert found == list(range(0, SIZE, MIB))


@pytest.mark.parametrize("form", ["raw", "qcow2"])
async def test_checkpoints_and_what_was_promised_of_them_come_back(form: str, tmp_path: Path):
    options = {"state_directory": str(tmp_path / "state")}
    async with node_house(tmp_path, **options) as house:
        await house.client.images.create(f"disk.{form}", SIZE, format=form)
        opened = qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk")
        await house.client.nodes.open(raw(file("disk.raw"), node_name="disk") if form == "raw" else opened)
        await take(house, "alpha", "one", holders=["h"])
        await write(house, MIB)
        made = await take(house, "beta", "one", expires_ns=4 * 10**18)
        assert made.persistent
        await write(house, 2 * MIB)
    async with node_house(tmp_path, **options) as house:
        first, second = await house.client.checkpoints.list("disk")
        assert (list(first.holders), second.expire_time.seconds) == (["h"], 4 * 10**9)
        await write(house, 3 * MIB)
        assert await delta(house, "alpha/one") == [MIB, 2 * MIB, 3 * MIB]
        assert await delta(house, "alpha/one", "beta/one") == [MIB]
        await house.client.checkpoints.delete("disk", "beta", "one")
    async with node_house(tmp_path, **options) as house:
        await write(house, 4 * MIB)
        assert await delta(house, "alpha/one") == [MIB, 2 * MIB, 3 * MIB, 4 * MIB]
        await house.client.nodes.close("disk")
        if form == "qcow2":  # they travel with the image
            await house.client.nodes.open(qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk"))
            assert await delta(house, "alpha/one") == [MIB, 2 * MIB, 3 * MIB, 4 * MIB]
            assert not (await house.client.checkpoints.get("disk", "alpha", "one")).holders
