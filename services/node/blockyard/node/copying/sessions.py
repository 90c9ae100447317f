"""The sessions there are: made once per id, fenced, and remembered for a while after their end.

A session outlives the calls and streams that drive it; only `finish` ends it. Bounds: `MAX_SESSIONS` live ones, and
the answers of the latest `REMEMBERED` ended ones, so that a repeated finish gets the same answer.
"""

from collections import OrderedDict
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import LimitReached, ResourceExists, ResourceNotFound
from blockyard.node.copying.kinds import session_class
from blockyard.node.copying.session import Session
from blockyard.node.copying.spec import FinishAction, SessionSpec

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph

MAX_SESSIONS: Final = 256
"""Live sessions: each may hold a work map of 2 MiB per TiB and a window of copies."""
REMEMBERED: Final = 1024
"""Ended sessions whose answer is kept; a few hundred bytes each once their map is dropped."""


class CopySessions:
    """All sessions of a node service."""

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph
        self._live: dict[str, Session] = {}
        self._ended: OrderedDict[str, Session] = OrderedDict()
        self._preparing: set[str] = set()

    async def create(self, spec: SessionSpec, token: int, *, validate_only: bool = False) -> Session:
        """Set a session up; the same spec again gives the session as it is.

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
            present.check_token(token)
            return present
        self.check_free(spec.session_id)
        self._preparing.add(spec.session_id)
        try:
            session = self._new(spec, token)
            await session.prepare()
        finally:
            self._preparing.discard(spec.session_id)
        if validate_only:
            await session.undo()
        else:
            self._ended.pop(spec.session_id, None)
            self._live[spec.session_id] = session
        return session

    def check_free(self, session_id: str) -> None:
        """Raises LimitReached, or ResourceExists for the id of a session that lives."""
        if len(self._live) + len(self._preparing) >= MAX_SESSIONS:
            raise LimitReached("copy sessions", MAX_SESSIONS)
        if session_id in self._preparing or session_id in self._live:
            raise ResourceExists("copy session", session_id)

    def _new(self, spec: SessionSpec, token: int) -> Session:
        source = self._graph.get(spec.source)
        target = self._graph.get(spec.target) if spec.target else None
        return session_class(spec.kind, source)(self._graph, spec, token, source, target)

    def get(self, session_id: str) -> Session:
        """A live or remembered session. Raises ResourceNotFound."""
        session = self._live.get(session_id) or self._ended.get(session_id)
        if session is None:
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
        if self._live.pop(session_id, None) is not None:
            session.retire()
            self._ended[session_id] = session
            while len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        return session

    async def abandon_all(self) -> None:
        """The service stops: every filter is taken out, so that the nodes below can be closed.

        One that cannot be ended must not keep the others; its error is raised when all have been tried.
        """
        async with AsyncExitStack() as ending:
            for session in self.all():
                ending.push_async_callback(self.finish, session.spec.session_id, session.token, FinishAction.ABORT)
