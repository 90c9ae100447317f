"""Who is changing the mode or the options of nodes: one at a time for a node and all that is below it.

Must not change anything itself. The changes are `graph.modes` and `graph.reopening`.

Theory. A change plans with what it finds and then waits for flushes and locks of files, so nobody else may change
the same nodes meanwhile. A claim is taken for a whole subtree at one instant and given up as a whole. Who claims
more inside a claim of its own (an action of a transaction whose other action reopens nodes) does not wait: it gets
it at once or is refused. So nobody waits who is waited for.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import NodeInUse
from blockyard.node.graph.chain import subtree

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node

_current: Final[ContextVar["Claim | None"]] = ContextVar("blockyard_claim", default=None)


class Claim:
    """Nodes that one caller changes."""

    __slots__ = ("_nodes", "_outer", "owner", "released")

    def __init__(self, nodes: "list[Node]", outer: "Claim | None") -> None:
        self._nodes = nodes
        self._outer = outer
        self.owner: object = outer.owner if outer is not None else self
        self.released = asyncio.Event()
        for node in nodes:
            node.claim = self

    def release(self) -> None:
        """In the task that claimed; claims inside it have been given up. Again is nothing."""
        if self.released.is_set():
            return
        for node in self._nodes:
            node.claim = None
        self.released.set()
        _current.set(self._outer)


async def claim(*tops: "Node") -> Claim:
    """Nodes and all that is below them, for this task until `release`.

    Raises NodeInUse inside another claim of the task if somebody else has one of them.
    """
    outer = _current.get()
    if outer is not None and outer.released.is_set():
        outer = None  # of the task that started this one, and is past it
    while True:
        free = [node for node in subtree(*tops) if not _is_mine(node, outer)]
        taken = next((node for node in free if node.claim is not None), None)
        if taken is None:
            _current.set(mine := Claim(free, outer))
            return mine
        if outer is not None:
            raise NodeInUse(taken.name, "change", "somebody who is changing its mode or options; try again")
        assert taken.claim is not None
        await taken.claim.released.wait()


def _is_mine(node: "Node", outer: Claim | None) -> bool:
    return outer is not None and node.claim is not None and node.claim.owner is outer.owner


@asynccontextmanager
async def alone(*tops: "Node") -> AsyncIterator[None]:
    """Nobody else changes these nodes or anything below them inside the block."""
    mine = await claim(*tops)
    try:
        yield
    finally:
        mine.release()
