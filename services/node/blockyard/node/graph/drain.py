"""Hold requests away from nodes while the graph or an image changes (QEMU's bdrv_drained_begin/end).

A drained node lets no request in through its edges; what is inside runs to its end first. Drains nest. The node's
own driver still reaches its children, so draining a node needs nothing of what is below it. A transaction that
drains both is let in below (`graph.holding`).
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from blockyard.node.graph import holding
from blockyard.node.graph.chain import subtree
from blockyard.node.graph.throttling import all_passing

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


@asynccontextmanager
async def drained(*nodes: "Node") -> AsyncIterator[None]:
    """No request is in flight in any of the nodes while the body runs. Name parents before their children: a parent
    must come to rest while its children still serve it."""
    async with AsyncExitStack() as stack:
        for node in nodes:
            begin(node)
            stack.callback(end, node)
            await at_rest(node)
        yield


def parents_first(nodes: "Iterable[Node]") -> "list[Node]":
    """The nodes, each once, no child before a parent of it: the order in which they come to rest."""
    wanted = {node.uid: node for node in nodes}
    return [node for node in subtree(*wanted.values()) if node.uid in wanted]


async def at_rest(node: "Node") -> None:
    """Return when no request is in flight in the node. Throttles let pass what it waits for."""
    with all_passing(node):
        await node.tracker.idle()


def begin(node: "Node") -> None:
    """Let no new request in."""
    node.quiesced += 1
    holding.note(node, 1)


def end(node: "Node") -> None:
    """Undo one `begin`. Who waits looks again: the last one lets all in, another may let in who holds the rest."""
    assert node.quiesced > 0
    node.quiesced -= 1
    holding.note(node, -1)
    if node.undrained is not None:
        node.undrained.set_result(None)
        node.undrained = None
