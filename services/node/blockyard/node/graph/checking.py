"""Checking the image of an open node: its metadata compared with itself, and repaired, while guests wait."""

from typing import TYPE_CHECKING

from blockyard.base.errors import OperationUnsupported
from blockyard.node.graph import requests
from blockyard.node.graph.drain import drained
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.user import READER, WRITER, User
from blockyard.node.interface.driver import Checkable, CheckReport
from blockyard.node.interface.operations import Progress

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


async def check_node(
    graph: "Graph", node: "Node", progress: Progress, *, fix_leaks: bool = False, fix_errors: bool = False
) -> CheckReport:
    """Raises OperationUnsupported, or NodeReadOnly for a repair of what may not be written."""
    repair = fix_leaks or fix_errors
    if not isinstance(node.driver, Checkable):
        raise OperationUnsupported(node.name, node.driver.name, "check its metadata")
    if repair:
        await ready_to_write(graph, node)
    user = User("call", "CheckNode", node, repair, WRITER if repair else READER)
    try:
        async with drained(node):
            if not node.read_only:
                await requests.flush(node)
            assert isinstance(node.driver, Checkable)
            return await node.driver.check(fix_leaks or fix_errors, fix_errors, progress)
    finally:
        user.detach()
        if repair:
            graph.changed(node)
