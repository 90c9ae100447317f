"""qcow2 with extended L2 entries: both directions with QEMU, what is copied and what not, bits that cannot be."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import ImageCorrupt, InvalidArgument
from blockyard.base.units import KIB, MIB
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.interface.child import Child
from blockyard.node.interface.flags import MAY_UNMAP, Preallocation
from blockyard.node.interface.internal_snapshots import SnapshotWish
from blockyard.node.interface.mapping import MapKind
from tests.support import peers
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_images import (
    Surgeon,
    assert_clean,
    created,
    driver_of,
    opened,
    qemu_check,
    qemu_content,
    qemu_create,
    qemu_write,
    shake,
)

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]

SIZE = 5 * MIB + 512
CLUSTERS = [16 * KIB, 64 * KIB, 2 * MIB]


class TestQcow2WithExtendedL2(DriverContract):
    driver = "qcow2"
    grows_by_writing = False
    discard_zeroes = True

    async def prepare(self, ground: Ground) -> None:
        await created(ground, "disk", self.size, extended_l2=True)

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"file": await ground.open("file", {"filename": "disk"}, read_only=read_only)}


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


def extended(cluster: int) -> tuple[str, str]:
    return f"cluster_size={cluster}", "extended_l2=on"


async def runs_of(node: DriverChild) -> list[tuple[int, int, str, int]]:
    """(start, length, kind, host offset) of the node's own layer, neighbours of one kind joined."""
    runs: list[tuple[int, int, str, int]] = []
    position = 0
    while position < node.size:
        mapping = await node.map(position, node.size - position)
        kind, place = mapping.kind.name, mapping.offset if mapping.kind is MapKind.DATA else -1
        if runs and runs[-1][2] == kind and (place < 0 or runs[-1][3] + runs[-1][1] == place):
            start, length, _, first = runs.pop()
            runs.append((start, length + mapping.length, kind, first))
        else:
            runs.append((position, mapping.length, kind, place))
        position += mapping.length
    return runs


def qemu_runs(path: Path) -> list[tuple[int, int, str, int]]:
    """The same as QEMU tells it of an image without a backing file that is open."""
    told = json.loads(peers.run("qemu-img", "map", "-U", "--output=json", "-f", "qcow2", path).stdout)
    runs: list[tuple[int, int, str, int]] = []
    for item in told:
        if item["depth"] != 0 or not item["present"]:
            kind, place = "BACKING", -1
        elif item["data"]:
            kind, place = "DATA", item["offset"]
        else:
            kind, place = "ZERO", -1
        if runs and runs[-1][2] == kind and (place < 0 or runs[-1][3] + runs[-1][1] == place):
            start, length, _, first = runs.pop()
            runs.append((start, length + item["length"], kind, first))
        else:
            runs.append((item["start"], item["length"], kind, place))
    return runs


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("cluster", CLUSTERS)
async def test_qemu_reads_checks_and_maps_what_we_created_and_wrote(
    cluster: int, backed: bool, seed: int, ground: Ground
):
    path, below = ground.root / "disk", None
    reference = {}
    if backed:
        (ground.root / "base").write_bytes(random.Random(1).randbytes(3 * MIB))
        below = await ground.open("file", {"filename": "base"}, read_only=True)
        reference = {"backing_file": "base", "backing_fmt": "raw"}
    await created(ground, "disk", SIZE, cluster_size=cluster, extended_l2=True, **reference)
    assert_clean(path)
    node, model = await opened(ground, "disk", below), bytearray(SIZE)
    model[:] = await node.content()
    await shake(node, model, seed=cluster + seed)
    assert await node.content() == model
    runs = await runs_of(node)
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == model
    assert runs == qemu_runs(path)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cluster", CLUSTERS)
async def test_we_read_map_and_rewrite_what_qemu_created_and_wrote(cluster: int, seed: int, ground: Ground):
    base, path = ground.root / "base", ground.root / "disk"
    qemu_create(base, 3 * MIB)
    qemu_write(base, f"write -P 7 0 {3 * MIB}")
    qemu_create(path, SIZE, *extended(cluster), backing=base)
    numbers = random.Random(seed)
    commands = []
    for number in range(40):
        offset, length = 512 * numbers.randrange(8000), 512 * numbers.choice((1, 8, 60, 300))
        verb = numbers.choice(("write -P 5", "write -P 6", "write -z", "write -z -u", "discard"))
        commands.append(f"{verb} {offset} {length}" if number else "write -P 9 0 1k")
    qemu_write(path, *commands)
    model = bytearray(qemu_content(path))
    node = await opened(ground, "disk", await opened(ground, "base", read_only=True))
    assert await node.content() == model
    assert await runs_of(node) == qemu_runs(path)
    await shake(node, model, seed=seed, steps=30)
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == model


