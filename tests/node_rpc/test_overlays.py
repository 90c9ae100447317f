"""Overlay snapshots over the API: of one disk or of several at one instant, read by qemu-img afterwards."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import (
    BlockError,
    FileExists,
    InvalidArgument,
    MissingOption,
    NodeInUse,
    NodeNotFound,
    PathDenied,
    TransactionFailed,
)
from blockyard.client.definitions import NO_NODE, file, memory, qcow2, raw
from blockyard.node.graph.user import User
from blockyard.v1 import bitmap_pb2, control_pb2, drivers_pb2, node_pb2
from blockyard.v1.control_pb2 import Overlay
from tests.support import peers
from tests.support.node_calls import NodeHouse, node_house

pytestmark = [pytest.mark.peer("qemu-img")]

MIB = 1 << 20


@pytest.fixture
async def disk(house: NodeHouse) -> NodeHouse:
    """With an image in a folder, open as "disk"."""
    (house.folder / "disks").mkdir()
    await house.client.images.create("disks/disk", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("disks/disk"), backing=NO_NODE, node_name="disk"))
    await house.client.data.write("disk", 0, b"first")
    return house


def qemu_chain(path: Path) -> list[dict[str, Any]]:
    """The images from the top, as qemu-img finds them."""
    printed = peers.run("qemu-img", "info", "-U", "--backing-chain", "--output=json", path).stdout
    found: list[dict[str, Any]] = json.loads(printed)
    return found


def qemu_bytes(path: Path) -> bytes:
    copy = path.with_suffix(".copy")
    peers.run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, copy)
    return copy.read_bytes()


async def test_users_move_to_a_new_image_and_the_disk_stays_as_it_is(disk: NodeHouse, tmp_path: Path):
    await disk.client.exports.add_nbd("disk", "e", writable=True, addresses=[f"unix:{tmp_path}/nbd"])
    reply = await disk.client.snapshots.overlay("disk", "disks/top", "top")
    assert [node.node_name for node in reply.nodes] == ["top"]
    assert reply.pause.ToNanoseconds() > 0
    assert 0 < reply.skew.ToNanoseconds() <= reply.pause.ToNanoseconds()
    assert disk.users("top") == ["export/e"]
    await disk.client.data.write("top", 0, b"second")
    assert await disk.client.data.read("disk", 0, 6) == b"first\0"
    assert (await disk.client.nodes.get("disk")).read_only
    await disk.client.data.flush("top")
    assert [Path(each["filename"]).name for each in qemu_chain(disk.folder / "disks/top")] == ["top", "disk"]
    assert qemu_bytes(disk.folder / "disks/top")[:6] == b"second"


@pytest.mark.parametrize(
    ("filename", "absolute", "header"),
    (
        ("disks/top", False, "disk"),
        ("top", False, "disks/disk"),
        ("other/a/top", False, "../../disks/disk"),
        ("other/a/top", True, "{root}/disks/disk"),
    ),
)
async def test_a_header_names_the_disk_as_asked(filename: str, absolute: bool, header: str, disk: NodeHouse):
    (disk.folder / "other/a").mkdir(parents=True)
    await disk.client.snapshots.overlay("disk", filename, absolute=absolute)
    chain = qemu_chain(disk.folder / filename)
    assert chain[0]["backing-filename"] == header.format(root=disk.folder.resolve())
    assert chain[0]["backing-filename-format"] == "qcow2"
    assert qemu_bytes(disk.folder / filename)[:5] == b"first"


async def test_a_name_with_a_colon_is_no_protocol(house: NodeHouse):
    house.raw_file("a:b", b"first" + bytes(MIB - 5))
    await house.client.nodes.open(raw(file("a:b"), node_name="disk"))
    await house.client.snapshots.overlay("disk", "top", "top")
    assert qemu_chain(house.folder / "top")[0]["backing-filename"] == "./a:b"
    assert qemu_bytes(house.folder / "top")[:5] == b"first"


async def test_a_given_name_must_lead_to_the_disk(disk: NodeHouse):
    with pytest.raises(InvalidArgument):
        await disk.client.snapshots.overlay("disk", "top", backing_file="disks/other")
    await disk.client.snapshots.overlay("disk", "top", backing_file="./disks//disk")
    assert qemu_chain(disk.folder / "top")[0]["backing-filename"] == "./disks//disk"


async def test_an_image_that_is_there_is_taken_if_it_leads_to_the_disk(disk: NodeHouse):
    for name, backing in (("right", "disks/disk"), ("wrong", "wrong-disk"), ("bare", "")):
        more = {"backing_file": backing, "backing_format": "qcow2"} if backing else {}
        await disk.client.images.create(name, 2 * MIB, format="qcow2", **more)
    for name in ("wrong", "bare"):
        with pytest.raises(InvalidArgument):
            await disk.client.snapshots.overlay("disk", name, existing=True)
        assert (disk.folder / name).exists()
    await disk.client.snapshots.overlay("disk", "right", "top", existing=True)
    assert (await disk.client.nodes.get("top")).size_bytes == 2 * MIB


async def test_several_disks_are_taken_at_one_instant(disk: NodeHouse):
    """A guest that writes a number to one disk and then to the other: no snapshot has it on the second alone."""
    house = disk
    await house.client.images.create("other", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("other"), backing=NO_NODE, node_name="other"))
    users = [User("guest", name, house.graph.get(name), True) for name in ("disk", "other")]
    stop = False

    async def guest() -> None:
        number = 0
        while not stop:
            number += 1
            for user in users:
                await user.write(0, number.to_bytes(8, "big") * 64)
            await asyncio.sleep(0)

    writing = asyncio.create_task(guest())
    names = ["disk", "other"]
    for round_ in range(5):
        wanted = [
            Overlay(
                node_name=name, filename=f"{name}{round_}".replace("/", ""), overlay_node_name=f"{name}.{round_}"
            )
            for name in names
        ]
        reply = await house.client.snapshots.overlays(wanted)
        assert len(reply.nodes) == 2
        first, second = [int.from_bytes(await house.client.data.read(name, 0, 8), "big") for name in names]
        assert second <= first <= second + 1
        names = [node.node_name for node in reply.nodes]
    stop = True
    await writing
    for user in users:
        user.detach()


async def test_if_one_cannot_be_none_is_and_nothing_is_left(disk: NodeHouse):
    await disk.client.images.create("other", MIB, format="qcow2")
    await disk.client.nodes.open(qcow2(file("other"), backing=NO_NODE, node_name="other"))
    await disk.client.images.create("taken", MIB, format="qcow2")
    before = sorted(path.name for path in disk.folder.rglob("*"))
    wanted = [
        Overlay(node_name="disk", filename="top", overlay_node_name="top"),
        Overlay(node_name="other", filename="taken", overlay_node_name="top2"),
    ]
    with pytest.raises(TransactionFailed, match="taken"):
        await disk.client.snapshots.overlays(wanted)
    assert sorted(path.name for path in disk.folder.rglob("*")) == before
    assert {node.node_name for node in await disk.client.nodes.list()} >= {"disk", "other"}
    await disk.client.data.write("disk", 0, b"x")


async def test_a_repeated_call_makes_one_overlay(disk: NodeHouse):
    first = await disk.client.snapshots.overlay("disk", "top", "top", request_id="an-id")
    assert await disk.client.snapshots.overlay("disk", "top", "top", request_id="an-id") == first


async def test_an_overlay_begins_with_a_bitmap_in_one_transaction(disk: NodeHouse):
    actions = [
        node_pb2.TransactionAction(
            create_overlay=Overlay(node_name="disk", filename="top", overlay_node_name="top")
        ),
        node_pb2.TransactionAction(create_bitmap=bitmap_pb2.CreateBitmapRequest(node_name="top", name="b")),
    ]
    reply = await disk.nodes.RunTransaction(node_pb2.RunTransactionRequest(actions=actions))
    assert reply.skew.ToNanoseconds() <= reply.pause.ToNanoseconds()
    await disk.client.data.write("top", 0, b"second")
    assert (await disk.client.bitmaps.get("top", "b")).dirty_bytes > 0
    assert await disk.client.data.read("disk", 0, 5) == b"first"


async def test_a_rehearsal_leaves_no_image(disk: NodeHouse):
    action = node_pb2.TransactionAction(create_overlay=Overlay(node_name="disk", filename="top"))
    reply = await disk.nodes.RunTransaction(node_pb2.RunTransactionRequest(actions=[action], validate_only=True))
    assert not reply.failures
    assert not (disk.folder / "top").exists()
    assert not (await disk.client.nodes.get("disk")).read_only


async def test_options_of_the_new_image_are_taken(disk: NodeHouse):
    wanted = Overlay(
        node_name="disk", filename="top", qcow2=drivers_pb2.Qcow2CreateOptions(cluster_size_bytes=4096)
    )
    await disk.client.snapshots.overlays([wanted])
    assert qemu_chain(disk.folder / "top")[0]["cluster-size"] == 4096


async def test_the_chain_comes_back_after_a_restart(tmp_path: Path):
    state = str(tmp_path / "state")
    Path(state).mkdir()
    async with node_house(tmp_path, state_directory=state) as house:
        await house.client.images.create("disk", MIB, format="qcow2")
        await house.client.nodes.open(qcow2(file("disk"), backing=NO_NODE, node_name="disk"))
        await house.client.data.write("disk", 0, b"first")
        await house.client.snapshots.overlay("disk", "top", "top")
        await house.client.data.write("top", 512, b"second")
    async with node_house(tmp_path, state_directory=state) as house:
        assert await house.client.data.read("top", 0, 5) == b"first"
        assert await house.client.data.read("top", 512, 6) == b"second"
        assert await house.client.data.read("disk", 512, 6) == bytes(6)


@pytest.mark.parametrize(
    ("wanted", "error"),
    (
        (Overlay(node_name="none", filename="top"), NodeNotFound),
        (Overlay(node_name="disk"), MissingOption),
        (Overlay(filename="top"), MissingOption),
        (Overlay(node_name="disk", filename="../top"), PathDenied),
        (Overlay(node_name="disk", filename="disks/disk"), FileExists),
        (Overlay(node_name="m", filename="top"), InvalidArgument),
        (Overlay(node_name="disk", filename="top", overlay_node_name="disk"), BlockError),
        (Overlay(node_name="disk", filename="top", backing_naming=9), InvalidArgument),
        (Overlay(node_name="disk", filename="top", existing=True, backing_file="disks/disk"), InvalidArgument),
        (
            Overlay(
                node_name="disk", filename="top", qcow2=drivers_pb2.Qcow2CreateOptions(backing_file="disks/disk")
            ),
            InvalidArgument,
        ),
    ),
)
async def test_a_bad_wish_is_refused_and_leaves_nothing(wanted: Overlay, error: type[BlockError], disk: NodeHouse):
    await disk.client.nodes.open(memory(MIB, node_name="m"))
    with pytest.raises(error):
        await disk.client.snapshots.overlays([wanted])
    assert not (disk.folder / "top").exists()


async def test_one_node_has_one_overlay_in_a_call(disk: NodeHouse):
    wanted = [Overlay(node_name="disk", filename=name) for name in ("one", "two")]
    with pytest.raises((NodeInUse, TransactionFailed)):
        await disk.client.snapshots.overlays(wanted)
    assert not (disk.folder / "one").exists()
    with pytest.raises(InvalidArgument):
        await disk.snapshots.CreateOverlays(control_pb2.CreateOverlaysRequest())
