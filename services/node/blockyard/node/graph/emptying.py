"""Dropping what an image holds itself, so that readers see its backing file."""

from typing import TYPE_CHECKING

from blockyard.base.errors import NodeInUse, OperationUnsupported
from blockyard.node.graph.chain import above_filters
from blockyard.node.graph.drain import drained
from blockyard.node.graph.guarding import changed_everywhere
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.interface.driver import Emptyable

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


async def make_empty(graph: "Graph", node: "Node") -> None:
    """Raises OperationUnsupported or NodeReadOnly. What readers see may change anywhere, so all of it is dirty."""
    if not isinstance(node.driver, Emptyable):
        raise OperationUnsupported(node.name, node.driver.name, "drop its data")
    await ready_to_write(graph, node)
    if node.backing is not None and node.backing.frozen_reason:
        raise NodeInUse(node.name, "empty", node.backing.frozen_reason)
    if (above := above_filters(node)) is not node:
        raise NodeInUse(node.name, "empty", above.name)
    async with drained(node), changed_everywhere(node):
        await node.driver.make_empty()
        node.write_generation += 1
        for bitmap in node.recorders:
            bitmap.mark(0, node.driver.size)
    graph.changed(node)
