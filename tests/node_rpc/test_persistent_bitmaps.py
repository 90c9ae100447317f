"""Dirty bitmaps that outlive their node, over the API: kept in the image, beside QEMU."""

import json
import struct
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BitmapInconsistent,
    LimitReached,
    NodeReadOnly,
    OperationUnsupported,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.client.definitions import NO_NODE, file, memory, qcow2, raw
from blockyard.node.graph.modes import settle
from tests.support import peers
from tests.support.node_calls import NodeHouse, node_house
from tests.support.qcow2_images import assert_clean, qemu_create, qemu_write

pytestmark = pytest.mark.peer("qemu-img")

KIB, MIB = 1 << 10, 1 << 20


async def opened(house: NodeHouse, name: str = "disk", **options) -> None:
    await house.client.nodes.open(qcow2(file("disk.qcow2"), backing=NO_NODE, node_name=name, **options))


async def disk(house: NodeHouse, **options) -> None:
    await house.client.images.create("disk.qcow2", 64 * MIB, format="qcow2")
    await opened(house, **options)


def told_by_qemu(house: NodeHouse) -> dict[str, list[str]]:
    info = json.loads(peers.run("qemu-img", "info", "-U", "--output=json", house.folder / "disk.qcow2").stdout)
    return {each["name"]: sorted(each["flags"]) for each in info["format-specific"]["data"].get("bitmaps", [])}


def leak(path: Path) -> None:
    """Count a reference more to a cluster that nobody refers to."""
    data = bytearray(path.read_bytes())
    (table,) = struct.unpack(">Q", data[48:56])
    (block,) = struct.unpack(">Q", data[table : table + 8])
    data += bytes(4 * 65536)
    last = len(data) // 65536 - 1
    data[block + 2 * last : block + 2 * last + 2] = b"\0\1"
    path.write_bytes(data)


async def dirty(house: NodeHouse, name: str, node: str = "disk") -> list[tuple[int, int]]:
    return [tuple(extent) async for extent in house.client.bitmaps.extents(node, name)]


async def test_a_persistent_bitmap_is_there_when_its_image_is_opened_again(house: NodeHouse):
    await disk(house)
    made = await house.client.bitmaps.add("disk", "b", persistent=True)
    assert made.persistent
    await house.client.data.write("disk", 5 * MIB, b"x")
    await house.client.nodes.close("disk")
    assert told_by_qemu(house) == {"b": ["auto"]}
    await opened(house, "again")
    found = await house.client.bitmaps.get("again", "b")
    assert (found.persistent, found.recording, found.inconsistent) == (True, True, False)
    assert await dirty(house, "b", "again") == [(5 * MIB, 65536)]
    await house.client.data.write("again", 0, b"x")
    assert await dirty(house, "b", "again") == [(0, 65536), (5 * MIB, 65536)]
    assert_clean(house.folder / "disk.qcow2")


async def test_a_bitmap_that_is_not_persistent_goes_with_its_node(house: NodeHouse):
    await disk(house)
    await house.client.bitmaps.add("disk", "b")
    await house.client.nodes.close("disk")
    assert told_by_qemu(house) == {}


async def test_qemus_bitmap_is_continued_and_given_back(house: NodeHouse):
    path = house.folder / "disk.qcow2"
    qemu_create(path, 64 * MIB)
    peers.run("qemu-img", "bitmap", "--add", path, "b")
    qemu_write(path, "write 1M 64k")
    await opened(house)
    await house.client.data.write("disk", 2 * MIB, b"x" * 65536)
    await house.client.nodes.close("disk")
    qemu_write(path, "write 3M 64k")
    await opened(house, read_only=True)
    assert await dirty(house, "b") == [(MIB, 3 * 65536 - 2 * 65536), (2 * MIB, 65536), (3 * MIB, 65536)]


