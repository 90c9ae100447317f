"""Copy on read: what only the backing chain gives of a range is stored in the layer itself before it is read there.

Theory (QEMU's block/io.c, bdrv_co_do_copy_on_readv; block/copy-on-read.c). Whole allocation units are copied, for a
unit is stored whole anyway. The copy is one serialising request of the layer, so that no guest's write comes
between its read and its write; the reader reads afterwards, as if nothing had been. A copy that fails fails the
read, because nobody can tell here whether the reader wanted the data or the copy.

Must not know who reads, or that a driver asks for it.
"""

from typing import TYPE_CHECKING, Final

from blockyard.base.errors import NodeNotFound, NodeReadOnly
from blockyard.base.ranges import align_down, align_up
from blockyard.base.units import MIB
from blockyard.node.core.accounting import COPY
from blockyard.node.graph import requests
from blockyard.node.graph.chain import below_filters, layers
from blockyard.node.graph.status import status_at
from blockyard.node.interface.driver import FormatDriver
from blockyard.node.interface.mapping import MapKind

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.node import Node

PIECE: Final = 1 * MIB
"""Bytes of one serialising copy: a guest's write waits no longer than for this."""


async def populate(edge: "Edge", offset: int, length: int, bottom: str = "") -> int:
    """Bring (whole units around) a range up into the layer that an edge leads to; bytes stored.

    `bottom`: the lowest layer that is copied from; what lies below is left there. Raises NodeReadOnly.
    """
    node = await _layer(edge)
    start, end = _widened(node, offset, min(offset + length, node.driver.size))
    written = 0
    while start < end:
        piece = min(PIECE, end - start)
        if not is_populated(node, start, piece):
            node.populating += 1
            try:
                written += await _populate(node, start, piece, bottom)
            finally:
                node.populating -= 1
        start += piece
        node = await _layer(edge)
    return written


async def _layer(edge: "Edge") -> "Node":
    """The layer below an edge and its filters, once none of them is drained."""
    node = await edge.entered(COPY)
    while node.is_filter:
        assert node.primary is not None
        node = await node.primary.entered()
    return node


def _widened(node: "Node", start: int, end: int) -> tuple[int, int]:
    limits = node.driver.limits
    unit = max(1, limits.copy_unit or limits.allocation_unit, node.alignment)
    return align_down(start, unit), min(align_up(end, unit), node.driver.size)


def is_populated(node: "Node", offset: int, length: int) -> bool:
    """Whether it is known, without waiting, that the layer holds all of a range, or that nothing is below it."""
    driver = node.driver
    if not isinstance(driver, FormatDriver) or node.backing is None:
        return True
    end = min(offset + length, driver.size)
    while offset < end:
        mapping = driver.lookup(offset, end - offset)
        if mapping is None or mapping.kind is MapKind.BACKING:
            return False
        offset += mapping.length
    return True


async def _populate(node: "Node", offset: int, length: int, bottom: str) -> int:
    if node.read_only:
        raise NodeReadOnly(node.name)
    if not bottom:
        return await requests.populate(node, offset, length)
    base = _below(node, bottom)

    async def wanted(position: int, most: int) -> tuple[bool, int]:
        assert node.backing is not None
        above = below_filters(await node.backing.entered())
        if base is above:
            return False, most
        inside = min(most, above.driver.size - position)
        if inside <= 0:
            return True, most  # past the end of a short backing file: zeroes, and its own
        extent = await status_at(above, position, inside, base)
        return extent.allocated, extent.length

    return await requests.populate(node, offset, length, wanted=wanted)


def _below(node: "Node", bottom: str) -> "Node | None":
    """The layer below the lowest one that is copied from. Raises NodeNotFound."""
    chain = layers(node)
    for layer in chain:
        if layer.name == bottom:
            return next(chain, None)
    raise NodeNotFound(bottom)
