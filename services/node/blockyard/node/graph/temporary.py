"""What lives as long as one call: nodes for one look or one repair, edges for one read. Nothing is published."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import NodeReadOnly
from blockyard.node.core.accounting import DISCARD, WRITE, WRITE_ZEROES
from blockyard.node.graph.chain import above_filters
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.opening import Opener
from blockyard.node.graph.user import User

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

_WRITING: Final = {"Write": WRITE, "WriteZeroes": WRITE_ZEROES, "Discard": DISCARD}
"""Calls that a read-only node refuses, as its account counts them."""


@asynccontextmanager
async def temporary(graph: "Graph", definition: NodeDefinition) -> "AsyncIterator[Node]":
    """The node of a definition while the body runs."""
    opener = Opener(graph)
    node = await opener.open(definition)
    try:
        yield node
    finally:
        await opener.close()


@asynccontextmanager
async def borrowed_to_write(graph: "Graph", node_name: str, call: str) -> AsyncIterator[User]:
    """As `borrowed`, for a call that writes: a node that waits for a writer becomes writable first."""
    node = above_filters(graph.get(node_name))
    with ExitStack() as held:
        try:
            await ready_to_write(graph, node)
            user = held.enter_context(borrowed(graph, node_name, call, writable=True))
        except NodeReadOnly:
            if call in _WRITING:
                node.account.refuse(_WRITING[call])
            raise
        yield user


@contextmanager
def borrowed(graph: "Graph", node_name: str, call: str, *, writable: bool) -> Iterator[User]:
    """A user's edge for one call. Watchers are not told, so reading a node does not change its etag.

    Raises NodeNotFound or NodeReadOnly.
    """
    user = User("call", call, above_filters(graph.get(node_name)), writable)
    try:
        yield user
    finally:
        user.detach()
