"""The actions on nodes that a transaction may consist of. See `graph.transaction` for their phases.

Bitmaps are in `recording_actions`, options in `reopening`, exports and copy sessions beside what they act on.
"""

from typing import TYPE_CHECKING

from blockyard.base.errors import GraphCycle, InvalidArgument, NodeInUse, OperationUnsupported
from blockyard.node.drivers.catalogue import driver_class
from blockyard.node.graph import requests
from blockyard.node.graph.chain import descends
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.moving import check_movable, own_freeze
from blockyard.node.graph.opening import Opener
from blockyard.node.graph.transaction import Action, Plan
from blockyard.node.interface.driver import FilterDriver
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import CHANGING
from blockyard.node.interface.snapshots import OffersSnapshot

if TYPE_CHECKING:
    from blockyard.node.graph.definition import NodeDefinition
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.node import Node


class OpenNode(Action):
    """Open a node and what is defined below it."""

    node: "Node"

    def __init__(self, definition: "NodeDefinition") -> None:
        self._definition = definition

    async def prepare(self, plan: Plan) -> None:
        self._opener = Opener(plan.graph, plan.opened, begins_later=True)
        self.node = await self._opener.open(self._definition)
        plan.opened.update((node.name, node) for node in self._opener.opened)

    def apply(self, plan: Plan) -> None:
        self._appear(plan, self._opener.opened)

    def _appear(self, plan: Plan, beginning: "list[Node]") -> None:
        """`beginning`: those whose points in time begin here."""
        for node in beginning:
            if isinstance(node.driver, OffersSnapshot):
                node.driver.begin_snapshot()
        plan.enter(self._opener.opened)

    async def commit(self, plan: Plan) -> None:
        self._opener.leave_names()
        plan.altered += [node for node in self._opener.stood_on() if node not in plan.opened.values()]

    async def abort(self, plan: Plan) -> None:
        for node in self._opener.opened:
            del plan.opened[node.name]
        await self._opener.close()


class CloseNode(Action):
    """Close a node that nobody uses then, and the implicit ones that it alone holds."""

    def __init__(self, node_name: str) -> None:
        self._name = node_name

    async def prepare(self, plan: Plan) -> None:
        node = plan.get(self._name)
        if node.implicit and node.is_filter:
            raise NodeInUse(node.name, "close", "the job that inserted it")

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._name)]

    async def settle_down(self, plan: Plan) -> None:
        await requests.flush(plan.get(self._name))

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._name)
        if node.parents:
            raise NodeInUse(node.name, "close", ", ".join(node.holders()))
        plan.leave(node)


class InsertOverlay(Action):
    """Put an open overlay above a node, under its users: an external snapshot."""

    def __init__(self, node_name: str, overlay_name: str) -> None:
        self._names = node_name, overlay_name

    async def prepare(self, plan: Plan) -> None:
        node, overlay = map(plan.get, self._names)
        if any(edge.permissions.used & CHANGING for edge in node.parents):
            await ready_to_write(plan.graph, overlay)

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._names[0])]

    async def settle_down(self, plan: Plan) -> None:
        await requests.flush(plan.get(self._names[0]))

    def apply(self, plan: Plan) -> None:
        node, overlay = map(plan.get, self._names)
        _check_overlay(plan, node, overlay)
        move_users(plan, node, overlay)
        plan.changes.attach(overlay, "backing", Role.BACKING, node)
        plan.changes.set_read_only(node, True)


def _check_overlay(plan: Plan, node: "Node", overlay: "Node") -> None:
    """Raises NodeInUse, OperationUnsupported, GraphCycle or InvalidArgument."""
    if "backing" not in {slot.name for slot in overlay.driver.children}:
        raise OperationUnsupported(overlay.name, overlay.driver.name, "have a backing file")
    if users := plan.present(overlay.parents):
        raise NodeInUse(overlay.name, "insert", ", ".join(edge.holder for edge in users))
    if "backing" in overlay.children:
        raise NodeInUse(overlay.name, "insert", "its own backing child")
    if descends(node, overlay):
        raise GraphCycle(overlay.name, node.name)
    if overlay.driver.size < node.driver.size:
        raise InvalidArgument(
            "overlay_node_name", f"an overlay of at least {node.driver.size} bytes", str(overlay.driver.size)
        )


