"""Breakpoints and faults over the whole graph: by name, with a watch. What they do is the blkdebug driver's.

The drivers hold the truth: a breakpoint or fault ends with its driver, also when a node is opened anew. Tags and
fault ids are unique over the graph, so that a call need not name the node.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from blockyard.base.errors import InvalidArgument, OperationUnsupported, ResourceExists, ResourceNotFound
from blockyard.node.core.injection import Effect, Fault
from blockyard.node.graph.events import Change, Hub
from blockyard.node.interface.debugging import BreakpointState, Debuggable, Notify

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

MAX_NAME: Final = 128
"""Characters of a tag or fault id."""


class Breakpoint(NamedTuple):
    """A breakpoint as it is now."""

    node_name: str
    state: BreakpointState


class InjectedFault(NamedTuple):
    """A fault and where it is."""

    node_name: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class FaultOrder:
    """A fault as a client wants it; an empty id lets the service choose."""

    trigger: str
    effect: Effect
    fault_id: str = ""
    rate: float = 1.0
    times: int = 0
    offset: int | None = None


class Debugging:
    """All breakpoints and faults."""

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph
        self._numbers = count(1)
        self.hub: Hub[Breakpoint] = Hub()

    # --- breakpoints -----------------------------------------------------------------------------------

    def set_breakpoint(self, node_name: str, event: str, tag: str) -> Breakpoint:
        """Raises NodeNotFound, OperationUnsupported, InvalidArgument, ResourceExists or LimitReached."""
        node, driver = _debuggable(self._graph.get(node_name))
        _check_name("tag", tag)
        if any(each.state.tag == tag for each in self.breakpoints()):
            raise ResourceExists("breakpoint", tag)
        made = Breakpoint(node.name, driver.set_breakpoint(tag, event, self._telling(node.name)))
        self.hub.publish("added", tag, made)
        return made

    def remove_breakpoint(self, tag: str) -> None:
        """Who waits goes on. Raises ResourceNotFound."""
        self._holding(tag)[1].remove_breakpoint(tag)

    def resume(self, tag: str) -> Breakpoint:
        """Who waits goes on. Raises ResourceNotFound."""
        node, driver = self._holding(tag)
        return Breakpoint(node.name, driver.resume(tag))

    def breakpoints(self) -> list[Breakpoint]:
        """By tag."""
        found = [
            Breakpoint(node.name, state) for node, driver in self._debuggables() for state in driver.breakpoints()
        ]
        return sorted(found, key=lambda each: each.state.tag)

    async def watch(self, tag: str = "") -> AsyncIterator[Change[Breakpoint]]:
        """The present state, then changes; of one breakpoint or of all."""
        changes = self.hub.watch(0, lambda: [(each.state.tag, each) for each in self.breakpoints()])
        try:
            async for change in changes:
                if change.resource is not None and tag in ("", change.name):
                    yield change
        finally:
            await changes.aclose()  # type: ignore[attr-defined]

    def end(self) -> None:
        """The service ends: nobody is held any more."""
        for _, driver in self._debuggables():
            driver.let_pass(True)

    # --- faults ----------------------------------------------------------------------------------------

    def inject(self, node_name: str, order: FaultOrder) -> InjectedFault:
        """Raises NodeNotFound, OperationUnsupported, InvalidArgument, ResourceExists or LimitReached."""
        node, driver = _debuggable(self._graph.get(node_name))
        taken = {each.fault.fault_id for each in self.faults()}
        fault_id = order.fault_id or next(name for name in self._names() if name not in taken)
        _check_name("fault_id", fault_id)
        if fault_id in taken:
            raise ResourceExists("fault", fault_id)
        fault = Fault(fault_id, order.trigger, order.effect, order.rate, order.times, order.offset)
        driver.inject(fault)
        return InjectedFault(node.name, fault)

    def withdraw(self, fault_id: str) -> None:
        """Raises ResourceNotFound."""
        for _, driver in self._debuggables():
            if any(fault.fault_id == fault_id for fault in driver.faults()):
                driver.withdraw(fault_id)
                return
        raise ResourceNotFound("fault", fault_id)

    def faults(self, node_name: str = "") -> list[InjectedFault]:
        """Of one node, or of all; by id. Raises NodeNotFound or OperationUnsupported."""
        chosen = [_debuggable(self._graph.get(node_name))] if node_name else self._debuggables()
        found = [InjectedFault(node.name, fault) for node, driver in chosen for fault in driver.faults()]
        return sorted(found, key=lambda each: each.fault.fault_id)

    # --- finding ---------------------------------------------------------------------------------------

    def _debuggables(self) -> "list[tuple[Node, Debuggable]]":
        """Nodes that have anything set."""
        return [
            (node, node.driver)
            for node in self._graph.nodes.values()
            if node.driver.listens and isinstance(node.driver, Debuggable)
        ]

    def _holding(self, tag: str) -> "tuple[Node, Debuggable]":
        for node, driver in self._debuggables():
            if any(state.tag == tag for state in driver.breakpoints()):
                return node, driver
        raise ResourceNotFound("breakpoint", tag)

    def _names(self) -> Iterator[str]:
        return (f"fault{number}" for number in self._numbers)

    def _telling(self, node_name: str) -> Notify:
        def tell(state: BreakpointState, gone: bool) -> None:
            self.hub.publish("removed" if gone else "modified", state.tag, Breakpoint(node_name, state))

        return tell


def _debuggable(node: "Node") -> "tuple[Node, Debuggable]":
    """The node, or the first below it on the way of its data, that can be debugged (bdrv_find_debug_node)."""
    found: Node | None = node
    while found is not None:
        if isinstance(found.driver, Debuggable):
            return found, found.driver
        found = found.primary.node if found.primary is not None else None
    raise OperationUnsupported(node.name, node.driver.name, "be debugged: there is no blkdebug node at or below it")


def _check_name(field: str, name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidArgument(field, f"1 to {MAX_NAME} printable characters", repr(name[: MAX_NAME + 32]))


@contextmanager
def passing(node: "Node") -> Iterator[None]:
    """Breakpoints at or below a node hold nobody while the body runs. For a node that is being closed: its last
    requests must come to their end."""
    drivers, pending = [], [node]
    while pending:
        current = pending.pop()
        if current.driver.listens and isinstance(current.driver, Debuggable):
            drivers.append(current.driver)
        pending.extend(edge.node for edge in current.children.values())
    for driver in drivers:
        driver.let_pass(True)
    try:
        yield
    finally:
        for driver in drivers:
            driver.let_pass(False)
