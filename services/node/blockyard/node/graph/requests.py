"""The one path of every request: gate -> align -> track -> serve by the driver's mapping -> account -> mark dirty.

Theory. Layers answer, they do not forward: a format driver tells where bytes are, and this module moves them, so
that copy-on-write, zero filling, short backing files and alignment exist once. Every read and write first tries its
inline form (`graph.inline`); here are the awaiting forms, which do everything.

What must not be here: opening and closing, permissions, anything about who asked.

Invariants
1. Dirty bitmaps are marked after the data is in place: a copier that clears a bit and then reads sees the new data.
2. An allocating, zeroing or discarding request is serialising over the driver's units; nothing else overlaps it.
3. An allocation is committed or abandoned exactly once.
"""

import math
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import OperationUnsupported, RangeOutside
from blockyard.base.ranges import align_down
from blockyard.node.core.accounting import COPY, DISCARD, FLUSH, READ, TRUNCATE, WRITE, WRITE_ZEROES
from blockyard.node.graph import writing, zeroing
from blockyard.node.graph.admission import Admitted
from blockyard.node.graph.reading import fill_zeroes, read_aligned
from blockyard.node.graph.tracking import TrackedRequest
from blockyard.node.graph.writing import BufferPayload, Fetch, Payload, Wanted
from blockyard.node.interface import tracing
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import FormatDriver, Resizable
from blockyard.node.interface.flags import FUA, MAY_UNMAP, WRITE_UNCHANGED, DiscardMode, Preallocation
from blockyard.node.interface.mapping import MapKind
from blockyard.node.interface.waiting import WaitReason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockyard.node.graph.node import Node

SERIALISE_ALL: Final = 2**64
"""The end of a range that reaches past any node: what a truncate serialises."""


# --- reads ---------------------------------------------------------------------------------------------


async def read(node: "Node", offset: int, into: memoryview) -> None:
    """Fill `into`; the range lies inside the node."""
    if (starter := tracing.active.get()) is not None:
        with starter(f"blk.read {node.driver.name}", _attributes(node, offset, len(into))):
            return await _read(node, offset, into)
    return await _read(node, offset, into)


async def _read(node: "Node", offset: int, into: memoryview) -> None:
    async with Admitted(node, READ, offset, len(into)):
        there = max(0, min(len(into), node.driver.size - offset))
        if there < len(into):  # someone shrank the node while we waited
            fill_zeroes(into[there:])
        if there:
            await read_aligned(node, offset, into[:there])


# --- writes --------------------------------------------------------------------------------------------


async def write(node: "Node", offset: int, data: Buffer, flags: int = 0) -> None:
    """Write a range that lies inside the node (or grows a protocol node)."""
    await write_from(node, offset, BufferPayload(memoryview(data)), flags)


async def write_from(node: "Node", offset: int, payload: Payload, flags: int = 0) -> None:
    """As `write`, from anything that can put its bytes somewhere (see `graph.writing`)."""
    if (starter := tracing.active.get()) is not None:
        with starter(f"blk.write {node.driver.name}", _attributes(node, offset, payload.length)):
            return await _write(node, offset, payload, flags)
    return await _write(node, offset, payload, flags)


async def _write(node: "Node", offset: int, payload: Payload, flags: int) -> None:
    if node.read_only:
        raise node.write_refusal()
    length = payload.length
    unit = writing.unit_to_serialise(node, offset, length, flags)
    if writing.pads_the_end(node, offset, length):
        return await _write_at_odd_end(node, offset, payload, flags, unit)
    async with Admitted(node, WRITE, offset, length, unit) as request:
        if node.guard is not None and not flags & WRITE_UNCHANGED:
            await node.guard.ready(offset, length)
        try:
            _check_still_inside(node, offset, length)
            await _put(node, request, offset, payload, flags)
        finally:
            # After an error part of it may be in place: readers and copiers must look again.
            node.wrote(offset, length, flags)
    if flags & FUA and node.is_format:
        await flush(node)


async def _put(node: "Node", request: TrackedRequest, offset: int, payload: Payload, flags: int) -> None:
    if node.zero_flags is None:
        await writing.write_aligned(node, request, offset, payload, flags)
    else:
        await zeroing.write_detecting(node, request, offset, payload, flags)


