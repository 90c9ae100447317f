"""Requests of a transaction itself may come into the nodes that it drained, for it knows what it does to them.

It flushes a node and opens drivers anew while nodes below are drained too: without this it would wait for itself.
Everyone else waits, and so does the transaction at a node that somebody else holds as well.

Must not know who drains, or why; see `graph.drain` and `Edge.entered`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node

_own: Final[ContextVar["Counter[str] | None"]] = ContextVar("blockyard_own_drains", default=None)
"""How often the present transaction holds each node, by uid. Tasks that outlive it find nothing in it."""


@contextmanager
def entering_own() -> Iterator[None]:
    """Drains that begin in the body let requests of the body in."""
    token = _own.set(Counter())
    try:
        yield
    finally:
        _own.reset(token)


def note(node: "Node", change: int) -> None:
    """A drain of the node began (1) or ended (-1)."""
    if (own := _own.get()) is not None:
        own[node.uid] += change


def is_own(node: "Node") -> bool:
    """Nobody but the present transaction holds the node."""
    own = _own.get()
    return own is not None and own[node.uid] == node.quiesced
