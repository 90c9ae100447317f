"""Snapshots inside a large image, and its check, beside qemu-img: 1 TiB, 10 GiB of it allocated.

Ours is the time of a service that runs: the image opened, the operation, the image closed. qemu-img's is that of
the command, whose start is about 15 ms of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import numpy as np

from blockyard.base.units import GIB, KIB, TIB
from blockyard.node.drivers.qcow2 import Qcow2
from blockyard.node.interface.internal_snapshots import SnapshotWish
from tests.bench import images
from tests.bench.harness import RUNS, Row, alternate, case, faster
from tests.support.ground import Ground

CLUSTER: Final = 64 * KIB
ALLOCATED: Final = 10 * GIB
SLOW_RUNS: Final = 3
"""Of what takes qemu-img seconds."""
SPREADS: Final[dict[str, int]] = {"": 128, "-scattered": 1}
"""Clusters that lie together, by the suffix of the rows: 8 MiB pieces all over the disk, or single clusters."""


@case("snapshot", peers=("qemu-img",))
def snapshots(folder: Path) -> list[Row]:
    return [row for suffix in SPREADS for row in _rows(folder, suffix)]


def _rows(folder: Path, suffix: str) -> list[Row]:
    path = folder / f"disk{suffix}.qcow2"
    images.empty(path, "qcow2", TIB)
    asyncio.run(_with_driver(path, lambda driver: _fill(driver, SPREADS[suffix])))
    images.warm(path)
    rows: list[Row] = []
    for name, ours, arguments in (
        ("create", _create, ("snapshot", "-c", "one")),
        ("check", _check, ("check", "-q")),
        ("delete", _delete, ("snapshot", "-d", "one")),
    ):
        times = _times(path, name, ours, arguments)
        rows.append(faster(f"snapshot-{name}{suffix}", *times, "qemu-img"))
    path.unlink()
    return rows


def _times(
    path: Path, name: str, ours: "Callable[[Qcow2], Awaitable[None]]", arguments: tuple[str, ...]
) -> tuple[float, float]:
    def one(run: Callable[[], object]) -> float:
        begun = time.perf_counter()
        run()
        passed = time.perf_counter() - begun
        if name == "create":
            images.qemu_img("snapshot", "-d", "one", path)
        elif name == "delete":
            images.qemu_img("snapshot", "-c", "one", path)
        return passed

    if name == "delete":
        images.qemu_img("snapshot", "-c", "one", path)
    return alternate(
        lambda: one(lambda: asyncio.run(_with_driver(path, ours))),
        lambda: one(lambda: images.qemu_img(*arguments, path)),
        runs=min(RUNS, SLOW_RUNS) if name != "check" else RUNS,
    )


async def _with_driver(path: Path, work: "Callable[[Qcow2], Awaitable[None]]") -> None:
    ground = Ground(path.parent)
    try:
        file = await ground.open("file", {"filename": path.name})
        node = await ground.open("qcow2", {}, {"file": file})
        assert isinstance(node.driver, Qcow2)
        await work(node.driver)
    finally:
        await ground.leave()


async def _fill(driver: Qcow2, together: int) -> None:
    """Clusters that are allocated and never written: their metadata is what counts here."""
    pieces = ALLOCATED // CLUSTER // together
    for start in np.linspace(0, TIB // CLUSTER - together, pieces, dtype=np.int64).tolist():
        at, end = start * CLUSTER, (start + together) * CLUSTER
        while at < end:
            room = await driver.allocate(at, end - at, 0)
            await driver.commit(room)
            at = room.start + room.length
    await driver.flush()
    # What was never written must lie inside the file all the same.
    await driver.image.file.truncate(driver.image.allocator.end * CLUSTER)


async def _create(driver: Qcow2) -> None:
    await driver.create_snapshot(SnapshotWish("one", 0))


async def _delete(driver: Qcow2) -> None:
    await driver.delete_snapshot(driver.find_snapshot("", "one").identifier)


async def _check(driver: Qcow2) -> None:
    report = await driver.check(False, False)
    assert not report.corruptions and not report.leaks
