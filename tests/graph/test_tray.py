"""The tray's table, against a model that knows nothing of places: three facts and QEMU's rules in prose."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.node.graph.tray import TABLE, Action, Place, Tray, first_tray, plan

STEPS = (Action.OPEN_TRAY, Action.CLOSE_TRAY, Action.INSERT, Action.REMOVE)


@dataclass
class Drive:
    """A drive as one would draw it. Every method answers whether it was done."""

    removable: bool
    has_tray: bool
    is_open: bool
    loaded: bool
    locked: bool
    asked: bool = False

    def act(self, action: Action, force: bool) -> bool:
        if not self.removable:
            return False
        if action is Action.CHANGE:
            before = (self.is_open, self.loaded, self.locked)
            done = self.open_tray(force) and self.remove() and self.insert() and self.close_tray()
            if not done:
                self.is_open, self.loaded, self.locked = before
            return done
        if action is Action.OPEN_TRAY:
            return self.open_tray(force)
        return {
            Action.CLOSE_TRAY: self.close_tray,
            Action.INSERT: self.insert,
            Action.REMOVE: self.remove,
            Action.LOCK: lambda: self.turn(True),
            Action.UNLOCK: lambda: self.turn(False),
        }[action]()

    def open_tray(self, force: bool) -> bool:
        if self.has_tray and not self.is_open:
            if self.locked and not force:
                self.asked = True
                return False
            self.is_open, self.locked, self.asked = True, False, False
        return True

    def close_tray(self) -> bool:
        self.is_open = False
        return True

    def insert(self) -> bool:
        if self.loaded or (self.has_tray and not self.is_open):
            return False
        self.loaded = True
        return True

    def remove(self) -> bool:
        if self.has_tray and not self.is_open:
            return False
        self.loaded = False
        return True

    def turn(self, locked: bool) -> bool:
        if self.has_tray:
            self.locked = locked
        return self.has_tray


drives = st.builds(
    lambda removable, trayless, loaded, is_open, locked: (
        Drive(
            removable,
            removable and not trayless,
            removable and not trayless and is_open,
            loaded or not removable,
            removable and not trayless and locked,
        ),
        first_tray(removable=removable, trayless=trayless, loaded=loaded, is_open=is_open, locked=locked),
    ),
    *(st.booleans() for _ in range(5)),
)


@given(drives, st.lists(st.tuples(st.sampled_from(Action), st.booleans()), max_size=12))
def test_a_tray_does_what_a_drive_would(pair: tuple[Drive, Tray], actions: list[tuple[Action, bool]]):
    drive, tray = pair
    for action, force in actions:
        done = drive.act(action, force)
        steps = plan(tray, action, force)
        assert done is not bool(steps.refusal or steps.asks_guest), (tray, action, steps)
        tray = steps.path[-1] if steps.path else tray
        assert (tray.has_tray, tray.is_open, tray.has_medium, tray.locked, tray.eject_requested) == (
            *(drive.has_tray, drive.is_open, drive.loaded, drive.locked, drive.asked),
        )


@given(drives, st.sampled_from(Action), st.booleans())
def test_a_refusal_says_why_and_goes_nowhere(pair: tuple[Drive, Tray], action: Action, force: bool):
    steps = plan(pair[1], action, force)
    assert bool(steps.refusal) is not bool(steps.path)
    assert not (steps.asks_guest and force)


def test_the_table_knows_every_pair():
    assert {place: set(row) for place, row in TABLE.items()} == {place: set(STEPS) for place in Place}


def test_a_medium_comes_and_goes_only_while_nothing_keeps_it():
    for place, row in TABLE.items():
        for outcome in row.values():
            if isinstance(outcome, Place) and Tray(outcome).has_medium is not Tray(place).has_medium:
                assert Tray(place).is_open or not Tray(place).has_tray


def test_a_change_goes_through_every_place_and_ends_closed():
    steps = plan(Tray(Place.CLOSED_LOADED), Action.CHANGE)
    assert [tray.place for tray in steps.path] == [
        *(Place.OPEN_LOADED, Place.OPEN_EMPTY, Place.OPEN_LOADED, Place.CLOSED_LOADED),
    ]


@pytest.mark.parametrize("place", [Place.CLOSED_EMPTY, Place.CLOSED_LOADED])
def test_force_breaks_the_lock_and_the_guest_need_not_be_asked_any_more(place: Place):
    asked = plan(Tray(place, locked=True), Action.OPEN_TRAY)
    assert asked.asks_guest and asked.path == (Tray(place, locked=True, eject_requested=True),)
    (opened,) = plan(asked.path[0], Action.OPEN_TRAY, force=True).path
    assert opened.is_open and not opened.locked and not opened.eject_requested
