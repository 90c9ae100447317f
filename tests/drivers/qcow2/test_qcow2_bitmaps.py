"""Dirty bitmaps inside qcow2 images, in both directions with QEMU."""

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import ImageCorrupt, InvalidArgument, LimitReached, ResourceExists
from blockyard.base.units import KIB, MIB
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.drivers.qcow2 import Qcow2
from blockyard.node.formats.qcow2 import bitmaps as codec
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.interface.bitmaps import ImageBitmap, StoresBitmaps
from blockyard.node.interface.driver import BackingReference
from tests.support import peers
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_images import assert_clean, opened, qemu_check, qemu_create, qemu_write

pytestmark = pytest.mark.peer("qemu-img")

SIZE = 64 * MIB


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


def qemu_bitmap(path: Path, *arguments: str) -> None:
    *options, name = arguments
    peers.run("qemu-img", "bitmap", *options, path, name)


def told_by_qemu(path: Path) -> dict[str, tuple[int, list[str]]]:
    """Name: granularity, flags; as `qemu-img info` lists them."""
    info = json.loads(peers.run("qemu-img", "info", "-U", "--output=json", path).stdout)
    found = info["format-specific"]["data"].get("bitmaps", [])
    return {each["name"]: (each["granularity"], sorted(each["flags"])) for each in found}


def dirty_by_qemu(path: Path, name: str) -> list[tuple[int, int]]:
    """What QEMU's NBD server says of a bitmap."""
    url = f"nbd+unix:///?socket={path.parent}/nbd.sock"
    script = (
        f"qemu-nbd -r -f qcow2 -B {name} -k {path.parent}/nbd.sock {path} & sleep 0; "
        f"until [ -S {path.parent}/nbd.sock ]; do :; done; "
        f"qemu-img map --output=json --image-opts "
        f"driver=nbd,export=,server.type=unix,server.path={path.parent}/nbd.sock,"
        f"x-dirty-bitmap=qemu:dirty-bitmap:{name}; wait"
    )
    assert url
    told = json.loads(peers.run("bash", "-c", script).stdout)
    return [(each["start"], each["length"]) for each in told if not each["data"]]


def storing(node: DriverChild) -> StoresBitmaps:
    assert isinstance(node.driver, StoresBitmaps)
    return node.driver


def bitmap(name: str, *extents: tuple[int, int], granularity: int = 64 * KIB, size: int = SIZE) -> ImageBitmap:
    bits = DirtyBitmap(size, granularity)
    for offset, length in extents:
        bits.mark(offset, length)
    return ImageBitmap(name, granularity, bits, True)


def dirty(found: ImageBitmap) -> list[tuple[int, int]]:
    assert found.bits is not None
    return [(extent.offset, extent.length) for extent in found.bits.extents()]


async def reopened(ground: Ground, node: DriverChild, name: str = "disk") -> list[ImageBitmap]:
    await ground.close_all()
    node = await opened(ground, name, read_only=True)
    return storing(node).take_bitmaps()


# --- theirs ----------------------------------------------------------------------------------------------


