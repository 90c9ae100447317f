"""Facts of a node that its driver must be asked for. Pure reading."""

from typing import TYPE_CHECKING

from blockyard.node.interface.driver import NodeInfo

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


async def node_info(node: "Node") -> NodeInfo:
    """What the driver tells of itself; what it leaves to the file below is asked there."""
    info = await node.driver.info()
    primary = node.primary
    if primary is None or (info.allocated_bytes >= 0 and not node.is_filter):
        return info
    below = await node_info(primary.node)
    if node.is_filter:
        return below
    info.allocated_bytes = below.allocated_bytes
    return info
