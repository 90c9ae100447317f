"""Options of an open image changed over the API: under a guest, checked before, told while it lasts."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import (
    InvalidArgument,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    OperationUnsupported,
    UnknownOption,
)
from blockyard.client.definitions import file, memory, qcow2, raw
from blockyard.v1 import node_pb2 as node
from tests.support import peers
from tests.support.node_calls import NodeHouse

MIB = 1 << 20


async def image(house: NodeHouse, name: str = "a", **options: Any) -> Path:
    await house.client.images.create(f"{name}.qcow2", 4 * MIB, format="qcow2", **options)
    await house.client.nodes.open(qcow2(file(f"{name}.qcow2"), node_name=name))
    await house.client.data.write(name, MIB, b"x" * 70_000)
    return house.folder / f"{name}.qcow2"


def told(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(peers.run("qemu-img", "info", "-U", "--output=json", path).stdout)
    return found


@pytest.mark.peer("qemu-img")
async def test_an_open_image_is_amended_and_goes_on_being_written(house: NodeHouse):
    path = await image(house, version="v2")
    state = await house.client.operations.amend(
        "a", compat="1.1", refcount_bits=64, lazy_refcounts=True, size=8 * MIB
    )
    assert state.size_bytes == 8 * MIB
    assert state.format_specific["refcount-bits"].int_value == 64
    await house.client.data.write("a", 6 * MIB, b"y" * 70_000)
    assert await house.client.data.read("a", MIB, 70_000) == b"x" * 70_000
    await house.client.nodes.close("a")
    assert told(path)["format-specific"]["data"]["lazy-refcounts"] is True
    peers.run("qemu-img", "check", path)


async def test_a_guest_that_writes_meanwhile_loses_nothing(house: NodeHouse):
    await image(house)
    done = False

    async def guest() -> int:
        count = 0
        while not done:
            await house.client.data.write("a", (count % 64) * 65_536, count.to_bytes(8, "big") * 512)
            count += 1
        return count

    writing = asyncio.create_task(guest())
    for bits in (1, 64, 8, 16):
        await house.client.operations.amend("a", refcount_bits=bits)
    await house.client.operations.amend("a", compat="v2")
    done = True
    count = await writing
    assert count > 0
    for slot in range(min(64, count)):
        last = max(number for number in range(count) if number % 64 == slot)
        assert await house.client.data.read("a", slot * 65_536, 4096) == last.to_bytes(8, "big") * 512


async def test_progress_is_told_and_the_node_comes_last(house: NodeHouse):
    await image(house)
    seen: list[node.OperationProgress] = []
    await house.client.operations.amend("a", refcount_bits=1, progress=seen.append)
    assert "refcount_bits" in {each.phase for each in seen}
    assert all(0 <= each.done <= each.total for each in seen)


async def test_a_dry_run_checks_and_changes_nothing(house: NodeHouse):
    path = await image(house)
    before = path.read_bytes()
    await house.client.operations.amend("a", refcount_bits=1, validate_only=True)
    with pytest.raises(InvalidArgument):
        await house.client.operations.amend("a", refcount_bits=3, validate_only=True)
    assert path.read_bytes() == before


async def test_what_cannot_be_amended_is_refused_by_name(house: NodeHouse):
    await image(house)
    amend = house.client.operations.amend
    with pytest.raises(NodeNotFound):
        await amend("nobody", compat="1.1")
    with pytest.raises(InvalidArgument) as nothing:
        await amend("a")
    assert nothing.value.name == "options"
    with pytest.raises(UnknownOption) as unknown:
        await amend("a", cluster_size=4096)
    assert unknown.value.option == "cluster_size"
    with pytest.raises(InvalidArgument) as kind:
        await amend("a", lazy_refcounts="yes")
    assert kind.value.name == "lazy_refcounts"
    await house.client.nodes.open(raw(memory(MIB), node_name="plain"))
    with pytest.raises(OperationUnsupported):
        await amend("plain", compat="1.1")


async def test_a_read_only_node_is_not_amended(house: NodeHouse):
    await house.client.images.create("r.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("r.qcow2", read_only=True), node_name="r", read_only=True))
    with pytest.raises(NodeReadOnly):
        await house.client.operations.amend("r", refcount_bits=8)


async def test_the_backing_reference_that_was_amended_is_shown(house: NodeHouse):
    await house.client.images.create("base.raw", MIB)
    await house.client.images.create(
        "top.qcow2", MIB, format="qcow2", backing_file="base.raw", backing_format="raw"
    )
    await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
    state = await house.client.operations.amend("top", backing_file="./base.raw", backing_fmt="raw")
    assert state.backing_file == "./base.raw"
    assert [child.name for child in state.children] == ["file", "backing"]


async def test_a_call_that_is_dropped_leaves_an_image_that_is_whole(house: NodeHouse):
    path = await image(house)
    for turns in range(1, 40, 3):
        call = asyncio.create_task(house.client.operations.amend("a", refcount_bits=1 if turns % 2 else 64))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert await house.client.data.read("a", MIB, 70_000) == b"x" * 70_000
    await house.client.data.write("a", 2 * MIB, b"z" * 70_000)
    await house.client.nodes.close("a")
    report = await house.client.images.check(path.name, "qcow2")
    assert report.corruptions == 0


@pytest.mark.peer("qemu-img")
async def test_a_data_file_is_renamed_and_need_not_be_raw_any_more(house: NodeHouse):
    create = house.client.images.create
    await create("d.qcow2", 4 * MIB, format="qcow2", extended_l2=True, data_file="d.raw", data_file_raw=True)
    await house.client.nodes.open(qcow2(file("d.qcow2"), node_name="d", follow_data_file=True))
    await house.client.data.write("d", MIB, b"x" * 70_000)
    amend = house.client.operations.amend
    with pytest.raises(OperationUnsupported):
        await amend("d", compat="v2")
    moved = house.folder / "moved.raw"
    state = await amend("d", refcount_bits=1, data_file=str(moved), data_file_raw=False)
    assert state.format_specific["data-file"].string_value == str(moved)
    with pytest.raises(InvalidArgument):
        await amend("d", data_file_raw=True)
    await house.client.nodes.close("d")
    (house.folder / "d.raw").rename(moved)
    found = told(house.folder / "d.qcow2")["format-specific"]["data"]
    assert (found["data-file"], found["data-file-raw"]) == (str(moved), False)
    peers.run("qemu-img", "check", "-f", "qcow2", house.folder / "d.qcow2")
    await image(house)
    with pytest.raises(InvalidArgument):
        await amend("a", data_file="d.raw")


async def test_a_snapshot_that_is_shown_stands_in_the_way_of_an_amendment(house: NodeHouse):
    await image(house)
    await house.client.snapshots.create("a", "one")
    await house.client.snapshots.open("a", "one", "shown")
    with pytest.raises(NodeInUse) as refused:
        await house.client.operations.amend("a", compat="v2")
    assert "node/shown" in refused.value.owners
    await house.client.nodes.close("shown")
    await house.client.operations.amend("a", compat="v2")
    await house.client.snapshots.open("a", "one", "shown")
    assert await house.client.data.read("shown", MIB, 70_000) == b"x" * 70_000