class ReplaceNode(Action):
    """Give all users of a node another one."""

    def __init__(self, node_name: str, replacement_name: str) -> None:
        self._names = node_name, replacement_name

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._names[0])]

    async def settle_down(self, plan: Plan) -> None:
        await requests.flush(plan.get(self._names[0]))

    def apply(self, plan: Plan) -> None:
        node, target = map(plan.get, self._names)
        if node is target:
            raise GraphCycle(node.name, target.name)
        if target.driver.size < node.driver.size:
            raise InvalidArgument(
                "replacement_node_name", f"a node of at least {node.driver.size} bytes", str(target.driver.size)
            )
        move_users(plan, node, target)


class PlaceFilter(Action):
    """Put an open filter, whose child is the node, under the node's other users."""

    def __init__(self, node_name: str, filter_name: str) -> None:
        self._names = node_name, filter_name

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._names[0])]

    def apply(self, plan: Plan) -> None:
        node, filter_node = map(plan.get, self._names)
        if filter_node.filtered is not node:
            raise InvalidArgument("filter", f"a filter whose child is {node.name}", filter_node.driver.name)
        if isinstance(filter_node.driver, OffersSnapshot):
            filter_node.driver.begin_snapshot()
        move_users(plan, node, filter_node)


class InsertFilter(OpenNode):
    """Open a filter and put it under the users of its child."""

    def __init__(self, node_name: str, definition: "NodeDefinition") -> None:
        super().__init__(definition)
        self._node_name = node_name

    async def prepare(self, plan: Plan) -> None:
        """Raises InvalidArgument before anything is opened: a format would write to the node."""
        class_, node = driver_class(self._definition.driver), plan.get(self._node_name)
        child = self._definition.children.get(class_.primary)
        if not issubclass(class_, FilterDriver):
            raise InvalidArgument("filter", "a filter", class_.name)
        if child != node.name:
            found = child if isinstance(child, str) else "no node that is open"
            raise InvalidArgument(f"filter.{class_.primary}", f"{node.name}, the node that it goes above", found)
        await super().prepare(plan)
        self._place = PlaceFilter(self._node_name, self.node.name)

    def touches(self, plan: Plan) -> "list[Node]":
        return self._place.touches(plan)

    def apply(self, plan: Plan) -> None:
        self._appear(plan, [node for node in self._opener.opened if node is not self.node])
        self._place.apply(plan)


class LiftFilter(Action):
    """Take a filter out from under its users; it stays open without users."""

    def __init__(self, node_name: str) -> None:
        self._name = node_name

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._name)]

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._name)
        below = below_filter(node)
        for edge in plan.present(node.parents):
            if edge.stays and edge.parent is not None:
                raise NodeInUse(node.name, "remove", edge.holder)
            require_movable(edge)
            plan.changes.move(edge, below)


class RemoveFilter(LiftFilter):
    """Take a filter out from under its users, and close it."""

    async def prepare(self, plan: Plan) -> None:
        if plan.get(self._name).implicit:
            raise NodeInUse(self._name, "remove", "the job that inserted it")

    async def settle_down(self, plan: Plan) -> None:
        await requests.flush(plan.get(self._name))

    def apply(self, plan: Plan) -> None:
        super().apply(plan)
        CloseNode(self._name).apply(plan)


def below_filter(node: "Node") -> "Node":
    """What a filter passes to. Raises InvalidArgument for a node that is no filter."""
    if node.filtered is None:
        raise InvalidArgument("node_name", "a filter", node.driver.name)
    return node.filtered


def require_movable(edge: "Edge") -> None:
    """Raises NodeInUse for an edge that is frozen."""
    if edge.frozen_reason not in ("", own_freeze.get()):
        raise NodeInUse(edge.node.name, "replace", f"{edge.holder}: {edge.frozen_reason}")


def move_users(plan: Plan, node: "Node", target: "Node") -> None:
    """Point everyone above a node to another, that and what is below it left out. Raises NodeInUse."""
    for edge in plan.present(check_movable(node, target)):
        plan.changes.move(edge, target)