async def test_a_small_write_copies_only_the_subclusters_it_touches(ground: Ground):
    (ground.root / "base").write_bytes(b"\7" * MIB)
    await created(ground, "disk", MIB, extended_l2=True, backing_file="base", backing_fmt="raw")
    node = await opened(ground, "disk", await ground.open("file", {"filename": "base"}, read_only=True))
    await node.write(9 * KIB, b"x" * 512)
    place = (await node.map(8 * KIB, 512)).offset
    assert await runs_of(node) == [
        (0, 8 * KIB, "BACKING", -1),
        (8 * KIB, 2 * KIB, "DATA", place),
        (10 * KIB, MIB - 10 * KIB, "BACKING", -1),
    ]
    assert await node.content(8 * KIB, 4 * KIB) == b"\7" * KIB + b"x" * 512 + b"\7" * (2 * KIB + 512)
    await node.write(10 * KIB, b"y" * (2 * KIB))
    assert (await node.map(8 * KIB, 64 * KIB)).length == 4 * KIB


async def test_zeroes_reach_single_subclusters_and_free_a_cluster_only_when_nothing_is_left(ground: Ground):
    await created(ground, "disk", MIB, extended_l2=True)
    node = await opened(ground, "disk")
    await node.write(0, b"x" * (64 * KIB))
    assert node.limits.zero_alignment == 2 * KIB
    await node.zero(4 * KIB, 2 * KIB, MAY_UNMAP)
    assert [run[:3] for run in await runs_of(node)][:3] == [
        (0, 4 * KIB, "DATA"),
        (4 * KIB, 2 * KIB, "ZERO"),
        (6 * KIB, 58 * KIB, "DATA"),
    ]
    assert (await driver_of(node).check(False, False)).allocated_clusters == 1
    for at in range(0, 64 * KIB, 2 * KIB):
        await node.zero(at, 2 * KIB, MAY_UNMAP)
    assert (await driver_of(node).check(False, False)).allocated_clusters == 0
    await ground.close_all()
    assert_clean(ground.root / "disk")
    assert not any(qemu_content(ground.root / "disk"))


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
async def test_compressed_clusters_go_both_ways_and_can_be_zeroed_and_written_in_part(kind: str, ground: Ground):
    raw, path = ground.root / "raw", ground.root / "disk"
    content = bytearray((b"some text that repeats " * 50_000)[:MIB])
    raw.write_bytes(content)
    options = f"extended_l2=on,compression_type={kind}"
    peers.run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, raw, path)
    node = await opened(ground, "disk")
    assert await node.content() == content
    await node.zero(66 * KIB, 2 * KIB)
    content[66 * KIB : 68 * KIB] = bytes(2 * KIB)
    await node.write(200 * KIB, b"plain")
    content[200 * KIB : 200 * KIB + 5] = b"plain"
    assert await driver_of(node).write_compressed(512 * KIB, b"again " * 32 * KIB)
    content[512 * KIB : 704 * KIB] = b"again " * 32 * KIB
    await node.write(514 * KIB, b"over")
    assert await driver_of(node).write_compressed(512 * KIB, b"third " * 32 * KIB)
    content[512 * KIB : 704 * KIB] = b"third " * 32 * KIB
    assert await node.content() == content
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == content


async def test_internal_snapshots_keep_what_subclusters_held(ground: Ground):
    path = ground.root / "disk"
    await created(ground, "disk", 2 * MIB, extended_l2=True, cluster_size=16 * KIB)
    node, model = await opened(ground, "disk"), bytearray(2 * MIB)
    driver = driver_of(node)
    kept: dict[str, bytes] = {}
    for seed, name in enumerate(("one", "two", "three")):
        await shake(node, model, seed, steps=25)
        await driver.create_snapshot(SnapshotWish(name, 0))
        kept[name] = bytes(model)
    await shake(node, model, 9, steps=25)
    await driver.revert_to_snapshot(driver.snapshot_named("two").identifier)
    assert await node.content() == kept["two"]
    model[:] = kept["two"]
    await shake(node, model, 10, steps=25)
    await driver.delete_snapshot(driver.snapshot_named("one").identifier)
    assert await node.content() == model
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == model
    for name in ("two", "three"):
        peers.run("qemu-img", "convert", "-l", name, "-O", "raw", path, ground.root / "shown")
        assert (ground.root / "shown").read_bytes() == kept[name]


