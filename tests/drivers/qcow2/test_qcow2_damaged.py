"""Damaged, hostile and absurd qcow2 images: named errors and bounded work."""

import random
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BlockError,
    ImageCorrupt,
    ImageMarkedCorrupt,
    MissingOption,
    NodeReadOnly,
    UnsupportedFeature,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.interface.mapping import MapKind
from tests.support.ground import Ground
from tests.support.luks_images import qemu_create_qcow2_luks
from tests.support.qcow2_images import (
    Surgeon,
    created,
    driver_of,
    filled_image,
    opened,
    qemu_check,
    qemu_create,
    qemu_write,
)

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]

COPIED = 1 << 63


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


# --- what must not be believed -----------------------------------------------------------------------------


async def test_a_write_never_lands_on_metadata(ground: Ground):
    """An L2 entry points to the refcount block, flagged as the guest's own."""
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    surgeon.put(surgeon.l2, surgeon.refcounts | COPIED)
    surgeon.save()
    node = await opened(ground, "disk")
    events: list[str] = []
    node.context.report = lambda kind, detail: events.append(kind)
    before = Surgeon(path).data
    with pytest.raises(ImageCorrupt, match="metadata"):
        await node.write(0, b"boom" * 1024)
    assert events == ["corrupted"]
    with pytest.raises(NodeReadOnly):
        await node.write(512 * KIB, b"more")
    await ground.close_all()
    after = Surgeon(path)
    assert after.data[4096:] == before[4096:]
    assert hdr.decode_fixed(after.data, "x").incompatible & hdr.CORRUPT
    with pytest.raises(ImageMarkedCorrupt):
        await opened(ground, "disk")
    await ground.close_all()
    assert len(await (await opened(ground, "disk", read_only=True)).content()) == MIB


async def test_an_allocation_never_lands_on_metadata(ground: Ground):
    """Refcounts claim that the L1 table is free."""
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    surgeon.put(surgeon.refcounts + 2 * (surgeon.header.l1_table_offset >> 12), 0, ">H")
    surgeon.save()
    node = await opened(ground, "disk")
    with pytest.raises(ImageCorrupt, match="refcount of the metadata"):
        await node.write(768 * KIB, b"boom" * 1024)


async def test_an_l2_table_in_the_place_of_other_metadata_is_never_written(ground: Ground):
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    surgeon.put(surgeon.header.l1_table_offset, surgeon.header.refcount_table_offset | COPIED)
    surgeon.save()
    node = await opened(ground, "disk")
    before = bytes(Surgeon(path).data[4096:])
    with pytest.raises(ImageCorrupt, match="L2 table"):
        await node.write(600 * KIB, b"boom" * 1024)
    await ground.close_all()
    assert Surgeon(path).data[4096:] == before


async def test_an_unaligned_entry_is_named_when_it_is_read(ground: Ground):
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    surgeon.put(surgeon.l2 + 8, surgeon.get(surgeon.l2 + 8) + 512)
    surgeon.save()
    node = await opened(ground, "disk", read_only=True)
    assert await node.content(0, 4096) == b"\1" * 4096
    with pytest.raises(ImageCorrupt, match="L2 entry"):
        await node.content(4096, 512)


async def test_a_broken_compressed_cluster_is_named(ground: Ground):
    await created(ground, "disk", MIB)
    node = await opened(ground, "disk")
    await driver_of(node).write_compressed(0, b"ab" * (64 * KIB))
    await ground.close_all()
    surgeon = Surgeon(ground.root / "disk")
    place = surgeon.get(surgeon.l2) & ((1 << 54) - 1)
    surgeon.data[place : place + 64] = b"\xff" * 64
    surgeon.save()
    with pytest.raises(ImageCorrupt, match="compressed cluster"):
        await (await opened(ground, "disk", read_only=True)).content(0, 10)


@pytest.mark.parametrize("keep", [0, 3, 71, 72, 103, 200, 4096, 8192, 3 * 4096, 3 * 4096 + 7])
async def test_a_truncated_image_is_refused_by_name(keep: int, ground: Ground):
    path = filled_image(ground.root)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BlockError) as refusal:
        await opened(ground, "disk", read_only=True)
    assert refusal.value.reason in ("IMAGE_CORRUPT", "FORMAT_MISMATCH")


@pytest.mark.parametrize("seed", range(4))
async def test_random_damage_gives_named_errors_or_answers(seed: int, ground: Ground):
    """Flipped bytes in any metadata: no other exception, no endless work."""
    original = filled_image(ground.root).read_bytes()
    numbers = random.Random(seed)
    surgeon = Surgeon(ground.root / "disk")
    regions = ((0, 512), (surgeon.header.l1_table_offset, 64), (surgeon.l2, 4096), (surgeon.refcounts, 512))
    for _ in range(60):
        data = bytearray(original)
        for _ in range(numbers.choice((1, 1, 3, 20))):
            start, length = numbers.choice(regions)
            data[start + numbers.randrange(length)] = numbers.choice((0, 0xFF, numbers.randrange(256)))
        (ground.root / "disk").write_bytes(data)
        await _use(ground, numbers)
        await ground.close_all()


