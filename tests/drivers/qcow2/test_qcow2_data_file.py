"""qcow2 with an external data file: both directions with QEMU, what that file shows by itself, who may open it."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.base.errors import (
    DataFileDenied,
    DataFileMissing,
    FileBusy,
    FileExists,
    ImageCorrupt,
    InvalidArgument,
    OperationUnsupported,
    PermissionConflict,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2 import rebasing
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.graph import images
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.images import ImageOrder
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import BackingReference
from blockyard.node.interface.flags import MAY_UNMAP, Preallocation
from blockyard.node.interface.internal_snapshots import SnapshotWish
from blockyard.node.interface.mapping import MapKind
from tests.support import peers
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_images import (
    Surgeon,
    assert_clean,
    driver_of,
    qemu_check,
    qemu_content,
    qemu_create,
    qemu_write,
    shake,
)

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]

SIZE = 5 * MIB + 512


async def created(ground: Ground, size: int = SIZE, **options: object) -> None:
    for name in ("disk", "data"):
        (ground.root / name).touch()
    children: dict[str, Child] = {"file": await ground.open("file", {"filename": "disk"})}
    children["data-file"] = await ground.open("file", {"filename": "data"}, name="data-file")
    await ground.create("qcow2", {"size": size, "data_file": "data", **options}, children)
    for child in children.values():
        await ground.close(child)


async def opened(
    ground: Ground, backing: Child | None = None, read_only: bool = False, **options: object
) -> DriverChild:
    children: dict[str, Child] = {"file": await ground.open("file", {"filename": "disk"}, read_only=read_only)}
    children["data-file"] = await ground.open("file", {"filename": "data"}, name="data-file", read_only=read_only)
    if backing is not None:
        children["backing"] = backing
    return await ground.open("qcow2", options, children, name="top", read_only=read_only)


class TestQcow2WithADataFile(DriverContract):
    driver = "qcow2"
    grows_by_writing = False
    discard_zeroes = True

    async def prepare(self, ground: Ground) -> None:
        await created(ground, self.size)

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {
            "file": await ground.open("file", {"filename": "disk"}, read_only=read_only),
            "data-file": await ground.open("file", {"filename": "data"}, name="data-file", read_only=read_only),
        }


class TestQcow2WithARawDataFile(TestQcow2WithADataFile):
    async def prepare(self, ground: Ground) -> None:
        await created(ground, self.size, data_file_raw=True)


@pytest.fixture
async def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    monkeypatch.chdir(ground.root)  # QEMU takes a relative name from where it runs, we from where the image is
    yield ground
    await ground.leave()


FORMATS = [
    (cluster, extended, raw)
    for cluster in (512, 16 * KIB, 64 * KIB)
    for extended in (False, True)
    for raw in (False, True)
    if cluster > 512 or not extended
]


@pytest.mark.parametrize(("cluster", "extended", "raw"), FORMATS)
async def test_qemu_reads_and_checks_what_we_created_and_wrote(
    cluster: int, extended: bool, raw: bool, ground: Ground
):
    path, model = ground.root / "disk", bytearray(SIZE)
    await created(ground, cluster_size=cluster, extended_l2=extended, data_file_raw=raw)
    assert_clean(path)
    node = await opened(ground)
    await shake(node, model, seed=cluster + raw)
    assert await node.content() == model
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == model
    if raw:
        assert (ground.root / "data").read_bytes() == model


@pytest.mark.parametrize(("cluster", "extended", "raw"), FORMATS)
async def test_we_read_and_rewrite_what_qemu_created_and_wrote(
    cluster: int, extended: bool, raw: bool, ground: Ground
):
    path = ground.root / "disk"
    more = (*(["extended_l2=on"] if extended else []), *(["data_file_raw=on"] if raw else []))
    qemu_create(path, SIZE, f"cluster_size={cluster}", f"data_file={ground.root / 'data'}", *more)
    qemu_write(path, "write -P 1 1k 300k", "write -z 100k 64k", "write -P 2 2m 70000", "write -z -u 2050k 128k")
    model = bytearray(qemu_content(path))
    node = await opened(ground)
    assert await node.content() == model
    await shake(node, model, seed=cluster * 2 + raw, steps=40)
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == model
    if raw:
        # QEMU makes it as long as the last cluster.
        assert (ground.root / "data").read_bytes().rstrip(b"\0") == model.rstrip(b"\0")


async def test_an_overlay_keeps_its_data_beside_it(ground: Ground):
    (ground.root / "base").write_bytes(random.Random(1).randbytes(3 * MIB))
    await created(ground, backing_file="base", backing_fmt="raw")
    node = await opened(ground, await ground.open("file", {"filename": "base"}, read_only=True))
    model = bytearray((ground.root / "base").read_bytes().ljust(SIZE, b"\0"))
    await shake(node, model, seed=2)
    assert await node.content() == model
    await ground.close_all()
    assert_clean(ground.root / "disk")
    assert qemu_content(ground.root / "disk") == model


async def test_guest_data_is_at_its_own_offset_and_the_first_cluster_too(ground: Ground):
    await created(ground, cluster_size=4 * KIB)
    node = await opened(ground)
    await node.write(0, b"a" * 512)
    await node.write(MIB + 512, b"b" * 512)
    for offset in (0, MIB):
        mapping = await node.map(offset, 4 * KIB)
        assert (mapping.kind, mapping.offset, mapping.writable) == (MapKind.DATA, offset, True)
    assert (await node.map(4 * KIB, MIB)).kind is MapKind.BACKING
    await node.flush()
    assert (ground.root / "data").read_bytes()[MIB + 512 : MIB + 1024] == b"b" * 512


async def test_a_raw_data_file_is_the_disk_after_every_kind_of_change(ground: Ground):
    data = ground.root / "data"
    await created(ground, data_file_raw=True)
    assert data.read_bytes() == bytes(SIZE)
    node, model = await opened(ground), bytearray(SIZE)
    await node.write(0, b"x" * (3 * MIB))
    model[: 3 * MIB] = b"x" * (3 * MIB)
    await node.zero(64 * KIB, 128 * KIB)
    await node.zero(MIB, 128 * KIB, MAY_UNMAP)
    await node.discard(2 * MIB, 256 * KIB)
    for offset, length in ((64 * KIB, 128 * KIB), (MIB, 128 * KIB), (2 * MIB, 256 * KIB)):
        model[offset : offset + length] = bytes(length)
    await node.write(70 * KIB, b"y")
    model[70 * KIB] = ord("y")
    assert await node.content() == model
    assert data.read_bytes() == model
    await node.truncate(2 * MIB + 512)
    assert data.read_bytes() == model[: 2 * MIB + 512]
    await node.truncate(4 * MIB)
    assert data.read_bytes() == await node.content() == bytes(model[: 2 * MIB + 512]).ljust(4 * MIB, b"\0")
    await driver_of(node).make_empty()
    assert data.read_bytes() == await node.content() == bytes(4 * MIB)
    await ground.close_all()
    assert_clean(ground.root / "disk")
    assert qemu_content(ground.root / "disk") == bytes(4 * MIB)


async def test_growing_hides_what_a_longer_data_file_holds(ground: Ground):
    await created(ground, MIB, data_file_raw=True)
    with (ground.root / "data").open("r+b") as file:
        file.seek(MIB)
        file.write(b"secret" * 100_000)
    node = await opened(ground)
    await node.truncate(MIB + 256 * KIB)
    assert await node.content(MIB) == bytes(256 * KIB)
    assert (ground.root / "data").stat().st_size == MIB + 256 * KIB


async def test_a_data_file_that_is_too_short_reads_as_zeroes_and_grows(ground: Ground):
    await created(ground, MIB, preallocation="metadata")
    (ground.root / "data").write_bytes(b"s" * 512)
    node = await opened(ground)
    assert await node.content() == b"s" * 512 + bytes(MIB - 512)
    await node.write(MIB - 512, b"e" * 512)
    await ground.close_all()
    assert qemu_content(ground.root / "disk") == b"s" * 512 + bytes(MIB - 1024) + b"e" * 512


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
async def test_preallocation_reaches_the_data_file(mode: str, ground: Ground):
    await created(ground, 4 * MIB, preallocation=mode)
    assert_clean(ground.root / "disk")
    if mode != "metadata":
        assert (ground.root / "data").stat().st_blocks * 512 >= 4 * MIB
    node = await opened(ground)
    assert (await node.map(0, 4 * MIB)).kind is MapKind.DATA
    await node.truncate(5 * MIB, Preallocation(mode))
    assert not any(await node.content())
    await ground.close_all()
    assert_clean(ground.root / "disk")


async def test_a_discard_frees_room_in_the_data_file(ground: Ground):
    await created(ground)
    node = await opened(ground)
    await node.write(0, b"x" * (4 * MIB))
    await node.flush()
    before = (ground.root / "data").stat().st_blocks
    await node.discard(0, 3 * MIB)
    assert (ground.root / "data").stat().st_blocks <= before - 5000
    await node.write(512, b"y" * 512)
    assert await node.content(0, 2048) == bytes(512) + b"y" * 512 + bytes(1024)


async def test_what_needs_many_versions_of_a_cluster_is_refused(ground: Ground):
    await created(ground)
    node = await opened(ground)
    driver = driver_of(node)
    with pytest.raises(OperationUnsupported):
        await driver.create_snapshot(SnapshotWish("one", 0))
    with pytest.raises(OperationUnsupported):
        await driver.write_compressed(0, b"x" * (64 * KIB))


async def test_a_raw_data_file_goes_with_no_backing_file(ground: Ground):
    await created(ground, data_file_raw=True)
    node = await opened(ground)
    with pytest.raises(InvalidArgument):
        await driver_of(node).change_backing(BackingReference("base", "raw"))


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("data_file", {"version": "v2"}),
        ("data_file", {"data_file": "x" * 1024}),
        ("data_file_raw", {"data_file": "", "data_file_raw": True}),
        ("data_file_raw", {"data_file_raw": True, "backing_file": "base", "backing_fmt": "raw"}),
    ],
)
async def test_options_that_cannot_be_are_refused_by_name(option: str, options: dict[str, object], ground: Ground):
    with pytest.raises(InvalidArgument) as refusal:
        await created(ground, MIB, **options)
    assert refusal.value.name == option


# --- the header -----------------------------------------------------------------------------------------


async def test_extensions_are_written_back_as_they_were_when_the_header_changes(ground: Ground):
    path = ground.root / "disk"
    await created(ground, backing_file="base", backing_fmt="raw", cluster_size=64 * KIB)
    surgeon = Surgeon(path)
    cluster = hdr.decode(surgeon.data[: 64 * KIB], "x")
    unknown = ext.Extension(0x12345678, b"kept, whatever it means")
    more = hdr.HeaderCluster(cluster.header, (*cluster.extensions, unknown))
    more = hdr.HeaderCluster(
        more.with_header(backing_file_offset=more.extensions_end).header, more.extensions, cluster.backing_name
    )
    surgeon.data[: more.end] = hdr.encode(more)
    surgeon.save()
    node = await opened(ground)
    await driver_of(node).change_backing(BackingReference("./" * 100 + "base", "raw"))
    await rebasing.change_data_file(driver_of(node).image, "./" * 200 + "data")
    await ground.close_all()
    now = hdr.decode(path.read_bytes()[: 64 * KIB], "x")
    assert ext.find(now.extensions, 0x12345678) == unknown.data
    assert ext.find(now.extensions, ext.DATA_FILE) == b"./" * 200 + b"data"
    assert ext.find(now.extensions, ext.FEATURE_NAMES) == ext.find(cluster.extensions, ext.FEATURE_NAMES)
    assert now.backing_name == b"./" * 100 + b"base"
    told = peers.run("qemu-img", "info", "-U", path).stdout
    assert "./" * 200 + "data" in told


async def test_the_raw_flag_survives_writing_and_can_be_given_up(ground: Ground):
    await created(ground, data_file_raw=True)
    node = await opened(ground)
    await node.write(0, b"x" * 512)
    await node.flush()
    assert (await node.driver.info()).specific["data-file-raw"] is True
    await rebasing.give_up_raw(driver_of(node).image)
    await ground.close_all()
    told = peers.run("qemu-img", "info", "-U", ground.root / "disk").stdout
    assert "data file raw: false" in told


# --- who may open it ------------------------------------------------------------------------------------


def graph_of(ground: Ground, follow: bool = True) -> Graph:
    return Graph(Environment(ground.storage, ground.pool, ground.clock, follow_backing=follow))


def disk(**options: object) -> NodeDefinition:
    file = NodeDefinition("file", options={"filename": "disk"})
    return NodeDefinition("qcow2", node_name="top", options=options, children={"file": file})


async def test_what_a_header_names_is_opened_only_when_it_is_asked_for(ground: Ground):
    await created(ground)
    graph = graph_of(ground)
    with pytest.raises(DataFileDenied, match="'data'"):
        await graph.open(disk())
    await graph.open(disk(follow_data_file=True))
    node = graph.get("top")
    assert node.children["data-file"].node.path.endswith("data")
    user = graph.use("top", "test", "guest", writable=True)
    await user.write(0, b"x" * 4096)
    await user.flush()
    assert (ground.root / "data").read_bytes()[:4096] == b"x" * 4096
    graph.release(user)
    await graph.close_all()


async def test_a_closed_gate_denies_it_even_then(ground: Ground):
    await created(ground)
    graph = graph_of(ground, follow=False)
    with pytest.raises(DataFileDenied):
        await graph.open(disk(follow_data_file=True))
    assert not graph.nodes


@pytest.mark.parametrize("name", ["nbd://host/x", 'json:{"driver":"null"}', "/etc/passwd", "../outside", "gone"])
async def test_a_header_reaches_nothing_but_files_beneath_the_roots(name: str, ground: Ground):
    await created(ground)
    node = await opened(ground)
    await rebasing.change_data_file(driver_of(node).image, name)
    await ground.close_all()
    graph = graph_of(ground)
    with pytest.raises(DataFileMissing if name != "gone" else Exception):
        await graph.open(disk(follow_data_file=True))
    assert not graph.nodes


async def test_a_child_that_the_image_does_not_have_is_refused(ground: Ground):
    (ground.root / "data").touch()
    qemu_create(ground.root / "disk", MIB)
    with pytest.raises(InvalidArgument):
        await opened(ground)


async def test_an_image_is_looked_at_and_checked_without_its_data_file(ground: Ground):
    await created(ground)
    (ground.root / "data").unlink()
    graph = graph_of(ground)
    facts = await images.image_facts(graph, "disk")
    assert facts.info.specific["data-file"] == "data"
    report = await images.check(graph, "disk", "qcow2")
    assert not report.corruptions + report.leaks
    await graph.open(disk(no_io=True))
    user = graph.use("top", "test", "guest", writable=True)
    with pytest.raises(DataFileMissing):
        await user.write(0, b"x" * 512)
    graph.release(user)
    await graph.close_all()


async def test_creating_makes_both_files_or_none(ground: Ground):
    graph = graph_of(ground)
    options = {"data_file": "sub/data", "data_file_raw": True}
    with pytest.raises(Exception, match="sub"):
        await images.create(graph, ImageOrder("disk", "qcow2", MIB, options))
    assert not (ground.root / "disk").exists()
    (ground.root / "data").write_bytes(b"precious")
    with pytest.raises(FileExists):
        await images.create(graph, ImageOrder("disk", "qcow2", MIB, {"data_file": "data"}))
    assert not (ground.root / "disk").exists()
    assert (ground.root / "data").read_bytes() == b"precious"
    with pytest.raises(InvalidArgument):
        await images.create(graph, ImageOrder("disk", "qcow2", MIB, {"data_file": "./disk"}))
    await images.create(graph, ImageOrder("disk", "qcow2", MIB, {"data_file": "other"}), validate_only=True)
    assert not (ground.root / "other").exists()
    await images.create(graph, ImageOrder("disk", "qcow2", MIB, {"data_file": "other", "data_file_raw": True}))
    assert (ground.root / "other").stat().st_size == MIB
    assert_clean(ground.root / "disk")


@pytest.mark.parametrize("name", ["disk", "./disk"])
async def test_an_image_that_names_itself_as_its_data_file_is_refused_and_left_alone(name: str, ground: Ground):
    await created(ground)
    node = await opened(ground)
    await rebasing.change_data_file(driver_of(node).image, name)
    await ground.close_all()
    before = (ground.root / "disk").read_bytes()
    graph = graph_of(ground)
    for read_only in (False, True):
        wanted = replace(disk(follow_data_file=True), read_only=read_only)
        with pytest.raises((InvalidArgument, FileBusy)):
            await graph.open(wanted)
    file = NodeDefinition("file", node_name="both", options={"filename": "disk"})
    await graph.open(file)
    children = {"file": "both", "data-file": "both"}
    with pytest.raises((InvalidArgument, PermissionConflict)):
        await graph.open(NodeDefinition("qcow2", node_name="top", children=children))
    await graph.close_all()
    assert (ground.root / "disk").read_bytes() == before


# --- hostile images -------------------------------------------------------------------------------------


async def damaged(ground: Ground, entry: int) -> Path:
    path = ground.root / "disk"
    qemu_create(path, MIB, f"data_file={ground.root / 'data'}")
    qemu_write(path, "write -P 1 0 256k")
    surgeon = Surgeon(path)
    surgeon.put(surgeon.l2 + 8, entry)
    surgeon.save()
    return path


@pytest.mark.parametrize("entry", [1 << 63 | 0x30000, 0x30000, 1 << 62 | 0x10000], ids=["other", "plain", "packed"])
async def test_a_cluster_that_is_elsewhere_in_the_data_file_is_an_error(entry: int, ground: Ground):
    await damaged(ground, entry)
    node = await opened(ground)
    with pytest.raises(ImageCorrupt):
        await node.content(64 * KIB, 512)
    with pytest.raises(ImageCorrupt):
        await node.write(64 * KIB, b"x" * 512)
    assert await node.content(0, 64 * KIB) == b"\1" * (64 * KIB)


async def test_a_missing_copied_flag_is_counted_as_qemu_counts_it_and_repaired(ground: Ground):
    path = await damaged(ground, 0x10000)
    told = qemu_check(path)
    node = await opened(ground)
    report = await driver_of(node).check(False, False)
    assert (report.corruptions, report.leaks) == (told["corruptions"], told["leaks"])
    await driver_of(node).check(True, True)
    await ground.close_all()
    assert_clean(path)


async def test_a_raw_disk_gets_bitmaps_that_survive_our_writing(ground: Ground):
    """What a raw data file is most often for: changes of a raw disk are tracked in a qcow2 image beside it."""
    path = ground.root / "disk"
    await created(ground, MIB, data_file_raw=True)
    peers.run("qemu-img", "bitmap", "--add", path, "changed")
    node = await opened(ground)
    found = driver_of(node).take_bitmaps()
    assert [each.name for each in found] == ["changed"]
    await node.write(128 * KIB, b"x" * 4096)
    bits = found[0].bits
    assert bits is not None
    bits.mark(128 * KIB, 128 * KIB + 4096)
    await driver_of(node).store_bitmaps(found)
    await ground.close_all()
    told = peers.run("qemu-img", "info", path).stdout
    assert "name: changed" in told
    assert "in-use" not in told
    assert "data file raw: true" in told
    assert_clean(path)
    assert (ground.root / "data").read_bytes() == bytes(128 * KIB) + b"x" * 4096 + bytes(MIB - 132 * KIB)
