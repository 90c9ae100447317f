"""The tray of a removable attachment as a table: where it is, what may be done there, where it is then.

Theory. A place says three things at once: whether there is a tray, whether it is open, whether a medium lies in it.
Four actions move between places; the table holds every pair, with the next place or the reason of a refusal.
Locking is apart: a lock keeps a closed tray closed, whatever lies in it, and force breaks it. The rules are those
of QEMU's blockdev-open-tray, -close-tray, -insert-medium, -remove-medium and -change-medium (block/qapi-sysemu.c)
and of its CD drive (hw/scsi/scsi-disk.c). Pure: no node, no event, no clock.

Invariants
1. Every (place, action) has exactly one entry; a refused action changes nothing.
2. A medium comes or goes only while nothing keeps it: the tray is open, or there is none.
3. Only a tray that is there can be locked; opening it by force unlocks it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Place(StrEnum):
    """Tray and medium, in words for people."""

    FIXED = "its medium is fixed"
    EMPTY = "no tray, no medium"
    LOADED = "no tray, a medium"
    CLOSED_EMPTY = "tray closed, no medium"
    CLOSED_LOADED = "tray closed, a medium"
    OPEN_EMPTY = "tray open, no medium"
    OPEN_LOADED = "tray open, a medium"


class Action(StrEnum):
    """What may be done, in words for people."""

    OPEN_TRAY = "open the tray"
    CLOSE_TRAY = "close the tray"
    INSERT = "insert a medium"
    REMOVE = "remove the medium"
    CHANGE = "change the medium"
    LOCK = "lock the tray"
    UNLOCK = "unlock the tray"


_FIXED: Final = "it is not removable"
_CLOSED: Final = "its tray is closed"
_FULL: Final = "a medium is in it"
_NO_TRAY: Final = "it has no tray"

_P, _A = Place, Action
TABLE: Final[dict[Place, dict[Action, Place | str]]] = {
    _P.FIXED: dict.fromkeys((_A.OPEN_TRAY, _A.CLOSE_TRAY, _A.INSERT, _A.REMOVE), _FIXED),
    _P.EMPTY: {
        _A.OPEN_TRAY: _P.EMPTY, _A.CLOSE_TRAY: _P.EMPTY, _A.INSERT: _P.LOADED, _A.REMOVE: _P.EMPTY,
    },
    _P.LOADED: {
        _A.OPEN_TRAY: _P.LOADED, _A.CLOSE_TRAY: _P.LOADED, _A.INSERT: _FULL, _A.REMOVE: _P.EMPTY,
    },
    _P.CLOSED_EMPTY: {
        _A.OPEN_TRAY: _P.OPEN_EMPTY, _A.CLOSE_TRAY: _P.CLOSED_EMPTY, _A.INSERT: _CLOSED, _A.REMOVE: _CLOSED,
    },
    _P.CLOSED_LOADED: {
        _A.OPEN_TRAY: _P.OPEN_LOADED, _A.CLOSE_TRAY: _P.CLOSED_LOADED, _A.INSERT: _CLOSED, _A.REMOVE: _CLOSED,
    },
    _P.OPEN_EMPTY: {
        _A.OPEN_TRAY: _P.OPEN_EMPTY, _A.CLOSE_TRAY: _P.CLOSED_EMPTY, _A.INSERT: _P.OPEN_LOADED,
        _A.REMOVE: _P.OPEN_EMPTY,
    },
    _P.OPEN_LOADED: {
        _A.OPEN_TRAY: _P.OPEN_LOADED, _A.CLOSE_TRAY: _P.CLOSED_LOADED, _A.INSERT: _FULL,
        _A.REMOVE: _P.OPEN_EMPTY,
    },
}  # fmt: skip
"""Where an action leads from a place, or why it is refused there."""

CHANGE: Final = (Action.OPEN_TRAY, Action.REMOVE, Action.INSERT, Action.CLOSE_TRAY)
"""What a change of the medium is made of."""

_OPEN: Final = (Place.OPEN_EMPTY, Place.OPEN_LOADED)
_CLOSED_TRAYS: Final = (Place.CLOSED_EMPTY, Place.CLOSED_LOADED)
_LOADED: Final = (Place.FIXED, Place.LOADED, Place.CLOSED_LOADED, Place.OPEN_LOADED)


@dataclass(frozen=True, slots=True)
class Tray:
    """Where tray and medium are."""

    place: Place
    locked: bool = False
    eject_requested: bool = False
    """The guest was asked to open it, and it has not opened since."""

    @property
    def has_tray(self) -> bool:
        return self.place in _OPEN or self.place in _CLOSED_TRAYS

    @property
    def is_open(self) -> bool:
        return self.place in _OPEN

    @property
    def has_medium(self) -> bool:
        return self.place in _LOADED


@dataclass(frozen=True, slots=True)
class Plan:
    """What an action does: the trays it goes through, the last one stays. Or why it does nothing."""

    path: tuple[Tray, ...] = ()
    refusal: str = ""
    asks_guest: bool = False
    """The lock stands in the way: the guest is asked to open the tray, and the path is that one change."""


def first_tray(*, removable: bool, trayless: bool, loaded: bool, is_open: bool, locked: bool) -> Tray:
    """Where a new attachment begins. An open or locked tray is one that is there."""
    if not removable:
        return Tray(Place.FIXED)
    if trayless:
        return Tray(Place.LOADED if loaded else Place.EMPTY)
    if is_open:
        return Tray(Place.OPEN_LOADED if loaded else Place.OPEN_EMPTY, locked)
    return Tray(Place.CLOSED_LOADED if loaded else Place.CLOSED_EMPTY, locked)


def plan(tray: Tray, action: Action, force: bool = False) -> Plan:
    """What the action would do now."""
    if action in (Action.LOCK, Action.UNLOCK):
        return _turned_key(tray, locked=action is Action.LOCK)
    path: list[Tray] = []
    for step in CHANGE if action is Action.CHANGE else (action,):
        if step is Action.OPEN_TRAY and tray.locked and tray.place in _CLOSED_TRAYS and not force:
            return Plan((replace(tray, eject_requested=True),), asks_guest=True)
        outcome = TABLE[tray.place][step]
        if not isinstance(outcome, Place):
            return Plan(refusal=outcome)
        tray = _moved(tray, outcome)
        path.append(tray)
    return Plan(tuple(path))


def _moved(tray: Tray, place: Place) -> Tray:
    opens = place in _OPEN and tray.place in _CLOSED_TRAYS
    # Only force opens a locked tray; the lock is then broken, and nobody need be asked any more.
    return replace(
        tray,
        place=place,
        locked=tray.locked and not opens,
        eject_requested=tray.eject_requested and place not in _OPEN,
    )


def _turned_key(tray: Tray, *, locked: bool) -> Plan:
    if not tray.has_tray:
        return Plan(refusal=_FIXED if tray.place is Place.FIXED else _NO_TRAY)
    return Plan((replace(tray, locked=locked),))
