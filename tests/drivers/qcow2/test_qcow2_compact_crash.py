"""What a crash may leave of an image that is being compacted: clean or leaking, with the same content."""

from pathlib import Path

import pytest

from blockyard.node.drivers.qcow2 import compacting
from blockyard.node.drivers.qcow2.image import Image
from tests.drivers.qcow2.test_qcow2_crash import recorded
from tests.drivers.qcow2.test_qcow2_snapshot_crash import _without_flush_before
from tests.support.crash import Every, GuestContent, QemuCheck, budget, replay
from tests.support.qcow2_operations import COMPACT_SCENARIOS
from tests.support.qcow2_scenarios import IMAGE, KeptSnapshots, Scenario

pytestmark = [pytest.mark.crash, pytest.mark.peer("qemu-img"), pytest.mark.timeout(3600)]

USUAL_STATES = 250


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "LEAST_BYTES", 64 << 10)


def oracle_for(scenario: Scenario, *readers: str) -> Every:
    judges = [QemuCheck(IMAGE, dirty_allowed=scenario.lazy), GuestContent(IMAGE, readers=readers)]
    return Every(*judges, *([KeptSnapshots()] if "snapshot" in scenario.steps.__name__ else []))


@pytest.mark.parametrize("name", COMPACT_SCENARIOS)
def test_no_crash_state_of_a_compaction_is_wrong(name: str, tmp_path: Path):
    scenario = COMPACT_SCENARIOS[name]
    log = recorded(scenario, tmp_path)
    report = replay(log, oracle_for(scenario, "qemu", "us"), budget(USUAL_STATES))
    assert not report.findings, report
    assert report.states > 100


def _without_flush_after(monkeypatch: pytest.MonkeyPatch) -> None:
    async def switch(self: Image, offset: int, data: bytes) -> None:
        await self.write(offset, data)

    monkeypatch.setattr(Image, "switch", switch)


@pytest.mark.parametrize("mutate", (_without_flush_before, _without_flush_after), ids=("copies", "header"))
def test_the_replay_notices_a_missing_barrier_of_a_step(
    mutate: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert callable(mutate)
    mutate(monkeypatch)
    scenario = COMPACT_SCENARIOS["data"]
    assert replay(recorded(scenario, tmp_path), oracle_for(scenario, "qemu"), 500).findings
