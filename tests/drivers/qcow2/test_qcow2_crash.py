"""What a crash may leave of a qcow2 image: every operation, recorded, replayed, judged by QEMU and by us.

A state is wrong if `qemu-img check` finds more than leaks (lazy refcounts: more than a repairable dirty image), or
if the guest misses a flushed sector or sees one it never wrote. `BLOCKYARD_CRASH_STATES` sets the states per
scenario.
"""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2 import Qcow2, ordering
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.options import Qcow2CreateOptions, Qcow2Options
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.interface.child import Child
from blockyard.node.interface.flags import Preallocation
from tests.support import peers
from tests.support.crash import (
    Every,
    Guest,
    GuestContent,
    Log,
    Oracle,
    QemuCheck,
    Recorder,
    budget,
    replay,
    surviving_barriers,
)
from tests.support.ground import DriverChild, Ground
from tests.support.qcow2_scenarios import (
    BASE,
    DATA,
    IMAGE,
    SCENARIOS,
    CreatedOrNothing,
    Scenario,
    Scene,
    random_writes,
    resizes,
)

pytestmark = [pytest.mark.crash, pytest.mark.peer("qemu-img"), pytest.mark.timeout(3600)]

USUAL_STATES = 300


def prepared(scenario: Scenario, place: Path, recorder: Recorder) -> None:
    """The image before the first step, made by QEMU."""
    options = ["-o", ",".join(scenario.create)]
    if scenario.base:
        content = random.Random(3).randbytes(scenario.base)
        (place / BASE).write_bytes(content)
        recorder.add(BASE, content)
        options += ["-b", BASE, "-F", "raw"]
    path = place / IMAGE
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", *options, path, str(scenario.size), cwd=place)
    if scenario.filled:
        peers.run("qemu-io", "-c", f"write -P 0x5a 0 {scenario.filled}", path, cwd=place)
    for name in scenario.bitmaps:
        peers.run("qemu-img", "bitmap", "--add", "-g", "4096", path, name)
    if scenario.snapshot:
        peers.run("qemu-img", "snapshot", "-c", "before", path)
    recorder.add(IMAGE, path.read_bytes())
    if scenario.data_file:
        recorder.add(DATA, (place / DATA).read_bytes())


def recorded(scenario: Scenario, place: Path) -> Log:
    return asyncio.run(_recorded(scenario, place))


async def _recorded(scenario: Scenario, place: Path) -> Log:
    ground, recorder = Ground(place), Recorder(seed=1)
    prepared(scenario, ground.root, recorder)
    children: dict[str, Child] = {"file": await recorder.child(ground, IMAGE)}
    if scenario.base:
        base = await recorder.child(ground, BASE, read_only=True)
        children["backing"] = base
    if scenario.data_file:
        children["data-file"] = await recorder.child(ground, DATA)
    context = ground.context(children)
    node = DriverChild(await Qcow2.open(Qcow2Options(**scenario.options), context), context)
    guest = Guest(recorder.log, node, initial=await node.content())
    await scenario.steps(Scene(recorder, node, guest))
    await ground.leave()
    return recorder.log


def oracle_for(scenario: Scenario, *readers: str) -> Every:
    oracles: list[Oracle] = [
        QemuCheck(IMAGE, dirty_allowed=scenario.lazy),
        GuestContent(IMAGE, readers=readers),
    ]
    if "data_file_raw=on" in scenario.create and scenario.steps is not resizes:
        oracles.append(GuestContent(DATA, "raw", readers=("us",)))
    return Every(*oracles)


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


def test_the_replay_notices_a_subcluster_that_is_entered_before_its_data_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weak = [ordering.Phase(one.name, one.kinds, number > 0) for number, one in enumerate(ordering.PHASES)]
    monkeypatch.setattr(ordering, "PHASES", weak)
    scenario = SCENARIOS["subclusters over a backing file"]
    report = replay(recorded(scenario, tmp_path), GuestContent(IMAGE, readers=("qemu",)), 250)
    assert report.findings


@pytest.mark.parametrize("name", ["data file over a backing file", "data file, zeroes and discards"])
def test_the_replay_notices_a_mapping_that_is_durable_before_what_it_shows_in_the_data_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def forgotten(self: Image) -> None:
        """No flush of the data file."""

    monkeypatch.setattr(Image, "flush_data", forgotten)
    scenario = SCENARIOS[name]
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
