"""Block status: which layer of a chain holds a range, and whether it reads as zeroes.

One pass from the top layer down; every layer answers for as much as it can in one mapping, so that a hole of a
terabyte is one extent. Must not read data.
"""

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from blockyard.node.graph.chain import below_filters
from blockyard.node.graph.reading import map_own
from blockyard.node.interface.driver import FormatDriver
from blockyard.node.interface.mapping import MapKind, Mapping

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


MERGES_MAX: Final = 256
"""Look-ups for one answer beyond its extents: it covers less of a range that says the same in many small pieces."""
STEPS_AT_ONCE: Final = 16
"""Look-ups between two turns of the loop: one of the memory driver takes up to 1 ms."""


class Extent(NamedTuple):
    """What is known about `length` bytes (QEMU's BDRV_BLOCK_* bits as fields)."""

    offset: int
    length: int
    allocated: bool
    """A layer above the base holds it."""
    zero: bool
    data: bool
    compressed: bool
    depth: int
    node_name: str
    host_offset: int
    """Where it lies in that layer's file; -1 without a single place."""

    def continues(self, other: "Extent") -> bool:
        """Whether `other` lies right behind this one and says the same."""
        if other.offset != self.offset + self.length or self[2:8] != other[2:8]:
            return False
        return other.host_offset == (self.host_offset + self.length if self.host_offset >= 0 else -1)


async def block_status(
    node: "Node",
    offset: int,
    length: int,
    base: "Node | None" = None,
    max_extents: int = 1000,
    allocation_only: bool = False,
) -> list[Extent]:
    """At most `max_extents` merged extents from the start of the range; the caller goes on behind the last.

    `allocation_only`: files are not asked for their holes (QEMU's want_zero = false).
    """
    extents: list[Extent] = []
    end = offset + length
    # What a driver knows piece by piece it may answer without ever waiting; the loop has others to serve.
    for step in range(max_extents + MERGES_MAX):
        if offset >= end:
            break
        if step % STEPS_AT_ONCE == STEPS_AT_ONCE - 1:
            await asyncio.sleep(0)
        extent = await status_at(node, offset, end - offset, base, allocation_only)
        if extents and extents[-1].continues(extent):
            extents[-1] = extents[-1]._replace(length=extents[-1].length + extent.length)
        elif len(extents) == max_extents:
            break
        else:
            extents.append(extent)
        offset += extent.length
    return extents


async def status_at(
    node: "Node", offset: int, length: int, base: "Node | None" = None, allocation_only: bool = False
) -> Extent:
    """The first extent of a range that lies inside the node; never empty."""
    depth, layer, asked = 0, node, offset
    while layer is not base:
        if layer.filtered is not None:
            if layer.driver.listens:
                await map_own(layer, offset, length)
            layer = layer.filtered
            continue
        mapping = await map_own(layer, offset, length)
        length = mapping.length
        if mapping.kind is not MapKind.BACKING:
            return await _held(layer, asked, mapping, depth, allocation_only)
        backing = layer.backing
        if backing is None:
            break
        # Its driver may be opened anew just now.
        below = below_filters(await backing.entered())
        size = below.driver.size
        if offset >= size:
            # A short backing file ends in zeroes that the layer above shows as its own.
            return Extent(asked, length, below is not base, True, False, False, depth, layer.name, -1)
        length = min(length, size - offset)
        layer, depth = below, depth + 1
    return Extent(asked, length, False, layer is not base, False, False, depth, layer.name, -1)


async def _held(layer: "Node", offset: int, mapping: Mapping, depth: int, allocation_only: bool) -> Extent:
    compressed = mapping.kind is MapKind.ENCODED
    if mapping.kind is MapKind.ZERO:
        return Extent(offset, mapping.length, True, True, False, False, depth, layer.name, -1)
    # What is enciphered lies nowhere as it reads (qcow2_co_block_status gives no offset either).
    elsewhere = compressed or (mapping.child is not None and not mapping.child.plain)
    host_offset = -1 if elsewhere else mapping.offset
    length, zero = mapping.length, False
    driver = layer.driver
    asks = isinstance(driver, FormatDriver) and driver.transparent and not allocation_only
    if asks and mapping.child is not None:
        below = await mapping.child.map(mapping.offset, mapping.length)
        length, zero = below.length, below.kind is MapKind.ZERO
    return Extent(offset, length, True, zero, not zero, compressed, depth, layer.name, host_offset)
