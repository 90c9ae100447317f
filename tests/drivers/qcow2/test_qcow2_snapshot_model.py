"""Random histories of a disk and its snapshots against a model of them, judged by qemu-img on the way."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import OperationUnsupported
from blockyard.base.units import KIB, MIB
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.internal_snapshots import SnapshotWish
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_images import assert_clean, driver_of, opened, qemu_check, qemu_content, qemu_create, shake

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io"), pytest.mark.timeout(300)]

STEPS = 40
MAX_SIZE = 3 * MIB
FORMATS = [
    (512, "1.1", 16),
    (4 * KIB, "1.1", 16),
    (64 * KIB, "1.1", 8),
    (4 * KIB, "0.10", 16),
    (4 * KIB, "1.1", 64),
]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


class History:
    """An image, and what it and its snapshots must hold."""

    def __init__(self, ground: Ground, node: DriverChild, seed: int, can_resize: bool) -> None:
        self.ground = ground
        self.node = node
        self.numbers = random.Random(seed)
        self.disk = bytearray(node.size)
        self.kept: dict[str, bytes] = {}
        self.verbs = ["change", "change", "compress", "create", "create", "revert", "delete", "look", "reopen"]
        self.verbs += ["resize"] if can_resize else []

    async def run(self) -> None:
        for _ in range(STEPS):
            await getattr(self, self.numbers.choice(self.verbs))()

    async def change(self) -> None:
        await shake(self.node, self.disk, self.numbers.randrange(1 << 30), 6)

    async def compress(self) -> None:
        unit = self.node.limits.allocation_unit
        offset = self.numbers.randrange(len(self.disk) // unit) * unit
        data = (self.numbers.randbytes(16) * unit)[: min(4 * unit, len(self.disk) - offset)]
        await driver_of(self.node).write_compressed(offset, data)
        self.disk[offset : offset + len(data)] = data

    async def create(self) -> None:
        made = await driver_of(self.node).create_snapshot(SnapshotWish(f"s{self.numbers.random()}", 0))
        self.kept[made.identifier] = bytes(self.disk)
        assert_clean(self.ground.root / "disk")

    def any_kept(self) -> str:
        return self.numbers.choice(sorted(self.kept)) if self.kept else ""

    async def revert(self) -> None:
        if wanted := self.any_kept():
            await driver_of(self.node).revert_to_snapshot(wanted)
            self.disk = bytearray(self.kept[wanted])
            assert_clean(self.ground.root / "disk")

    async def delete(self) -> None:
        if wanted := self.any_kept():
            await driver_of(self.node).delete_snapshot(wanted)
            del self.kept[wanted]
            assert_clean(self.ground.root / "disk")

    async def resize(self) -> None:
        size = self.numbers.randrange(1, MAX_SIZE // 512) * 512
        await self.node.truncate(size, Preallocation.OFF, True)
        self.disk = self.disk[:size].ljust(size, b"\0")

    async def look(self) -> None:
        await self.node.flush()
        # Of an open image some references are still to be dropped.
        assert qemu_check(self.ground.root / "disk")["corruptions"] == 0
        assert self.node.size == len(self.disk)
        assert await self.node.content() == self.disk
        for identifier, content in self.kept.items():
            async with driver_of(self.node).view(identifier) as view:
                assert view.size == len(content)
        if wanted := self.any_kept():
            assert await shown(self.ground, wanted) == self.kept[wanted]

    async def reopen(self) -> None:
        await self.ground.close_all()
        assert_clean(self.ground.root / "disk")
        assert qemu_content(self.ground.root / "disk") == self.disk
        self.node = await opened(self.ground, "disk")
        assert [each.identifier for each in driver_of(self.node).snapshots()] == list(self.kept)


async def shown(ground: Ground, identifier: str) -> bytes:
    file = await ground.open("file", {"filename": "disk"}, read_only=True, force_share=True)
    node = await ground.open("qcow2", {"snapshot": identifier}, {"file": file}, read_only=True)
    content = await node.content()
    for each in (node, file):
        await ground.close(each)
    return content


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("cluster", "compat", "bits"), FORMATS)
async def test_a_disk_and_its_snapshots_are_what_the_model_says(
    cluster: int, compat: str, bits: int, seed: int, ground: Ground
):
    more = [f"refcount_bits={bits}"] if bits != 16 else []
    qemu_create(ground.root / "disk", MIB + 512, f"cluster_size={cluster}", f"compat={compat}", *more)
    node = await opened(ground, "disk")
    history = History(ground, node, seed * 1000 + cluster, can_resize=compat != "0.10")
    await history.run()
    await history.look()
    for identifier in list(history.kept):
        assert await shown(ground, identifier) == history.kept[identifier]
        await driver_of(history.node).delete_snapshot(identifier)
        del history.kept[identifier]
    await history.look()
    await ground.close_all()
    assert_clean(ground.root / "disk")


@pytest.mark.parametrize(("bits", "most"), ((1, 0), (2, 2), (4, 14)))
async def test_refcounts_that_are_full_refuse_another_snapshot_and_leave_the_image(
    bits: int, most: int, ground: Ground
):
    """A cluster shared by the disk and all snapshots has one reference more than there are snapshots."""
    path = ground.root / "disk"
    qemu_create(path, MIB, "cluster_size=4k", f"refcount_bits={bits}")
    node = await opened(ground, "disk")
    await node.write(0, b"x" * 64 * KIB)
    for number in range(most):
        await driver_of(node).create_snapshot(SnapshotWish(str(number), 0))
    with pytest.raises(OperationUnsupported, match=f"refcounts have {bits} bits"):
        await driver_of(node).create_snapshot(SnapshotWish("one more", 0))
    assert len(driver_of(node).snapshots()) == most
    await node.write(0, b"y" * 512)
    assert (await node.content(0, 1024)) == b"y" * 512 + b"x" * 512
    await ground.close_all()
    assert_clean(path)