@pytest.mark.parametrize("old", [MIB + 512, MIB + 3 * KIB, 16 * KIB])
async def test_growing_shows_neither_a_longer_backing_file_nor_old_bytes(old: int, ground: Ground):
    (ground.root / "base").write_bytes(b"\7" * 2 * MIB)
    await created(ground, "disk", old, extended_l2=True, backing_file="base", backing_fmt="raw")
    node = await opened(ground, "disk", await ground.open("file", {"filename": "base"}, read_only=True))
    await node.write(old - 512, b"e" * 512)
    await node.truncate(3 * MIB)
    assert await node.content() == (b"\7" * (old - 512) + b"e" * 512).ljust(3 * MIB, b"\0")
    await node.truncate(old - 512)
    await node.truncate(2 * MIB)
    assert await node.content() == (b"\7" * (old - 512)).ljust(2 * MIB, b"\0")
    await ground.close_all()
    assert_clean(ground.root / "disk")
    assert qemu_content(ground.root / "disk") == (b"\7" * (old - 512)).ljust(2 * MIB, b"\0")


async def test_growing_over_a_compressed_last_cluster_shows_zeroes(ground: Ground):
    await created(ground, "disk", 72 * KIB, extended_l2=True)
    node = await opened(ground, "disk")
    await driver_of(node).write_compressed(64 * KIB, b"t" * (8 * KIB))
    await node.truncate(MIB)
    assert await node.content(64 * KIB, 64 * KIB) == (b"t" * (8 * KIB)).ljust(64 * KIB, b"\0")
    await ground.close_all()
    assert_clean(ground.root / "disk")


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
async def test_a_preallocated_image_is_all_data_and_writable_in_place(mode: str, ground: Ground):
    path = ground.root / "disk"
    await created(ground, "disk", 4 * MIB, extended_l2=True, preallocation=mode)
    assert_clean(path)
    node = await opened(ground, "disk")
    assert [run[:3] for run in await runs_of(node)] == [(0, 4 * MIB, "DATA")]
    await node.truncate(6 * MIB, Preallocation.METADATA)
    mapping = await node.map(5 * MIB, 4096)
    assert mapping.kind is MapKind.DATA
    assert mapping.writable
    await ground.close_all()
    assert_clean(path)
    assert qemu_runs(path)[0][2] == "DATA"
    assert not any(qemu_content(path))


async def test_copy_on_read_next_to_a_written_subcluster_leaves_that_alone(ground: Ground):
    """The unit of a copy is the subcluster: its neighbours in the cluster may be newer than the backing file."""
    (ground.root / "base").write_bytes(b"\7" * MIB)
    await created(ground, "disk", MIB, extended_l2=True, backing_file="base", backing_fmt="raw")
    graph = Graph(Environment(ground.storage, ground.pool, ground.clock))
    file = NodeDefinition("file", options={"filename": "disk"})
    base = NodeDefinition("file", options={"filename": "base"}, read_only=True)
    disk = NodeDefinition("qcow2", node_name="disk", children={"file": file, "backing": base})
    await graph.open(NodeDefinition("copy-on-read", node_name="top", children={"file": disk}))
    user = graph.use("top", "test", "guest", writable=True)
    await user.write(6 * KIB, b"x" * (2 * KIB))
    into = bytearray(KIB)
    await user.read(9 * KIB, memoryview(into))
    assert into == b"\7" * KIB
    whole = bytearray(64 * KIB)
    await user.read(0, memoryview(whole))
    assert whole == b"\7" * (6 * KIB) + b"x" * (2 * KIB) + b"\7" * (56 * KIB)
    graph.release(user)
    await graph.close_all()
    assert_clean(ground.root / "disk")


async def test_measuring_agrees_with_qemu(ground: Ground):
    from blockyard.node.drivers.qcow2 import Qcow2
    from blockyard.node.drivers.qcow2.options import Qcow2CreateOptions

    told = peers.run(
        "qemu-img", "measure", "--output=json", "-O", "qcow2", "-o", "extended_l2=on", "--size", "10G"
    ).stdout
    required, full = Qcow2.measure(Qcow2CreateOptions(10 << 30, extended_l2=True), 0)
    assert (required, full) == (json.loads(told)["required"], json.loads(told)["fully-allocated"])


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("extended_l2", {"extended_l2": True, "version": "v2"}),
        ("cluster_size", {"extended_l2": True, "cluster_size": 8 * KIB}),
    ],
)
async def test_options_that_cannot_be_are_refused_by_name(option: str, options: dict[str, object], ground: Ground):
    with pytest.raises(InvalidArgument) as refusal:
        await created(ground, "disk", MIB, **options)
    assert refusal.value.name == option


# --- what an image may say and must not -----------------------------------------------------------------


