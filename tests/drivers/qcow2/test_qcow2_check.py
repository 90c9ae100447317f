"""Checks count as QEMU counts, and repairs satisfy it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from blockyard.base.errors import ImageCorrupt, ImageMarkedCorrupt
from blockyard.base.units import KIB, MIB
from blockyard.node.formats.qcow2 import header as hdr
from tests.support import peers
from tests.support.ground import Ground
from tests.support.qcow2_images import (
    Surgeon,
    assert_clean,
    driver_of,
    filled_image,
    opened,
    qemu_check,
    qemu_content,
    qemu_write,
)

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]

COPIED = 1 << 63


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


def leak(surgeon: Surgeon) -> None:
    surgeon.put(surgeon.l2, 0)
    surgeon.put(surgeon.l2 + 8, 0)


def lost_refcounts(surgeon: Surgeon) -> None:
    for cluster in (8, 9, 20):
        surgeon.put(surgeon.refcounts + 2 * cluster, 0, ">H")


def lost_refcount_block(surgeon: Surgeon) -> None:
    surgeon.put(surgeon.header.refcount_table_offset, 0)


def shared_cluster(surgeon: Surgeon) -> None:
    surgeon.put(surgeon.l2, surgeon.get(surgeon.l2 + 8))


def wrong_flags(surgeon: Surgeon) -> None:
    for number in (3, 4, 5):
        surgeon.put(surgeon.l2 + 8 * number, surgeon.get(surgeon.l2 + 8 * number) & ~COPIED)


def wrong_l1_flag(surgeon: Surgeon) -> None:
    surgeon.put(surgeon.header.l1_table_offset, surgeon.l2)


def everything(surgeon: Surgeon) -> None:
    for damage in (lost_refcounts, wrong_flags, leak):
        damage(surgeon)


@pytest.mark.parametrize(
    "damage",
    [leak, lost_refcounts, lost_refcount_block, shared_cluster, wrong_flags, wrong_l1_flag, everything],
    ids=lambda damage: damage.__name__,
)
async def test_a_check_counts_as_qemu_does_and_a_repair_satisfies_it(
    damage: Callable[[Surgeon], None], ground: Ground
):
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    damage(surgeon)
    surgeon.save()
    content = qemu_content(path)
    peer = qemu_check(path)
    node = await opened(ground, "disk", repair=True)
    report = await driver_of(node).check(False, False)
    assert (report.corruptions, report.leaks) == (peer["corruptions"], peer["leaks"]), report.findings
    assert report.findings
    repaired = await driver_of(node).check(True, True)
    assert (repaired.corruptions, repaired.leaks) == (0, 0), repaired.findings
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == content
    node = await opened(ground, "disk")
    await node.write(0, b"z" * 300_000)
    await ground.close_all()
    assert_clean(path)


async def test_repairing_leaks_alone_leaves_corruptions(ground: Ground):
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    everything(surgeon)
    surgeon.save()
    before = qemu_check(path)
    node = await opened(ground, "disk", repair=True)
    report = await driver_of(node).check(True, False)
    assert report.leaks_fixed == before["leaks"]
    await ground.close_all()
    after = qemu_check(path)
    assert (after["leaks"], after["corruptions"]) == (0, before["corruptions"])


async def test_an_image_marked_corrupt_is_writable_only_after_its_repair(ground: Ground):
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    lost_refcounts(surgeon)
    surgeon.put(72, hdr.CORRUPT)
    surgeon.save()
    with pytest.raises(ImageMarkedCorrupt):
        await opened(ground, "disk")
    await ground.close_all()
    node = await opened(ground, "disk", repair=True)
    with pytest.raises(ImageMarkedCorrupt):
        await node.write(0, b"too early")
    report = await driver_of(node).check(True, True)
    assert (report.corruptions, report.corruptions_fixed) == (0, 6)  # three refcounts, and COPIED on each
    assert not (await node.driver.info()).is_corrupt
    for at in range(0, MIB, 256 * KIB):
        await node.write(at, b"now" * 30_000)
    await ground.close_all()
    assert_clean(path)


async def test_a_refcount_table_full_of_nonsense_is_replaced(ground: Ground):
    path = filled_image(ground.root)
    surgeon, content = Surgeon(path), qemu_content(path)
    for number in range(20):
        surgeon.put(surgeon.header.refcount_table_offset + 8 * number, 0x123456789ABCDEF * (number + 1) % 2**64)
    surgeon.save()
    with pytest.raises(ImageCorrupt):
        await opened(ground, "disk")
    await ground.close_all()
    node = await opened(ground, "disk", repair=True)
    await driver_of(node).check(True, True)
    await node.write(900 * KIB, b"new" * 1000)
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path)[: 900 * KIB] == content[: 900 * KIB]


@pytest.mark.parametrize("compressed", [False, True])
async def test_figures_of_allocation_agree_with_qemu(compressed: bool, ground: Ground):
    raw, path = ground.root / "raw", ground.root / "disk"
    raw.write_bytes(b"".join(bytes([n % 251]) * 4096 if n % 3 else bytes(4096) for n in range(600)))
    peers.run(
        "qemu-img", "convert", *(["-c"] if compressed else []), "-O", "qcow2", "-o", "cluster_size=4k", raw, path
    )
    if not compressed:
        qemu_write(path, "write -P 9 0 4k", "discard 64k 64k", "write -P 8 1m 8k")
    peer = qemu_check(path)
    report = await driver_of(await opened(ground, "disk", read_only=True)).check(False, False)
    assert report.allocated_clusters == peer["allocated-clusters"]
    assert report.compressed_clusters == peer["compressed-clusters"]
    assert report.fragmented_clusters == peer["fragmented-clusters"]
    assert report.total_clusters == peer["total-clusters"]
    assert report.image_end_offset == peer["image-end-offset"]
    assert (report.corruptions, report.leaks) == (0, 0)


async def test_snapshots_and_valid_bitmaps_are_no_leaks(ground: Ground):
    path = filled_image(ground.root)
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    qemu_write(path, "write -P 2 0 64k")
    peers.run("qemu-img", "snapshot", "-c", "two", path)
    peers.run("qemu-img", "bitmap", "--add", path, "bits")
    report = await driver_of(await opened(ground, "disk", read_only=True)).check(False, False)
    assert (report.corruptions, report.leaks) == (0, 0), report.findings


async def test_a_snapshots_shared_tables_are_repaired_too(ground: Ground):
    path = filled_image(ground.root)
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    qemu_write(path, "write -P 2 0 64k")
    surgeon = Surgeon(path)
    lost_refcounts(surgeon)
    surgeon.save()
    node = await opened(ground, "disk", repair=True)
    await driver_of(node).check(True, True)
    await ground.close_all()
    assert_clean(path)


async def test_what_has_one_reference_left_after_a_repair_of_leaks_has_its_flag(ground: Ground):
    """A snapshot is gone, its references are not."""
    path = filled_image(ground.root)
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    surgeon = Surgeon(path)
    surgeon.data[60:72] = bytes(12)
    surgeon.save()
    report = await driver_of(await opened(ground, "disk")).check(True, False)
    assert report.leaks_fixed > 128
    await ground.close_all()
    assert_clean(path)
