"""What the catalogue keeps of copy sessions, and how a session of an earlier process goes on.

A session comes back with its filter and its map before any guest does, so that a guest's write never passes it by.
One that ended comes back as its answer alone. What of the map can be believed is `kept_map`'s to say; what cannot
is copied again, but for a backup, whose old data may be gone: that one comes back broken.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.copying.common import forgets, map_path
from blockyard.node.copying.kept_map import KeptMap
from blockyard.node.copying.spec import (
    KIND,
    BitmapMode,
    CopyKind,
    CopyMode,
    FinishAction,
    SessionSpec,
    SyncMode,
)
from blockyard.node.graph.kept_form import parsed
from blockyard.node.interface.keeper import Key

if TYPE_CHECKING:
    from blockyard.node.copying.session import Session
    from blockyard.node.copying.sessions import CopySessions

_WORDS: Final[dict[str, Any]] = {
    "kind": CopyKind,
    "sync": SyncMode,
    "bitmap_mode": BitmapMode,
    "copy_mode": CopyMode,
}


class CopySessionKind:
    """Copy sessions, as entries of the catalogue."""

    name = KIND

    def __init__(self, sessions: "CopySessions") -> None:
        self._sessions = sessions

    def names(self) -> Iterable[str]:
        return self._sessions.kept_names()

    def definition(self, name: str) -> str | None:
        session = self._sessions.lasting(name)
        return None if session is None else definition_of(session)

    def needs(self, name: str, definition: str) -> list[Key]:
        values = parsed(definition)
        if values.get("finished"):
            return []
        spec = spec_of(values)
        return [Key("node", each) for each in (spec.source, spec.target, spec.base) if each]

    def provides(self, name: str, definition: str) -> list[str]:
        filter_name = str(parsed(definition).get("filter", ""))
        return [name, filter_name] if filter_name else [name]

    async def restore(self, name: str, definition: str) -> None:
        await self._sessions.restore(name, parsed(definition))

    def shown(self, definition: str) -> str:
        return f"json:{definition}"


def definition_of(session: "Session") -> str:
    """As it is now. Its map is in a file beside the catalogue."""
    spec, total = session.spec, session.work.total
    values: dict[str, Any] = {"spec": asdict(spec), "token": session.token}
    ended = session.finished or session.sealed
    if ended is not None:
        values["finished"] = int(ended)
        values["figures"] = [session.work.size, session.work.remaining, total.copied, total.zero, total.skipped]
        values["granularity"] = session.work.bits.granularity
    else:
        values["filter"] = session.filter_name
        values["copy_mode"] = int(getattr(session, "copy_mode", spec.copy_mode))
    return json.dumps(values)


def spec_of(values: dict[str, Any]) -> SessionSpec:
    """Raises InvalidArgument for what this version does not know."""
    try:
        given: dict[str, Any] = dict(values["spec"])
        for name, words in _WORDS.items():
            given[name] = words(given[name])
        return SessionSpec(**given)
    except (KeyError, TypeError, ValueError) as problem:
        raise InvalidArgument("definition", "a copy session of this version", str(problem)) from problem


def finish_action_of(values: dict[str, Any]) -> FinishAction | None:
    """How it ended."""
    return FinishAction(values["finished"]) if values.get("finished") else None


def take_up(session: "Session", values: dict[str, Any]) -> None:
    """Give a session that is not yet prepared what an earlier process left of it."""
    session.restored = True
    session.filter_name = str(values.get("filter", ""))
    assert session.folder is not None
    found = KeptMap.open(map_path(session.folder, session.spec.session_id))
    if found is None:
        return
    kept, believed = found
    nodes = [node for node in (session.source, session.target) if node is not None]
    torn = session.spec.kind is CopyKind.BACKUP and kept.is_torn()
    if not believed or torn or kept.size != session.source.driver.size or any(map(forgets, nodes)):
        kept.let_go()
        return
    kept.put_back()
    session.kept, session.resumes = kept, True