async def test_qemus_bitmaps_are_read_with_what_qemu_recorded(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "-g", "512", "fine")
    qemu_bitmap(path, "--add", "--disable", "off")
    qemu_bitmap(path, "--add", "-g", "2M", "coarse")
    qemu_write(path, "write 1M 1k", "write 5000000 1", f"write {SIZE - 512} 512")
    node = await opened(ground, "disk", read_only=True)
    fine, off, coarse = storing(node).take_bitmaps()
    assert (fine.name, off.name, coarse.name) == ("fine", "off", "coarse")
    assert (fine.recording, off.recording, coarse.recording) == (True, False, True)
    assert dirty(fine) == [(MIB, 1024), (5000000 // 512 * 512, 512), (SIZE - 512, 512)]
    assert dirty(off) == []
    assert dirty(coarse) == [(0, 2 * MIB), (4 * MIB, 2 * MIB), (SIZE - 2 * MIB, 2 * MIB)]


async def test_a_bitmap_of_many_clusters_is_read_whole(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE, "cluster_size=512")
    qemu_bitmap(path, "--add", "-g", "512", "fine")
    qemu_write(path, "write 0 8M", "write 20M 512", "write 40M 24M")
    node = await opened(ground, "disk", read_only=True)
    (fine,) = storing(node).take_bitmaps()
    assert dirty(fine) == [(0, 8 * MIB), (20 * MIB, 512), (40 * MIB, 24 * MIB)]


async def test_a_bitmap_in_use_says_nothing_and_is_kept(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    node = await opened(ground, "disk")
    await node.write(0, bytes(512))  # from now on it is in use, and nobody stores it
    assert told_by_qemu(path) == {"b": (64 * KIB, ["auto", "in-use"])}
    (found,) = await reopened(ground, node)
    assert (found.name, found.bits, found.recording) == ("b", None, False)
    assert_clean(path)


async def test_opening_and_reading_leaves_bitmaps_alone(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    before = path.read_bytes()
    node = await opened(ground, "disk")
    await node.content(0, MIB)
    found = storing(node).take_bitmaps()
    await storing(node).store_bitmaps(found)
    await ground.close_all()
    assert path.read_bytes() == before


async def test_a_bitmap_is_in_use_on_disk_before_the_first_write_is(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    node = await opened(ground, "disk")
    order = []
    write = node.driver.image.write

    async def watched(offset: int, data: bytes) -> None:
        order.append((offset, bytes(data[:64])))
        await write(offset, data)

    node.driver.image.write = watched
    await node.write(0, b"x" * 512)
    assert order[0][0] == node.driver.image.bitmaps.place.directory_offset
    assert order[0][1][15] & codec.IN_USE


# --- ours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster_size", ["512", "4k", "64k", "2M"])
async def test_what_we_store_qemu_lists_and_reads(ground: Ground, cluster_size: str):
    path = ground.root / "disk"
    qemu_create(path, SIZE, f"cluster_size={cluster_size}")
    node = await opened(ground, "disk")
    wanted = [bitmap("one", (0, 512), (3 * MIB, 65536)), bitmap("two", (SIZE - 1, 1), granularity=512)]
    wanted[1].recording = False
    await node.write(0, b"x" * 512)
    await storing(node).store_bitmaps(wanted)
    await ground.close_all()
    assert told_by_qemu(path) == {"one": (65536, ["auto"]), "two": (512, [])}
    assert_clean(path)
    assert dirty_by_qemu(path, "one") == [(0, 65536), (3 * MIB, 65536)]
    assert dirty_by_qemu(path, "two") == [(SIZE - 512, 512)]


async def test_bitmaps_go_to_and_fro_between_qemu_and_us(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    qemu_write(path, "write 0 64k")
    node = await opened(ground, "disk")
    (found,) = storing(node).take_bitmaps()
    await node.write(MIB, b"x" * 512)
    assert found.bits is not None
    found.bits.mark(MIB, 512)
    await storing(node).store_bitmaps([found])
    await ground.close_all()
    qemu_write(path, "write 2M 64k")
    qemu_bitmap(path, "--add", "other")
    qemu_bitmap(path, "--merge", "b", "other")
    b, other = await reopened(ground, node)
    assert dirty(b) == dirty(other) == [(0, 65536), (MIB, 65536), (2 * MIB, 65536)]
    assert_clean(path)


async def test_a_bitmap_of_ones_needs_no_clusters_of_bits(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE, "cluster_size=512")
    node = await opened(ground, "disk")
    await storing(node).store_bitmaps([bitmap("all", (0, SIZE), granularity=512)])
    record = node.driver.image.bitmaps.records[0]
    async for entries in node.driver.image.bitmaps.table(record):
        assert (entries == codec.ALL_ONES).all()
    (found,) = await reopened(ground, node)
    assert dirty(found) == [(0, SIZE)]
    assert dirty_by_qemu(path, "all") == [(0, SIZE)]


async def test_what_is_stored_anew_frees_what_was_stored_before(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE, "cluster_size=4k")
    node = await opened(ground, "disk")
    for turn in range(12):
        fragments = [(at * 8192, 512) for at in range(turn, 4000, 7)]
        await node.write(turn * 65536, b"x" * 4096)
        await storing(node).store_bitmaps([bitmap("b", *fragments, granularity=512)])
        assert_clean(path)
    assert path.stat().st_size < 400 * KIB
    await storing(node).store_bitmaps([])
    assert_clean(path)
    assert told_by_qemu(path) == {}
    assert not hdr.decode(path.read_bytes()[:4096], "disk").header.autoclear


async def test_one_of_several_bitmaps_is_removed(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    for name in ("a", "b", "c"):
        qemu_bitmap(path, "--add", name)
    node = await opened(ground, "disk")
    await storing(node).remove_bitmap("b")
    await storing(node).remove_bitmap("nothing")
    assert sorted(told_by_qemu(path)) == ["a", "c"]
    assert_clean(path)
    for name in ("a", "c"):
        await storing(node).remove_bitmap(name)
    assert told_by_qemu(path) == {}
    assert_clean(path)


async def test_a_bitmap_follows_a_resize_to_the_next_store(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE, "cluster_size=512")
    qemu_bitmap(path, "--add", "-g", "512", "b")
    qemu_write(path, "write 63M 512")
    node = await opened(ground, "disk")
    (found,) = storing(node).take_bitmaps()
    assert found.bits is not None
    await node.truncate(3 * SIZE, exact=True)
    found.bits.resize(3 * SIZE)
    found.bits.mark(2 * SIZE, 512)
    await storing(node).store_bitmaps([found])
    (again,) = await reopened(ground, node)
    assert dirty(again) == [(63 * MIB, 512), (2 * SIZE, 512)]
    assert dirty_by_qemu(path, "b") == dirty(again)


async def test_bitmaps_stay_with_a_changed_backing_reference_and_a_snapshot(ground: Ground):
    path = ground.root / "disk"
    (ground.root / "base").write_bytes(bytes(SIZE))
    qemu_create(path, SIZE, backing=ground.root / "base", fmt="raw")
    qemu_bitmap(path, "--add", "b")
    qemu_write(path, "write 1M 64k")
    peers.run("qemu-img", "snapshot", "-c", "s", path)
    node = await opened(ground, "disk")
    (found,) = storing(node).take_bitmaps()
    await node.driver.change_backing(BackingReference("./base", "raw"))
    await node.driver.delete_snapshot(node.driver.snapshot_named("s").identifier)
    await storing(node).store_bitmaps([found])
    (again,) = await reopened(ground, node)
    assert dirty(again) == [(MIB, 65536)]
    assert_clean(path)
    assert told_by_qemu(path) == {"b": (64 * KIB, ["auto"])}


async def test_other_autoclear_bits_go_with_the_first_write_and_bitmaps_stay(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    with path.open("r+b") as file:
        file.seek(hdr.FEATURES_AT + 16)
        file.write(struct.pack(">Q", hdr.AUTOCLEAR_BITMAPS | 1 << 40))
    node = await opened(ground, "disk")
    await node.write(0, bytes(512))
    assert hdr.decode(path.read_bytes()[:65536], "disk").header.autoclear == hdr.AUTOCLEAR_BITMAPS


async def test_without_the_autoclear_bit_bitmaps_mean_nothing(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    with path.open("r+b") as file:
        file.seek(hdr.FEATURES_AT + 16)
        file.write(bytes(8))
    node = await opened(ground, "disk")
    assert storing(node).take_bitmaps() == []
    await storing(node).store_bitmaps([bitmap("new")])
    assert told_by_qemu(path) == {"new": (64 * KIB, ["auto"])}
    assert qemu_check(path)["corruptions"] == 0


async def test_version_2_keeps_no_bitmaps(ground: Ground):
    qemu_create(ground.root / "disk", SIZE, "compat=0.10")
    node = await opened(ground, "disk")
    assert not storing(node).stores_bitmaps


# --- what cannot be --------------------------------------------------------------------------------------


def changed_record(path: Path, **changes: int | bytes) -> None:
    """Rewrite the first record of an image's directory with other fields."""
    data = bytearray(path.read_bytes())
    cluster = hdr.decode(bytes(data[:65536]), "disk")
    place = ext.decode_bitmaps(ext.find(cluster.extensions, ext.BITMAPS) or b"", "disk")
    at = place.directory_offset
    raw = data[at : at + place.directory_size]
    (record,) = codec.decode_directory(raw, 1, cluster.header.cluster_size, "disk")
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    encoded = codec.encode_directory([codec.StoredBitmap(**{**fields, **changes})])
    data[at : at + 65536] = encoded.ljust(65536, b"\0")
    new = ext.replaced(
        cluster.extensions, ext.BITMAPS, ext.encode_bitmaps(place._replace(directory_size=len(encoded)))
    )
    head = hdr.encode(hdr.HeaderCluster(cluster.header, new, cluster.backing_name))
    data[: len(head)] = head
    path.write_bytes(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": codec.AUTO | 1 << 9},
        {"extra": b"something"},
        {"kind": 2},
        {"granularity_bits": 3},
        {"granularity_bits": 31},
        {"table_size": 7},
        {"table_size": 0x8000000},
    ],
)
async def test_a_bitmap_that_we_do_not_understand_is_kept_and_not_used(ground: Ground, changes):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    changed_record(path, **changes)
    node = await opened(ground, "disk")
    (found,) = storing(node).take_bitmaps()
    assert (found.name, found.bits, found.recording) == ("b", None, False)
    (before,) = node.driver.image.bitmaps.records
    await node.write(0, bytes(512))
    await storing(node).store_bitmaps([found, bitmap("new")])
    kept, _ = node.driver.image.bitmaps.records
    assert kept == before.flagged(codec.IN_USE, True)


async def test_extra_data_that_may_be_ignored_is_kept(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    qemu_write(path, "write 1M 64k")
    changed_record(path, extra=b"kept for you", flags=codec.AUTO | codec.EXTRA_COMPATIBLE)
    node = await opened(ground, "disk")
    (found,) = storing(node).take_bitmaps()
    assert dirty(found) == [(MIB, 65536)]
    await node.write(0, bytes(512))
    await storing(node).store_bitmaps([found])
    (record,) = node.driver.image.bitmaps.records
    assert record.extra == b"kept for you"
    assert record.flags == codec.AUTO | codec.EXTRA_COMPATIBLE


@pytest.mark.parametrize("entry", [1 << 60, 0x1FF, 1 << 40, 4096 + 512])
async def test_bits_in_a_place_that_cannot_be_are_not_used(ground: Ground, entry: int):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    qemu_write(path, "write 1M 64k")
    node = await opened(ground, "disk", read_only=True)
    (record,) = node.driver.image.bitmaps.records
    await ground.close_all()
    with path.open("r+b") as file:
        file.seek(record.table_offset)
        file.write(struct.pack(">Q", entry))
    node = await opened(ground, "disk")
    (found,) = storing(node).take_bitmaps()
    assert found.bits is None
    await storing(node).remove_bitmap("b")
    assert node.driver.image.bitmaps.records == []


@pytest.mark.parametrize(
    ("count", "size", "offset"),
    [
        (0, 32, 0x50000),
        (65536, 32, 0x50000),
        (1, 0, 0x50000),
        (1, 1 << 40, 0x50000),
        (1, 32, 0x50001),
        (1, 32, 1 << 50),
    ],
)
async def test_a_directory_that_cannot_be_refuses_the_image(ground: Ground, count: int, size: int, offset: int):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    cluster = hdr.decode(path.read_bytes()[:65536], "disk")
    place = ext.BitmapsExtension(count, size, offset)
    new = ext.replaced(cluster.extensions, ext.BITMAPS, ext.encode_bitmaps(place))
    with path.open("r+b") as file:
        file.write(hdr.encode(hdr.HeaderCluster(cluster.header, new, cluster.backing_name)))
    with pytest.raises(ImageCorrupt):
        await opened(ground, "disk", read_only=True)
    await ground.close_all()
    node = await opened(ground, "disk", repair=True)
    assert isinstance(node.driver, Qcow2)


async def test_limits_of_what_an_image_keeps_are_told_before(ground: Ground):
    qemu_create(ground.root / "disk", SIZE)
    node = await opened(ground, "disk")
    storing(node).check_can_store(["a"], 512)
    with pytest.raises(LimitReached):
        storing(node).check_can_store([f"b{number}" for number in range(65536)], 65536)
    with pytest.raises(LimitReached):
        storing(node).check_can_store([f"{number:01020d}" for number in range(65535)], 65536)
    await node.truncate(1 << 45, exact=True)
    with pytest.raises(InvalidArgument):
        storing(node).check_can_store(["a"], 512)


async def test_a_name_that_is_kept_and_not_shown_is_taken(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE)
    qemu_bitmap(path, "--add", "b")
    node = await opened(ground, "disk")
    node.driver.image.bitmaps.offered.clear()
    with pytest.raises(ResourceExists):
        storing(node).check_can_store(["b"], 65536)


def test_a_directory_encodes_to_what_it_was_decoded_from():
    records = [
        codec.StoredBitmap(65536, 3, codec.AUTO, 16, "one"),
        codec.StoredBitmap(0, 0, 1 << 30, 9, "z\udcff", 7, b"extra data"),
    ]
    data = codec.encode_directory(records)
    assert codec.decode_directory(data, 2, 65536, "disk") == records
    assert len(data) % 8 == 0
