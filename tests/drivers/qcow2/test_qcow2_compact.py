"""Compaction: the file becomes about as short as what is in it, and shows the same, snapshots included."""

import random
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import OperationUnsupported
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2 import compacting
from blockyard.node.formats.qcow2 import header as hdr
from tests.support import peers
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_images import (
    assert_clean,
    driver_of,
    opened,
    qemu_check,
    qemu_content,
    qemu_create,
    qemu_write,
    shake,
)

pytestmark = pytest.mark.peer("qemu-img")


async def compact(node: DriverChild) -> int:
    """As the graph does it; bytes moved."""
    driver, moved, last = driver_of(node), 0, -1
    await driver.check(True, False)
    await driver.reclaim()
    while True:
        step = await driver.compact()
        moved += step.moved
        if step.done or step.end == last:
            return moved
        last = step.end


@pytest.fixture
async def ground(tmp_path: Path) -> Any:
    made = Ground(tmp_path)
    yield made
    await made.leave()


@pytest.mark.parametrize("least", (64 * MIB, 40 * KIB), ids=("one step", "small steps"))
@pytest.mark.parametrize(
    "options",
    [
        ("cluster_size=4k",),
        ("cluster_size=512",),
        ("compat=0.10", "cluster_size=4k"),
        ("cluster_size=4k", "refcount_bits=64"),
        ("cluster_size=4k", "refcount_bits=1"),
        (),
    ],
    ids=("4k", "512", "version 2", "64 bits", "1 bit", "64k"),
)
async def test_free_room_between_is_given_back(
    options: tuple[str, ...], least: int, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compacting, "LEAST_BYTES", least)
    path = tmp_path / "disk"
    qemu_create(path, 8 * MIB, *options)
    node = await opened(ground, "disk")
    numbers = random.Random(1)
    model = bytearray(8 * MIB)
    for at in range(0, 6 * MIB, 256 * KIB):
        data = numbers.randbytes(256 * KIB)
        await node.write(at, data)
        model[at : at + len(data)] = data
    for at in (0, 256 * KIB, MIB, 2 * MIB, 3 * MIB + 256 * KIB, 4 * MIB):
        await node.zero(at, 512 * KIB, 4)
        model[at : at + 512 * KIB] = bytes(512 * KIB)
    await node.flush()
    before = path.stat().st_size
    assert await compact(node) > 0
    assert await node.content() == bytes(model)
    kept = sum(any(model[at : at + 65_536]) for at in range(0, len(model), 65_536)) * 65_536
    assert path.stat().st_size < min(before - MIB, kept + 700 * KIB)
    assert qemu_check(path)["leaks"] == 0
    await shake(node, model, seed=2, steps=30)
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == bytes(model)


async def test_snapshots_and_compressed_clusters_move_too(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compacting, "LEAST_BYTES", 100 * KIB)
    path, raw = tmp_path / "disk", tmp_path / "raw"
    numbers = random.Random(1)
    raw.write_bytes(b"".join(numbers.randbytes(1000) * 4 for _ in range(600)) + numbers.randbytes(600_000))
    peers.run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k", "-f", "raw", raw, path)
    peers.run("qemu-img", "resize", path, "4M")
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    qemu_write(path, "write -P 1 100k 400k")
    peers.run("qemu-img", "snapshot", "-c", "two", path)
    qemu_write(path, "write -P 2 0 1M", "write -P 3 3M 200k")
    first = peers.run("qemu-img", "convert", "-l", "one", "-O", "raw", path, tmp_path / "one.raw")
    assert first.returncode == 0
    peers.run("qemu-img", "snapshot", "-d", "two", path)
    node = await opened(ground, "disk")
    model = bytearray(await node.content())
    before = path.stat().st_size
    await compact(node)
    assert path.stat().st_size < before - 100 * KIB
    assert await node.content() == bytes(model)
    await shake(node, model, seed=4, steps=25)
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == bytes(model)
    peers.run("qemu-img", "convert", "-l", "one", "-O", "raw", path, tmp_path / "again.raw")
    assert (tmp_path / "again.raw").read_bytes() == (tmp_path / "one.raw").read_bytes()


async def test_leaks_and_places_kept_for_zeroes_are_given_back(ground: Ground, tmp_path: Path):
    path = tmp_path / "disk"
    qemu_create(path, 8 * MIB, "preallocation=metadata", "cluster_size=4k")
    qemu_write(path, "write -P 5 7M 64k", "write -z 1M 1M")
    node = await opened(ground, "disk")
    before = path.stat().st_size
    await compact(node)
    assert path.stat().st_size < before - 900 * KIB
    await ground.close_all()
    assert_clean(path)
    peers.run("qemu-io", "-c", "read -P 5 7M 64k", "-c", "read -P 0 1M 1M", path)


async def test_an_image_without_gaps_is_left_as_it_is(ground: Ground, tmp_path: Path):
    path = tmp_path / "disk"
    qemu_create(path, 8 * MIB)
    qemu_write(path, "write -P 5 0 4M")
    node = await opened(ground, "disk")
    assert await compact(node) == 0
    await ground.close_all()
    assert_clean(path)


async def test_persistent_bitmaps_stay_where_they_are(ground: Ground, tmp_path: Path):
    path = tmp_path / "disk"
    qemu_create(path, 8 * MIB, "cluster_size=4k")
    qemu_write(path, "write -P 5 0 4M")
    peers.run("qemu-img", "bitmap", "--add", path, "b")
    qemu_write(path, "discard 0 3M")
    node = await opened(ground, "disk")
    content = await node.content()
    await compact(node)
    assert await node.content() == content
    await ground.close_all()
    assert qemu_check(path)["corruptions"] == 0


async def test_an_image_that_is_encrypted_or_stored_elsewhere_is_refused(ground: Ground, tmp_path: Path):
    qemu_create(tmp_path / "disk", MIB)
    node = await opened(ground, "disk")
    image = driver_of(node).image
    for field, value in (("crypt_method", 2), ("incompatible", hdr.DATA_FILE), ("incompatible", hdr.EXTENDED_L2)):
        before = image.cluster
        image.update_header(**{field: value})
        with pytest.raises(OperationUnsupported, match="compact"):
            await driver_of(node).compact()
        image.cluster = before
