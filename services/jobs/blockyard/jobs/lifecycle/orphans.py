"""Sessions at the node that no job knows: found, told, and collected.

Theory. A job is in its store before its session is made, and leaves it after the session has ended. So a session
of our store whose job is not there is left over: its job was dismissed while the node did not answer, or the store
is an older copy of itself. Sessions of other stores are nobody's business here: what looks dead may be a service
that is restarted. It must be seen twice, a round apart, so that a call under way is not mistaken for it.
"""

import logging
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import BlockError
from blockyard.jobs.node.port import FinishAction, NodePort, Session
from blockyard.jobs.store.port import JobStore

ROUND_SECONDS: Final = 60.0
"""Between two looks."""

_log = logging.getLogger(__name__)


class Orphans:
    """Looks for them, for one store."""

    def __init__(self, node: NodePort, store: JobStore, clock: Clock) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self._suspects: set[str] = set()
        self.collected = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._clock.sleep(ROUND_SECONDS)
            try:
                await self.look()
            except BlockError as problem:
                _log.info("sessions without a job are not looked for: %s", problem)

    async def look(self) -> None:
        """One round. Raises what the node or the store raises."""
        domain = await self._store.identity()
        live = [each for each in await self._node.list_sessions() if each.domain == domain and not each.finished]
        known = {record.job_id for record in await self._store.load()}
        orphans = {each.session_id: each for each in live if each.session_id not in known}
        for session_id, session in orphans.items():
            if session_id in self._suspects:
                await self._collect(session)
        self._suspects = set(orphans)

    async def _collect(self, session: Session) -> None:
        _log.warning("copy session %s belongs to no job any more; it is ended", session.session_id)
        await self._node.fenced(session.fencing_token).finish_session(session.session_id, FinishAction.ABORT)
        self.collected += 1
