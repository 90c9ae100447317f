"""The inline forms of reads and writes: no await, no task, no allocation per layer.

They give up by returning False, with no effect that a repetition would not repeat; then the awaiting forms in
`graph.requests` do all of it again. What is inline starts and ends between two turns of the loop, so it needs no
tracking; it only looks whether someone serialises its range.

Which form a node takes is chosen once, when it adopts its driver. Must not await, allocate, or know who asked.

A filter's request ends when the one below it does, so its form takes the time from the account below instead of
looking at the clock once more.
"""

from typing import TYPE_CHECKING, Final

from blockyard.base.units import MIB
from blockyard.node.core.accounting import READ, WRITE
from blockyard.node.core.throttle import READ_SIDE, WRITE_SIDE
from blockyard.node.graph.reading import fill_zeroes, is_zero, misaligned
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.flags import COMPRESSED, FUA, WRITE_UNCHANGED
from blockyard.node.interface.mapping import MapKind

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node, ReadNow, WriteNow
    from blockyard.node.graph.throttling import Member

INLINE_MAX: Final = 1 * MIB
"""Longer requests always await: copying more than this would hold up the loop for more than about 100 us."""

DATA, ZERO, BACKING = MapKind.DATA, MapKind.ZERO, MapKind.BACKING


def forms(node: "Node") -> "tuple[ReadNow, WriteNow]":
    """The inline forms for this kind of driver."""
    read: ReadNow
    write: WriteNow
    if node.straight is not None:
        read, write = _read_now_straight, _write_now_straight
    elif node.throttle is not None:
        read, write = _read_now_throttled, _write_now_throttled
    elif node.copies_on_read:
        read, write = _read_now_copied, _write_now_driver
    elif node.passes_reads:
        read, write = _read_now_passed, _write_now_driver
    elif node.is_format:
        read, write = _read_now_format, _write_now_format
    else:
        read, write = _read_now_driver, _write_now_driver
    if node.zero_flags is not None:
        write = _detecting(write)
    if node.guard is not None:
        write = _guarded(write)
    return read, write


def _detecting(write: "WriteNow") -> "WriteNow":
    def write_now_detecting(node: "Node", offset: int, data: Buffer, flags: int) -> bool:
        return not is_zero(data) and write(node, offset, data, flags)

    return write_now_detecting


def _guarded(write: "WriteNow") -> "WriteNow":
    """What a bitmap that survives a crash must know of is known before it happens (`graph.guarding`).

    Nothing runs between the mark before and the data, so no mark after it is needed: a write to what is dirty
    already costs 0.3 us more than one that nobody records.
    """

    def write_now_guarded(node: "Node", offset: int, data: Buffer, flags: int) -> bool:
        guard, length = node.guard, len(data)
        if guard is None or flags & WRITE_UNCHANGED:
            return write(node, offset, data, flags)
        if (steady := guard.steady) is not None and length:
            bits, shift, granules = steady
            first = offset >> shift
            is_ready = (
                first == (offset + length - 1) >> shift and first < granules and bits[first >> 3] >> (first & 7) & 1
            )
        else:
            is_ready = 0
        if not is_ready:
            if node.read_only:
                raise node.write_refusal()
            if not length or not guard.ready_now(offset, length):
                return False
        node.watched = guard.others
        try:
            return write(node, offset, data, flags)
        finally:
            node.watched = True

    return write_now_guarded


def _read_now_driver(node: "Node", offset: int, into: memoryview) -> bool:
    length = len(into)
    if (
        node.tracker.serialising
        or length > node.inline_max
        or (node.alignment > 1 and misaligned(node, offset, length))
    ):
        return False
    start_ns = node.now_ns()
    if not node.driver_read_now(offset, into):
        return False
    node.account.ended(READ, length, start_ns, node.now_ns())
    return True


def _write_now_driver(node: "Node", offset: int, data: Buffer, flags: int) -> bool:
    length = len(data)
    if node.read_only:
        raise node.write_refusal()
    if (
        node.tracker.serialising
        or length > node.inline_max
        or (node.alignment > 1 and misaligned(node, offset, length))
    ):
        return False
    start_ns = node.now_ns()
    if not node.driver_write_now(offset, data, flags):
        return False
    node.wrote(offset, length, flags)
    node.account.ended(WRITE, length, start_ns, node.now_ns())
    return True


def _read_now_straight(node: "Node", offset: int, into: memoryview) -> bool:
    """For a format that is its child's bytes at a constant distance (raw): no look-up, one measurement for both.

    What the edge to the child would check is checked here; the child's own form is asked when there is more to it.
    """
    length = len(into)
    if node.tracker.serialising and node.tracker.blocks(offset, length):
        return False
    child, distance = node.straight  # type: ignore[misc]
    below = child.node
    start_ns = node.now_ns()
    if not below.simple or below.quiesced or below.tracker.serialising or length > below.inline_max:
        done = child.read_now(offset + distance, into)
    elif done := below.driver_read_now(offset + distance, into):
        below.account.ended(READ, length, start_ns, node.now_ns())
    if done:
        node.account.ended(READ, length, start_ns, node.now_ns())
    return done