async def _write_at_odd_end(node: "Node", offset: int, payload: Payload, flags: int, unit: int) -> None:
    """A write whose last unit reaches past the end: the driver must write all of it, and the end is put back."""
    admitted = Admitted(node, WRITE, offset, SERIALISE_ALL - offset, unit)
    admitted.length = payload.length
    async with admitted as request:
        if node.guard is not None and not flags & WRITE_UNCHANGED:
            await node.guard.ready(offset, payload.length)
        driver = node.driver
        end = max(driver.size, offset + payload.length)
        try:
            await _put(node, request, offset, payload, flags)
        finally:
            if driver.size > end and isinstance(driver, Resizable):
                await driver.truncate(end, Preallocation.OFF, exact=True)
            node.wrote(offset, payload.length, flags)


async def populate(
    node: "Node", offset: int, length: int, fetch: Fetch | None = None, wanted: "Wanted | None" = None
) -> int:
    """Copy what the backing chain holds of a range into the node; readers see no change (copy on read).

    Atomic towards guests' writes of the range. `fetch` gives the backing chain's bytes, if not by plain reads;
    `wanted` tells of what lies below whether it is to be copied. Returns how many bytes were written.
    """
    unit = max(1, node.driver.limits.allocation_unit, node.alignment)
    admitted = Admitted(node, COPY, offset, length, unit)
    async with admitted as request:
        try:
            admitted.length = await writing.populate(node, request, offset, length, fetch, wanted)
        finally:
            node.wrote(offset, length, WRITE_UNCHANGED)
    return admitted.length


async def populate_zeroes(node: "Node", offset: int, length: int) -> int:
    """As `populate`, of a range that the backing chain shows as zeroes: no byte is read, however long it is."""
    driver = node.driver
    assert isinstance(driver, FormatDriver)
    unit = zeroing.unit_to_serialise(node)
    admitted = Admitted(node, COPY, offset, length, unit)
    async with admitted as request:
        position, end, admitted.length = offset, min(offset + length, driver.size), 0
        try:
            while position < end:
                mapping = driver.lookup(position, end - position) or await driver.map(position, end - position)
                if mapping.kind is MapKind.BACKING:
                    await zeroing.make_zeroes(node, request, position, mapping.length, 0)
                    admitted.length += mapping.length
                position += mapping.length
        finally:
            node.wrote(offset, length, WRITE_UNCHANGED)
    return admitted.length


async def copied_by_kernel(node: "Node", offset: int, length: int, copy: "Callable[[], Awaitable[bool]]") -> bool:
    """Track and account a write that the kernel makes to a protocol node behind the driver's back; False if `copy`
    found that it cannot."""
    if node.read_only:
        raise node.write_refusal()
    async with Admitted(node, WRITE, offset, length):
        if node.guard is not None:
            await node.guard.ready(offset, length)
        try:
            if (starter := tracing.active.get()) is not None:
                with starter(f"blk.write {node.driver.name}", _attributes(node, offset, length)):
                    return await copy()
            return await copy()
        finally:
            node.wrote(offset, length, 0)


def _check_still_inside(node: "Node", offset: int, length: int) -> None:
    """Raises RangeOutside if a format's node was shrunk below a request that waited for it."""
    driver = node.driver
    if isinstance(driver, FormatDriver) and not driver.transparent and offset + length > driver.size:
        raise RangeOutside(node.name, offset, length, driver.size)


# --- zeroes, discards, flushes, size --------------------------------------------------------------------


async def zero(node: "Node", offset: int, length: int, flags: int = 0) -> None:
    """Make a range read as zeroes. Raises OperationUnsupported with NO_FALLBACK if only writing would do."""
    if (starter := tracing.active.get()) is not None:
        with starter(f"blk.write_zeroes {node.driver.name}", _attributes(node, offset, length)):
            return await _zero(node, offset, length, flags)
    return await _zero(node, offset, length, flags)


