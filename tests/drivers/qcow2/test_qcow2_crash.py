"""What a crash may leave of a qcow2 image: every operation, recorded, replayed, judged by QEMU and by us.

A state is wrong if `qemu-img check` finds more than leaks (lazy refcounts: more than a repairable dirty image), or
if the guest misses a flushed sector or sees one it never wrote. `BLOCKYARD_CRASH_STATES` sets the states per
scenario.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support import peers
from tests.support.crash import (
    Every,
    Guest,
    GuestContent,
    Log,
    QemuCheck,
    Recorder,
    budget,
    replay,
    surviving_barriers,
)
from tests.support.ground import DriverChild, Ground

from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2 import Qcow2, ordering
from blockyard.node.drivers.qcow2.options import Qcow2CreateOptions, Qcow2Options
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import BackingReference
from blockyard.node.interface.flags import COMPRESSED, MAY_UNMAP, Preallocation

pytestmark = [pytest.mark.crash, pytest.mark.peer("qemu-img"), pytest.mark.timeout(3600)]

IMAGE = "disk.qcow2"
BASE = "base.raw"
USUAL_STATES = 70


@dataclass(slots=True)
class Scene:
    """An image under test with its guest."""

    recorder: Recorder
    node: DriverChild
    guest: Guest

    @property
    def driver(self) -> Qcow2:
        assert isinstance(self.node.driver, Qcow2)
        return self.node.driver


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done to which image."""

    steps: Callable[[Scene], Awaitable[None]]
    create: tuple[str, ...] = ("cluster_size=4k",)
    size: int = MIB
    filled: int = 0
    """Bytes of data the image holds from the beginning."""
    base: int = 0
    """Bytes of a raw backing file; 0: none."""
    snapshot: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    lazy: bool = False


async def overwrites(scene: Scene) -> None:
    await scene.guest.write(0, 64 * KIB)
    await scene.guest.flush()
    await scene.guest.write(8 * KIB, 20 * KIB)
    await scene.guest.write(512, 512)
    await scene.guest.flush()
    await scene.guest.write(100 * KIB, 1024)


async def random_writes(scene: Scene) -> None:
    numbers = random.Random(5)
    for _ in range(14):
        length = numbers.choice((512, 3 * KIB, 16 * KIB, 40 * KIB))
        await scene.guest.write(numbers.randrange(0, scene.node.size - length, 512), length)
        if numbers.random() < 0.3:
            await scene.guest.flush()
    await scene.guest.flush()
    await scene.driver.close()


async def zeroes_and_discards(scene: Scene) -> None:
    guest = scene.guest
    await guest.zero(0, 64 * KIB)
    await guest.flush()
    await guest.write(16 * KIB, 8 * KIB)
    await guest.discard(32 * KIB, 64 * KIB)
    await guest.flush()
    # The clusters given back are used again.
    await guest.write(512 * KIB, 96 * KIB)
    await guest.zero(520 * KIB, 16 * KIB, MAY_UNMAP)
    await guest.flush()
    await guest.write(522 * KIB, 512)
    await guest.write(700 * KIB, 64 * KIB)
    await guest.flush()
    await scene.driver.close()


async def compressed_writes(scene: Scene) -> None:
    guest = scene.guest

    def text(tag: int, length: int) -> bytes:
        return (bytes([tag, 7, tag]) * length)[:length]

    await guest.write(0, text(1, 32 * KIB), COMPRESSED)
    await guest.flush()
    await guest.write(8 * KIB, text(2, 12 * KIB), COMPRESSED)
    await guest.write(64 * KIB, text(3, 16 * KIB), COMPRESSED)
    await guest.flush()
    await guest.write(66 * KIB, 512)
    await guest.write(128 * KIB, text(4, 64 * KIB), COMPRESSED)
    await guest.flush()
    await guest.write(0, text(5, 16 * KIB), COMPRESSED)
    await guest.flush()
    await scene.driver.close()