def damaged(ground: Ground, entry: int | None, bitmap: int) -> Path:
    path = ground.root / "disk"
    qemu_create(path, MIB, "extended_l2=on")
    qemu_write(path, "write -P 1 0 128k")
    surgeon = Surgeon(path)
    if entry is not None:
        surgeon.put(surgeon.l2, entry)
    surgeon.put(surgeon.l2 + 8, bitmap)
    surgeon.save()
    return path


@pytest.mark.parametrize(
    ("entry", "bitmap"),
    [(None, 0x0000_0001_0000_0001), (None, 0xFFFF_FFFF_FFFF_FFFF), (0, 0x0000_0000_0000_0010)],
    ids=["allocated and zero", "all of it", "allocated nowhere"],
)
async def test_bits_that_cannot_be_are_an_error_and_a_corruption_as_qemu_counts_it(
    entry: int | None, bitmap: int, ground: Ground
):
    path = damaged(ground, entry, bitmap)
    before = path.read_bytes()
    told = qemu_check(path)
    node = await opened(ground, "disk", read_only=True)
    with pytest.raises(ImageCorrupt, match="bitmap"):
        await node.content(0, 4096)
    assert await node.content(64 * KIB, 64 * KIB) == b"\1" * (64 * KIB)
    report = await driver_of(node).check(False, False)
    assert (report.corruptions, report.leaks) == (told["corruptions"], told["leaks"])
    await ground.close_all()
    assert path.read_bytes() == before
    writer = await opened(ground, "disk")
    with pytest.raises(ImageCorrupt):
        await writer.write(0, b"x" * 512)


async def test_a_run_ends_where_bits_cannot_be(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, MIB, "extended_l2=on")
    qemu_write(path, "write -P 1 0 1m")
    surgeon = Surgeon(path)
    surgeon.put(surgeon.l2 + 16 * 9 + 8, 0x8000_0000_FFFF_FFFF)
    surgeon.save()
    node = await opened(ground, "disk", read_only=True)
    assert (await node.map(0, MIB)).length == 9 * 64 * KIB


async def test_small_clusters_with_extended_entries_are_refused(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, MIB, "cluster_size=8k")
    surgeon = Surgeon(path)
    surgeon.put(hdr.FEATURES_AT, hdr.EXTENDED_L2)
    surgeon.save()
    with pytest.raises(ImageCorrupt, match="cluster_bits"):
        await opened(ground, "disk")


async def test_version_2_has_no_features_whatever_its_bytes_say(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, MIB, "compat=0.10")
    qemu_write(path, "write -P 1 0 64k")
    surgeon = Surgeon(path)
    surgeon.put(hdr.FEATURES_AT, hdr.EXTENDED_L2 | hdr.DATA_FILE)
    surgeon.save()
    node = await opened(ground, "disk", read_only=True)
    assert await node.content(0, 64 * KIB) == b"\1" * (64 * KIB)
    assert not (await node.driver.info()).specific["extended-l2"]


async def test_repair_counts_and_mends_as_for_any_image(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, MIB, "extended_l2=on", "cluster_size=16k")
    qemu_write(path, "write -P 1 0 300k", "write -z 4k 1k", "write -P 2 500k 512")
    surgeon = Surgeon(path)
    place = surgeon.refcounts
    for at in range(8, 20):
        surgeon.put(place + 2 * at, 0, ">H")
    surgeon.put(surgeon.l2, surgeon.get(surgeon.l2) & ~(1 << 63))
    surgeon.save()
    content = qemu_content(path)
    node = await opened(ground, "disk", repair=True)
    report = await driver_of(node).check(True, True)
    assert report.corruptions_fixed
    assert not report.corruptions
    assert await node.content() == content
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == content


async def test_states_are_compared_by_subclusters(ground: Ground):
    await created(ground, "disk", MIB, extended_l2=True)
    node = await opened(ground, "disk")
    driver = driver_of(node)
    await node.write(0, b"x" * (128 * KIB))
    await driver.create_snapshot(SnapshotWish("one", 0))
    await node.write(6 * KIB, b"y" * (2 * KIB))
    await node.zero(100 * KIB, 4 * KIB)
    await node.write(512 * KIB, b"z" * (2 * KIB))
    identifier = driver.snapshot_named("one").identifier
    async with driver.view("") as now, driver.view(identifier) as before:
        found, position = [], 0
        while position < MIB:
            for stretch in await now.against(before, position, MIB - position):
                if not stretch.is_same:
                    found.append((position, stretch.length, stretch.target.name, stretch.base.name))
                position += stretch.length
    # The cluster that moved did so as a whole: more than what differs, and never less.
    assert found == [
        (0, 64 * KIB, "DATA", "DATA"),
        (100 * KIB, 4 * KIB, "ZERO", "DATA"),
        (512 * KIB, 2 * KIB, "DATA", "BACKING"),
    ]
