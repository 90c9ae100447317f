"""The VM state: bytes past the disk's end, from the next L1 entry on (QEMU's qcow2_vm_state_offset).

They are stored as guest data is, in whole clusters, so they take part in snapshots without more ado. Nobody but the
functions here reads or writes there.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from blockyard.base.errors import BlockError, InvalidArgument, OperationUnsupported, SizeTooLarge
from blockyard.base.ranges import align_up
from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2 import encryption
from blockyard.node.drivers.qcow2.dropping import Dropper
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.resizing import Resizer
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2.limits import MAX_L1_BYTES
from blockyard.node.interface.mapping import MapKind

PIECE: Final = 2 * MIB
"""Bytes written or read at a time: a whole number of clusters of any size."""


def start_of(image: Image) -> int:
    """Where it is: in guest offsets."""
    return image.geometry.l1_entries(image.header.size) << image.geometry.table_bits


def room_of(image: Image) -> int:
    """Bytes of it that there may be, as far as L1 reaches."""
    return max(0, (len(image.l1) << image.geometry.table_bits) - start_of(image))


async def save(image: Image, resizer: Resizer, dropper: Dropper, pieces: AsyncIterator[bytes | memoryview]) -> int:
    """Put these bytes there, instead of what there is; their number. After an error nothing is there."""
    if image.has_data_file:
        raise OperationUnsupported(
            image.context.node_name, "qcow2", "save a VM state: its data is in another file, without snapshots"
        )
    await image.before_write()
    first_key = image.geometry.l1_entries(image.header.size)
    await dropper.forget_tables(first_key)
    total = 0
    try:
        async for data in _gathered(pieces):
            await image.event("vmstate_save")
            await _write(image, resizer, start_of(image) + total, data)
            total += len(data)
        await image.writeback.flush()
    except BaseException:
        with suppress(BlockError):
            await dropper.forget_tables(first_key)
        raise
    return total


async def _gathered(pieces: AsyncIterator[bytes | memoryview]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of `PIECE`, the last as it comes."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        while len(waiting) >= PIECE:
            yield bytes(waiting[:PIECE])
            del waiting[:PIECE]
    if waiting:
        yield bytes(waiting)


async def _write(image: Image, resizer: Resizer, offset: int, data: bytes) -> None:
    size = image.geometry.cluster_size
    padded = memoryview(data.ljust(align_up(len(data), size), b"\0"))
    entries = ((offset + len(padded) - 1) >> image.geometry.table_bits) + 1
    if entries * 8 > MAX_L1_BYTES:
        raise SizeTooLarge("L1 table with the VM state, in bytes", entries * 8, MAX_L1_BYTES)
    if entries > len(image.l1):
        await unbroken(resizer.grow_l1(entries))
    await image.space.store(offset, padded)


async def load(image: Image, length: int) -> AsyncIterator[bytes]:
    """So many bytes of it in pieces. Raises InvalidArgument for more than can be there."""
    if not 0 <= length <= (room := room_of(image)):
        raise InvalidArgument("length_bytes", f"0 to the {room} that may be stored", str(length))
    start = start_of(image)
    for at in range(0, length, PIECE):
        await image.event("vmstate_load")
        data = bytearray(min(PIECE, length - at))
        await _read(image, start + at, memoryview(data))
        yield bytes(data)


async def _read(image: Image, offset: int, into: memoryview) -> None:
    while into:
        mapping = image.mapper.without_table(offset, len(into))
        if mapping is None:
            table = await image.l2.get(offset >> image.geometry.table_bits)
            mapping = image.mapper.answer(table, offset, len(into), False)
        part = into[: mapping.length]
        if mapping.kind is MapKind.DATA:
            assert mapping.child is not None
            await mapping.child.read(mapping.offset, part)
        elif mapping.kind is MapKind.ENCODED:
            await encryption.read_encoded(image, offset, part)
        offset, into = offset + mapping.length, into[mapping.length :]