async def resizes(scene: Scene) -> None:
    guest = scene.guest
    await guest.write(scene.node.size - 6 * KIB, 6 * KIB)
    await guest.flush()
    await guest.resize(2 * MIB + 512)
    await guest.write(2 * MIB - 4 * KIB, 4 * KIB + 512)
    await guest.flush()
    await guest.resize(768 * KIB + 512)
    await guest.flush()
    await guest.write(0, 64 * KIB)
    await guest.resize(MIB)
    await guest.flush()


async def l1_growth(scene: Scene) -> None:
    guest = scene.guest
    await guest.write(0, 8 * KIB)
    await guest.resize(8 * MIB)
    await guest.write(8 * MIB - 4 * KIB, 4 * KIB)
    await guest.flush()
    await guest.write(0, 2 * KIB)
    await guest.flush()


async def refcount_growth(scene: Scene) -> None:
    guest = scene.guest
    for at in range(0, 3 * MIB, 256 * KIB):
        await guest.write(at, 96 * KIB)
        if at % (512 * KIB) == 0:
            await guest.flush()
    await guest.discard(0, MIB)
    await guest.flush()
    await guest.write(3 * MIB, 256 * KIB)
    await guest.flush()
    await scene.driver.close()


async def filling_then_detaching(scene: Scene) -> None:
    """What a stream job does: copy what the backing file has, then let go of it."""
    node, guest = scene.node, scene.guest
    for at in range(0, node.size, 64 * KIB):
        await node.write(at, await node.content(at, 64 * KIB))
    await guest.write(20 * KIB, 512)
    await scene.driver.change_backing(None)
    await guest.flush()


async def changing_the_reference(scene: Scene) -> None:
    for name in ("base.raw", "./base.raw", "./" * 150 + "base.raw", "base.raw"):
        await scene.guest.write(20 * KIB, 8 * KIB)
        await scene.driver.change_backing(BackingReference(name, "raw"))


async def background_write_back(scene: Scene) -> None:
    """More dirty tables than may wait, and no guest flush until the end."""
    for at in range(0, 2 * MIB, 96 * KIB):
        await scene.guest.write(at, 8 * KIB)
    await scene.guest.discard(0, 256 * KIB)
    for at in range(0, 2 * MIB, 128 * KIB):
        await scene.guest.write(at, 1024)
    await scene.guest.flush()


async def cancelled_flushes(scene: Scene) -> None:
    """A client that goes away in the middle of a flush; others go on."""
    guest = scene.guest
    for turns in range(2, 22, 2):
        await guest.write(turns * 40 * KIB, 8 * KIB)
        await guest.zero((turns - 2) * 40 * KIB, 4 * KIB)
        flushing = asyncio.ensure_future(scene.driver.flush())
        for _ in range(turns):
            await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await guest.write(turns * 40 * KIB + 12 * KIB, 8 * KIB)
        await guest.flush()


SCENARIOS = {
    "overwrites": Scenario(overwrites),
    "random writes": Scenario(random_writes),
    "random writes, version 2": Scenario(random_writes, ("compat=0.10", "cluster_size=4k")),
    "copy on write over a backing file": Scenario(random_writes, base=512 * KIB),
    "copy on write over a snapshot": Scenario(random_writes, filled=256 * KIB, snapshot=True),
    "one-bit refcounts": Scenario(random_writes, ("cluster_size=4k", "refcount_bits=1")),
    "zeroes and discards": Scenario(zeroes_and_discards, filled=256 * KIB),
    "zeroes and discards over a backing file": Scenario(zeroes_and_discards, base=512 * KIB),
    "compressed writes": Scenario(compressed_writes),
    "compressed writes, zstd": Scenario(compressed_writes, ("cluster_size=4k", "compression_type=zstd")),
    "resizes": Scenario(resizes, filled=MIB),
    "resizes over a backing file": Scenario(resizes, base=2 * MIB),
    "L1 growth": Scenario(l1_growth, ("cluster_size=512",)),
    "refcount table growth": Scenario(refcount_growth, ("cluster_size=512", "refcount_bits=64"), size=4 * MIB),
    "filling then detaching": Scenario(filling_then_detaching, base=MIB),
    "changing the reference": Scenario(changing_the_reference, base=256 * KIB),
    "lazy refcounts": Scenario(random_writes, ("cluster_size=4k", "lazy_refcounts=on"), lazy=True),
    "lazy refcounts, discards": Scenario(
        zeroes_and_discards, ("cluster_size=4k", "lazy_refcounts=on"), filled=256 * KIB, lazy=True
    ),
    "cancelled flushes": Scenario(cancelled_flushes, ("cluster_size=512",)),
    "background write-back": Scenario(
        background_write_back, ("cluster_size=512",), 2 * MIB, options={"l2_cache_size": 16 * 512}
    ),
}


