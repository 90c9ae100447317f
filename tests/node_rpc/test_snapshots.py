"""Snapshots inside images and VM state over the API, judged by qemu-img."""

import os
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    OperationUnsupported,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
    TransactionFailed,
)
from blockyard.client.definitions import NO_NODE, file, memory, qcow2
from blockyard.v1 import control_pb2 as control
from blockyard.v1 import node_pb2
from tests.support import peers
from tests.support.node_calls import NodeHouse, node_house

pytestmark = [pytest.mark.peer("qemu-img")]

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
async def disk(house: NodeHouse) -> NodeHouse:
    """With an image of 1 MiB, open as "disk"."""
    await house.client.images.create("disk", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("disk"), backing=NO_NODE, node_name="disk"))
    await house.client.data.write("disk", 0, b"first")
    return house


def listed(path: Path) -> str:
    return peers.run("qemu-img", "snapshot", "-U", "-l", path).stdout


def assert_clean(path: Path) -> None:
    result = peers.run("qemu-img", "check", "-U", "-f", "qcow2", path, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


async def test_a_snapshot_is_taken_listed_applied_and_deleted(disk: NodeHouse):
    made = await disk.client.snapshots.create(
        "disk", "one", vm_clock_ns=3_723_004_000_000, icount=7, time_ns=1_700_000_000_000_000_005
    )
    assert (made.id, made.name, made.node_name, made.size_bytes, made.icount) == ("1", "one", "disk", MIB, 7)
    assert made.create_time.ToNanoseconds() == 1_700_000_000_000_000_005
    assert "01:02:03.004" in listed(disk.folder / "disk")
    assert list(await disk.client.snapshots.list("disk")) == [made]
    await disk.client.data.write("disk", 0, b"second")
    assert_clean(disk.folder / "disk")
    await disk.client.snapshots.revert("disk", "one")
    assert await disk.client.data.read("disk", 0, 6) == b"first\0"
    assert await disk.client.snapshots.delete("disk", id="1") == made
    assert not await disk.client.snapshots.list("disk")
    assert_clean(disk.folder / "disk")


async def test_a_snapshot_without_a_time_is_taken_now(disk: NodeHouse):
    before = disk.graph.environment.clock.wall_ns()
    made = await disk.client.snapshots.create("disk", "one")
    assert before <= made.create_time.ToNanoseconds() <= disk.graph.environment.clock.wall_ns()
    assert not made.HasField("icount")


async def test_a_repeated_call_takes_one_snapshot(disk: NodeHouse):
    wanted = control.CreateSnapshotRequest(
        snapshot=control.Snapshot(node_name="disk", name="one"), request_id="an-id"
    )
    assert await disk.snapshots.CreateSnapshot(wanted) == await disk.snapshots.CreateSnapshot(wanted)
    assert len(await disk.client.snapshots.list("disk")) == 1


async def test_a_snapshot_is_read_as_a_node_while_the_disk_goes_on(disk: NodeHouse):
    await disk.client.snapshots.create("disk", "one")
    await disk.client.data.write("disk", 0, b"second")
    state = await disk.client.snapshots.open("disk", "one", "old")
    assert (state.node_name, state.read_only, state.size_bytes) == ("old", True, MIB)
    await disk.client.snapshots.create("disk", "two")
    await disk.client.data.write("disk", 0, b"third!")
    assert await disk.client.data.read("old", 0, 5) == b"first"
    with pytest.raises(ResourceBusy) as error:
        await disk.client.snapshots.delete("disk", "one")
    assert error.value.owner == "node/old"
    await disk.client.snapshots.delete("disk", "two")
    await disk.client.snapshots.revert("disk", "one")
    with pytest.raises(NodeReadOnly):
        await disk.client.data.write("old", 0, b"x")
    await disk.client.nodes.close("old")
    await disk.client.snapshots.delete("disk", "one")
    assert await disk.client.data.read("disk", 0, 5) == b"first"
    assert_clean(disk.folder / "disk")


async def test_a_snapshot_over_a_backing_file_shows_it_too(house: NodeHouse):
    house.raw_file("base", b"below" + bytes(MIB - 5))
    await house.client.images.create("disk", MIB, format="qcow2", backing_file="base", backing_format="raw")
    await house.client.nodes.open(qcow2(file("disk"), node_name="disk"))
    await house.client.snapshots.create("disk", "one")
    await house.client.data.write("disk", 0, b"above")
    await house.client.snapshots.open("disk", "1", "old")
    assert await house.client.data.read("old", 0, 5) == b"below"
    assert await house.client.data.read("disk", 0, 5) == b"above"


async def test_an_open_snapshot_comes_back_after_a_restart(tmp_path: Path):
    state = str(tmp_path / "state")
    Path(state).mkdir()
    async with node_house(tmp_path, state_directory=state) as house:
        await house.client.images.create("disk", MIB, format="qcow2")
        await house.client.nodes.open(qcow2(file("disk"), backing=NO_NODE, node_name="disk"))
        await house.client.data.write("disk", 0, b"first")
        await house.client.snapshots.create("disk", "one")
        await house.client.snapshots.open("disk", "one", "old")
        await house.client.data.write("disk", 0, b"second")
    async with node_house(tmp_path, state_directory=state) as house:
        assert await house.client.data.read("old", 0, 5) == b"first"
        assert await house.client.data.read("disk", 0, 6) == b"second"


async def test_a_revert_changes_the_size_back_and_dirties_bitmaps(disk: NodeHouse):
    await disk.client.snapshots.create("disk", "small")
    await disk.client.nodes.resize("disk", 4 * MIB)
    await disk.client.bitmaps.add("disk", "b")
    await disk.client.snapshots.create("disk", "large")
    await disk.client.snapshots.revert("disk", "small")
    assert (await disk.client.nodes.get("disk")).size_bytes == MIB
    assert (await disk.client.bitmaps.get("disk", "b")).dirty_bytes == MIB
    assert_clean(disk.folder / "disk")
    await disk.client.snapshots.revert("disk", "large")
    assert (await disk.client.nodes.get("disk")).size_bytes == 4 * MIB
    assert_clean(disk.folder / "disk")


async def test_a_revert_is_refused_below_an_overlay(disk: NodeHouse):
    await disk.client.snapshots.create("disk", "one")
    await disk.client.images.create("top", MIB, format="qcow2", backing_file="disk", backing_format="qcow2")
    await disk.client.nodes.open(qcow2(file("top"), backing="disk", node_name="top"))
    with pytest.raises(NodeInUse):
        await disk.client.snapshots.revert("disk", "one")


async def test_a_vm_state_goes_with_its_snapshot(disk: NodeHouse, tmp_path: Path):
    state = os.urandom(5 * MIB + 77)
    (tmp_path / "state").write_bytes(state)
    assert await disk.client.snapshots.save_state("disk", tmp_path / "state") == len(state)
    beside = disk.client.snapshots.load_state("disk", length=len(state))
    assert b"".join([piece async for piece in beside]) == state
    made = await disk.client.snapshots.create("disk", "one", vm_state_bytes=len(state))
    assert made.vm_state_bytes == len(state)
    assert "5 MiB" in listed(disk.folder / "disk")
    assert_clean(disk.folder / "disk")
    kept = disk.client.snapshots.load_state("disk", "one")
    assert b"".join([piece async for piece in kept]) == state
    await disk.client.snapshots.create("disk", "two")
    await disk.client.snapshots.revert("disk", "one")
    assert_clean(disk.folder / "disk")
    beside = disk.client.snapshots.load_state("disk", length=len(state))
    assert b"".join([piece async for piece in beside]) == state
    assert await disk.client.data.read("disk", 0, 5) == b"first"


@pytest.mark.parametrize(
    ("snapshot", "error"),
    (
        (control.Snapshot(node_name="none", name="x"), NodeNotFound),
        (control.Snapshot(node_name="m", name="x"), OperationUnsupported),
        (control.Snapshot(node_name="disk"), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x" * 256), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x\0"), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x", id="4"), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x", size_bytes=4), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x", icount=-2), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x", create_time=Timestamp(nanos=-1)), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x", create_time=Timestamp(seconds=1 << 40)), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x", vm_clock=Duration(seconds=-1)), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x", vm_state_bytes=-1), InvalidArgument),
        (control.Snapshot(node_name="disk", name="x", vm_state_bytes=1), InvalidArgument),
        (control.Snapshot(node_name="disk", name="taken"), ResourceExists),
    ),
)
async def test_a_bad_wish_is_refused(snapshot: control.Snapshot, error: type[BlockError], disk: NodeHouse):
    await disk.client.nodes.open(memory(MIB, node_name="m"))
    await disk.client.snapshots.create("disk", "taken")
    with pytest.raises(error):
        await disk.snapshots.CreateSnapshot(control.CreateSnapshotRequest(snapshot=snapshot))
    assert len(await disk.client.snapshots.list("disk")) == 1


