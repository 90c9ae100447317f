"""Overlap checks of qcow2: what is kept from being written over, under which options, with QEMU as the judge."""

from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path

import pytest

from blockyard.base.errors import BlockError, ImageCorrupt, InvalidArgument, NodeReadOnly, UnknownOption
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2.overlap import ALL, TEMPLATES, OverlapChecks, Structure, checked
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.interface.internal_snapshots import SnapshotWish
from tests.support import peers
from tests.support.ground import Ground
from tests.support.qcow2_images import Surgeon, assert_clean, driver_of, opened, qemu_create, qemu_write

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]

COPIED = 1 << 63
TRIED = list(Structure)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


def damaged(place: Path, structure: Structure, name: str = "disk") -> Path:
    """An image whose first L2 entry says that a piece of metadata is the guest's own."""
    path = place / name
    qemu_create(path, 4 * MIB, "cluster_size=4k")
    qemu_write(path, "write -P 1 0 64k", "write -P 2 2m 64k")
    peers.run("qemu-img", "snapshot", "-c", "one", path)
    qemu_write(path, "write -P 3 4k 4k", "write -P 3 2052k 4k")
    if structure is Structure.BITMAP_DIRECTORY:
        peers.run("qemu-img", "bitmap", "--add", path, "dirty")
    surgeon = Surgeon(path)
    header = surgeon.header
    inactive_l1 = surgeon.get(header.snapshots_offset)
    if structure is Structure.BITMAP_DIRECTORY:
        surgeon.put(surgeon.l2, directory_of(surgeon) | COPIED)
        surgeon.save()
        return path
    places = {
        Structure.MAIN_HEADER: 0,
        Structure.ACTIVE_L1: header.l1_table_offset,
        Structure.ACTIVE_L2: surgeon.get(header.l1_table_offset + 8) & ~COPIED,
        Structure.REFCOUNT_TABLE: header.refcount_table_offset,
        Structure.REFCOUNT_BLOCK: surgeon.refcounts,
        Structure.SNAPSHOT_TABLE: header.snapshots_offset,
        Structure.INACTIVE_L1: inactive_l1,
        Structure.INACTIVE_L2: surgeon.get(inactive_l1) & ~COPIED,
    }
    surgeon.put(surgeon.l2, places[structure] | COPIED)
    surgeon.save()
    return path


def directory_of(surgeon: Surgeon) -> int:
    data = ext.find(hdr.decode(surgeon.data[: 4 * KIB], "x").extensions, ext.BITMAPS)
    assert data is not None
    return ext.decode_bitmaps(data, "x").directory_offset


def is_marked(path: Path) -> bool:
    return bool(hdr.decode_fixed(path.read_bytes()[:512], "x").incompatible & hdr.CORRUPT)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("structure", TRIED, ids=lambda structure: structure.name)
async def test_what_a_template_keeps_safe_is_what_qemu_keeps_safe(
    structure: Structure, template: str, ground: Ground
):
    theirs = damaged(ground.root, structure, "theirs")
    options = f"driver=qcow2,file.filename={theirs},overlap-check.template={template}"
    peers.run("qemu-io", "--image-opts", "-c", "write -P 9 0 512", options, check=False)
    # Overwritten where nothing guards it, an image may not be one any more.
    refused = theirs.read_bytes()[:4] == b"QFI\xfb" and is_marked(theirs)
    ours = damaged(ground.root, structure, "ours")
    before = ours.read_bytes()
    node = await opened(ground, "ours", overlap_check=template)
    events: list[tuple[str, dict[str, str]]] = []
    node.context.report = lambda kind, detail: events.append((kind, dict(detail)))
    # Offset 0 means "not allocated", whatever the flags: nothing is ever written there.
    assert refused == (structure in TEMPLATES[template] and structure is not Structure.MAIN_HEADER)
    if not refused:
        await node.write(0, b"\x09" * 512)
        assert not events
        return
    with pytest.raises(ImageCorrupt, match=f"metadata at .*{structure.words}"):
        await node.write(0, b"\x09" * 512)
    assert [kind for kind, _ in events] == ["corrupted"]
    assert events[0][1]["fatal"] == "true"
    assert int(events[0][1]["size"]) == 4 * KIB
    with pytest.raises(NodeReadOnly):
        await node.write(MIB, b"more")
    await ground.close_all()
    assert is_marked(ours)
    after = ours.read_bytes()
    assert b"\x09" * 512 not in after
    # A directory says before the first write that its bitmaps are in use.
    assert after[4 * KIB :] == before[4 * KIB :] or structure is Structure.BITMAP_DIRECTORY


