"""Facts of a node that its driver must be asked for. Pure reading."""

from dataclasses import replace
from typing import TYPE_CHECKING

from blockyard.node.interface.driver import FormatDriver, NodeInfo

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


def copy_on_read_users(node: "Node") -> int:
    """Copy-on-read filters above the node and other filters, and reads in flight that asked for it themselves."""
    count, pending = node.populating, [node]
    while pending:
        for edge in pending.pop().parents:
            above = edge.parent
            if above is not None and above.is_filter and above.primary is edge:
                count += above.driver.copies_on_read
                pending.append(above)
    return count


async def node_info(node: "Node") -> NodeInfo:
    """What the driver tells of itself; what it leaves to the file below is asked there."""
    info = await node.driver.info()
    primary = node.primary
    if primary is None and node.children and info.allocated_bytes < 0:
        sizes = [(await node_info(edge.node)).allocated_bytes for edge in node.children.values()]
        info.allocated_bytes = sum(sizes) if min(sizes) >= 0 else -1
    if primary is None or (info.allocated_bytes >= 0 and not node.is_filter):
        return info
    below = await node_info(primary.node)
    if node.is_filter:
        return replace(below, specific=info.specific or below.specific)
    info.allocated_bytes = below.allocated_bytes
    if isinstance(node.driver, FormatDriver) and node.driver.transparent:
        info.variable_length, info.scsi_generic = below.variable_length, below.scsi_generic
        info.has_zero_init = below.has_zero_init
    return info
