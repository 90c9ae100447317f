"""The write threshold of a node: tell once that a write went past an offset (QEMU's block/write-threshold.c).

Whoever manages thin storage sets it a little below the end of what a node's file may grow to, extends the storage
when the event comes, and sets it again.
"""

from typing import TYPE_CHECKING

from blockyard.base.errors import InvalidArgument
from blockyard.base.units import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


class WriteThreshold:
    """An offset, and whom to tell how many bytes past it a write went. It tells once and is over."""

    __slots__ = ("_passed", "offset")

    def __init__(self, offset: int, passed: "Callable[[int], None]") -> None:
        self.offset = offset
        self._passed = passed

    def wrote(self, end: int) -> None:
        """A write reached up to `end`."""
        if end > self.offset:
            self._passed(end - self.offset)


def set_write_threshold(graph: "Graph", node: "Node", offset: int) -> None:
    """Report `write-threshold` when a write of the node goes past the offset; 0 is never.

    Raises InvalidArgument.
    """
    if not 0 <= offset <= MAX_SIZE:
        raise InvalidArgument("threshold_bytes", f"0 to {MAX_SIZE}", str(offset))

    def passed(exceeded: int) -> None:
        node.set_threshold(None)
        details = {
            "node-name": node.name,
            "amount-exceeded": str(exceeded),
            "write-threshold": str(offset),
        }
        graph.report(node.name, "write-threshold", details)
        graph.changed(node)

    node.set_threshold(WriteThreshold(offset, passed) if offset else None)
    graph.changed(node)
