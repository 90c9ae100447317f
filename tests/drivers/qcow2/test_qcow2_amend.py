"""Options of an image changed in place, judged by qemu-img: what it says of the image, and what a guest reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import BlockError, InvalidArgument, OperationUnsupported
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2.amending import Qcow2AmendOptions
from blockyard.node.interface.internal_snapshots import SnapshotWish
from blockyard.node.interface.operations import untold
from tests.support import peers
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_images import (
    assert_clean,
    driver_of,
    opened,
    qemu_content,
    qemu_create,
    qemu_write,
    shake,
)

pytestmark = pytest.mark.peer("qemu-img")


async def amend(node: DriverChild, **options: Any) -> None:
    """As the graph does it: step by step."""
    driver = driver_of(node)
    for step in driver.amendment(Qcow2AmendOptions(**options), False):
        if step.run is None:
            await node.truncate(step.size, exact=True)
        else:
            await step.run(untold)


def facts(path: Path) -> dict[str, Any]:
    told = json.loads(peers.run("qemu-img", "info", "-U", "--output=json", path).stdout)
    data: dict[str, Any] = told["format-specific"]["data"]
    return {**data, "size": told["virtual-size"], "backing": told.get("backing-filename", "")}


@pytest.fixture
async def ground(tmp_path: Path) -> Any:
    made = Ground(tmp_path)
    yield made
    await made.leave()


CREATIONS = {
    "plain": ("cluster_size=4k",),
    "small clusters": ("cluster_size=512",),
    "wide": ("cluster_size=4k", "refcount_bits=64"),
    "narrow": ("cluster_size=4k", "refcount_bits=1"),
    "version 2": ("cluster_size=4k", "compat=0.10"),
    "lazy": ("cluster_size=4k", "lazy_refcounts=on"),
    "large clusters": (),
}
AMENDMENTS: dict[str, dict[str, Any]] = {
    "to version 2": {"compat": "0.10", "refcount_bits": 16, "lazy_refcounts": False},
    "to version 3": {"compat": "1.1"},
    "lazy": {"compat": "v3", "lazy_refcounts": True},
    "one bit": {"compat": "v3", "refcount_bits": 1},
    "two bits": {"compat": "v3", "refcount_bits": 2},
    "eight bits": {"compat": "v3", "refcount_bits": 8},
    "32 bits": {"compat": "v3", "refcount_bits": 32},
    "64 bits": {"compat": "v3", "refcount_bits": 64},
    "larger": {"size": 3 * MIB},
    "all at once": {"compat": "v3", "refcount_bits": 4, "lazy_refcounts": True, "size": 5 * MIB},
}


@pytest.mark.parametrize("change", AMENDMENTS)
@pytest.mark.parametrize("created", CREATIONS)
async def test_an_amended_image_is_clean_and_shows_the_same(
    created: str, change: str, ground: Ground, tmp_path: Path
):
    path, wanted = tmp_path / "disk", AMENDMENTS[change]
    qemu_create(path, 2 * MIB, *CREATIONS[created])
    qemu_write(path, "write -P 7 100k 700k", "write -z 300k 100k", "write -P 9 1900k 100k")
    before = qemu_content(path)
    node = await opened(ground, "disk")
    await amend(node, **wanted)
    model = bytearray(await node.content())
    assert bytes(model[: len(before)]) == before and not any(model[len(before) :])
    await shake(node, model, seed=3, steps=25)
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == bytes(model)
    now = facts(path)
    if "compat" in wanted:
        assert now["compat"] == {"0.10": "0.10", "1.1": "1.1", "v3": "1.1"}[wanted["compat"]]
    if now["compat"] == "1.1":
        assert now["refcount-bits"] == wanted.get("refcount_bits", now["refcount-bits"])
        assert now["lazy-refcounts"] == wanted.get("lazy_refcounts", now["lazy-refcounts"])
    assert now["size"] == wanted.get("size", 2 * MIB)


@pytest.mark.parametrize("bits", (1, 4, 8, 32, 64))
async def test_qemu_amends_what_we_amended_and_the_other_way_round(bits: int, ground: Ground, tmp_path: Path):
    path = tmp_path / "disk"
    qemu_create(path, MIB, "cluster_size=4k")
    qemu_write(path, "write -P 7 0 600k")
    node = await opened(ground, "disk")
    await amend(node, refcount_bits=bits)
    await ground.close_all()
    peers.run("qemu-img", "amend", "-o", "refcount_bits=16", path)
    assert_clean(path)
    peers.run("qemu-img", "amend", "-o", "compat=0.10", path)
    node = await opened(ground, "disk")
    await amend(node, compat="1.1", refcount_bits=bits)
    await ground.close_all()
    assert_clean(path)
    peers.run("qemu-io", "-c", "read -P 7 0 600k", path)


async def test_zero_clusters_over_a_backing_file_become_zeroes_that_version_2_knows(ground: Ground, tmp_path: Path):
    base, path = tmp_path / "base", tmp_path / "disk"
    base.write_bytes(b"\xee" * MIB)
    qemu_create(path, MIB, "cluster_size=4k", backing=base, fmt="raw")
    qemu_write(path, "write -z 64k 512k", "write -P 7 0 8k", "write -P 5 700k 8k", "write -z 700k 8k")
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    qemu_write(path, "write -P 8 100k 8k", "write -z 900k 4k")
    before = qemu_content(path)
    size = path.stat().st_size
    backing = await ground.open(
        "raw", {}, {"file": await ground.open("file", {"filename": "base"})}, name="backing"
    )
    node = await opened(ground, "disk", backing)
    await amend(node, compat="v2")
    model = bytearray(await node.content())
    assert bytes(model) == before
    # 130 clusters of zeroes and more share one.
    assert path.stat().st_size < size + 64 * KIB
    await shake(node, model, seed=9, steps=30)
    await ground.close_all()
    assert_clean(path)
    assert facts(path)["compat"] == "0.10"
    assert qemu_content(path) == bytes(model)
    peers.run("qemu-img", "snapshot", "-a", "one", path)
    assert_clean(path)
    found = qemu_content(path)
    assert found[64 * KIB : 576 * KIB] == bytes(512 * KIB) and found[: 8 * KIB] == b"\7" * 8 * KIB
    peers.run("qemu-img", "snapshot", "-d", "one", path)
    assert_clean(path)


@pytest.mark.parametrize("count", (1, 2, 3))
async def test_a_few_zero_clusters_are_as_writable_as_their_refcounts_say(
    count: int, ground: Ground, tmp_path: Path
):
    base, path = tmp_path / "base", tmp_path / "disk"
    base.write_bytes(b"\xee" * MIB)
    qemu_create(path, MIB, "cluster_size=4k", backing=base, fmt="raw")
    qemu_write(path, f"write -z 64k {4 * count}k")
    node = await opened(ground, "disk", await ground.open("file", {"filename": "base"}, name="backing"))
    await amend(node, compat="v2")
    await ground.close_all()
    assert_clean(path)


async def test_many_zero_clusters_share_as_many_places_as_refcounts_can_count(ground: Ground, tmp_path: Path):
    base, path = tmp_path / "base", tmp_path / "disk"
    with base.open("wb") as file:
        file.truncate(64 * MIB)
    qemu_create(path, 64 * MIB, "cluster_size=512", backing=base, fmt="raw")
    node = await opened(ground, "disk", await ground.open("file", {"filename": "base"}, name="backing"))
    await node.zero(0, 33_000 * 512)
    await amend(node, compat="v2")
    await ground.close_all()
    assert_clean(path)


async def test_snapshots_keep_their_content_when_refcounts_change_their_width(ground: Ground, tmp_path: Path):
    path = tmp_path / "disk"
    qemu_create(path, MIB, "cluster_size=4k", "compat=0.10")
    qemu_write(path, "write -P 1 0 400k")
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    qemu_write(path, "write -P 2 100k 400k")
    node = await opened(ground, "disk")
    await amend(node, compat="v3", refcount_bits=4)
    await driver_of(node).create_snapshot(SnapshotWish("two", 0))
    with pytest.raises(OperationUnsupported, match="refcounts of 1 bits"):
        await amend(node, refcount_bits=1)
    await ground.close_all()
    assert_clean(path)
    peers.run("qemu-img", "snapshot", "-a", "one", path)
    peers.run("qemu-io", "-c", "read -P 1 0 400k", path)
    assert_clean(path)


async def test_a_width_that_cannot_hold_the_counters_changes_nothing(ground: Ground, tmp_path: Path):
    path = tmp_path / "disk"
    qemu_create(path, MIB, "cluster_size=64k")
    node = await opened(ground, "disk")
    await driver_of(node).write_compressed(0, b"ab" * (256 * KIB))
    await node.flush()
    with pytest.raises(OperationUnsupported, match="has 8 references"):
        await amend(node, refcount_bits=2)
    await node.write(512 * KIB, b"y" * 64 * KIB)
    await ground.close_all()
    assert_clean(path)
    assert facts(path)["refcount-bits"] == 16


async def test_the_backing_reference_is_changed_alone(ground: Ground, tmp_path: Path):
    base, path = tmp_path / "base", tmp_path / "disk"
    base.write_bytes(b"\xee" * MIB)
    qemu_create(path, MIB, backing=base, fmt="raw")
    node = await opened(ground, "disk")
    await amend(node, backing_file="./base", backing_fmt="raw")
    assert facts(path)["backing"] == "./base"
    await amend(node, backing_fmt="qcow2")
    driver = driver_of(node)
    assert driver.backing() is not None and driver.backing().format == "qcow2"  # type: ignore[union-attr]
    await amend(node, backing_file="")
    assert facts(path)["backing"] == ""


@pytest.mark.parametrize(
    ("creation", "options", "name"),
    [
        ((), {"compat": "1.2"}, "compat"),
        ((), {"refcount_bits": 3}, "refcount_bits"),
        ((), {"refcount_bits": 128}, "refcount_bits"),
        (("compat=0.10",), {"refcount_bits": 8}, "refcount_bits"),
        (("compat=0.10",), {"lazy_refcounts": True}, "lazy_refcounts"),
        (("refcount_bits=8",), {"compat": "0.10"}, "refcount_bits"),
        ((), {"backing_fmt": "raw"}, "backing_fmt"),
        ((), {"backing_file": "x"}, "backing_fmt"),
        ((), {"backing_file": "x" * 1024, "backing_fmt": "raw"}, "backing_file"),
    ],
)
async def test_options_that_cannot_be_are_named_and_nothing_changes(
    creation: tuple[str, ...], options: dict[str, Any], name: str, ground: Ground, tmp_path: Path
):
    path = tmp_path / "disk"
    qemu_create(path, MIB, *creation)
    before = path.read_bytes()
    node = await opened(ground, "disk")
    with pytest.raises(InvalidArgument) as refused:
        driver_of(node).amendment(Qcow2AmendOptions(**options), False)
    assert refused.value.name == name
    await ground.close_all()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("creation", "prepare"),
    [
        (("compression_type=zstd",), ()),
        ((), ("bitmap", "--add", "DISK", "b")),
    ],
)
async def test_what_version_2_cannot_say_keeps_an_image_from_becoming_that(
    creation: tuple[str, ...], prepare: tuple[str, ...], ground: Ground, tmp_path: Path
):
    path = tmp_path / "disk"
    qemu_create(path, MIB, *creation)
    if prepare:
        peers.run("qemu-img", *(str(path) if word == "DISK" else word for word in prepare))
    node = await opened(ground, "disk")
    with pytest.raises(BlockError, match="become version 2"):
        driver_of(node).amendment(Qcow2AmendOptions(compat="0.10"), False)


async def test_snapshots_of_another_size_keep_an_image_at_version_3(ground: Ground, tmp_path: Path):
    path = tmp_path / "disk"
    qemu_create(path, MIB)
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    peers.run("qemu-img", "resize", path, "2M")
    node = await opened(ground, "disk")
    with pytest.raises(OperationUnsupported, match="another disk size"):
        driver_of(node).amendment(Qcow2AmendOptions(compat="0.10"), False)
    assert driver_of(node).amendment(Qcow2AmendOptions(compat="0.10", size=MIB), False)
