"""A node as it is now, as the definition that would make it again: its edges as they are, not as they were opened.

Two read it. The catalogue refers to nodes of a client's own by name and keeps the names that the service chose;
`full_open_options` nests everything and names nobody. Filters of jobs are looked through: they go with their job.

A backing file that the image's header named, and that nobody has changed since, is `followed`: the header leads
there again, so an image that others rebased while the service was away is opened as it says. Every other link is
kept as it is, whatever a header says: before a job or a client changes a header, the link is made one of those
(`surgery`).
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from blockyard.node.graph.definition import NodeDefinition

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.node import Node


def kept_definition(node: "Node") -> NodeDefinition:
    """What opens the same node with the same names and edges; see `opening.Opener`, `restoring`."""
    children: dict[str, NodeDefinition | str | None] = dict.fromkeys(_explicitly_none(node))
    followed: NodeDefinition | None = None
    for name, edge in node.children.items():
        below = beneath_jobs(edge.node)
        if name == "backing" and follows_header(node):
            followed = kept_definition(below)
        elif below.implicit and _keeper(below) is node:
            children[name] = kept_definition(below)
        else:
            children[name] = below.name
    return replace(_own(node), node_name=node.name, children=children, followed=followed, overlays=node.given)


def full_definition(node: "Node") -> NodeDefinition:
    """What opens the same images in the same way, whatever nodes are open: the seed's full_open_options."""
    if node.given is not None:
        return node.given
    children: dict[str, NodeDefinition | str | None] = dict.fromkeys(_explicitly_none(node))
    for name, edge in node.children.items():
        children[name] = replace(full_definition(beneath_jobs(edge.node)), node_name="")
    return replace(_own(node), children=children)


def _own(node: "Node") -> NodeDefinition:
    """Its options as they are now."""
    return replace(
        node.definition,
        read_only=node.rests_read_only,
        no_flush=node.no_flush,
        discard=node.discard,
        inactive=not node.active,
    )


def beneath_jobs(node: "Node") -> "Node":
    """The first node at or below that is no job's filter."""
    while node.of_job:
        assert node.filtered is not None
        node = node.filtered
    return node


def root_of(node: "Node") -> "Node | None":
    """The node of a client's own that the node is a part of, itself perhaps; None if it belongs to no one."""
    current: Node | None = node
    while current is not None and current.implicit:
        current = _keeper(current)
    return current


def follows_header(node: "Node") -> bool:
    """Whether the backing link is what the header said when the node was opened, untouched since."""
    edge = node.backing
    if not node.follows_header:
        return False
    if edge is None or node.header_link is None:
        return edge is None and node.header_link is None
    return edge is node.header_link[0] and beneath_jobs(edge.node) is node.header_link[1]


def _keeper(node: "Node") -> "Node | None":
    """The parent whose definition holds an implicit node; further parents refer to it by name."""
    pending: list[Edge] = list(node.parents)
    for edge in pending:
        if edge.parent is None or edge.parent.leaving:
            continue
        if not edge.parent.of_job:
            return edge.parent
        if edge.name == "file":
            pending.extend(edge.parent.parents)
    return None


def _explicitly_none(node: "Node") -> list[str]:
    """Children that it must not have although it could: the client said so, or they were taken away."""
    given = {name for name, child in node.definition.children.items() if child is None}
    if any(slot.name == "backing" for slot in node.driver.children) and not follows_header(node):
        given.add("backing")
    return sorted(given - set(node.children))