@pytest.mark.parametrize("structure", TRIED[1:], ids=lambda structure: structure.name)
async def test_a_single_structure_is_switched_on_and_off_whatever_the_template_says(
    structure: Structure, ground: Ground
):
    damaged(ground.root, structure)
    name = structure.name.lower()
    node = await opened(ground, "disk", overlap_check="all", overlap_checks={name: False})
    before = (ground.root / "disk").read_bytes()
    await node.write(0, b"x" * 512)
    await node.driver.flush()
    (ground.root / "disk").write_bytes(before)
    await ground.close_all()
    (ground.root / "disk").write_bytes(before)
    node = await opened(ground, "disk", overlap_check="none", overlap_checks={name: True})
    with pytest.raises(ImageCorrupt):
        await node.write(0, b"x" * 512)


async def test_what_an_entry_claims_of_the_header_is_no_place_at_all(ground: Ground):
    path = damaged(ground.root, Structure.MAIN_HEADER)
    node = await opened(ground, "disk", overlap_check="none")
    await node.write(0, b"x" * 512)
    await ground.close_all()
    assert path.read_bytes()[:4] == b"QFI\xfb"


async def test_snapshots_come_and_go_under_all_checks(ground: Ground):
    """What snapshots and the disk share is no doubled claim, and what a deletion freed is free."""
    path = ground.root / "disk"
    qemu_create(path, 4 * MIB, "cluster_size=4k")
    node = await opened(ground, "disk", overlap_check="all")
    driver = driver_of(node)
    for number in range(4):
        await node.write(number * 600 * KIB, bytes([number + 1]) * 600 * KIB)
        await driver.create_snapshot(SnapshotWish(f"s{number}", 0))
    for number in range(3):
        await driver.delete_snapshot(driver.snapshot_named(f"s{number}").identifier)
        await node.write(0, bytes([number + 9]) * (3 * MIB))
    content = await node.content()
    await ground.close_all()
    assert_clean(path)
    node = await opened(ground, "disk", overlap_check="all")
    assert await node.content() == content
    await node.write(0, b"z" * (4 * MIB))
    await ground.close_all()
    assert_clean(path)


async def test_an_event_tells_once_of_what_reads_run_into(ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, MIB, "cluster_size=4k")
    qemu_write(path, "write -P 1 0 64k")
    surgeon = Surgeon(path)
    surgeon.put(surgeon.l2, 0x5200 | COPIED)
    surgeon.save()
    node = await opened(ground, "disk", read_only=True)
    events: list[dict[str, str]] = []
    node.context.report = lambda kind, detail: events.append(dict(detail))
    for _ in range(3):
        with pytest.raises(ImageCorrupt):
            await node.content(0, 512)
    assert [event["fatal"] for event in events] == ["false"]
    assert not is_marked(path)


async def test_options_that_cannot_be_are_refused_by_name(ground: Ground):
    qemu_create(ground.root / "disk", MIB)
    for options, refusal in (
        ({"overlap_check": "some"}, InvalidArgument),
        ({"overlap_checks": {"main_header": "yes"}}, InvalidArgument),
        ({"overlap_checks": {"no_such": True}}, UnknownOption),
    ):
        with pytest.raises(refusal):
            await opened(ground, "disk", **options)
        await ground.close_all()


def test_every_structure_has_its_switch():
    names = {item.name for item in fields(OverlapChecks)}
    assert names == {structure.name.lower() for structure in Structure}
    assert checked("none", OverlapChecks(**dict.fromkeys(names, True))) == ALL
    assert checked("all", OverlapChecks(**dict.fromkeys(names, False))) == frozenset()


async def test_a_reader_of_too_many_snapshots_l1_tables_is_told_so(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    from blockyard.node.drivers.qcow2 import places

    damaged(ground.root, Structure.INACTIVE_L2)
    monkeypatch.setattr(places, "MAX_INACTIVE_L1_BYTES", 8)
    with pytest.raises(BlockError, match="overlap_check"):
        await opened(ground, "disk", overlap_check="all")
