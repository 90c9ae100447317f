"""Links that a filter needs as they are: the chain from a copy-on-read node down to its `bottom` stays while it is
open (QEMU's bdrv_freeze_backing_chain).

Invariant: the edges in `node.holding` are frozen by that node, and by nobody else.
"""

from typing import TYPE_CHECKING

from blockyard.base.errors import InvalidArgument, NodeInUse

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.node import Node


def hold_chain(node: "Node") -> None:
    """Freeze what the node's driver reads through by name, instead of what it did before.

    Raises InvalidArgument for a `bottom` that is not in the chain, or NodeInUse for a link that someone else froze;
    then nothing is frozen.
    """
    let_go(node)
    bottom = node.driver.bottom
    if not bottom:
        return
    edges = _down_to(node, bottom)
    for edge in edges:
        if edge.frozen_reason:
            raise NodeInUse(edge.node.name, "freeze the link to", edge.frozen_reason)
    for edge in edges:
        edge.frozen_reason = f"{node.name} copies from the chain down to {bottom}"
    node.holding = tuple(edges)


def let_go(node: "Node") -> None:
    """The links may change again."""
    for edge in node.holding:
        edge.frozen_reason = ""
    node.holding = ()


def _down_to(node: "Node", bottom: str) -> "list[Edge]":
    edges: list[Edge] = []
    current = node
    while current.name != bottom:
        edge = current.primary if current.is_filter else current.backing
        if edge is None:
            names = ", ".join(edge.node.name for edge in edges if not edge.node.is_filter)
            raise InvalidArgument("bottom", f"a layer below {node.name}: {names}", bottom)
        edges.append(edge)
        current = edge.node
    if current.is_filter:
        raise InvalidArgument("bottom", "a node that is no filter", bottom)
    return edges
