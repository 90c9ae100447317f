"""Moving bytes into a node whose request is admitted: read-modify-write, allocation, copy on write, compression.

The part of the request path below tracking and accounting; `graph.requests` calls it, nobody else does.

Theory. What is written is a `Payload`: something of a length that can put a part of itself at a place of a child.
A buffer is one; a range of another file that the kernel copies is another (`copying.kernel`), so that a copy of
cluster-aligned data never enters our memory, and allocation and ordering are written once for both.
"""

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from blockyard.base.ranges import ByteRange, align_down, align_up
from blockyard.base.units import MIB
from blockyard.node.graph import memory
from blockyard.node.graph.reading import is_zero, misaligned, read_around, read_mapped, transfer_step
from blockyard.node.graph.tracking import TrackedRequest
from blockyard.node.interface.driver import FilterDriver, FormatDriver, ProtocolDriver
from blockyard.node.interface.flags import COMPRESSED, WRITE_UNCHANGED
from blockyard.node.interface.mapping import Allocation, MapKind

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.node import Node

JOIN_MAX: Final = 2 * MIB
"""An allocating write up to this size is joined with its surroundings into one write."""
POPULATE_STEP: Final = 1 * MIB
"""Bytes that a populate holds in memory at once."""


class Payload(Protocol):
    """What is written. Positions count from the start of the payload."""

    @property
    def length(self) -> int: ...

    async def view(self, position: int, length: int) -> memoryview:
        """The bytes themselves, for those who must look at them or join them."""
        ...

    async def put(self, child: "Edge", offset: int, position: int, length: int) -> None:
        """Write a part of the payload at `offset` of the child."""
        ...


Fetch = Callable[[int, int], Awaitable[Payload]]
"""Gives a payload for (a prefix of) a range: at least one byte of it."""


Wanted = Callable[[int, int], Awaitable[tuple[bool, int]]]
"""Whether the begin of a range, and how much of it, is to be copied up from the chain below."""


class BufferPayload:
    """Bytes in memory."""

    __slots__ = ("_data", "length")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.length = len(data)

    async def view(self, position: int, length: int) -> memoryview:
        return self._data[position : position + length]

    async def put(self, child: "Edge", offset: int, position: int, length: int) -> None:
        data = self._data[position : position + length]
        if not child.write_now(offset, data):
            await child.write(offset, data)


def unit_to_serialise(node: "Node", offset: int, length: int, flags: int) -> int:
    """The alignment a write must serialise from the start; 0 if it may turn out to need none.

    A read-modify-write must have all it may come to need before it reads: while a request waits to widen its range
    nobody waits for it, so what it read before would be old.
    """
    driver = node.driver
    if not length:
        return 0
    if node.alignment > 1 and misaligned(node, offset, length):
        limits = driver.limits
        zeroing = limits.zero_alignment if node.zero_flags is not None else 1
        return math.lcm(node.alignment, zeroing, limits.allocation_unit or 1)
    if not isinstance(driver, FormatDriver):
        return int(driver.changes_exclude)
    mapping = driver.lookup(offset, length)
    in_place = (
        mapping is not None and mapping.kind is MapKind.DATA and mapping.writable and mapping.length == length
    )
    return 0 if in_place and not flags & COMPRESSED else max(1, driver.limits.allocation_unit)


def pads_the_end(node: "Node", offset: int, length: int) -> bool:
    """Whether a write of a protocol node must be padded past the end that the node then has."""
    if node.alignment == 1 or node.is_format or node.is_filter:
        return False
    end = offset + length
    return end % node.alignment != 0 and align_up(end, node.alignment) > node.driver.size


async def write_aligned(node: "Node", request: TrackedRequest, offset: int, payload: Payload, flags: int) -> None:
    """Write a range of any alignment; what the driver cannot take becomes a read-modify-write."""
    if node.alignment > 1 and misaligned(node, offset, payload.length):
        offset, payload = await widened(node, offset, payload)
    await write_mapped(node, request, offset, payload, flags)


