"""What a crash may leave of an image whose options are being amended: clean or leaking, with every option whole."""

from pathlib import Path

import pytest

from blockyard.node.drivers.qcow2 import widths
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.widths import _Change
from tests.drivers.qcow2.test_qcow2_crash import recorded
from tests.support.crash import Every, GuestContent, QemuCheck, budget, replay
from tests.support.qcow2_operations import AMEND_SCENARIOS, Amended
from tests.support.qcow2_scenarios import IMAGE, KeptSnapshots, Scenario

pytestmark = [pytest.mark.crash, pytest.mark.peer("qemu-img"), pytest.mark.timeout(3600)]

USUAL_STATES = 250


def oracle_for(scenario: Scenario, *readers: str) -> Every:
    judges = [QemuCheck(IMAGE, dirty_allowed=True), GuestContent(IMAGE, readers=readers), Amended()]
    return Every(*judges, *([KeptSnapshots()] if "snapshot" in scenario.steps.__name__ else []))


@pytest.mark.parametrize("name", AMEND_SCENARIOS)
def test_no_crash_state_of_an_amendment_is_wrong(name: str, tmp_path: Path):
    scenario = AMEND_SCENARIOS[name]
    report = replay(recorded(scenario, tmp_path), oracle_for(scenario, "qemu", "us"), budget(USUAL_STATES))
    assert not report.findings, report
    assert report.states > 100


def _without_flush_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new refcounts are not durable when the header names them."""

    async def hasty(image: Image, bits: int, reload: object, progress: object) -> None:
        await image.before_write()
        await image.writeback.settle()
        geometry = type(image.geometry)(image.geometry.cluster_bits, bits.bit_length() - 1)
        work = _Change(image, geometry, progress)  # type: ignore[arg-type]
        await work.place()
        await work.write()
        await work.switch()
        await reload()  # type: ignore[operator]

    monkeypatch.setattr(widths, "change", hasty)


def _without_flush_after(monkeypatch: pytest.MonkeyPatch) -> None:
    async def switch(self: Image, offset: int, data: bytes) -> None:
        await self.write(offset, data)

    monkeypatch.setattr(Image, "switch", switch)


@pytest.mark.parametrize("mutate", (_without_flush_before, _without_flush_after), ids=("refcounts", "header"))
def test_the_replay_notices_a_missing_barrier_of_the_width(
    mutate: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert callable(mutate)
    mutate(monkeypatch)
    scenario = AMEND_SCENARIOS["widths"]
    assert replay(recorded(scenario, tmp_path), oracle_for(scenario, "qemu"), 400).findings
