"""What a crash may leave of the bitmaps that an image keeps: each is right, or says that it is not.

And of the image: nothing but clean or leaking, while they are announced, stored and removed.
"""

from pathlib import Path

import pytest

from blockyard.node.drivers.qcow2.bitmaps import Bitmaps
from blockyard.node.drivers.qcow2.storing import _Storing
from tests.drivers.qcow2.test_qcow2_crash import recorded
from tests.support.crash import Every, GuestContent, QemuCheck, budget, replay
from tests.support.qcow2_scenarios import BITMAP_SCENARIOS, IMAGE, Scenario, TrueBitmaps

pytestmark = [pytest.mark.crash, pytest.mark.peer("qemu-img"), pytest.mark.timeout(3600)]

USUAL_STATES = 300


def oracle_for(scenario: Scenario) -> Every:
    check = QemuCheck(IMAGE, dirty_allowed=scenario.lazy)
    return Every(check, GuestContent(IMAGE, readers=("us",)), TrueBitmaps())


@pytest.mark.parametrize("name", BITMAP_SCENARIOS)
def test_no_crash_state_of_kept_bitmaps_is_wrong(name: str, tmp_path: Path):
    scenario = BITMAP_SCENARIOS[name]
    report = replay(recorded(scenario, tmp_path), oracle_for(scenario), budget(USUAL_STATES))
    assert not report.findings, report
    assert report.states > 100


class _Deaf:
    """A file whose flushes do nothing."""

    def __init__(self, file) -> None:
        self.file = file

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    async def flush(self) -> None:
        return


def _without_announcing_durably(monkeypatch: pytest.MonkeyPatch) -> None:
    announce = Bitmaps.announce

    async def deaf(self: Bitmaps) -> None:
        image = self._image
        file, image.file = image.file, _Deaf(image.file)
        try:
            await announce(self)
        finally:
            image.file = file

    monkeypatch.setattr(Bitmaps, "announce", deaf)


def _without_settling_before_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = _Storing.finish

    async def deaf(self: _Storing, *arguments) -> None:
        image = self._image
        file, image.file = image.file, _Deaf(image.file)
        switch = self._switch

        async def heard_again(*rest) -> None:
            image.file = file
            await switch(*rest)

        self._switch = heard_again
        await finish(self, *arguments)

    monkeypatch.setattr(_Storing, "finish", deaf)


def _without_announcing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(self: Bitmaps) -> None:
        return

    monkeypatch.setattr(Bitmaps, "announce", silent)


@pytest.mark.parametrize(
    "broken", [_without_announcing_durably, _without_settling_before_the_switch, _without_announcing]
)
def test_without_one_of_the_barriers_some_state_is_wrong(broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken(monkeypatch)
    scenario = BITMAP_SCENARIOS["bitmaps"]
    report = replay(recorded(scenario, tmp_path), oracle_for(scenario), budget(4 * USUAL_STATES))
    assert report.findings