async def widened(node: "Node", offset: int, payload: Payload) -> tuple[int, Payload]:
    """A misaligned write with what lies around it in the units of the driver's alignment."""
    wide = ByteRange(offset, payload.length).widened(node.alignment)
    bounce = memoryview(bytearray(wide.length))
    there = min(wide.length, align_up(max(0, node.driver.size - wide.offset), node.alignment))
    start = offset - wide.offset
    if node.driver.listens:
        await _read_watched(node, wide, bounce[:there], start > 0, start + payload.length < wide.length)
    else:
        await read_mapped(node, wide.offset, bounce[:there])
    bounce[start : start + payload.length] = await payload.view(0, payload.length)
    if node.is_filter:
        # Below it the write is padded again as it must be; what nobody wrote must not make the node longer.
        bounce = bounce[: max(node.driver.size, offset + payload.length) - wide.offset]
    return wide.offset, BufferPayload(bounce)


async def _read_watched(node: "Node", wide: ByteRange, into: memoryview, head: bool, tail: bool) -> None:
    """Read what surrounds a misaligned write, with the events of QEMU's bdrv_padding_rmw_read."""
    ends = [name for name, there in (("head", head), ("tail", tail)) if there]
    for end in ends:
        await node.driver.debug_event(f"pwritev_rmw_{end}")
    await read_mapped(node, wide.offset, into)
    for end in ends:
        await node.driver.debug_event(f"pwritev_rmw_after_{end}")


async def write_mapped(node: "Node", request: TrackedRequest, offset: int, payload: Payload, flags: int) -> None:
    """Write an aligned range piece by piece: in place where that is allowed, into new room elsewhere."""
    driver = node.driver
    if not isinstance(driver, FormatDriver):
        assert isinstance(driver, ProtocolDriver | FilterDriver)
        await _write_driver(node, driver, offset, payload, flags)
        return
    position = 0
    while position < payload.length:
        here, rest = offset + position, payload.length - position
        if flags & COMPRESSED and (done := await _write_compressed(driver, here, payload, position)):
            position += done
            continue
        mapping = driver.lookup(here, rest) or await driver.map(here, rest)
        if mapping.kind is MapKind.DATA and mapping.writable:
            child = cast("Edge", mapping.child)
            if child.listens:
                await child.debug_event("write_aio")
            await payload.put(child, mapping.offset, position, mapping.length)
            position += mapping.length
            continue
        unit = max(1, driver.limits.allocation_unit)
        if not request.excludes(unit):
            # The mapping may change while we wait for others, so look again.
            await node.tracker.serialise(request, unit)
            continue
        position += await _write_allocating(node, driver, here, payload, position, flags)


async def _write_driver(
    node: "Node", driver: ProtocolDriver | FilterDriver, offset: int, payload: Payload, flags: int
) -> None:
    if driver.listens:
        await driver.debug_event("pwritev")
        try:
            await _write_split(node, driver, offset, payload, flags)
        finally:
            await driver.debug_event("pwritev_done")
        return
    await _write_split(node, driver, offset, payload, flags)


async def _write_split(
    node: "Node", driver: ProtocolDriver | FilterDriver, offset: int, payload: Payload, flags: int
) -> None:
    limit = transfer_step(node, payload.length)
    for position in range(0, payload.length, limit):
        length = min(limit, payload.length - position)
        data = await payload.view(position, length)
        if node.memory_alignment > 1 and not memory.is_aligned(data, node.memory_alignment):
            data, unaligned = memory.aligned(length, node.memory_alignment), data
            data[:] = unaligned
        await driver.write(offset + position, data, flags)


async def _write_compressed(driver: FormatDriver, offset: int, payload: Payload, position: int) -> int:
    """Bytes stored compressed: whole units only (the last one may end with the node); 0 to write plainly."""
    unit = driver.limits.allocation_unit
    if not unit or offset % unit:
        return 0
    length = payload.length - position
    if offset + length != driver.size:
        length = align_down(length, unit)
    if not length:
        return 0
    return length if await driver.write_compressed(offset, await payload.view(position, length)) else 0


