"""A disk's content chunk by chunk, with hashes: what is known to be zero is not read, all else goes to the pool.

The common part of checksum and scrub. Reading of one batch and hashing of the one before go on at the same time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from blockyard.base.errors import BlockError, InvalidArgument
from blockyard.base.ranges import is_power_of_two
from blockyard.base.units import MIB
from blockyard.node.formats import checksums
from blockyard.node.formats.checksums import HASH_BYTES, Shape
from blockyard.node.graph.contents import Side, is_zero
from blockyard.node.graph.internal_snapshots import confirm, definition_of_snapshot, image_of
from blockyard.node.graph.temporary import temporary
from blockyard.node.graph.user import User
from blockyard.node.interface.permissions import ALL, CONSISTENT_READ, RESIZE, WRITE, Permissions

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node
    from blockyard.node.interface.driver import Pool

BATCH: Final = 4 * MIB
"""Bytes read and hashed at a time (or one chunk, if that is longer): two batches are in memory."""
_STILL: Final = Permissions(CONSISTENT_READ, ALL & ~(WRITE | RESIZE))
"""A checksum is of one content: nobody writes meanwhile."""


class Stretch(NamedTuple):
    """Chunks one behind another, alike in how they are known."""

    first: int
    chunks: int
    hashes: bytes
    """Of each; empty if all are zeroes, or if they could not be read."""
    problem: str = ""
    """Why they could not be read."""


def check_chunk(chunk: int) -> int:
    """The chunk size that is meant. Raises InvalidArgument."""
    chunk = chunk or checksums.DEFAULT_CHUNK
    if not is_power_of_two(chunk) or not checksums.MIN_CHUNK <= chunk <= checksums.MAX_CHUNK:
        expected = f"a power of two from {checksums.MIN_CHUNK} to {checksums.MAX_CHUNK}"
        raise InvalidArgument("chunk_bytes", expected, str(chunk))
    return chunk


@asynccontextmanager
async def still(graph: "Graph", node: "Node", snapshot: str, call: str) -> AsyncIterator[User]:
    """The disk, or one of its snapshots, while nobody writes to it. Raises PermissionConflict with who does."""
    if not snapshot:
        user = User("call", call, node, False, _STILL)
        try:
            yield user
        finally:
            user.detach()
        return
    found = image_of(node).snapshot_named(snapshot)
    async with temporary(graph, definition_of_snapshot(node, found, "")) as shown:
        await confirm(graph, shown)
        user = User("call", call, shown, False, _STILL)
        try:
            yield user
        finally:
            user.detach()


class Hasher:
    """Goes over one disk once."""

    def __init__(self, user: User, shape: Shape, pool: "Pool") -> None:
        self._user = user
        self._side = Side(user)
        self._shape = shape
        self._pool = pool
        self._per_batch = max(1, BATCH // shape.chunk)

    async def stretches(self, *, tolerant: bool = False) -> AsyncIterator[Stretch]:
        """All chunks in order. `tolerant`: what cannot be read is told as that, not raised."""
        waiting: asyncio.Future[Stretch] | None = None
        try:
            position = 0
            while position < self._shape.chunks:
                count, zero = await self._ahead(position)
                if zero:
                    if waiting is not None:
                        yield await waiting
                        waiting = None
                    yield Stretch(position, count, b"")
                    position += count
                    continue
                count = min(count, self._per_batch)
                done, waiting = waiting, asyncio.ensure_future(self.hashed(position, count, tolerant))
                if done is not None:
                    yield await done
                position += count
            if waiting is not None:
                yield await waiting
                waiting = None
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.wait((waiting,))

    async def _ahead(self, first: int) -> tuple[int, bool]:
        """How many chunks from the first on are known to be zero, or else are not."""
        chunk, size = self._shape.chunk, self._shape.size
        start = offset = first * chunk
        zero_to = offset
        while offset < size:
            length, extent = await self._side.at(offset, size)
            offset += length
            if not is_zero(extent):
                break
            zero_to = offset
        if zero_to == size:
            return self._shape.chunks - first, True
        if zero_to - start >= chunk:
            return (zero_to - start) // chunk, True
        # At least one chunk, and as far as the extent goes that has data.
        return max(1, (offset - start) // chunk), False

    async def hashed(self, first: int, count: int, tolerant: bool) -> Stretch:
        """So many chunks, read and hashed."""
        chunk = self._shape.chunk
        data = memoryview(bytearray(count * chunk))
        inside = min(len(data), self._shape.size - first * chunk)
        try:
            await self._read(first * chunk, data[:inside])
        except BlockError as problem:
            if not tolerant:
                raise
            return Stretch(first, count, b"", str(problem))
        return Stretch(first, count, await self._pool.run(_hash_all, data, chunk))

    async def _read(self, offset: int, into: memoryview) -> None:
        if not self._user.read_now(offset, into):
            await self._user.read(offset, into)


def _hash_all(data: memoryview, chunk: int) -> bytes:
    """On the pool."""
    found = bytearray()
    for at in range(0, len(data), chunk):
        found += checksums.hash_chunk(data[at : at + chunk])
    assert len(found) * chunk == len(data) * HASH_BYTES
    return bytes(found)