def prepared(scenario: Scenario, place: Path, recorder: Recorder) -> None:
    """The image before the first step, made by QEMU."""
    options = ["-o", ",".join(scenario.create)]
    if scenario.base:
        content = random.Random(3).randbytes(scenario.base)
        (place / BASE).write_bytes(content)
        recorder.add(BASE, content)
        options += ["-b", BASE, "-F", "raw"]
    path = place / IMAGE
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", *options, path, str(scenario.size))
    if scenario.filled:
        peers.run("qemu-io", "-c", f"write -P 0x5a 0 {scenario.filled}", path)
    if scenario.snapshot:
        peers.run("qemu-img", "snapshot", "-c", "before", path)
    recorder.add(IMAGE, path.read_bytes())


def recorded(scenario: Scenario, place: Path) -> Log:
    return asyncio.run(_recorded(scenario, place))


async def _recorded(scenario: Scenario, place: Path) -> Log:
    ground, recorder = Ground(place), Recorder(seed=1)
    prepared(scenario, ground.root, recorder)
    children: dict[str, Child] = {"file": await recorder.child(ground, IMAGE)}
    if scenario.base:
        base = await recorder.child(ground, BASE, read_only=True)
        children["backing"] = base
    context = ground.context(children)
    node = DriverChild(await Qcow2.open(Qcow2Options(**scenario.options), context), context)
    guest = Guest(recorder.log, node, initial=await node.content())
    await scenario.steps(Scene(recorder, node, guest))
    await ground.leave()
    return recorder.log


def oracle_for(scenario: Scenario, *readers: str) -> Every:
    return Every(QemuCheck(IMAGE, dirty_allowed=scenario.lazy), GuestContent(IMAGE, readers=readers))


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_crash_state_is_wrong(name: str, tmp_path: Path):
    scenario = SCENARIOS[name]
    log = recorded(scenario, tmp_path)
    report = replay(log, oracle_for(scenario, "qemu", "us"), budget(USUAL_STATES))
    assert not report.findings, report
    assert report.states > 20


def test_no_crash_state_of_requests_that_run_at_once_is_wrong(tmp_path: Path):
    """Through the graph: writers, discards and flushes of many tasks meet in the allocator and the write-back."""
    scenario = Scenario(random_writes, ("cluster_size=4k",), filled=128 * KIB, base=512 * KIB)

    async def record() -> Log:
        ground, recorder = Ground(tmp_path), Recorder(seed=4)
        prepared(scenario, tmp_path, recorder)
        graph = Graph(Environment(ground.storage, ground.pool, ground.clock))
        with recorder.registered():
            base = NodeDefinition("raw", children={"file": _recording(BASE, True)}, read_only=True)
            children: dict[str, NodeDefinition | str] = {"file": _recording(IMAGE, False), "backing": base}
            await graph.open(NodeDefinition("qcow2", node_name="top", children=children))
            user = graph.use("top", "test", "guest", writable=True)
            initial = bytearray(user.size)
            await user.read(0, memoryview(initial))
            guest = Guest(recorder.log, user, initial=bytes(initial))
            async with asyncio.TaskGroup() as group:
                for task in range(6):
                    group.create_task(_busy(guest, task))
            await guest.flush()
            graph.release(user)
            await graph.close_all()
        await ground.leave()
        return recorder.log

    report = replay(asyncio.run(record()), oracle_for(scenario, "qemu", "us"), budget(3 * USUAL_STATES))
    assert not report.findings, report


def _recording(name: str, read_only: bool) -> NodeDefinition:
    return NodeDefinition("recording", options={"filename": name}, read_only=read_only)


