"""Who holds a file that cannot be locked, if it is a node of this service. Must not know drivers or locks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blockyard.base.errors import FileBusy

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph


@contextmanager
def naming_holders(graph: "Graph") -> Iterator[None]:
    """Names the nodes that hold the file of a FileBusy. They are found by path: other names of a file are not."""
    try:
        yield
    except FileBusy as problem:
        nodes = [node for node in graph.nodes.values() if not node.children and node.filename == problem.path]
        if not nodes:
            raise
        names = ", ".join(sorted(f"node/{node.name}" for node in nodes))
        raise FileBusy(problem.path, problem.lock, names) from problem
