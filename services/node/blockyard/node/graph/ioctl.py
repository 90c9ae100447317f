"""Sending an ioctl to the device below a node: through what only passes on, to who stands on a descriptor.

Which requests may be sent is the driver's to know. Nothing is looked at of what they do.
"""

from typing import TYPE_CHECKING

from blockyard.base.errors import IoctlsDisabled, OperationUnsupported
from blockyard.node.interface.abilities import PassesIoctl

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


async def send_ioctl(graph: "Graph", node: "Node", request: int, argument: bytes) -> tuple[int, bytes]:
    """What ioctl(2) returned, and the argument afterwards.

    Raises IoctlsDisabled, OperationUnsupported, NodeInactive, InvalidArgument, NodeReadOnly or IoError.
    """
    if not graph.environment.allow_ioctl:
        raise IoctlsDisabled(node.name)
    below = _passed_to(node)
    if not below.active:
        raise below.write_refusal()
    assert isinstance(below.driver, PassesIoctl)
    content = bytearray(argument)
    result = await below.driver.ioctl(request, content)
    return result, bytes(content)


def _passed_to(node: "Node") -> "Node":
    """The node itself, or what is below filters and formats that change nothing (raw without a window)."""
    current = node
    while not isinstance(current.driver, PassesIoctl):
        if current.filtered is not None:
            current = current.filtered
        elif current.straight is not None and current.straight[1] == 0:
            current = current.straight[0].node
        else:
            raise OperationUnsupported(node.name, current.driver.name, "pass an ioctl on")
    return current
