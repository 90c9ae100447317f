"""Compressed clusters: many to a host cluster, packed one behind another, decoded on the pool.

Theory. The next compressed cluster is placed at `tail`, the byte after the last one, if that host cluster can
take one more reference; a host cluster's refcount is the number of compressed clusters that touch it. `tail`
is forgotten as soon as anything in its cluster is dropped, so a cluster on its way to being free never grows.
"""

import asyncio
from collections import OrderedDict
from typing import Final

import numpy as np

from blockyard.base.errors import ImageCorrupt, OperationUnsupported
from blockyard.base.ranges import align_up
from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2.allocation import Reservation, Space, referenced
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l2 import L2Table
from blockyard.node.drivers.qcow2.ordering import Clusters, Kind, Reason
from blockyard.node.formats.qcow2 import compression, tables
from blockyard.node.interface.child import Buffer

_BATCH_BYTES: Final = 4 * MIB
"""Guest bytes compressed and placed at a time, so that memory stays bounded."""
_JOB_BYTES: Final = 512 * 1024
"""Guest bytes in one call to the pool: long against a hop of 50 us, short enough to use every worker."""
_CACHE_BYTES: Final = 4 * MIB
"""Decoded clusters kept: small reads of one cluster come in a row."""


class Compressed:
    """Reading and writing of compressed clusters of one image."""

    def __init__(self, image: Image, space: Space) -> None:
        self._image = image
        self._space = space
        self._bits = image.geometry.cluster_bits
        self._size = image.geometry.cluster_size
        self._pack = compression.compressor(image.header.compression_type)
        self._unpack = compression.decompressor(image.header.compression_type)
        self._placing = asyncio.Lock()
        self._tail = -1
        self._decoded: OrderedDict[int, bytes] = OrderedDict()

    @property
    def tail_cluster(self) -> int:
        """The host cluster that may take more compressed bytes; -1 if none."""
        return self._tail >> self._bits if self._tail >= 0 else -1

    def forget(self, clusters: Clusters) -> None:
        """These are dropped or free: neither their decoded content nor their room may be used."""
        if self._tail >= 0 and bool((clusters == self.tail_cluster).any()):
            self._tail = -1
        self._decoded.clear()

    # --- reading ---------------------------------------------------------------------------------------

    async def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` from compressed clusters under one L2 table."""
        geometry = self._image.geometry
        table = await self._image.l2.get(offset >> geometry.table_bits)
        first, last = offset >> self._bits, (offset + len(into) - 1) >> self._bits
        low = first % geometry.entries_per_table
        entries = table.view[low : low + last - first + 1].tolist()
        known = {entry: self._decoded[entry] for entry in entries if entry in self._decoded}
        missing = [entry for entry in entries if entry not in known]
        fetched = await self._fetch(missing) if missing else {}
        position = 0
        within = offset - (first << self._bits)
        for entry in entries:
            data = known.get(entry) or fetched[entry]
            part = memoryview(data)[within : within + len(into) - position]
            into[position : position + len(part)] = part
            position += len(part)
            within = 0
        for entry, data in fetched.items():
            self._remember(entry, data)

    async def _fetch(self, entries: list[int]) -> dict[int, bytes]:
        """Read and decode; nothing is kept if the file has less than the entries say."""
        places = [tables.decode_compressed(entry, self._bits) for entry in entries]
        kept: dict[int, bytes] = {}
        await self._image.event("read_compressed")
        start, end = min(place.offset for place in places), max(place.end for place in places)
        pieces: list[memoryview]
        if end - start <= 2 * sum(place.length for place in places):
            whole = memoryview(await self._image.read(start, end - start))
            pieces = [whole[place.offset - start : place.end - start] for place in places]
        else:
            pieces = [memoryview(await self._image.read(place.offset, place.length)) for place in places]
        decoded = await self._image.context.pool.run(self._decode, pieces)
        for entry, place, data in zip(entries, places, decoded, strict=True):
            if data is None:
                raise ImageCorrupt(
                    self._image.name,
                    f"compressed cluster at host offset {place.offset:#x}",
                    f"a stream of {self._size} bytes",
                    "a broken or short one",
                )
            kept[entry] = data
        return kept

    def _decode(self, pieces: list[memoryview]) -> list[bytes | None]:
        result: list[bytes | None] = []
        for piece in pieces:
            data = self._unpack(piece, self._size)
            result.append(data if data is not None and len(data) == self._size else None)
        return result

    def _remember(self, entry: int, data: bytes) -> None:
        self._decoded[entry] = data
        while len(self._decoded) > max(1, _CACHE_BYTES // self._size):
            self._decoded.popitem(last=False)

    # --- writing ---------------------------------------------------------------------------------------

    async def write(self, offset: int, data: Buffer) -> None:
        """Store whole clusters (the last may be cut by the image's end), each compressed if that saves room."""
        await self._image.before_write()
        geometry = self._image.geometry
        if self._image.has_data_file:
            raise OperationUnsupported(
                self._image.context.node_name, "qcow2", "store compressed clusters: its data is in another file"
            )
        view = memoryview(data).cast("B")
        position = 0
        while position < len(view):
            at = offset + position
            room = (1 << geometry.table_bits) - (at & ((1 << geometry.table_bits) - 1))
            step = min(len(view) - position, room, max(self._size, _BATCH_BYTES))
            await self._write_batch(at, view[position : position + step])
            position += step
            if self._image.writeback.is_due:
                await self._image.writeback.write_back()

    async def _write_batch(self, offset: int, data: memoryview) -> None:
        key = offset >> self._image.geometry.table_bits
        index = (offset >> self._bits) % self._image.geometry.entries_per_table
        blobs = await self._compress(data)
        table = await self._image.l2.for_write(key)
        try:
            if table.suspicious:
                await self._space.refuse_metadata(table, index, len(blobs))
            packed = [(number, blob) for number, blob in enumerate(blobs) if blob is not None]
            await self._store(table, key, index, packed)
            for number, blob in enumerate(blobs):
                if blob is None:
                    part = data[number << self._bits : (number + 1) << self._bits]
                    await self._store_plain(table, key, index + number, part)
        finally:
            table.pins -= 1

    async def _compress(self, data: memoryview) -> list[bytes | None]:
        """One result per cluster; None where compression does not save a byte."""
        step = max(self._size, _JOB_BYTES)
        jobs = [data[at : at + step] for at in range(0, len(data), step)]
        parts = await asyncio.gather(*(self._image.context.pool.run(self._encode, job) for job in jobs))
        return [blob for part in parts for blob in part]

    def _encode(self, data: memoryview) -> list[bytes | None]:
        result: list[bytes | None] = []
        for at in range(0, len(data), self._size):
            cluster: bytes | memoryview = data[at : at + self._size]
            if len(cluster) < self._size:
                cluster = bytes(cluster).ljust(self._size, b"\0")
            blob = self._pack(cluster)
            result.append(blob if len(blob) < self._size else None)
        return result

    async def _store(self, table: L2Table, key: int, index: int, packed: list[tuple[int, bytes]]) -> None:
        while packed:
            places = await self._reserve([blob for _, blob in packed])
            entries = [
                tables.encode_compressed(place, len(blob), self._bits)
                for place, (_, blob) in zip(places, packed, strict=False)
            ]
            try:
                await self._image.event("write_compressed")
                await self._write_blobs(places, [blob for _, blob in packed[: len(places)]])
                await self._image.event("l2_update_compressed")
            except BaseException:
                self._image.ledger.drop(Reason.OTHER, referenced(np.array(entries, np.uint64), self._bits))
                self._tail = -1
                raise
            for entry, (number, _) in zip(entries, packed, strict=False):
                old = table.view[index + number]
                self._space.enter(table, index + number, entry)
                self._space.drop_entries(np.array([old], np.uint64), Reason.OTHER)
                self._image.ledger.mark(Kind.TABLE, key, index + number, index + number + 1)
            packed = packed[len(places) :]

    async def _write_blobs(self, places: list[int], blobs: list[bytes]) -> None:
        start, batch = places[0], [blobs[0]]
        end = start + len(blobs[0])
        for place, blob in zip(places[1:], blobs[1:], strict=True):
            if place != end:
                await self._image.write(start, b"".join(batch))
                start, batch = place, []
            batch.append(blob)
            end = place + len(blob)
        await self._image.write(start, b"".join(batch))

    async def _store_plain(self, table: L2Table, key: int, index: int, data: memoryview) -> None:
        run = await self._image.allocator.take(1)
        token = Reservation(key, index, 1, run.first, table, True)
        table.pins += 1
        try:
            padded = data if run.virgin or len(data) == self._size else bytes(data).ljust(self._size, b"\0")
            await self._image.event("write_aio")
            await self._image.write(run.first << self._bits, padded)
        except BaseException:
            await self._space.abandon(token)
            raise
        self._space.publish(token)

    # --- placing ---------------------------------------------------------------------------------------

    async def _reserve(self, blobs: list[bytes]) -> list[int]:
        """Places for the first (at least one) of the blobs, counted in the refcounts."""
        allocator = self._image.allocator
        await self._image.event("cluster_alloc_bytes")
        async with self._placing:
            while True:
                room = -self._tail % self._size if self._tail >= 0 else 0
                need = (max(0, sum(map(len, blobs)) - room) + self._size - 1) >> self._bits
                first, count, _ = await allocator.take(need) if need else (0, 0, False)
                places, used_to = self._place(blobs, first, count)
                unused = max(first, used_to)
                if unused < first + count:
                    await allocator.give_back(unused, first + count - unused)
                if places:
                    return places
                self._tail = -1

    def _place(self, blobs: list[bytes], first: int, count: int) -> tuple[list[int], int]:
        """Places, and the first cluster after them. Atomic: the tail cannot be dropped meanwhile."""
        if count and (self._tail < 0 or first != self.tail_cluster + 1):
            self._tail = first << self._bits
        if self._tail < 0:
            return [], 0
        limit = (first + count) << self._bits if count else align_up(self._tail, self._size)
        places: list[int] = []
        for blob in blobs:
            place = self._tail
            if place % self._size and not self._has_free_reference(place >> self._bits):
                place = align_up(place, self._size)
            if place + len(blob) > limit:
                break
            if place % self._size:
                # Someone is in this cluster already. The next one, just taken, begins with our reference.
                self._image.refcounts.increase_now(place >> self._bits)
            places.append(place)
            self._tail = place + len(blob)
        used_to = (self._tail + self._size - 1) >> self._bits
        if self._tail % self._size == 0:
            self._tail = -1
        return places, used_to

    def _has_free_reference(self, cluster: int) -> bool:
        count = self._image.refcounts.known(cluster)
        return 0 < count < self._image.geometry.max_refcount
