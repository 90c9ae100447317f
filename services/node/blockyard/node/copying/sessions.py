"""The sessions there are: made once per id, fenced, and remembered for a while after their end.

A session outlives the calls and streams that drive it; only `finish` ends it. Bounds: `MAX_SESSIONS` live ones, and
the answers of the latest `REMEMBERED` ended ones, so that a repeated finish gets the same answer.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blockyard.base.errors import (
    BlockError,
    EntryNotRestored,
    LimitReached,
    ResourceExists,
    ResourceNotFound,
    StateDirectoryUnusable,
)
from blockyard.base.failpoints import reach
from blockyard.node.copying.common import map_path
from blockyard.node.copying.kept import finish_action_of, spec_of, take_up
from blockyard.node.copying.kinds import session_class
from blockyard.node.copying.mirror import MirrorSession
from blockyard.node.copying.session import Session
from blockyard.node.copying.spec import KIND, CopyMode, FinishAction, SessionSpec, Tally
from blockyard.node.copying.work import DEFAULT_GRANULARITY, CopyWork
from blockyard.node.interface.keeper import Key

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph

MAX_SESSIONS: Final = 256
"""Live sessions: each may hold a work map of 2 MiB per TiB and a window of copies."""
REMEMBERED: Final = 1024
"""Ended sessions whose answer is kept; a few hundred bytes each once their map is dropped."""


_log: Final = logging.getLogger(__name__)


def session_directory(state_directory: str) -> Path:
    """Where maps lie, made. Raises StateDirectoryUnusable."""
    folder = Path(state_directory).absolute() / "sessions"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as problem:
        raise StateDirectoryUnusable(str(folder), str(problem)) from problem
    return folder


class CopySessions:
    """All sessions of a node service."""

    def __init__(self, graph: "Graph", folder: Path | None = None) -> None:
        """`folder`: where maps are kept; without one sessions end with the process."""
        self._graph = graph
        self._folder = folder
        self._live: dict[str, Session] = {}
        self._ended: OrderedDict[str, Session] = OrderedDict()
        self._preparing: set[str] = set()

    # --- what is kept ----------------------------------------------------------------------------------

    def kept_names(self) -> Iterable[str]:
        """Of live and of remembered sessions."""
        return [*self._live, *self._ended]

    def lasting(self, session_id: str) -> Session | None:
        """The session as far as the catalogue is concerned."""
        return self._live.get(session_id) or self._ended.get(session_id)

    async def restore(self, session_id: str, values: dict[str, Any]) -> None:
        """A session of an earlier process. Raises what preparing raises; its map then says nothing any more."""
        spec, token, action = spec_of(values), int(values["token"]), finish_action_of(values)
        if action is not None:
            self._ended[session_id] = _ended(self._graph, spec, token, action, values)
            return
        session = self._new(spec, token)
        try:
            take_up(session, values)
            await session.prepare()
        except BaseException:
            if session.kept is not None:
                session.kept.distrust()
                session.kept.let_go()
            raise
        if isinstance(session, MirrorSession):
            session.set_copy_mode(CopyMode(values.get("copy_mode", spec.copy_mode)))
        self._live[session_id] = session

    def sweep(self) -> None:
        """Remove the maps that belong to no session: of those that were being made or had just ended. Call it when
        all are restored."""
        if self._folder is None:
            return
        entries = (key.name for key in self._graph.kept.catalogue.entries if key.kind == KIND)
        known = {map_path(self._folder, name) for name in entries if name not in self._ended}
        for path in self._folder.glob("*.map"):
            if path not in known:
                path.unlink(missing_ok=True)

    async def own(self, session_id: str, token: int) -> Session:
        """The session, whose owner this token names from now on, also after a kill.

        Raises ResourceNotFound, OwnerMismatch or CatalogueNotWritten.
        """
        session = self.get(session_id)
        before = session.token
        session.check_token(token)
        if session.token != before and session_id in self._live:
            self._graph.kept.catalogue.touch(KIND, session_id)
            await self._graph.kept.catalogue.commit()
        return session

    async def set_copy_mode(self, session: MirrorSession, mode: CopyMode) -> None:
        """Raises InvalidArgument or CatalogueNotWritten; then the mode may have changed until the next restart."""
        session.set_copy_mode(mode)
        self._graph.kept.catalogue.touch(KIND, session.spec.session_id)
        await self._graph.kept.catalogue.commit()

    async def suspend_all(self) -> None:
        """The service stops, and its guests are gone: sessions that are kept let go of the graph, to come back in
        good order; others are abandoned."""
        if self._folder is None:
            await self.abandon_all()
            return
        for session in self.all():
            try:
                await session.suspend()
            except BlockError as problem:
                _log.error("copy session %s was not left in good order: %s", session.spec.session_id, problem)

    # --- making and ending -----------------------------------------------------------------------------

    async def create(
        self, spec: SessionSpec, token: int, *, validate_only: bool = False, durable: bool = True
    ) -> Session:
        """Set a session up; the same spec again gives the session as it is. `durable = False` leaves it to the
        caller to keep it.

        The id of a session that has ended is free again. Raises ResourceExists for another spec under the id,
        OwnerMismatch for a token older than the id has seen, and everything that preparing raises.
        """
        ended = self._ended.get(spec.session_id)
        if ended is not None:
            ended.check_token(token)
        present = self._live.get(spec.session_id)
        if present is not None:
            if present.spec != spec:
                raise ResourceExists("copy session", spec.session_id)
            return await self.own(spec.session_id, token)
        self.check_free(spec.session_id)
        self._preparing.add(spec.session_id)
        try:
            session = self._new(spec, token)
            if validate_only:
                session.folder = None
            await session.prepare()
        finally:
            self._preparing.discard(spec.session_id)
        if validate_only:
            await session.undo()
        else:
            await self._keep_new(session, durable)
        return session

    async def _keep_new(self, session: Session, durable: bool) -> None:
        session_id = session.spec.session_id
        ended = self._ended.pop(session_id, None)
        self._live[session_id] = session
        self._graph.kept.catalogue.touch(KIND, session_id)
        if not durable:
            return

        def undo() -> None:
            del self._live[session_id]
            if ended is not None:
                self._ended[session_id] = ended

        reach("node.session.before")
        try:
            await self._graph.kept.commit(undo)
            reach("node.session.after")
        except BaseException:
            await session.undo()
            session.retire()
            raise

    def check_free(self, session_id: str) -> None:
        """Raises LimitReached, or ResourceExists for the id of a session that lives."""
        if len(self._live) + len(self._preparing) >= MAX_SESSIONS:
            raise LimitReached("copy sessions", MAX_SESSIONS)
        if session_id in self._preparing or session_id in self._live:
            raise ResourceExists("copy session", session_id)

    def _new(self, spec: SessionSpec, token: int) -> Session:
        source = self._graph.get(spec.source)
        target = self._graph.get(spec.target) if spec.target else None
        made = session_class(spec.kind, source)(self._graph, spec, token, source, target)
        made.folder = self._folder
        return made

    def get(self, session_id: str) -> Session:
        """A live or remembered session. Raises ResourceNotFound, or EntryNotRestored for one that is kept."""
        session = self._live.get(session_id) or self._ended.get(session_id)
        if session is None:
            failure = self._graph.kept.catalogue.failed.get(Key(KIND, session_id))
            if failure is not None:
                raise EntryNotRestored(KIND, session_id, str(failure))
            raise ResourceNotFound("copy session", session_id)
        return session

    def all(self) -> list[Session]:
        """The live sessions, by id."""
        return [self._live[name] for name in sorted(self._live)]

    async def finish(self, session_id: str, token: int, action: FinishAction) -> Session:
        """End a session; idempotent. Raises OwnerMismatch, or what the ending raises."""
        session = self.get(session_id)
        session.check_token(token)
        await session.finish(action)
        reach("node.finish.after")
        if self._live.pop(session_id, None) is not None:
            session.retire()
            self._ended[session_id] = session
            while len(self._ended) > REMEMBERED:
                forgotten, _ = self._ended.popitem(last=False)
                # With the next commit: that it is forgotten need not be durable.
                self._graph.kept.catalogue.touch(KIND, forgotten)
        return session

    async def abandon_all(self) -> None:
        """The service stops: every filter is taken out, so that the nodes below can be closed.

        One that cannot be ended must not keep the others; its error is raised when all have been tried.
        """
        async with AsyncExitStack() as ending:
            for session in self.all():
                ending.push_async_callback(self.finish, session.spec.session_id, session.token, FinishAction.ABORT)


def _ended(graph: "Graph", spec: SessionSpec, token: int, action: FinishAction, values: dict[str, Any]) -> Session:
    """A session that ended in an earlier process: its answer."""
    session = Session(graph, spec, token, None, None)
    session.finished = action
    size, remaining, copied, zero, skipped = (int(each) for each in values.get("figures", (0, 0, 0, 0, 0)))
    granularity = int(values.get("granularity", DEFAULT_GRANULARITY))
    session.work = CopyWork.ended(size, remaining, granularity, Tally(copied, zero, skipped))
    return session
