"""Reaching the point in time that a filter offers, through the edge of whoever stands above it.

Requests are held while the filter is drained, and a drain waits for them, as for any other; but they are none of
the disk's own, so they exclude no guest's.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from blockyard.base.errors import OperationUnsupported
from blockyard.node.core.accounting import BLOCK_STATUS, DISCARD, READ
from blockyard.node.interface.mapping import Mapping
from blockyard.node.interface.snapshots import OffersSnapshot

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge


def size(edge: "Edge") -> int:
    """Bytes of the point in time; -1 if the node below offers none."""
    driver = edge.node.driver
    return driver.snapshot_size if isinstance(driver, OffersSnapshot) else -1


async def read(edge: "Edge", offset: int, into: memoryview) -> None:
    """See `OffersSnapshot`."""
    async with _inside(edge, READ, offset, len(into)) as driver:
        await driver.read_snapshot(offset, into)


async def map_(edge: "Edge", offset: int, length: int) -> Mapping:
    """See `OffersSnapshot`."""
    async with _inside(edge, BLOCK_STATUS, offset, length) as driver:
        return await driver.map_snapshot(offset, length)


async def discard(edge: "Edge", offset: int, length: int) -> None:
    """See `OffersSnapshot`."""
    async with _inside(edge, DISCARD, offset, length) as driver:
        await driver.discard_snapshot(offset, length)


@asynccontextmanager
async def _inside(edge: "Edge", type_: int, offset: int, length: int) -> AsyncIterator[OffersSnapshot]:
    node = await edge.entered(type_, offset, length)
    # Without a range: the guest's requests there have another content in view.
    request = await node.tracker.begin(type_, 0, 0)
    try:
        driver = node.driver
        if not isinstance(driver, OffersSnapshot):
            raise OperationUnsupported(node.name, driver.name, "show a point in time")
        yield driver
    finally:
        node.tracker.end(request)