async def _busy(guest: Guest, task: int) -> None:
    """Requests of one task keep to their own sectors but share clusters with the others'."""
    numbers = random.Random(task)
    for _ in range(7):
        offset = numbers.randrange(0, MIB // (6 * 2048)) * 6 * 2048 + task * 2048
        match numbers.randrange(6):
            case 0:
                await guest.flush()
            case 1:
                await guest.zero(offset, 1024)
            case _:
                await guest.write(offset, 2048)


@pytest.mark.parametrize("phase", ordering.PHASES, ids=lambda phase: phase.name)
def test_the_replay_notices_a_missing_barrier_of_the_write_back(
    phase: ordering.Phase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weak = [ordering.Phase(one.name, one.kinds, one is not phase) for one in ordering.PHASES]
    monkeypatch.setattr(ordering, "PHASES", weak)
    scenario = SCENARIOS["refcount table growth"]
    report = replay(recorded(scenario, tmp_path), oracle_for(scenario, "qemu"), 250)
    assert report.findings


def test_no_flush_of_an_overwrite_is_superfluous_or_untested(tmp_path: Path):
    scenario = SCENARIOS["overwrites"]
    log = recorded(scenario, tmp_path)
    assert surviving_barriers(log, oracle_for(scenario, "qemu"), 100) == []


def test_the_replay_notices_if_a_new_table_counts_as_new_after_its_flush_was_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reopen = ordering.Ledger.reopen

    def forgetful(self: ordering.Ledger, epoch: ordering.Epoch) -> None:
        epoch.landed = False
        reopen(self, epoch)

    monkeypatch.setattr(ordering.Ledger, "reopen", forgetful)
    scenario = SCENARIOS["cancelled flushes"]
    assert replay(recorded(scenario, tmp_path), oracle_for(scenario, "qemu"), 900).findings


def test_the_replay_notices_that_clusters_are_given_back_too_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from blockyard.node.drivers.qcow2.writeback import Writeback

    release = Writeback._release
    seal = ordering.Ledger.seal

    def leaky(self: ordering.Ledger, with_refcounts: bool) -> ordering.Epoch:
        epoch = seal(self, with_refcounts)
        early.extend(epoch.drops)
        epoch.drops.clear()
        return epoch

    early: list[Any] = []
    carry = Writeback._carry

    async def released_first(self: Writeback, epoch: Any, phases: Any, final: bool) -> None:
        await release(self, early)
        early.clear()
        await self._image.write(*self._image.refcounts.encode_block(0, 0, self._image.refcounts.block_entries))
        await carry(self, epoch, phases, final)

    monkeypatch.setattr(ordering.Ledger, "seal", leaky)
    monkeypatch.setattr(Writeback, "_carry", released_first)
    scenario = SCENARIOS["zeroes and discards"]
    report = replay(recorded(scenario, tmp_path), oracle_for(scenario, "qemu"), 250)
    assert report.findings


@pytest.mark.parametrize(
    "options",
    (
        Qcow2CreateOptions(MIB, cluster_size=4096),
        Qcow2CreateOptions(MIB, cluster_size=512, preallocation=Preallocation.METADATA),
    ),
)
def test_a_crash_while_an_image_is_created_leaves_a_sound_image_or_none(
    options: Qcow2CreateOptions, tmp_path: Path
):
    async def create() -> Log:
        ground, recorder = Ground(tmp_path), Recorder(seed=2)
        recorder.add(IMAGE)
        await Qcow2.create(options, ground.context({"file": await recorder.child(ground, IMAGE)}))
        await ground.leave()
        return recorder.log

    report = replay(asyncio.run(create()), CreatedOrNothing(), budget(120), workers=0)
    assert not report.findings, report


class CreatedOrNothing:
    """Either no qcow2 header yet, or an image that QEMU calls clean or leaking."""

    def problems(self, crash: Any) -> list[str]:
        if (crash.directory / IMAGE).read_bytes()[:4] != b"QFI\xfb":
            return []
        return QemuCheck(IMAGE).problems(crash)