async def _use(ground: Ground, numbers: random.Random) -> None:
    started = time.monotonic()
    try:
        node = await opened(ground, "disk")
        size = min(node.size, 4 * MIB)
        for _ in range(4):
            await node.content(numbers.randrange(max(1, size)), 1)
        if size >= 4096:
            await node.write(numbers.randrange(size - 4095), b"w" * 4096)
            await node.discard(0, size)
            await node.flush()
        await driver_of(node).check(False, False)
    except BlockError:
        pass
    assert time.monotonic() - started < 20


def absurd(path: Path) -> None:
    """22 MiB that claim 1 EiB: an empty image of the largest kind QEMU makes."""
    qemu_create(path, 1 << 60, "cluster_size=2M")


async def test_an_image_that_claims_an_exbibyte_opens_fast_and_maps_in_pages(ground: Ground):
    absurd(ground.root / "disk")
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    node = await opened(ground, "disk")
    assert node.size == 1 << 60
    position = pages = 0
    while position < node.size:
        mapping = await node.map(position, node.size - position)
        assert mapping.kind is MapKind.BACKING
        position += mapping.length
        pages += 1
    assert pages < 100
    await node.write((1 << 60) - 4096, b"z" * 4096)
    assert await node.content((1 << 60) - 4096, 4096) == b"z" * 4096
    await node.flush()
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - usage < 200 * KIB


async def test_a_million_l1_entries_with_one_table_are_checked_in_bounded_time(ground: Ground):
    path = ground.root / "disk"
    absurd(path)
    qemu_write(path, "write -P 1 0 2M")
    with path.open("r+b") as file:
        surgeon = hdr.decode_fixed(file.read(512), "x")
        file.seek(surgeon.l1_table_offset)
        entry = file.read(8)
        file.seek(surgeon.l1_table_offset)
        file.write(entry * surgeon.l1_size)
    started = time.monotonic()
    node = await opened(ground, "disk", read_only=True)
    report = await driver_of(node).check(False, False)
    assert report.corruptions > 0
    assert time.monotonic() - started < 10
    mapping = await node.map(0, node.size)
    assert mapping.length > 0


# --- features ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", [5, 17, 63])
async def test_images_with_features_that_we_lack_are_refused_by_name(bit: int, ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, MIB)
    surgeon = Surgeon(path)
    surgeon.put(hdr.FEATURES_AT, 1 << bit)
    surgeon.save()
    with pytest.raises(UnsupportedFeature, match=f"incompatible feature bit {bit}"):
        await opened(ground, "disk", read_only=True)


async def test_an_encrypted_image_is_not_opened_without_its_key(ground: Ground):
    qemu_create_qcow2_luks(ground.root / "disk", MIB)
    with pytest.raises(MissingOption, match=r"encrypt.key_secret"):
        await opened(ground, "disk", read_only=True)


async def test_unknown_extensions_and_autoclear_bits_survive_or_go_as_the_spec_says(ground: Ground):
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    cluster = hdr.decode(surgeon.data[:4096], "x")
    strange = hdr.ext.Extension(0x12345678, b"keep me")
    cluster = hdr.HeaderCluster(cluster.header, (strange, *cluster.extensions)).with_header(autoclear=1 << 50)
    data = hdr.encode(cluster)
    surgeon.data[: len(data)] = data
    surgeon.save()
    node = await opened(ground, "disk")
    await node.write(0, b"x")
    from blockyard.node.interface.driver import BackingReference

    await driver_of(node).change_backing(BackingReference("elsewhere", "raw"))
    await ground.close_all()
    found = hdr.decode(path.read_bytes()[:4096], "x")
    assert found.header.autoclear == 0
    assert strange in found.extensions
    assert found.backing_name == b"elsewhere"


async def test_a_write_below_an_l1_entry_of_flags_alone_spares_the_header(ground: Ground):
    """With no place in it the entry would lead to offset 0."""
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    surgeon.put(surgeon.header.l1_table_offset, COPIED)
    surgeon.save()
    node = await opened(ground, "disk")
    await node.write(0, b"new" * 1000)
    await node.flush()
    await ground.close_all()
    assert Surgeon(path).data[:512] == surgeon.data[:512]
    assert (await (await opened(ground, "disk", read_only=True)).content(0, 3000)) == b"new" * 1000


async def test_bits_of_l1_that_mean_nothing_are_found_and_cleared_by_a_repair(ground: Ground):
    path = filled_image(ground.root)
    surgeon = Surgeon(path)
    place = surgeon.header.l1_table_offset
    surgeon.put(place, surgeon.get(place) | 1 << 60)
    surgeon.save()
    assert qemu_check(path)["corruptions"] == 1
    assert (await driver_of(await opened(ground, "disk", read_only=True)).check(False, False)).corruptions == 1
    await ground.close_all()
    assert (await driver_of(await opened(ground, "disk")).check(True, True)).corruptions_fixed == 1
    await ground.close_all()
    assert qemu_check(path)["corruptions"] == 0