def _write_now_straight(node: "Node", offset: int, data: Buffer, flags: int) -> bool:
    length = len(data)
    if node.read_only:
        raise node.write_refusal()
    if flags & FUA or (node.tracker.serialising and node.tracker.blocks(offset, length)):
        return False
    child, distance = node.straight  # type: ignore[misc]
    below = child.node
    start_ns = node.now_ns()
    if (
        not below.simple
        or below.read_only
        or below.quiesced
        or below.tracker.serialising
        or length > below.inline_max
    ):
        done = child.write_now(offset + distance, data, flags)
    elif done := below.driver_write_now(offset + distance, data, flags):
        below.wrote(offset + distance, length, flags)
        below.account.ended(WRITE, length, start_ns, node.now_ns())
    if done:
        node.wrote(offset, length, flags)
        node.account.ended(WRITE, length, start_ns, node.now_ns())
    return done


def _read_now_throttled(node: "Node", offset: int, into: memoryview) -> bool:
    """For a filter that only makes requests wait: what may pass now goes on without the driver and the edge.
    The node below is as large, and who came in by the filter's edge is not sampled."""
    length = len(into)
    below = node.children["file"].node
    if node.tracker.serialising or length > node.inline_max or below.quiesced:
        return False
    start_ns = node.now_ns()
    member: Member = node.throttle  # type: ignore[assignment]
    group = member.group
    passes = not group.reads_wait and group.try_read(length, start_ns)
    if not passes and not member.charge_now(READ_SIDE, length, start_ns):
        return False
    if below.read_now(below, offset, into):
        node.account.ended(READ, length, start_ns, below.account.last_ended_ns)
        return True
    member.refund(READ_SIDE, length)  # it will come again and await
    return False


def _write_now_throttled(node: "Node", offset: int, data: Buffer, flags: int) -> bool:
    """By the edge, which knows that a format's node is written past its end."""
    length = len(data)
    if node.read_only:
        raise node.write_refusal()
    if node.tracker.serialising or length > node.inline_max:
        return False
    start_ns = node.now_ns()
    member: Member = node.throttle  # type: ignore[assignment]
    if not member.charge_now(WRITE_SIDE, length, start_ns):
        return False
    child = node.children["file"]
    if child.write_now(offset, data, flags):
        node.wrote(offset, length, flags)
        node.account.ended(WRITE, length, start_ns, child.node.account.last_ended_ns)
        return True
    member.refund(WRITE_SIDE, length)
    return False


def _read_now_passed(node: "Node", offset: int, into: memoryview) -> bool:
    """For a filter whose reads are its child's: without the driver and the edge, as in `_read_now_throttled`."""
    length = len(into)
    below = node.children["file"].node
    if node.tracker.serialising or length > node.inline_max or below.quiesced:
        return False
    start_ns = node.now_ns()
    if not below.read_now(below, offset, into):
        return False
    node.account.ended(READ, length, start_ns, below.account.last_ended_ns)
    return True


def _read_now_copied(node: "Node", offset: int, into: memoryview) -> bool:
    """For a filter that copies on read: only what the layer below holds itself, or what has nothing below it."""
    length = len(into)
    below = node.children["file"].node
    if node.tracker.serialising or length > node.inline_max or below.quiesced:
        return False
    start_ns = node.now_ns()
    if below.read_now is _read_now_format:
        done = _read_now_format(below, offset, into, "backing" not in below.children)
    else:
        done = node.children["file"].populated_now(offset, length) and below.read_now(below, offset, into)
    if done:
        node.account.ended(READ, length, start_ns, below.account.last_ended_ns)
    return done


def _read_now_format(node: "Node", offset: int, into: memoryview, through: bool = True) -> bool:
    """Without `through` only what this layer holds itself."""
    length = len(into)
    if length > INLINE_MAX or (node.tracker.serialising and node.tracker.blocks(offset, length)):
        return False
    start_ns = node.now_ns()
    lookup = node.lookup
    position = 0
    while position < length:
        mapping = lookup(offset + position, length - position)
        if mapping is None:
            return False
        part = into if mapping.length == length else into[position : position + mapping.length]
        kind = mapping.kind
        if kind is DATA:
            if not mapping.child.read_now(mapping.offset, part):  # type: ignore[union-attr]
                return False
        elif kind is ZERO:
            fill_zeroes(part)
        elif kind is not BACKING or not through or not _read_backing_now(node, offset + position, part):
            return False
        position += mapping.length
    node.account.ended(READ, length, start_ns, node.now_ns())
    return True


def _read_backing_now(node: "Node", offset: int, into: memoryview) -> bool:
    backing = node.children.get("backing")
    if backing is None or offset >= backing.node.driver.size:
        fill_zeroes(into)
        return True
    if node.children[node.driver.primary].node.driver.listens:
        return False  # it waits for the event of this read
    # Past the end of a short backing file the edge has no inline answer.
    return backing.read_now(offset, into)


def _write_now_format(node: "Node", offset: int, data: Buffer, flags: int) -> bool:
    length = len(data)
    if node.read_only:
        raise node.write_refusal()
    if flags & (FUA | COMPRESSED) or length > INLINE_MAX:
        return False
    if node.tracker.serialising and node.tracker.blocks(offset, length):
        return False
    start_ns = node.now_ns()
    mapping = node.lookup(offset, length)
    if mapping is None or not mapping.writable or mapping.kind is not DATA or mapping.length < length:
        return False
    if not mapping.child.write_now(mapping.offset, data, flags):  # type: ignore[union-attr]
        return False
    node.wrote(offset, length, flags)
    node.account.ended(WRITE, length, start_ns, node.now_ns())
    return True
