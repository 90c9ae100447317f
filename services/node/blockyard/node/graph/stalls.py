"""The watchdog: a node whose oldest request is too old is stalled, and says so until it is not.

Whoever waits outside a drained node counts as well: to a guest that is the same. Must not know how health is
served.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.core.accounting import WORDS

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.tracking import TrackedRequest

LOOKS: Final = 4
"""In the time of one limit: a stall is told at most a quarter later than it begins."""


class StallWatch:
    """Looks at every node of a graph. `told` is called with a node's name whenever its answer changed."""

    def __init__(self, graph: "Graph", limit_seconds: float, told: Callable[[str], None]) -> None:
        if limit_seconds < 0:
            raise InvalidArgument("stall_seconds", "0 (off) or more", str(limit_seconds))
        self._graph = graph
        self._limit_ns = int(limit_seconds * 1e9)
        self._told = told
        self._stalled: dict[str, Node] = {}
        """At most as many as nodes."""

    async def run(self) -> None:
        """For ever, or not at all with a limit of 0."""
        while self._limit_ns:
            await self._graph.environment.clock.sleep(self._limit_ns / LOOKS / 1e9)
            self.look()

    def is_stalled(self, node: "Node") -> bool:
        return self._stalled.get(node.name) is node

    def look(self) -> None:
        """Compare the age of every node's oldest request with the limit."""
        now_ns = self._graph.environment.clock.monotonic_ns()
        gone = [name for name, node in self._stalled.items() if self._graph.nodes.get(name) is not node]
        for name in gone:
            del self._stalled[name]
        for node in list(self._graph.nodes.values()):
            oldest = node.tracker.oldest()
            age_ns = now_ns - oldest.started_ns if oldest is not None else 0
            if oldest is not None and age_ns > self._limit_ns:
                self._stalls(node, oldest, age_ns)
            elif self._stalled.pop(node.name, None) is not None:
                self._graph.report(node.name, "unstalled", {})
                self._told(node.name)

    def _stalls(self, node: "Node", oldest: "TrackedRequest", age_ns: int) -> None:
        if node.name in self._stalled:
            return
        self._stalled[node.name] = node
        details = {
            "request_id": str(oldest.request_id),
            "type": WORDS[oldest.type],
            "offset_bytes": str(oldest.offset),
            "length_bytes": str(oldest.length),
            "age_seconds": f"{age_ns / 1e9:.3f}",
            "limit_seconds": f"{self._limit_ns / 1e9:g}",
            "owner": oldest.owner,
            "wait_reason": oldest.wait_reason.value,
            "trace_id": oldest.trace_id,
        }
        self._graph.report(node.name, "stalled", {name: value for name, value in details.items() if value})
        self._told(node.name)