async def _zero(node: "Node", offset: int, length: int, flags: int) -> None:
    if node.read_only:
        raise node.write_refusal()
    if not length:
        return
    if node.discard is DiscardMode.IGNORE:
        flags &= ~MAY_UNMAP
    async with Admitted(node, WRITE_ZEROES, offset, length, zeroing.unit_to_serialise(node)) as request:
        if node.guard is not None and not flags & WRITE_UNCHANGED:
            await node.guard.ready(offset, length)
        try:
            _check_still_inside(node, offset, length)
            await zeroing.make_zeroes(node, request, offset, length, flags)
        finally:
            node.wrote(offset, length, flags)
            if node.driver.listens:
                await node.driver.debug_event("pwritev_done")
    if flags & FUA and node.is_format:
        await flush(node)


async def discard(node: "Node", offset: int, length: int) -> None:
    """Drop a range, as far as the driver's alignment and the node's discard mode allow."""
    if node.read_only:
        raise node.write_refusal()
    if not length or node.discard is DiscardMode.IGNORE:
        return
    limits = node.driver.limits
    alignment = 1 if node.hands_on else math.lcm(limits.discard_alignment, node.alignment)
    unit = max(alignment, limits.allocation_unit)
    async with Admitted(node, DISCARD, offset, length, zeroing.unit_of_change(node, unit)):
        if node.guard is not None:
            await node.guard.ready(offset, length)
        try:
            _check_still_inside(node, offset, length)
            middle = zeroing.aligned_inside(node, offset, length, alignment)
            step = align_down(limits.max_discard, alignment) or (0 if limits.max_discard else middle.length)
            for start in range(middle.offset, middle.end if step else 0, step or 1):
                await node.driver.discard(start, min(step, middle.end - start))
        finally:
            node.discarded(offset, length)


async def flush(node: "Node") -> bool:
    """Make everything acknowledged before this call durable; False if there was nothing to do.

    Flushes that arrive while one runs share the next one.
    """
    wanted = node.write_generation
    # A filter may stand where it has not always stood: what was written before it came, the node below knows.
    if node.no_flush or (node.flushed_generation >= wanted and not node.is_filter):
        return False
    # Tracked from here on, for a drain must wait also for those who wait for the lock.
    async with Admitted(node, FLUSH, 0, 0) as request:
        request.reason = WaitReason.LOCK
        async with node.flush_lock:
            request.reason = WaitReason.NONE
            if node.flushed_generation < wanted or node.is_filter:
                generation = node.write_generation
                await _traced_flush(node)
                node.flushed_generation = max(node.flushed_generation, generation)
    return True


async def _traced_flush(node: "Node") -> None:
    if (starter := tracing.active.get()) is not None:
        with starter(f"blk.flush {node.driver.name}", {"blockyard.node.name": node.name}):
            return await _flush(node)
    return await _flush(node)


async def _flush(node: "Node") -> None:
    """By the driver at once, or in the two steps that a listener below is told of (bdrv_co_flush)."""
    primary = node.primary
    if primary is not None and primary.listens:
        await primary.debug_event("flush_to_os")
        await node.driver.flush_to_os()
        await primary.debug_event("flush_to_disk")
    await node.driver.flush()


async def truncate(
    node: "Node", size: int, preallocation: Preallocation, exact: bool, *, only_grow: bool = False
) -> None:
    """Change the node's size; bitmaps follow. `only_grow`: a node that is as large when it is our turn stays so."""
    if node.read_only:
        raise node.write_refusal()
    driver = node.driver
    if not isinstance(driver, Resizable):
        raise OperationUnsupported(node.name, driver.name, "change its size")
    start = min(size, driver.size)
    request = await node.tracker.begin(TRUNCATE, start, SERIALISE_ALL - start, 1)
    try:
        if only_grow and driver.size >= size:
            return
        await driver.truncate(size, preallocation, exact)
        for bitmap in node.bitmaps.values():
            bitmap.resize(driver.size)
        node.write_generation += 1
    finally:
        node.tracker.end(request)


def _attributes(node: "Node", offset: int, length: int) -> dict[str, str | int]:
    return {"blockyard.node.name": node.name, "blockyard.offset": offset, "blockyard.length": length}