async def test_a_bitmap_in_use_by_nobody_is_inconsistent_and_can_be_removed(house: NodeHouse):
    path = house.folder / "disk.qcow2"
    qemu_create(path, 64 * MIB)
    peers.run("qemu-img", "bitmap", "--add", path, "b")
    data = bytearray(path.read_bytes())
    at = data.rfind(b"b\0\0\0\0\0\0\0", 0)
    data[at - 24 + 15] |= 1
    path.write_bytes(data)
    assert told_by_qemu(house) == {"b": ["auto", "in-use"]}
    await opened(house)
    found = await house.client.bitmaps.get("disk", "b")
    assert (found.inconsistent, found.recording, found.persistent) == (True, False, True)
    with pytest.raises(BitmapInconsistent):
        await dirty(house, "b")
    with pytest.raises(BitmapInconsistent):
        await house.client.bitmaps.clear("disk", "b")
    await house.client.bitmaps.remove("disk", "b")
    assert told_by_qemu(house) == {}
    assert_clean(path)


async def test_a_removed_bitmap_is_out_of_the_image_at_once(house: NodeHouse):
    await disk(house)
    await house.client.bitmaps.add("disk", "b", persistent=True)
    await house.client.bitmaps.add("disk", "c", persistent=True)
    await house.client.nodes.close("disk")
    await opened(house)
    await house.client.bitmaps.remove("disk", "b")
    assert told_by_qemu(house) == {"c": ["auto", "in-use"]}
    await house.client.nodes.close("disk")
    assert told_by_qemu(house) == {"c": ["auto"]}