async def _write_allocating(
    node: "Node", driver: FormatDriver, offset: int, payload: Payload, position: int, flags: int
) -> int:
    """Write a part of the payload into new room; its length."""
    allocation = await driver.allocate(offset, payload.length - position, flags)
    length = min(payload.length - position, allocation.start + allocation.length - offset)
    try:
        if allocation.keep_around and length < allocation.length:
            await _write_with_surroundings(node, allocation, offset, payload, position, length)
        else:
            child = cast("Edge", allocation.child)
            if child.listens:
                await child.debug_event("write_aio")
            await payload.put(child, allocation.offset + offset - allocation.start, position, length)
    except BaseException:
        await driver.abandon(allocation)
        raise
    await driver.commit(allocation)
    return length


async def _write_with_surroundings(
    node: "Node", allocation: Allocation, offset: int, payload: Payload, position: int, length: int
) -> None:
    """Copy on write: what lies around the data in its units is read through the node and moves along."""
    child = cast("Edge", allocation.child)
    head = offset - allocation.start
    tail = allocation.length - head - length
    listens = child.listens
    if listens:
        await child.debug_event("cow_read")
    if allocation.length <= JOIN_MAX:
        whole = memoryview(bytearray(allocation.length))
        await read_around(node, allocation.start, whole[:head])
        whole[head : head + length] = await payload.view(position, length)
        await read_around(node, offset + length, whole[head + length :])
        if listens:
            await child.debug_event("write_aio")  # both, for it is one write (qcow2-cluster.c, perform_cow)
            await child.debug_event("cow_write")
        await BufferPayload(whole).put(child, allocation.offset, 0, len(whole))
        return
    for start, around_length in ((allocation.start, head), (offset + length, tail)):
        if around_length:
            around = memoryview(bytearray(around_length))
            await read_around(node, start, around)
            if listens:
                await child.debug_event("cow_write")
            await BufferPayload(around).put(child, allocation.offset + start - allocation.start, 0, around_length)
    if listens:
        await child.debug_event("write_aio")
    await payload.put(child, allocation.offset + head, position, length)


async def populate(
    node: "Node",
    request: TrackedRequest,
    offset: int,
    length: int,
    fetch: "Fetch | None" = None,
    wanted: "Wanted | None" = None,
) -> int:
    """Write what only the backing chain holds of a range into the node; bytes written."""
    driver = node.driver
    if not isinstance(driver, FormatDriver) or node.backing is None:
        return 0
    position, end, written = offset, min(offset + length, driver.size), 0
    while position < end:
        step = end - position if fetch else min(end - position, POPULATE_STEP)
        mapping = driver.lookup(position, step) or await driver.map(position, step)
        if mapping.kind is MapKind.BACKING and wanted is not None:
            is_wanted, known = await wanted(position, mapping.length)
            if not is_wanted:
                position += known
                continue
            # Whole units, for the rest of one would be read and stored with it in any case.
            unit = max(1, driver.limits.copy_unit or driver.limits.allocation_unit, node.alignment)
            start = max(offset, align_down(position, unit))
            rest = min(end, align_up(position + known, unit)) - start
            mapping, position = mapping._replace(length=rest), start
        if mapping.kind is MapKind.BACKING and fetch is not None:
            payload = await fetch(position, mapping.length)
            await _tell(node, "cor_write")
            await write_mapped(node, request, position, payload, WRITE_UNCHANGED)
            written += payload.length
            position += payload.length
            continue
        if mapping.kind is MapKind.BACKING:
            data = memoryview(bytearray(mapping.length))
            await node.backing.read(position, data)
            await _tell(node, "cor_write")
            await _store(node, request, position, data)
            written += mapping.length
        position += mapping.length
    return written


async def _tell(node: "Node", event: str) -> None:
    """Let a listener right below a node know what comes next."""
    if node.primary is not None and node.primary.listens:
        await node.primary.debug_event(event)


async def _store(node: "Node", request: TrackedRequest, offset: int, data: memoryview) -> None:
    unit = max(1, node.driver.limits.zero_alignment)
    whole = offset % unit == 0 and (len(data) % unit == 0 or offset + len(data) == node.driver.size)
    if whole and is_zero(data) and await node.driver.zero(offset, len(data), 0):
        return
    await write_mapped(node, request, offset, BufferPayload(data), WRITE_UNCHANGED)
