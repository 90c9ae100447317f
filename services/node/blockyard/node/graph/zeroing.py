"""Zeroes: made by the driver where it can, written where it cannot, and found in what is written.

The part of the request path below tracking and accounting; `graph.requests` calls it. Must not know who asked.

Theory (QEMU's block/io.c, bdrv_co_do_pwrite_zeroes and bdrv_aligned_pwritev; qcow2_co_pwrite_zeroes). A driver
zeroes whole units. A unit of which only a part is zeroed is zeroed whole if its layer holds no data there and its
rest reads as zeroes already: so small writes of zeroes allocate nothing. What is left is written.
"""

import math
from typing import TYPE_CHECKING

from blockyard.base.errors import OperationUnsupported
from blockyard.base.ranges import ByteRange, align_down, align_up
from blockyard.node.graph import writing
from blockyard.node.graph.reading import ZEROES, is_zero, map_own, misaligned
from blockyard.node.graph.status import status_at
from blockyard.node.graph.tracking import TrackedRequest
from blockyard.node.graph.writing import BufferPayload, Payload
from blockyard.node.interface.driver import FormatDriver
from blockyard.node.interface.flags import FUA, NO_FALLBACK
from blockyard.node.interface.mapping import MapKind

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


def unit_to_serialise(node: "Node") -> int:
    """The alignment that a write-zeroes request serialises."""
    return unit_of_change(node, max(_unit(node), node.driver.limits.allocation_unit))


def unit_of_change(node: "Node", unit: int) -> int:
    """What zeroing or discarding serialises: nothing in a filter, where it has no effect of its own."""
    return unit if not node.hands_on else int(node.driver.changes_exclude)


def _unit(node: "Node") -> int:
    """What the driver zeroes in whole: its own unit, in whole units of its requests."""
    return math.lcm(node.driver.limits.zero_alignment, node.alignment)


async def write_detecting(node: "Node", request: TrackedRequest, offset: int, payload: Payload, flags: int) -> None:
    """A write to a node that detects zeroes: a whole request of them, once aligned, becomes write-zeroes."""
    assert node.zero_flags is not None
    if node.alignment > 1 and misaligned(node, offset, payload.length):
        offset, payload = await writing.widened(node, offset, payload)
    data = await payload.view(0, payload.length)
    if not is_zero(data):
        await writing.write_mapped(node, request, offset, BufferPayload(data), flags)
    elif len(data):
        if unit := unit_to_serialise(node):
            await node.tracker.serialise(request, unit)
        await make_zeroes(node, request, offset, len(data), flags & FUA | node.zero_flags)


async def make_zeroes(node: "Node", request: TrackedRequest, offset: int, length: int, flags: int) -> None:
    """Zero a range of any alignment. Raises OperationUnsupported with NO_FALLBACK if something must be written."""
    driver = node.driver
    if driver.listens:
        await driver.debug_event("pwritev_zero")
    if node.hands_on:
        await driver.zero(offset, length, flags)
        return
    whole = ByteRange(offset, length)
    asked = await _askable(node, whole)
    if flags & NO_FALLBACK and (asked.offset > offset or asked.end < whole.end):
        raise OperationUnsupported(node.name, driver.name, "zero an unaligned range without writing")
    position = asked.offset
    step = _step(node, asked.length)
    while step and position < asked.end:
        piece = min(step, asked.end - position)
        if not await driver.zero(position, piece, flags):
            break
        position += piece
    if position < asked.end and flags & NO_FALLBACK:
        raise OperationUnsupported(node.name, driver.name, "zero without writing")
    await _write_zero_buffers(node, request, offset, min(asked.offset, whole.end), flags)
    await _write_zero_buffers(node, request, max(offset, position), whole.end, flags)


def _step(node: "Node", length: int) -> int:
    """How much the driver zeroes at once; 0 if that is less than a unit of its own."""
    most = node.driver.limits.max_zeroes
    return align_down(most, _unit(node)) if most else length


async def _askable(node: "Node", whole: ByteRange) -> ByteRange:
    """What the driver can be asked to zero for this: the whole units inside, and those around its ends that may be
    zeroed as a whole. Empty (at the begin) if there are none."""
    unit = _unit(node)
    middle = aligned_inside(node, whole.offset, whole.length, unit)
    if middle == whole or not (isinstance(node.driver, FormatDriver) and node.driver.limits.allocation_unit):
        return middle if middle.length else ByteRange(whole.offset, 0)
    start, end = middle.offset, max(middle.offset, middle.end)
    first, last = align_down(whole.offset, unit), align_down(whole.end - 1, unit)
    if first < whole.offset and await _zero_as_a_whole(node, _unit_at(node, first, unit), whole):
        start, end = first, max(end, first + unit)
    is_cut = last + unit > whole.end != node.driver.size and (last != first or first == whole.offset)
    if is_cut and await _zero_as_a_whole(node, _unit_at(node, last, unit), whole):
        start, end = min(start, last), last + unit
    end = min(end, node.driver.size)
    return ByteRange(start, end - start) if end > start else ByteRange(whole.offset, 0)


def _unit_at(node: "Node", start: int, unit: int) -> ByteRange:
    return ByteRange(start, min(unit, node.driver.size - start))


async def _zero_as_a_whole(node: "Node", unit: ByteRange, zeroed: ByteRange) -> bool:
    """Whether the layer holds no data in a unit, and what of it is not zeroed reads as zeroes already."""
    position = unit.offset
    while position < unit.end:
        mapping = await map_own(node, position, unit.end - position)
        if mapping.kind not in (MapKind.ZERO, MapKind.BACKING):
            return False
        position += mapping.length
    for start, end in ((unit.offset, zeroed.offset), (zeroed.end, unit.end)):
        while start < end:
            extent = await status_at(node, start, end - start)
            if not extent.zero:
                return False
            start += extent.length
    return True


def aligned_inside(node: "Node", offset: int, length: int, alignment: int) -> ByteRange:
    """The aligned part of a range; the end of the node counts as aligned."""
    start = align_up(offset, alignment)
    end = offset + length
    if end != node.driver.size:
        end = align_down(end, alignment)
    return ByteRange(start, max(0, end - start))


async def _write_zero_buffers(node: "Node", request: TrackedRequest, position: int, end: int, flags: int) -> None:
    while position < end:
        part = ZEROES[: min(len(ZEROES), end - position)]
        await writing.write_aligned(node, request, position, BufferPayload(part), flags & FUA)
        position += len(part)