async def test_unknown_snapshots_are_named(disk: NodeHouse):
    for call in (
        disk.client.snapshots.revert("disk", "none"),
        disk.client.snapshots.delete("disk", "none"),
        disk.client.snapshots.delete("disk", id="9"),
        disk.client.snapshots.open("disk", "none"),
    ):
        with pytest.raises(ResourceNotFound):
            await call
    with pytest.raises(InvalidArgument):
        await disk.client.snapshots.delete("disk")


async def test_snapshots_of_several_disks_are_one_transaction(disk: NodeHouse):
    await disk.client.images.create("other", MIB, format="qcow2")
    await disk.client.nodes.open(qcow2(file("other"), backing=NO_NODE, node_name="other"))

    def both(name: str, *more: str) -> node_pb2.RunTransactionRequest:
        wanted = [control.Snapshot(node_name=node, name=name) for node in ("disk", "other", *more)]
        actions = [
            node_pb2.TransactionAction(create_snapshot=control.CreateSnapshotRequest(snapshot=each))
            for each in wanted
        ]
        return node_pb2.RunTransactionRequest(actions=actions)

    await disk.nodes.RunTransaction(both("one"))
    await disk.client.snapshots.create("other", "two")
    with pytest.raises(TransactionFailed):
        await disk.nodes.RunTransaction(both("two"))
    assert [each.name for each in await disk.client.snapshots.list("disk")] == ["one"]
    assert [each.name for each in await disk.client.snapshots.list("other")] == ["one", "two"]
    assert_clean(disk.folder / "disk")
