"""Bitmaps that survive a crash, in every state that a crash may leave: raw, through the graph, under writers at
once.

Each state is judged twice: as a power cut, with the activity log; and, if nothing that was written is missing, as
the death of the process, with the bits alone.
"""

import asyncio
import random
from pathlib import Path

import pytest

from blockyard.base.units import KIB, MIB
from blockyard.node.core.heat import REGION
from blockyard.node.graph import recording
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.guarding import Guard
from tests.support.crash import Guest, Log, Recorder, budget, replay
from tests.support.ground import Ground
from tests.support.kept_graph import MemoryKeeper
from tests.support.recorded_vault import NothingMissed, RecordedFile, RecordedVault

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

USUAL_STATES = 400
DISK = "disk.raw"
SIZE = 28 * MIB
GRANULARITY = 64 * KIB
HOT = 4 * REGION


def judge() -> NothingMissed:
    return NothingMissed(DISK, bits="vault1", heat="vault0", granularity=GRANULARITY, hot_bytes=HOT)


async def recorded(place: Path, seed: int) -> Log:
    ground, recorder = Ground(place), Recorder(seed=seed)
    recorder.add(DISK, bytes(SIZE))
    vault = RecordedVault(recorder)
    environment = Environment(ground.storage, ground.pool, ground.clock, vault=vault, hot_bytes=HOT)
    graph = Graph(environment, Catalogue(MemoryKeeper()))
    with recorder.registered():
        below = NodeDefinition("recording", options={"filename": DISK})
        node = await graph.open(NodeDefinition("raw", node_name="disk", children={"file": below}))
        await recording.create_durably(graph, node, "b", GRANULARITY, persistent=True)
        vault.start()
        user = graph.use("disk", "test", "guest", writable=True)
        guest = Guest(recorder.log, user, initial=bytes(SIZE))
        async with asyncio.TaskGroup() as group:
            for task in range(3):
                group.create_task(_busy(guest, random.Random(seed * 10 + task)))
        await _cleared(graph, guest, recorder)
        await _busy(guest, random.Random(seed * 10 + 7))
        await guest.zero(4 * MIB, 21 * MIB)
        await guest.discard(26 * MIB, 64 * KIB)
        bitmap = node.bitmaps["b"]
        bitmap.freeze("job/backup")
        await guest.write(MIB, 4 * KIB)
        await guest.write(27 * MIB, 64 * KIB)
        bitmap.thaw(bitmap.bits)
        await bitmap.settle()
        await _busy(guest, random.Random(seed * 10 + 8))
        graph.release(user)
        await graph.close_all()
        vault.stop()
    await ground.leave()
    return recorder.log


async def _busy(guest: Guest, numbers: random.Random) -> None:
    for _ in range(9):
        offset = numbers.randrange(SIZE // (4 * KIB)) * 4 * KIB
        await guest.write(offset, min(numbers.choice((4 * KIB, 4 * KIB, 80 * KIB)), SIZE - offset))
        if numbers.random() < 0.3:
            await guest.flush()


async def _cleared(graph: Graph, guest: Guest, recorder: Recorder) -> None:
    await guest.flush()
    now = recorder.contents[DISK]
    content = {at // GRANULARITY: bytes(now[at : at + GRANULARITY]) for at in range(0, SIZE, GRANULARITY)}
    content = {granule: data for granule, data in content.items() if any(data)}
    recorder.log.mark("clearing", content=content)
    node = graph.get("disk")
    async with recording.changing(graph, node, "b"):
        recording.clear(graph, node, "b")
    recorder.log.mark("cleared")


@pytest.mark.parametrize("seed", [1, 2])
def test_no_crash_state_of_a_guarded_bitmap_misses_a_change(seed: int, tmp_path: Path):
    report = replay(asyncio.run(recorded(tmp_path, seed)), judge(), budget(USUAL_STATES))
    assert not report.findings, report
    assert report.states > 200


def _deaf_heat(monkeypatch: pytest.MonkeyPatch) -> None:
    _deaf(monkeypatch, "vault0")


def _deaf_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    _deaf(monkeypatch, "vault1")


def _deaf(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = RecordedFile.__init__

    def init(self: RecordedFile, vault: RecordedVault, own: str, length: int) -> None:
        made(self, vault, own, length)
        self.is_deaf = own == name

    monkeypatch.setattr(RecordedFile, "__init__", init)


def _unmarked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks that are made before the data are left out: only a process that dies between sees it."""

    def ready_now(self: Guard, offset: int, length: int) -> bool:
        recording_before = [bitmap.recording for bitmap in self.bitmaps]
        for bitmap in self.bitmaps:
            bitmap.recording = False
        try:
            covered = all((bitmap.kept or bitmap.bits).covers(offset, length) for bitmap in self.bitmaps)
            first, last = offset // REGION, (offset + length - 1) // REGION
            hot = all(region in self._hot for region in range(first, last + 1))
            return self.begun and (hot or covered)
        finally:
            for bitmap, was in zip(self.bitmaps, recording_before, strict=True):
                bitmap.recording = was

    monkeypatch.setattr(Guard, "ready_now", ready_now)


def _cooled_without_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are given away although the bits of their regions are not durable."""
    cool_down = Guard._cool_down

    async def careless(self: Guard, count: int) -> None:
        async def nothing() -> None:
            self._unsafe.clear()

        sync, self._sync_bits = self._sync_bits, nothing
        try:
            await cool_down(self, count)
        finally:
            self._sync_bits = sync

    monkeypatch.setattr(Guard, "_cool_down", careless)


@pytest.mark.parametrize("broken", [_deaf_heat, _deaf_bits, _unmarked_before, _cooled_without_sync])
def test_without_one_of_its_barriers_some_state_misses_a_change(
    broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broken(monkeypatch)
    for seed in (1, 2, 3):
        place = tmp_path / str(seed)
        place.mkdir()
        if replay(asyncio.run(recorded(place, seed)), judge(), budget(2 * USUAL_STATES)).findings:
            return
    pytest.fail("nobody noticed")
