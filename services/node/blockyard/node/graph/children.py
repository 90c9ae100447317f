"""Children that come to and leave an open driver (x-blockdev-change), as actions of a transaction.

Which children a driver may have it says itself (`interface.driver.ManyChildren`). An action gives it the whole set
as it would be, so that several of them in one transaction see what the ones before leave.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from blockyard.base.errors import (
    BlockError,
    GraphCycle,
    InvalidArgument,
    NodeInUse,
    OperationUnsupported,
    ResourceNotFound,
)
from blockyard.node.graph.chain import descends
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.opening import Opener, inherit
from blockyard.node.graph.transaction import Action, Plan, run
from blockyard.node.interface.driver import ChildSlot, ManyChildren

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


async def add_child(
    graph: "Graph", node: "Node", reference: NodeDefinition | str | None, *, validate_only: bool = False
) -> str:
    """Give an open node one more child; the name of the edge. Raises what `AddChild` and the driver raise."""
    action = AddChild(node.name, reference)
    await _alone(graph, action, validate_only)
    return action.child


async def remove_child(graph: "Graph", node: "Node", name: str, *, validate_only: bool = False) -> None:
    """Take a child out of an open node. Raises what `RemoveChild` and the driver raise."""
    await _alone(graph, RemoveChild(node.name, name), validate_only)


async def _alone(graph: "Graph", action: Action, validate_only: bool) -> None:
    outcome = await run(graph, [action], validate_only=validate_only)
    if outcome.failures:
        raise outcome.failures[0].error


class AddChild(Action):
    """Give a node one more child: an open node, or one that is opened and, if it has no name, goes with its edge.

    Its content should be the same already. `child` is the name of the edge, once it is applied.
    """

    child: str

    def __init__(self, node_name: str, reference: NodeDefinition | str | None) -> None:
        """Raises InvalidArgument for no child."""
        if reference is None:
            raise InvalidArgument("child", "the name of an open node, or a definition", "none")
        self._name = node_name
        self._reference = reference
        self._opener: Opener | None = None
        self._added: Node | None = None

    async def prepare(self, plan: Plan) -> None:
        node = plan.get(self._name)
        slot, _ = _many(node)
        if isinstance(self._reference, str):
            return
        self._opener = Opener(plan.graph, plan.opened)
        inherited = inherit(self._reference, node.definition, slot.role)
        self._added = await self._opener.open(inherited, implicit=not self._reference.node_name)
        plan.opened.update((opened.name, opened) for opened in self._opener.opened)

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._name)]

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._name)
        slot, driver = _many(node)
        added = self._added or plan.get(cast(str, self._reference))
        if descends(added, node):
            raise GraphCycle(node.name, added.name)
        if self._opener is not None:
            plan.enter(self._opener.opened)
        self.child = driver.next_child(node.children)
        plan.changes.attach(node, self.child, slot.role, added)
        _adopt(plan, node, driver, {**node.definition.children, self.child: self._reference})

    async def commit(self, plan: Plan) -> None:
        if self._opener is not None:
            self._opener.leave_names()

    async def abort(self, plan: Plan) -> None:
        if self._opener is not None:
            for opened in self._opener.opened:
                del plan.opened[opened.name]
            await self._opener.close()


class RemoveChild(Action):
    """Take a child out of a node; it is closed if it was opened with its parent and nobody else holds it."""

    def __init__(self, node_name: str, child: str) -> None:
        self._name = node_name
        self._child = child

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._name)]

    async def settle_down(self, plan: Plan) -> None:
        """Flush the child for the last time. That it cannot may be why it is taken out: so it is told, no more."""
        node = plan.get(self._name)
        if (edge := node.children.get(self._child)) is None:
            return
        try:
            await edge.flush()
        except BlockError as error:
            details = {"child": edge.name, "child_node_name": edge.node_name, "error": str(error)}
            plan.graph.report(node.name, "child-flush-failed", details)

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._name)
        slot, driver = _many(node)
        edge = node.children.get(self._child)
        if edge is None or not slot.takes(self._child):
            raise ResourceNotFound(f"child of node {node.name!r}", self._child)
        if edge.frozen_reason:
            raise NodeInUse(edge.node.name, "take out", f"{edge.holder}: {edge.frozen_reason}")
        plan.changes.detach(edge)
        left = {name: below for name, below in node.definition.children.items() if name != self._child}
        _adopt(plan, node, driver, left)
        if edge.node.implicit and not edge.node.parents:
            plan.leave(edge.node)


def _many(node: "Node") -> tuple[ChildSlot, ManyChildren]:
    """Raises OperationUnsupported for a driver whose children are fixed."""
    driver, slot = node.driver, next((slot for slot in node.driver.children if slot.many), None)
    if slot is None or not isinstance(driver, ManyChildren):
        raise OperationUnsupported(node.name, driver.name, "get or lose children while it is open")
    return slot, driver


def _adopt(
    plan: Plan, node: "Node", driver: ManyChildren, defined: "Mapping[str, NodeDefinition | str | None]"
) -> None:
    """Let the driver take its children as they are now. Raises what it has against them."""
    driver.check_children(node.children)
    definition, take_back = node.definition, driver.adopt_children(node.children)
    node.definition = replace(definition, children=defined)

    def restore() -> None:
        node.definition = definition
        take_back()

    plan.changes.also(restore, node)
