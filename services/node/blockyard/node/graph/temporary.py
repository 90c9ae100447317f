"""Nodes that no client sees: opened for one look or one repair, and closed again. Nothing is published."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.opening import Opener

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


@asynccontextmanager
async def temporary(graph: "Graph", definition: NodeDefinition) -> "AsyncIterator[Node]":
    """The node of a definition while the body runs."""
    opener = Opener(graph)
    node = await opener.open(definition)
    try:
        yield node
    finally:
        await opener.close()
