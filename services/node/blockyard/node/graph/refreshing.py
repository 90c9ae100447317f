"""Sizes that change without us: a device whose medium was changed, a file that others write
(has_variable_length)."""

from typing import TYPE_CHECKING

from blockyard.node.interface.abilities import Refreshable

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node


async def refresh_size(graph: "Graph", node: "Node") -> None:
    """Look again how large a node is whose size may change. Costs one look at the kind of driver for all others."""
    path = [node]
    while (primary := path[-1].primary) is not None:
        path.append(primary.node)
    driver = path[-1].driver
    if not isinstance(driver, Refreshable) or not (await driver.info()).variable_length:
        return
    before = [each.driver.size for each in path]
    await driver.refresh_size()
    for each, size in zip(path, before, strict=True):
        if each.driver.size != size:
            for bitmap in each.bitmaps.values():
                bitmap.resize(each.driver.size)
            graph.changed(each)
