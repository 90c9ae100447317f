"""The node's part of a job as an action of a transaction (`graph.transaction`).

Its preparation runs while the guests of everything that the transaction touches are held: backups of several disks,
snapshots and bitmaps in one transaction are about one instant.
"""

from typing import TYPE_CHECKING

from blockyard.node.copying.sessions import CopySessions
from blockyard.node.copying.spec import FinishAction, SessionSpec
from blockyard.node.graph.transaction import Action, Plan

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


class CreateCopySession(Action):
    """Begin to copy."""

    def __init__(self, sessions: CopySessions, spec: SessionSpec, token: int) -> None:
        self._sessions = sessions
        self._spec = spec
        self._token = token

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._spec.source)]

    def apply(self, plan: Plan) -> None:
        for name in (self._spec.source, self._spec.target):
            if name:
                plan.get(name)
        self._sessions.check_free(self._spec.session_id)

    async def switch(self, plan: Plan) -> None:
        await self._sessions.create(self._spec, self._token, durable=False)

    async def switch_back(self, plan: Plan) -> None:
        await self._sessions.finish(self._spec.session_id, self._token, FinishAction.ABORT)
