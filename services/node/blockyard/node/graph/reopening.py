"""Options of open nodes changed as one transaction: QEMU's bdrv_reopen_multiple, prepare, commit and abort.

Theory. What changes is planned first (`graph.redefining`), and from there on nobody else changes the mode of these
nodes (`graph.claims`); edges move in `apply` with everything else; drivers change in `switch`, while guests are
held (`graph.switching`): they let go parents first so that they can write back, and are opened again children
first.

Invariants
1. All drivers are as asked, or all are as they were. If even the way back fails, the node says so by an event
   `reopen-failed`, and its requests fail.
2. A node is flushed before its driver is touched.
3. Guests are held at the topmost nodes all the while; what is below serves the drivers above until its own turn.
"""

from typing import TYPE_CHECKING

from blockyard.base.errors import BlockError, GraphCycle, InvalidArgument, MissingOption, NodeInUse
from blockyard.node.graph import requests
from blockyard.node.graph.actions import require_movable
from blockyard.node.graph.chain import descends
from blockyard.node.graph.claims import Claim, claim
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.drain import parents_first
from blockyard.node.graph.freezing import hold_chain
from blockyard.node.graph.opening import Opener, inherit
from blockyard.node.graph.permissions import refresh
from blockyard.node.graph.persisting import store
from blockyard.node.graph.redefining import Reference, Step, slot_of, steps_for
from blockyard.node.graph.switching import Switching
from blockyard.node.graph.transaction import Action, Plan
from blockyard.node.interface.permissions import CHANGING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.node.graph.node import Node


class Reopen(Action):
    """Change the options of nodes. Each definition is whole: what it leaves out returns to its default."""

    def __init__(self, definitions: "Sequence[NodeDefinition]") -> None:
        self._definitions = definitions
        self._steps: list[Step] = []
        self._openers: list[Opener] = []
        self._new: dict[tuple[str, str], Node] = {}
        """The node that a child of a node will be."""
        self._switched: list[Switching] = []
        self._claim: Claim | None = None

    # --- planning ----------------------------------------------------------------------------------------

    async def prepare(self, plan: Plan) -> None:
        self._claim = await claim(*self._named(plan))
        try:
            self._plan_steps(plan)
            await self._open_children(plan)
        except BaseException:
            await self.abort(plan)
            raise

    def _named(self, plan: Plan) -> "list[Node]":
        if not all(definition.node_name for definition in self._definitions):
            raise MissingOption("a definition", "node_name")
        names = [definition.node_name for definition in self._definitions]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InvalidArgument("definitions", "each node once", f"{twice!r} more than once")
        return [plan.get(definition.node_name) for definition in self._definitions]

    def _plan_steps(self, plan: Plan) -> None:
        found: dict[str, Step] = {}
        for node, definition in zip(self._named(plan), self._definitions, strict=True):
            for step in steps_for(node, definition):
                found.setdefault(step.node.uid, step)
        self._steps = [found[node.uid] for node in parents_first([step.node for step in found.values()])]

    async def _open_children(self, plan: Plan) -> None:
        for step in self._steps:
            for name, reference in step.links.items():
                if isinstance(reference, NodeDefinition):
                    self._new[step.node.uid, name] = await self._opened(plan, step, name, reference)

    async def _opened(self, plan: Plan, step: Step, name: str, reference: NodeDefinition) -> "Node":
        opener = Opener(plan.graph, plan.opened)
        role = slot_of(step.node, name).role
        node = await opener.open(inherit(reference, step.definition, role), implicit=not reference.node_name)
        self._openers.append(opener)
        plan.opened.update((each.name, each) for each in opener.opened)
        return node

    def touches(self, plan: Plan) -> "list[Node]":
        """What stands above all else that changes: its drivers reach what is below while guests are held here."""
        changing = {step.node.uid for step in self._steps}
        above = [step.node for step in self._steps if not _stands_below(step.node, changing)]
        return above

    async def settle_down(self, plan: Plan) -> None:
        for node in self.touches(plan):
            await requests.flush(node)
        for step in self._steps:  # while what is below may still be written
            await store(step.node)

    # --- the change --------------------------------------------------------------------------------------

    def apply(self, plan: Plan) -> None:
        for opener in self._openers:
            plan.enter(opener.opened)
        for step in self._steps:
            for name, reference in step.links.items():
                self._relink(plan, step.node, name, reference)
        for step in self._steps:
            self._redefine(plan, step)

    def _relink(self, plan: Plan, node: "Node", name: str, reference: Reference) -> None:
        edge = node.children.get(name)
        old = edge.node if edge is not None else None
        target = self._new.get((node.uid, name)) or (plan.get(reference) if isinstance(reference, str) else None)
        if edge is not None:
            require_movable(edge)
        if target is not None and descends(target, node):
            raise GraphCycle(node.name, target.name)
        if edge is None:
            assert target is not None
            plan.changes.attach(node, name, slot_of(node, name).role, target)
        elif target is None:
            plan.changes.detach(edge)
        else:
            plan.changes.move(edge, target)
        if old is not None and old.implicit and not old.parents:
            plan.leave(old)

    def _redefine(self, plan: Plan, step: Step) -> None:
        node, before = step.node, (step.node.definition, step.node.discard, step.node.no_flush)
        if step.context.read_only and not node.read_only:
            _check_no_writer(node)
        node.definition, node.discard, node.no_flush = (
            step.definition,
            step.definition.discard,
            step.definition.no_flush,
        )

        def restore() -> None:
            node.definition, node.discard, node.no_flush = before

        plan.changes.also(restore, node)
        plan.changes.set_read_only(node, step.context.read_only)
        plan.altered.append(node)

    async def switch(self, plan: Plan) -> None:
        try:
            for step in self._steps:
                self._switched.append(Switching(step.node, step.present, step.options, step.context))
                await self._switched[-1].let_go()
            for switched in reversed(self._switched):
                await switched.take_up()
            refresh(*(step.node for step in self._steps))
            for step in self._steps:
                hold_chain(step.node)
        except BaseException:
            await self.switch_back(plan)
            raise

    async def switch_back(self, plan: Plan) -> None:
        for switched in self._switched:
            await switched.close_again()

    async def restored(self, plan: Plan) -> None:
        for switched in reversed(self._switched):
            try:
                await switched.restore()
                hold_chain(switched.node)
            except BlockError as problem:
                plan.graph.report(switched.node.name, "reopen-failed", {"error": str(problem)})

    async def commit(self, plan: Plan) -> None:
        for opener in self._openers:
            opener.leave_names()
        for step in self._steps:
            for bitmap in step.node.bitmaps.values():
                bitmap.resize(step.node.driver.size)
        self._let_go()

    async def abort(self, plan: Plan) -> None:
        for opener in reversed(self._openers):
            for node in opener.opened:
                plan.opened.pop(node.name, None)
            await opener.close()
        self._openers = []
        self._let_go()

    def _let_go(self) -> None:
        if self._claim is not None:
            self._claim.release()


def _check_no_writer(node: "Node") -> None:
    """Raises NodeInUse that names who writes from outside; parents are judged with all that changes."""
    writers = [edge.holder for edge in node.parents if edge.parent is None and edge.permissions.used & CHANGING]
    if writers:
        raise NodeInUse(node.name, "make read-only", ", ".join(writers))


def _stands_below(node: "Node", changing: set[str]) -> bool:
    return any(edge.parent is not None and edge.parent.uid in changing for edge in node.parents)
