"""Ending a session at a node that may not answer.

What lives here: calls that must not be given up lightly. What must not: what a job makes of their failure.

Theory: every call here is idempotent at the node, so after an answer that was lost it is made again, until it
answers or patience ends. Only then is it unknown whether the session has ended.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from blockyard.base.clock import Clock
from blockyard.base.errors import BlockError, InternalError
from blockyard.jobs.copying.bell import Tries
from blockyard.jobs.copying.copier import is_passing
from blockyard.jobs.node.port import FinishAction, NodePort, Session

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one session."""

    node: NodePort
    clock: Clock
    session_id: str
    patience_ns: int

    async def look(self, give_up: Callable[[], bool]) -> Session:
        """How the session stands."""
        return await self._persist(lambda: self.node.get_session(self.session_id), give_up)

    async def finish(self, action: FinishAction, give_up: Callable[[], bool]) -> Session:
        """End it in this way. `give_up` is asked after every try that was not answered."""
        done = await self._persist(lambda: self.node.finish_session(self.session_id, action), give_up)
        if done.finished is not action:
            raise InternalError(f"session {self.session_id} ended by {done.finished}, asked was {action}")
        return done

    async def undo_creation(self) -> None:
        """The node did not answer, so it may have made the session. One try: a repeated call takes it over."""
        try:
            await self.node.finish_session(self.session_id, FinishAction.ABORT)
        except BlockError as error:
            _log.info("session %s was not created: %s", self.session_id, error)

    async def _persist(self, call: Callable[[], Awaitable[Session]], give_up: Callable[[], bool]) -> Session:
        tries = Tries(self.patience_ns)
        while True:
            try:
                return await call()
            except BlockError as error:
                delay_ns = tries.failed(self.clock.monotonic_ns()) if is_passing(error) else None
                if delay_ns is None or give_up():
                    raise
                await self.clock.sleep(delay_ns / 1e9)
