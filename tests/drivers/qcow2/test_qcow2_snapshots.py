"""Internal snapshots: taken, applied, deleted and read by us and by QEMU, each judging what the other did."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.units import KIB, MIB
from blockyard.node.interface.child import Child
from blockyard.node.interface.internal_snapshots import SnapshotFacts, SnapshotWish
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

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]

SIZE = MIB + 512
FORMATS = [
    *((cluster, "0.10", 16) for cluster in (512, 64 * KIB)),
    *((cluster, "1.1", 16) for cluster in (512, 4 * KIB, 64 * KIB, 2 * MIB)),
    *((512, "1.1", bits) for bits in (2, 4, 8, 32, 64)),
]
NOON_NS = 1_700_000_000_123_456_789


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


def wish(name: str, **fields: int) -> SnapshotWish:
    return SnapshotWish(name, NOON_NS, **fields)


async def take(node: DriverChild, name: str, **fields: int) -> SnapshotFacts:
    return await driver_of(node).create_snapshot(wish(name, **fields))


async def shown(ground: Ground, name: str, snapshot: str, backing: Child | None = None) -> bytes:
    children: dict[str, Child] = {
        "file": await ground.open("file", {"filename": name}, read_only=True, force_share=True)
    }
    if backing is not None:
        children["backing"] = backing
    node = await ground.open("qcow2", {"snapshot": snapshot}, children, read_only=True)
    return await node.content()


def qemu_shown(path: Path, snapshot: str) -> bytes:
    raw = path.with_suffix(".shown")
    peers.run("qemu-img", "convert", "-U", "-f", "qcow2", "-l", snapshot, "-O", "raw", path, raw)
    return raw.read_bytes()


def qemu_list(path: Path) -> list[tuple[str, str, str]]:
    """(id, tag, VM size) of each."""
    printed = peers.run("qemu-img", "snapshot", "-U", "-l", path).stdout
    rows = re.findall(r"^(\d+)\s+(\S+)\s+([\d.]+ \w+)", printed, re.MULTILINE)
    return [(str(one), str(two), str(three)) for one, two, three in rows]


def qemu_options(cluster: int, compat: str, bits: int) -> list[str]:
    return [f"cluster_size={cluster}", f"compat={compat}", *([f"refcount_bits={bits}"] if bits != 16 else [])]


# --- by us, judged by QEMU -------------------------------------------------------------------------------


@pytest.mark.parametrize(("cluster", "compat", "bits"), FORMATS)
async def test_qemu_finds_what_we_took_applied_and_deleted(cluster: int, compat: str, bits: int, ground: Ground):
    path = ground.root / "disk"
    qemu_create(path, SIZE, *qemu_options(cluster, compat, bits))
    qemu_write(path, "write -P 1 0 300k", "write -z 100k 64k", "write -P 2 700k 70000")
    node, model = await opened(ground, "disk"), bytearray(qemu_content(path))
    kept: dict[str, bytes] = {}
    for number, name in enumerate(("one", "two")):
        await shake(node, model, seed=cluster + number, steps=20)
        await take(node, name)
        kept[name] = bytes(model)
        assert_clean(path)
    await shake(node, model, seed=bits, steps=20)
    await node.flush()
    assert [(item[0], item[1]) for item in qemu_list(path)] == [("1", "one"), ("2", "two")]
    for name, content in kept.items():
        assert qemu_shown(path, name) == content
        assert await shown(ground, "disk", name) == content
    await driver_of(node).revert_to_snapshot("1")
    assert await node.content() == kept["one"]
    assert_clean(path)
    await driver_of(node).delete_snapshot("1")
    assert_clean(path)
    model[:] = kept["one"]
    await shake(node, model, seed=7, steps=20)
    assert await node.content() == model
    assert qemu_shown(path, "two") == kept["two"]
    await driver_of(node).delete_snapshot("2")
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == model
    assert qemu_list(path) == []


@pytest.mark.parametrize(("cluster", "compat", "bits"), [each for each in FORMATS if each[2] > 2])
async def test_we_apply_and_delete_what_qemu_took_and_the_reverse(
    cluster: int, compat: str, bits: int, ground: Ground
):
    path = ground.root / "disk"
    qemu_create(path, SIZE, *qemu_options(cluster, compat, bits))
    qemu_write(path, "write -P 1 0 300k")
    peers.run("qemu-img", "snapshot", "-c", "theirs", path)
    first = qemu_content(path)
    qemu_write(path, "write -P 2 100k 400k")
    second = qemu_content(path)
    node = await opened(ground, "disk")
    await take(node, "ours")
    await driver_of(node).revert_to_snapshot("1")
    assert await node.content() == first
    await ground.close_all()
    assert_clean(path)
    peers.run("qemu-img", "snapshot", "-a", "ours", path)
    assert qemu_content(path) == second
    peers.run("qemu-img", "snapshot", "-d", "ours", path)
    assert_clean(path)
    node = await opened(ground, "disk")
    await driver_of(node).delete_snapshot("1")
    await node.write(0, b"x" * 512)
    await ground.close_all()
    assert_clean(path)
    assert qemu_content(path) == b"x" * 512 + second[512:]
