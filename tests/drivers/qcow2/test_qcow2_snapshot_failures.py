"""Every I/O of taking, applying and deleting snapshots fails once, or its caller is cancelled in it.

Whatever happens, the image is clean or leaks, and the disk and each snapshot are as before or as wanted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from blockyard.base.errors import BlockError, IoError
from blockyard.base.units import KIB, MIB
from blockyard.node.interface.internal_snapshots import SnapshotWish
from tests.drivers.qcow2.test_qcow2_failures import Troubled
from tests.drivers.qcow2.test_qcow2_snapshot_model import shown
from tests.support import peers
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_images import driver_of, opened, qemu_content, qemu_create

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io"), pytest.mark.timeout(600)]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


class Trial:
    """One run with trouble at the n-th I/O, and what may be there afterwards."""

    def __init__(self, node: DriverChild, child: Troubled, trouble: str) -> None:
        self.node = node
        self.child = child
        self.trouble = trouble
        self.disk = [bytes(node.size)]
        """What it may hold."""
        self.kept: dict[str, list[bytes]] = {}
        """By name; of a snapshot that may not be there the last is empty."""
        self._task: asyncio.Future[object] | None = None
        child.trouble = self._fail

    async def _fail(self) -> None:
        if self.trouble == "cancel":
            assert self._task is not None
            self._task.cancel()
            await asyncio.sleep(0)
        else:
            raise IoError("file", "write", 5, "planted")

    async def _attempt(self, request: Awaitable[object]) -> bool:
        self._task = asyncio.ensure_future(request)
        try:
            await self._task
        except (BlockError, asyncio.CancelledError):
            return False
        return True

    async def write(self, tag: int, offset: int, length: int) -> None:
        if self.broken:
            assert not await self._attempt(self.node.write(offset, bytes([tag]) * length))
            return
        before = await self.node.content()
        assert before in self.disk
        after = before[:offset] + bytes([tag]) * length + before[offset + length :]
        if await self._attempt(self.node.write(offset, bytes([tag]) * length)):
            self.disk = [after]
            return
        # It may have happened in part: what is there now is what the rest is measured by.
        self.child.number = -1
        self.disk = [await self.node.content()] if not self.broken else []

    async def create(self, name: str) -> None:
        await self._attempt(self.node.flush())
        done = await self._attempt(driver_of(self.node).create_snapshot(SnapshotWish(name, 0)))
        self.kept[name] = [*self.disk] if done else [*self.disk, b""]

    async def revert(self, name: str) -> None:
        done = await self._attempt(driver_of(self.node).revert_to_snapshot(self._id(name)))
        wanted = [each for each in self.kept[name] if each]
        self.disk = wanted if done else [*self.disk, *wanted]

    async def delete(self, name: str) -> None:
        done = await self._attempt(driver_of(self.node).delete_snapshot(self._id(name)))
        self.kept[name] = [b""] if done else [*self.kept[name], b""]

    def _id(self, name: str) -> str:
        return next((each.identifier for each in driver_of(self.node).snapshots() if each.name == name), "none")

    @property
    def broken(self) -> bool:
        return driver_of(self.node).image.broken

    def narrow(self, present: set[str]) -> None:
        """Settle what may be by what the image lists."""
        for name, contents in self.kept.items():
            if name in present:
                assert any(contents), name
            else:
                assert b"" in contents, name


async def workload(trial: Trial) -> None:
    await trial.write(1, 0, 40 * KIB)
    await trial.create("one")
    await trial.write(2, 10 * KIB, 60 * KIB)
    await trial.create("two")
    await trial.write(3, 512 * KIB, 8 * KIB)
    await trial.revert("one")
    await trial.write(4, 4 * KIB, 8 * KIB)
    await trial.delete("one")
    await trial.revert("two")
    await trial.delete("two")


async def run(ground: Ground, number: int, trouble: str, options: tuple[str, ...]) -> bool:
    """False if the workload has fewer I/Os."""
    path = ground.root / "disk"
    path.unlink(missing_ok=True)
    qemu_create(path, MIB, *options)
    file = await ground.open("file", {"filename": "disk"})
    child = Troubled(file.driver, file.context, "file", "disk")
    trial = Trial(await ground.open("qcow2", {}, {"file": child}), child, trouble)
    child.number = number
    await workload(trial)
    met = child.count >= number
    child.number = -1
    if not trial.broken:
        assert await trial.node.content() in trial.disk
    await ground.close_all()
    result = peers.run("qemu-img", "check", "-f", "qcow2", path, check=False)
    assert result.returncode in (0, 3), result.stdout + result.stderr
    if trial.disk:
        assert qemu_content(path) in trial.disk
    again = await opened(ground, "disk")
    listed = {each.name: each.identifier for each in driver_of(again).snapshots()}
    trial.narrow(set(listed))
    for name, identifier in listed.items():
        assert await shown(ground, identifier) in trial.kept[name]
    await ground.close_all()
    return met


@pytest.mark.parametrize("trouble", ["error", "cancel"])
@pytest.mark.parametrize("options", [("cluster_size=4k",), ("cluster_size=512", "compat=0.10")], ids="+".join)
async def test_no_single_failure_spoils_an_image_or_its_snapshots(
    trouble: str, options: tuple[str, ...], ground: Ground
):
    number = 1
    while await run(ground, number, trouble, options):
        number += 1 if number < 60 else 7
    assert number > 60