async def test_what_cannot_be_kept_is_refused(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    with pytest.raises(OperationUnsupported):
        await house.client.bitmaps.add("m", "b", persistent=True)
    await disk(house)
    with pytest.raises(LimitReached):
        for number in range(300):
            await house.client.bitmaps.add("disk", f"b{number}", persistent=True)
    with pytest.raises(ResourceExists):
        await house.client.bitmaps.add("disk", "b0", persistent=True)
    await house.client.nodes.close("disk")
    qemu_create(house.folder / "old.qcow2", MIB, "compat=0.10")
    await house.client.nodes.open(qcow2(file("old.qcow2"), node_name="old"))
    with pytest.raises(OperationUnsupported):
        await house.client.bitmaps.add("old", "b", persistent=True)


async def test_a_read_only_image_shows_its_bitmaps_and_changes_none(house: NodeHouse):
    await disk(house)
    await house.client.bitmaps.add("disk", "b", persistent=True)
    await house.client.data.write("disk", 0, b"x")
    await house.client.nodes.close("disk")
    await opened(house, read_only=True)
    assert await dirty(house, "b") == [(0, 65536)]
    bitmaps = house.client.bitmaps
    for call in (
        bitmaps.clear("disk", "b"),
        bitmaps.record("disk", "b", False),
        bitmaps.remove("disk", "b"),
        bitmaps.merge(("disk", "b"), [("disk", "b")]),
        bitmaps.add("disk", "c", persistent=True),
    ):
        with pytest.raises(NodeReadOnly):
            await call
    await bitmaps.add("disk", "volatile")
    await bitmaps.merge(("disk", "volatile"), [("disk", "b")])
    assert await dirty(house, "volatile") == [(0, 65536)]


async def test_a_disabled_bitmap_stays_disabled_and_a_cleared_one_clean(house: NodeHouse):
    await disk(house)
    await house.client.bitmaps.add("disk", "off", persistent=True)
    await house.client.bitmaps.add("disk", "clean", persistent=True)
    await house.client.data.write("disk", 0, b"x")
    await house.client.bitmaps.record("disk", "off", False)
    await house.client.bitmaps.clear("disk", "clean")
    await house.client.data.write("disk", MIB, b"x")
    await house.client.nodes.close("disk")
    assert told_by_qemu(house) == {"off": [], "clean": ["auto"]}
    await opened(house)
    assert await dirty(house, "off") == [(0, 65536)]
    assert await dirty(house, "clean") == [(MIB, 65536)]


async def test_bitmaps_stay_when_the_image_is_opened_otherwise_under_its_users(house: NodeHouse):
    await disk(house)
    await house.client.bitmaps.add("disk", "b", persistent=True)
    await house.client.data.write("disk", 0, b"x")
    read_only = qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk", read_only=True)
    await house.client.nodes.reopen([read_only])
    assert told_by_qemu(house) == {"b": ["auto"]}
    assert await dirty(house, "b") == [(0, 65536)]
    await house.client.nodes.reopen([qcow2(file("disk.qcow2"), backing=NO_NODE, node_name="disk")])
    await house.client.data.write("disk", MIB, b"x")
    assert told_by_qemu(house) == {"b": ["auto", "in-use"]}
    assert await dirty(house, "b") == [(0, 65536), (MIB, 65536)]


async def test_a_node_that_waits_for_writers_stores_when_they_leave(house: NodeHouse):
    await disk(house, auto_read_only=True)
    await house.client.bitmaps.add("disk", "b", persistent=True)
    await house.client.data.write("disk", 0, b"x")
    await settle(house.graph, house.graph.get("disk"))
    assert (await house.client.nodes.get("disk")).read_only
    assert told_by_qemu(house) == {"b": ["auto"]}
    await house.client.data.write("disk", MIB, b"x")
    await house.client.bitmaps.clear("disk", "b")
    await house.client.data.write("disk", 2 * MIB, b"x")
    assert await dirty(house, "b") == [(2 * MIB, 65536)]
    assert_clean(house.folder / "disk.qcow2")


async def test_a_hand_over_gives_bitmaps_away_and_takes_back_what_was_made_of_them(house: NodeHouse):
    await disk(house)
    await house.client.bitmaps.add("disk", "b", persistent=True)
    await house.client.bitmaps.add("disk", "gone", persistent=True)
    await house.client.data.write("disk", 0, b"x")
    await house.client.nodes.deactivate("disk")
    path = house.folder / "disk.qcow2"
    assert told_by_qemu(house) == {"b": ["auto"], "gone": ["auto"]}
    qemu_write(path, "write 1M 64k")
    peers.run("qemu-img", "bitmap", "--remove", path, "gone")
    peers.run("qemu-img", "bitmap", "--add", path, "new")
    await house.client.nodes.activate("disk")
    assert await dirty(house, "b") == [(0, 65536), (MIB, 65536)]
    assert await dirty(house, "new") == []
    with pytest.raises(ResourceNotFound):
        await house.client.bitmaps.get("disk", "gone")


async def test_a_stopped_service_leaves_bitmaps_that_the_next_one_goes_on_with(tmp_path: Path):
    state = str(tmp_path / "state")
    async with node_house(tmp_path, state_directory=state) as house:
        await disk(house)
        await house.client.bitmaps.add("disk", "b", persistent=True)
        await house.client.data.write("disk", 0, b"x")
    async with node_house(tmp_path, state_directory=state) as house:
        await house.client.data.write("disk", MIB, b"x")
        assert await dirty(house, "b") == [(0, 65536), (MIB, 65536)]


async def test_repairing_a_closed_image_keeps_its_bitmaps(house: NodeHouse):
    await disk(house)
    await house.client.bitmaps.add("disk", "b", persistent=True)
    await house.client.data.write("disk", 0, b"x")
    await house.client.nodes.close("disk")
    path = house.folder / "disk.qcow2"
    leak(path)
    assert (await house.client.images.check("disk.qcow2", "qcow2", repair="leaks")).leaks_fixed == 1
    assert told_by_qemu(house) == {"b": ["auto"]}
    await opened(house)
    assert await dirty(house, "b") == [(0, 65536)]


async def test_a_busy_persistent_bitmap_is_left_alone(house: NodeHouse):
    await disk(house)
    await house.client.bitmaps.add("disk", "b", persistent=True)
    house.graph.get("disk").bitmaps["b"].freeze("job/backup1")
    with pytest.raises(ResourceBusy):
        await house.client.bitmaps.remove("disk", "b")
    await house.client.data.write("disk", MIB, b"x")
    await house.client.nodes.close("disk")
    await opened(house)
    assert await dirty(house, "b") == [(MIB, 65536)]


async def test_a_raw_file_is_no_image(house: NodeHouse):
    house.raw_file("a.raw", MIB)
    await house.client.nodes.open(raw(file("a.raw"), node_name="r"))
    with pytest.raises(OperationUnsupported):
        await house.client.bitmaps.add("r", "b", persistent=True)
