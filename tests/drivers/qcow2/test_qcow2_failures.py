"""Every I/O of a workload fails once, or its caller is cancelled in it: the image stays sound and nothing is lost.

(SQLite's way: fail the first I/O, then the second, until the workload runs through.)
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from blockyard.base.errors import BlockError, IoError
from blockyard.base.units import KIB, MIB
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.flags import COMPRESSED, MAY_UNMAP, Preallocation
from tests.support import peers
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_images import driver_of, qemu_content, qemu_create, qemu_write

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io"), pytest.mark.timeout(600)]

Trouble = Callable[[], Awaitable[None]]
SECTOR = 512


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


class Troubled(DriverChild):
    """A file whose n-th change or flush meets trouble instead."""

    number = 0
    count = 0
    trouble: Trouble

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        return False

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        await self._step()
        await super().write(offset, data, flags)

    async def flush(self) -> None:
        await self._step()
        await super().flush()

    async def truncate(
        self, size: int, preallocation: Preallocation = Preallocation.OFF, exact: bool = False
    ) -> None:
        await self._step()
        await super().truncate(size, preallocation, exact)

    async def discard(self, offset: int, length: int) -> None:
        await self._step()
        await super().discard(offset, length)

    async def _step(self) -> None:
        self.count += 1
        if self.count == self.number:
            await self.trouble()
        await asyncio.sleep(0)


class Model:
    """Which bytes each sector may hold: a failed request may have happened, in part or not at all."""

    def __init__(self, content: bytes) -> None:
        self.may_hold = [{content[at : at + SECTOR]} for at in range(0, len(content), SECTOR)]

    def wrote(self, offset: int, data: bytes, was_done: bool) -> None:
        for at in range(0, len(data), SECTOR):
            number, piece = (offset + at) // SECTOR, data[at : at + SECTOR]
            if number < len(self.may_hold):
                self.may_hold[number] = {piece} if was_done else self.may_hold[number] | {piece}

    def check(self, content: bytes) -> None:
        for number in range(min(len(self.may_hold), len(content) // SECTOR)):
            assert content[number * SECTOR : (number + 1) * SECTOR] in self.may_hold[number], f"sector {number}"


async def workload(node: DriverChild, model: Model, attempt: Callable[[Awaitable[None]], Awaitable[bool]]) -> None:
    tag = 0

    async def write(offset: int, length: int, flags: int = 0) -> None:
        nonlocal tag
        tag += 1
        data = bytes([tag]) * length
        model.wrote(offset, data, await attempt(node.write(offset, data, flags)))

    async def zero(offset: int, length: int, discard: bool = False) -> None:
        request = node.discard(offset, length) if discard else node.zero(offset, length, MAY_UNMAP)
        model.wrote(offset, bytes(length), await attempt(request))

    async def compressed(offset: int, length: int) -> None:
        nonlocal tag
        tag += 1
        data = bytes([tag]) * length

        async def store() -> None:
            await driver_of(node).write_compressed(offset, data)

        model.wrote(offset, data, await attempt(store()))

    await write(0, 24 * KIB)
    await attempt(node.flush())
    await write(2 * KIB, 9 * KIB)
    await zero(64 * KIB, 32 * KIB)
    await compressed(256 * KIB, 32 * KIB)
    await attempt(node.flush())
    await zero(0, 16 * KIB, discard=True)
    await attempt(node.flush())
    await compressed(260 * KIB, 8 * KIB)
    for at in range(300 * KIB, 900 * KIB, 100 * KIB):
        await write(at, 12 * KIB)
    await attempt(node.flush())
    await attempt(node.truncate(4 * MIB))
    if node.size == 4 * MIB:
        model.may_hold += [{bytes(SECTOR)} for _ in range(3 * MIB // SECTOR)]
        await write(3 * MIB, 64 * KIB)
    await attempt(node.flush())
    await write(0, 4 * KIB, COMPRESSED)


async def trial(ground: Ground, number: int, trouble: str, options: tuple[str, ...]) -> bool:
    """One run with trouble at the n-th I/O; False if the workload has fewer."""
    path = ground.root / "disk"
    path.unlink(missing_ok=True)
    qemu_create(path, MIB, *options)
    qemu_write(path, "write -P 0xee 0 128k")
    file = await ground.open("file", {"filename": "disk"})
    child = Troubled(file.driver, file.context, "file", "disk")
    node = await ground.open("qcow2", {}, {"file": child})
    model = Model(await node.content())
    current: list[asyncio.Task[None]] = []

    async def fail() -> None:
        if trouble == "cancel":
            current[0].cancel()
            await asyncio.sleep(0)
        else:
            raise IoError("file", "write", 5, "planted")

    async def attempt(request: Awaitable[None]) -> bool:
        task = asyncio.ensure_future(request)
        current[:] = [task]  # type: ignore[list-item]
        try:
            await task
        except (BlockError, asyncio.CancelledError):
            return False
        return True

    child.trouble, child.number = fail, number
    await workload(node, model, attempt)
    met = child.count >= number
    child.number = -1
    if not driver_of(node).image.broken:
        await node.flush()
        model.check(await node.content())
    await ground.close_all()
    result = peers.run("qemu-img", "check", "-f", "qcow2", path, check=False)
    assert result.returncode in (0, 3), result.stdout + result.stderr
    if not driver_of(node).image.broken:
        model.check(qemu_content(path))
    return met


@pytest.mark.parametrize("trouble", ["error", "cancel"])
@pytest.mark.parametrize("options", [("cluster_size=4k",), ("cluster_size=512", "refcount_bits=64")], ids="+".join)
async def test_no_single_failure_spoils_an_image(trouble: str, options: tuple[str, ...], ground: Ground):
    number = 1
    while await trial(ground, number, trouble, options):
        # Every I/O at first, then a sample: the workload over small clusters has hundreds.
        number += 1 if number < 40 else 11
    assert number > 30
