"""Tray and medium of an attachment, moved by a transaction: what `graph.attachments` does, with a way back.

A locked tray is no reason to ask the guest here: the transaction fails, and nothing has happened.
"""

from typing import TYPE_CHECKING

from blockyard.base.errors import InvalidArgument, MediumActionNotAllowed, NodeInUse
from blockyard.node.graph.actions import require_movable
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.chain import above_filters
from blockyard.node.graph.kept_attachments import KIND
from blockyard.node.graph.modes import settle
from blockyard.node.graph.transaction import Action, Plan
from blockyard.node.graph.tray import Action as Move
from blockyard.node.graph.tray import plan as way_of

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node

_INSERTING = (Move.INSERT, Move.CHANGE)


class ChangeMedium(Action):
    """Move tray or medium, or turn the key. One action for each attachment: `CHANGE` does all of a change."""

    def __init__(
        self, attachments: Attachments, name: str, move: Move, node_name: str = "", *, force: bool = False
    ) -> None:
        self._attachments = attachments
        self._name = name
        self._move = move
        self._node_name = node_name
        self._force = force

    async def prepare(self, plan: Plan) -> None:
        """Raises ResourceNotFound, InvalidArgument, or MediumActionNotAllowed also for a tray that is locked."""
        if (self._move in _INSERTING) is not bool(self._node_name):
            expected = "the medium" if self._move in _INSERTING else "nothing"
            raise InvalidArgument("node_name", expected, repr(self._node_name))
        if self._name in plan.moving:
            raise InvalidArgument("name", "an attachment that no action before has changed", self._name)
        lock = self._attachments.get(self._name).moving
        await lock.acquire()
        try:
            self._look(plan)
            if self._node_name and self._attachment.definition.writable:
                await self._attachments.make_writable(self._medium(plan))
        except BaseException:
            lock.release()
            raise
        plan.moving.add(self._name)

    def _look(self, plan: Plan) -> None:
        self._attachment = attachment = self._attachments.get(self._name)
        self._first, self._old = attachment.tray, attachment.user.node
        steps = way_of(self._first, self._move, self._force)
        refusal = "its guest locked it, and force breaks the lock" if steps.asks_guest else steps.refusal
        if refusal:
            raise MediumActionNotAllowed(self._name, self._move, self._first.place, refusal)
        self._path = (self._first, *steps.path)
        trays = [tray.has_medium for tray in self._path]
        self._medium_moves = bool(self._node_name) or (trays[0] and not all(trays))

    def _medium(self, plan: Plan) -> "Node":
        return above_filters(plan.get(self._node_name)) if self._node_name else self._attachments.nothing

    def touches(self, plan: Plan) -> "list[Node]":
        found = [self._attachment.user.node, self._medium(plan)] if self._medium_moves else []
        return [node for node in found if node is not self._attachments.nothing]

    def apply(self, plan: Plan) -> None:
        attachment = self._attachment
        self._old = attachment.user.node
        if self._medium_moves:
            medium = self._medium(plan)
            if not all(node.quiesced for node in self.touches(plan)):  # another filter came meanwhile
                raise NodeInUse(medium.name, str(self._move), "a job that began there just now; try again")
            require_movable(attachment.user)
            plan.changes.move(attachment.user, medium)

        def restore() -> None:
            attachment.tray = self._first

        plan.changes.also(restore)
        attachment.tray = self._path[-1]
        plan.graph.kept.catalogue.touch(KIND, self._name)

    def kept(self, plan: Plan) -> None:
        self._attachment.show()

    async def commit(self, plan: Plan) -> None:
        self._attachment.moving.release()
        self._attachments.tell_of_move(self._attachment, self._path, self._old)
        await settle(plan.graph, self._old)

    async def abort(self, plan: Plan) -> None:
        self._attachment.moving.release()
