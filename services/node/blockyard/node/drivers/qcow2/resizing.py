"""Growing and shrinking an image, and filling new space ahead of writes.

Growing: what would show in the new space (the tail of the last cluster, a backing file that is longer) is
covered with zeroes first, then L1 is moved if it must grow, then the header takes the new size: each step
durable before the next, so a crash leaves the old size or the new one, and zeroes behind it.
Shrinking: the header first, then the mappings past the end, then the file's tail: a crash leaves either size,
and at worst mappings that nobody can reach.
"""

import numpy as np

from blockyard.base.errors import InvalidArgument, OperationUnsupported, SizeTooLarge
from blockyard.base.ranges import align_down, align_up
from blockyard.base.units import MAX_SIZE, MIB
from blockyard.node.drivers.qcow2.allocation import Reservation
from blockyard.node.drivers.qcow2.dropping import Dropper
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.ordering import Reason
from blockyard.node.drivers.qcow2.preallocating import preallocate
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import tables
from blockyard.node.formats.qcow2.limits import MAX_L1_BYTES, SECTOR
from blockyard.node.interface.flags import MAY_UNMAP, Preallocation
from blockyard.node.interface.mapping import MapKind, Mapping

_ZEROES = bytes(MIB)


class Resizer:
    """Changes of the guest size of one image."""

    def __init__(self, image: Image, dropper: Dropper) -> None:
        self._image = image
        self._dropper = dropper

    async def resize(self, size: int, preallocation: Preallocation) -> None:
        image = self._image
        self._check(size, preallocation)
        await image.before_write()
        old = image.header.size
        if size < image.header.size:
            await self._shrink(size)
        elif size > image.header.size:
            await self._grow(size, preallocation)
            if preallocation == Preallocation.OFF and image.is_raw_apart:
                preallocation = Preallocation.METADATA  # what the data file has must be mapped
            await preallocate(image, old, size, preallocation)

    def _check(self, size: int, preallocation: Preallocation) -> None:
        image = self._image
        if not 0 <= size <= MAX_SIZE:
            raise SizeTooLarge("size", size, MAX_SIZE)
        if size % SECTOR:
            raise InvalidArgument("size", f"a multiple of {SECTOR}", str(size))
        needed = image.geometry.l1_entries(size) * 8
        if needed > MAX_L1_BYTES:
            limit = MAX_L1_BYTES // 8 << image.geometry.table_bits
            raise SizeTooLarge("size", size, min(limit, MAX_SIZE))
        if image.snapshots and image.header.version < 3:
            raise OperationUnsupported(
                image.context.node_name, "qcow2", "resize a version 2 image that has snapshots"
            )
        if preallocation != Preallocation.OFF and (size < image.header.size or image.has_backing):
            raise InvalidArgument("preallocation", "off when shrinking or over a backing file", preallocation)

    # --- growing -----------------------------------------------------------------------------------------

    async def _grow(self, size: int, preallocation: Preallocation) -> None:
        image = self._image
        old = image.header.size
        if image.has_data_file:
            await self._grow_data(old, size, preallocation)
        entries = image.geometry.l1_entries(size)
        if entries > len(image.l1):
            await unbroken(self.grow_l1(entries))
        await self._clear_space(old, size)
        await image.writeback.flush()
        await unbroken(self._set_size(size))

    async def _grow_data(self, old: int, size: int, preallocation: Preallocation) -> None:
        """The external data file: as long as the disk at least, exactly so if it shows that by itself, and zero
        where that may show without anybody writing there."""
        data = self._image.space.child()
        is_raw, below = self._image.is_raw_apart, preallocation
        if (is_raw or preallocation != Preallocation.OFF) and data.size > old:
            await data.zero(old, min(data.size, size) - old, MAY_UNMAP)
        if below == Preallocation.METADATA:
            below = Preallocation.OFF
        if data.size < size or (is_raw and data.size > size):
            await data.truncate(size, below, is_raw)

    async def _set_size(self, size: int) -> None:
        image = self._image
        async with image.writeback.lock:
            image.update_header(size=size)
            await image.switch(hdr.SIZE_AT, hdr.encode_size(image.header))

    async def grow_l1(self, entries: int) -> None:
        """Invariant 6 of `ordering`, with all refcounts of the new table durable before the header names it."""
        image = self._image
        bits, size = image.geometry.cluster_bits, image.geometry.cluster_size
        # Half as much again, so that growing step by step does not move the table each time.
        room = min(MAX_L1_BYTES // 8, max(entries, align_up(len(image.l1) * 3 // 2, size // 8)))
        await image.event("l1_grow_alloc_table")
        first = await image.allocator.take_run(image.geometry.clusters(room * 8))
        image.guard.add(first, image.geometry.clusters(room * 8))
        async with image.l2.structure, image.writeback.lock:
            await image.writeback.settle_locked()
            grown = np.zeros(align_up(room * 8, size) // 8, np.uint64)[:room]
            grown[: len(image.l1)] = image.l1.entries
            data = tables.encode(grown)
            padded = data.ljust(align_up(len(data), SECTOR), b"\0")
            await image.event("l1_grow_write_table")
            for at in range(0, len(padded), MIB):
                await image.write((first << bits) + at, padded[at : at + MIB])
            await image.file.flush()
            await image.event("l1_grow_activate_table")
            old_first, old_count = image.header.l1_table_offset >> bits, image.geometry.clusters(len(image.l1) * 8)
            image.update_header(l1_size=room, l1_table_offset=first << bits)
            image.l1.replace(grown)
            await image.switch(hdr.L1_AT, hdr.encode_l1(image.header))
        if old_count and old_first:
            image.guard.remove(old_first, old_count)
            image.ledger.drop(Reason.OTHER, np.arange(old_first, old_first + old_count, dtype=np.int64))

    async def _clear_space(self, old: int, size: int) -> None:
        """Make [old, size) read as zeroes once it becomes visible."""
        image = self._image
        cluster = image.geometry.cluster_size
        whole = align_up(old, cluster)
        tail = min(size, align_up(old, image.geometry.subcluster_size))
        if old < tail:
            await self._clear_tail(old, tail - old)
        if tail < min(whole, size):
            await self._dropper.zero(tail, min(whole, size) - tail, 0)
        if whole < size:
            await self._dropper.forget(whole, size - whole)
            backing = image.context.children.get("backing")
            shown = min(size, align_up(backing.size, cluster)) if backing is not None else 0
            if shown > whole:
                await self._cover(whole, shown - whole)

    async def _cover(self, offset: int, length: int) -> None:
        """Zero whole clusters over a longer backing file."""
        if await self._dropper.zero(offset, length, 0):
            return
        for at in range(offset, offset + length, len(_ZEROES)):
            await self._image.space.store(at, memoryview(_ZEROES)[: min(len(_ZEROES), offset + length - at)])

    async def _clear_tail(self, offset: int, length: int) -> None:
        """Zero the rest of the last, partly visible cluster where it may hold something."""
        image = self._image
        start = align_down(offset, image.geometry.subcluster_size)
        mapping = await self._map(start)
        if mapping.kind is MapKind.ZERO:
            return
        if mapping.kind is MapKind.DATA and mapping.writable:
            await image.write_data(mapping.offset + offset - start, bytes(length))
            return
        backing = image.context.children.get("backing")
        if mapping.kind is MapKind.BACKING and (backing is None or backing.size <= offset):
            return
        await self._move_tail(start, offset)

    async def _move_tail(self, start: int, offset: int) -> None:
        """Give the unit at `start` a new place, with what it shows up to `offset` and zeroes after that."""
        image = self._image
        room = await image.space.allocate(start, 1)
        token = room.token
        assert isinstance(token, Reservation)
        try:
            content = memoryview(bytearray(room.length))
            shown = content[: offset - room.start]
            while shown:
                at = offset - len(shown)
                mapping = await self._map(at, len(shown))
                await self._read(at, shown[: mapping.length], mapping.kind, mapping.offset)
                shown = shown[mapping.length :]
            await image.write_data(room.offset, content)
        except BaseException:
            await image.space.abandon(token)
            raise
        await image.space.commit(token)

    async def _map(self, offset: int, length: int = 1) -> Mapping:
        image = self._image
        answer = image.mapper.without_table(offset, length)
        if answer is None:
            table = await image.l2.get(offset >> image.geometry.table_bits)
            answer = image.mapper.answer(table, offset, length, True)
        return answer

    async def _read(self, offset: int, into: memoryview, kind: MapKind, place: int) -> None:
        image = self._image
        backing = image.context.children.get("backing")
        if kind is MapKind.DATA:
            await image.space.child().read(place, into)
        elif kind is MapKind.ENCODED:
            await image.compressed.read(offset, into)
        elif kind is MapKind.BACKING and backing is not None:
            await backing.read(offset, into)

    # --- shrinking ---------------------------------------------------------------------------------------

    async def _shrink(self, size: int) -> None:
        image = self._image
        old = image.header.size
        await image.writeback.flush()
        await unbroken(self._set_size(size))
        keep = align_up(size, image.geometry.cluster_size)
        first_key = image.geometry.l1_entries(size)
        await self._dropper.forget(keep, min(first_key << image.geometry.table_bits, old) - keep)
        await image.event("l1_shrink_free_l2_clusters")
        await self._dropper.forget_tables(first_key)
        await image.event("l1_shrink_write_table")
        await image.writeback.settle()
        await self.trim_file()
        if image.is_raw_apart:
            await image.space.child().truncate(size, Preallocation.OFF, True)

    async def trim_file(self) -> None:
        """Give the file's unused tail back."""
        image = self._image
        async with image.allocator.lock:
            image.allocator.end = await image.refcounts.end_of_use(exactly=True)
            end = image.allocator.end << image.geometry.cluster_bits
            if end < image.file.size:
                await image.file.truncate(end)
                image.allocator.virgin = end
                await image.file.flush()
