"""A child seen through a cipher: what is read of it is deciphered, what is written to it enciphered.

A format driver that encrypts answers mappings into such a view instead of the child itself. The request path then
moves bytes, allocates and copies on write as ever, and knows nothing of ciphers. A view is not `plain`, so nobody
goes past it to the storage: no copy by the kernel, no place of ciphertext in block status.

Requests that are no whole sectors never come to `write` (the driver's request alignment); they may come to `read`.
Short ones are done in the loop (15 us for 4 KiB); what takes longer goes to the pool.
"""

from typing import Final

from blockyard.base.ranges import ByteRange
from blockyard.base.units import KIB, MIB
from blockyard.node.formats.ciphers import VECTOR_UNIT, SectorCipher
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import Pool
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping

INLINE_MAX: Final = 64 * KIB
"""A longer request goes to the pool: 45 us for 64 KiB, about what a hop costs."""
PIECE: Final = 1 * MIB
"""Bytes of ciphertext that a write holds beside the guest's."""


class EncryptedChild:
    """`offset` of this view is at `start + offset` of the child, and vectors count from `first_vector` there."""

    plain = False

    def __init__(
        self, child: Child, cipher: SectorCipher, pool: Pool, start: int = 0, first_vector: int = 0
    ) -> None:
        assert start % VECTOR_UNIT == 0
        self._child = child
        self._cipher = cipher
        self._pool = pool
        self._start = start
        self._first = first_vector
        self._mask = cipher.sector_size - 1

    # --- bytes -------------------------------------------------------------------------------------------

    def read_now(self, offset: int, into: memoryview) -> bool:
        if (offset | len(into)) & self._mask or len(into) > INLINE_MAX:
            return False
        if not self._child.read_now(self._start + offset, into):
            return False
        self._cipher.decrypt(self._vector(offset), into)
        return True

    async def read(self, offset: int, into: memoryview) -> None:
        if (offset | len(into)) & self._mask:
            wide = ByteRange(offset, len(into)).widened(self._cipher.sector_size)
            whole = memoryview(bytearray(wide.length))
            await self.read(wide.offset, whole)
            into[:] = whole[offset - wide.offset : offset - wide.offset + len(into)]
            return
        if not self._child.read_now(self._start + offset, into):
            await self._child.read(self._start + offset, into)
        if len(into) <= INLINE_MAX:
            self._cipher.decrypt(self._vector(offset), into)
        else:
            await self._pool.run(self._cipher.decrypt, self._vector(offset), into)

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        if (offset | len(data)) & self._mask or len(data) > INLINE_MAX:
            return False
        return self._child.write_now(
            self._start + offset, self._cipher.encrypt(self._vector(offset), data), flags
        )  # fmt: skip

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        assert not (offset | len(data)) & self._mask, "the request path aligns"
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            piece = view[at : at + PIECE]
            if len(piece) <= INLINE_MAX:
                enciphered = self._cipher.encrypt(self._vector(offset + at), piece)
            else:
                enciphered = await self._pool.run(self._cipher.encrypt, self._vector(offset + at), piece)
            place = self._start + offset + at
            if not self._child.write_now(place, enciphered, flags):
                await self._child.write(place, enciphered, flags)

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        """Zeroes are enciphered like all else."""
        for at in range(offset, offset + length, PIECE):
            await self.write(at, bytes(min(PIECE, offset + length - at)), flags)

    async def discard(self, offset: int, length: int) -> None:
        await self._child.discard(self._start + offset, length)

    def _vector(self, offset: int) -> int:
        return self._first + offset // VECTOR_UNIT

    # --- the child's -------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._child.name

    @property
    def node_name(self) -> str:
        return self._child.node_name

    @property
    def size(self) -> int:
        return max(0, self._child.size - self._start)

    @property
    def read_only(self) -> bool:
        return self._child.read_only

    @property
    def limits(self) -> Limits:
        return self._child.limits

    @property
    def compresses(self) -> bool:
        return False

    @property
    def filename(self) -> str:
        return self._child.filename

    @property
    def listens(self) -> bool:
        return self._child.listens

    async def debug_event(self, event: str) -> None:
        await self._child.debug_event(event)

    async def flush(self) -> None:
        await self._child.flush()

    async def truncate(
        self, size: int, preallocation: Preallocation = Preallocation.OFF, exact: bool = False
    ) -> None:
        await self._child.truncate(self._start + size, preallocation, exact)

    async def map(self, offset: int, length: int) -> Mapping:
        """All of it is data, whatever the child has there."""
        return Mapping(MapKind.DATA, length, None, offset, True)

    async def reads_as_zeroes(self, offset: int, length: int) -> tuple[bool, int]:
        return False, length

    def populated_now(self, offset: int, length: int) -> bool:
        return self._child.populated_now(self._start + offset, length)

    async def populate(self, offset: int, length: int, bottom: str = "") -> int:
        return await self._child.populate(self._start + offset, length, bottom)

    @property
    def snapshot_size(self) -> int:
        return -1

    async def read_snapshot(self, offset: int, into: memoryview) -> None:
        raise AssertionError("a view offers no point in time")

    async def map_snapshot(self, offset: int, length: int) -> Mapping:
        raise AssertionError("a view offers no point in time")

    async def discard_snapshot(self, offset: int, length: int) -> None:
        raise AssertionError("a view offers no point in time")
