"""Being in a node: a request is tracked from its admission to its end, and its end is accounted, whatever it is.

The bracket around everything that awaits in `graph.requests`. Must not know what is done inside.
"""

from types import TracebackType
from typing import TYPE_CHECKING

from blockyard.node.interface.waiting import present

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.tracking import TrackedRequest


class Admitted:
    """`async with Admitted(node, WRITE, offset, length, unit) as request:` waits for what excludes the request.

    `unit` > 0 makes it serialising over its aligned units. A body that ends by an error counts as failed. The
    account shows `length` bytes, unless the body sets another.
    """

    __slots__ = (
        "_node",
        "_offset",
        "_outer",
        "_request",
        "_start_ns",
        "_tracked_length",
        "_type",
        "_unit",
        "length",
    )

    def __init__(self, node: "Node", type_: int, offset: int, length: int, unit: int = 0) -> None:
        self._node = node
        self._type = type_
        self._offset = offset
        self._tracked_length = self.length = length
        self._unit = unit

    async def __aenter__(self) -> "TrackedRequest":
        node = self._node
        self._start_ns = node.now_ns()
        self._request = await node.tracker.begin(self._type, self._offset, self._tracked_length, self._unit)
        self._outer = present.set(self._request)
        return self._request

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        node = self._node
        present.reset(self._outer)
        node.tracker.end(self._request)
        if kind is None:
            node.account.ended(self._type, self.length, self._start_ns, node.now_ns())
        else:
            node.account.fail(self._type, node.now_ns() - self._start_ns)
