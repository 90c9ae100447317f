"""What a crash may leave of a rebase: the old chain or the new one, and the guest's bytes in both. None is wrong.

QEMU 7.2's own order shows wrong data in 10 of 28 states of a safe rebase. All files of a run have one clock.
"""

import asyncio
import random
from pathlib import Path

import pytest

from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.writeback import Writeback
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.rebasing import rebase
from blockyard.node.interface.operations import untold
from tests.support.crash import Every, Guest, GuestContent, Log, QemuCheck, Recorder, budget, replay
from tests.support.ground import Ground
from tests.support.qcow2_images import qemu_create, qemu_write
from tests.support.qcow2_operations import Rebased

pytestmark = [pytest.mark.crash, pytest.mark.peer("qemu-img"), pytest.mark.timeout(3600)]

USUAL_STATES = 300
IMAGE = "top.qcow2"
SIZE = MIB
CASES = {
    "to another file": ("new.raw", ("cluster_size=4k",)),
    "to nothing": ("", ("cluster_size=4k",)),
    "of version 2": ("new.raw", ("compat=0.10", "cluster_size=4k")),
    "of small clusters": ("new.raw", ("cluster_size=512",)),
}


def recording(name: str, read_only: bool = True) -> NodeDefinition:
    return NodeDefinition("recording", options={"filename": name}, read_only=read_only)


def prepared(place: Path, recorder: Recorder, options: tuple[str, ...]) -> None:
    numbers = random.Random(1)
    old = numbers.randbytes(SIZE)
    new = bytearray(old)
    for at in range(0, SIZE, 128 * KIB):
        new[at : at + 12 * KIB] = numbers.randbytes(12 * KIB)
    for name, content in (("old.raw", old), ("new.raw", bytes(new))):
        (place / name).write_bytes(content)
        recorder.add(name, content)
    qemu_create(place / IMAGE, SIZE, *options, backing=place / "old.raw", fmt="raw")
    qemu_write(place / IMAGE, "write -P 7 256k 30k", "write -z 700k 60k")
    recorder.add(IMAGE, (place / IMAGE).read_bytes())


async def record(place: Path, target: str, options: tuple[str, ...]) -> Log:
    ground, recorder = Ground(place), Recorder(seed=4)
    prepared(place, recorder, options)
    graph = Graph(Environment(ground.storage, ground.pool, ground.clock))
    with recorder.registered():
        below = NodeDefinition("raw", "old", children={"file": recording("old.raw")}, read_only=True)
        await graph.open(NodeDefinition("raw", "new", children={"file": recording("new.raw")}, read_only=True))
        children: dict[str, NodeDefinition | str] = {"file": recording(IMAGE, False), "backing": below}
        node = await graph.open(NodeDefinition("qcow2", "top", children=children))
        user = graph.use("top", "test", "guest", writable=True)
        initial = bytearray(user.size)
        await user.read(0, memoryview(initial))
        guest = Guest(recorder.log, user, initial=bytes(initial))
        await guest.write(16 * KIB, 8 * KIB)
        await guest.flush()
        backing = graph.get(target.removesuffix(".raw")) if target else None
        names = {"backing_file": target, "backing_format": "raw"} if target else {}
        async with asyncio.TaskGroup() as group:
            group.create_task(rebase(graph, node, backing, untold, **names))
            group.create_task(busy(guest))
        recorder.log.mark("rebased")
        await guest.write(400 * KIB, 8 * KIB)
        await guest.flush()
        graph.release(user)
        await graph.close_all()
    await ground.leave()
    return recorder.log


async def busy(guest: Guest) -> None:
    numbers = random.Random(8)
    for _ in range(10):
        offset = numbers.randrange(0, SIZE // 8192) * 8192
        match numbers.randrange(5):
            case 0:
                await guest.flush()
            case 1:
                await guest.zero(offset, 8192)
            case _:
                await guest.write(offset, 8192)


def judge(*readers: str) -> Every:
    return Every(QemuCheck(IMAGE), GuestContent(IMAGE, readers=readers))


@pytest.mark.parametrize("case", CASES)
def test_no_crash_state_of_a_rebase_is_wrong(case: str, tmp_path: Path):
    report = replay(asyncio.run(record(tmp_path, *CASES[case])), judge("qemu", "us"), budget(USUAL_STATES))
    assert not report.findings, report
    assert report.states > 100


def _header_before_mappings(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU 7.2's order."""

    async def nothing(self: Writeback) -> None:
        return

    monkeypatch.setattr(Writeback, "settle", nothing)


def _header_not_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Success is told, and the old chain may go, before the header is durable."""

    async def switch(self: Image, offset: int, data: bytes) -> None:
        await self.write(offset, data)

    monkeypatch.setattr(Image, "switch", switch)


def test_the_replay_notices_a_header_that_is_written_before_the_mappings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _header_before_mappings(monkeypatch)
    assert replay(asyncio.run(record(tmp_path, *CASES["to another file"])), judge("qemu"), 400).findings


def test_the_replay_notices_a_header_that_is_not_durable_when_the_old_file_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _header_not_flushed(monkeypatch)
    assert replay(asyncio.run(record(tmp_path, *CASES["to another file"])), Rebased("new.raw"), 400).findings


@pytest.mark.parametrize("case", ("to another file", "to nothing"))
def test_once_it_is_told_the_old_file_may_go(case: str, tmp_path: Path):
    log = asyncio.run(record(tmp_path, *CASES[case]))
    report = replay(log, Rebased(CASES[case][0]), budget(100))
    assert not report.findings, report
