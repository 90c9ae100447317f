"""A copy-on-write format of a few lines for the request path: clusters, a map in memory, nothing on disk but data.

It is honest where drivers are tempted not to be: metadata is "not loaded" as its random numbers say, an allocation
takes time and covers only a part, a freed place is overwritten with poison and used again at once. It asserts that
no two allocations of one cluster meet and that each is committed or abandoned once.
"""

import asyncio
import random
import zlib
from dataclasses import dataclass
from typing import Self

from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import ChildSlot, DriverContext, FormatDriver
from blockyard.node.interface.flags import Preallocation, Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Allocation, MapKind, Mapping

POISON = b"\xee"


@dataclass(frozen=True, slots=True)
class ToyCowOptions:
    """Options of the test driver `toycow`."""

    size: int
    cluster: int = 4096
    alignment: int = 1
    loaded: float = 0.6
    """Share of look-ups that find the metadata in memory."""
    seed: int = 1


@dataclass(slots=True)
class _Place:
    """What a cluster is. `packed` > 0: so many compressed bytes lie there."""

    host: int
    writable: bool = True
    packed: int = 0
    zero: bool = False


class ToyCowDriver(FormatDriver):
    """Clusters that are copied when they are first written."""

    name = "toycow"
    Options = ToyCowOptions
    children = (ChildSlot("file", Role.FILE), ChildSlot("backing", Role.BACKING, required=False))

    def __init__(self, options: ToyCowOptions, context: DriverContext) -> None:
        self.options = options
        self.size = options.size
        self.unit = options.cluster
        self.limits = Limits(
            request_alignment=options.alignment,
            allocation_unit=self.unit,
            zero_alignment=self.unit,
            discard_alignment=self.unit,
        )
        self.file: Child = context.children["file"]
        self.numbers = random.Random(options.seed)
        self.places: dict[int, _Place] = {}
        self.pending: set[int] = set()
        self.free: list[int] = []
        self.end = 0
        self.fails_to_allocate: Exception | None = None

    @classmethod
    async def open(cls, options: ToyCowOptions, context: DriverContext) -> Self:
        return cls(options, context)

    # --- where bytes are ---------------------------------------------------------------------------------

    def lookup(self, offset: int, length: int) -> Mapping | None:
        assert 0 <= offset < self.size and offset + length <= self._whole_size(), (offset, length, self.size)
        if self.numbers.random() >= self.options.loaded:
            return None
        return self._look(offset, length)

    async def map(self, offset: int, length: int) -> Mapping:
        assert 0 <= offset < self.size, (offset, self.size)
        await self._pause()
        return self._look(offset, length)

    def _look(self, offset: int, length: int) -> Mapping:
        index, within = divmod(offset, self.unit)
        length = min(length, self.unit - within)
        place = self.places.get(index)
        if place is None:
            return Mapping(MapKind.BACKING, length)
        if place.zero:
            return Mapping(MapKind.ZERO, length)
        if place.packed:
            return Mapping(MapKind.ENCODED, length)
        return Mapping(MapKind.DATA, length, self.file, place.host + within, place.writable)

    async def read_encoded(self, offset: int, into: memoryview) -> None:
        index, within = divmod(offset, self.unit)
        place = self.places[index]
        packed = bytearray(place.packed)
        await self.file.read(place.host, memoryview(packed))
        into[:] = zlib.decompress(packed)[within : within + len(into)]

    # --- making room -------------------------------------------------------------------------------------

    async def allocate(self, offset: int, length: int, flags: int) -> Allocation:
        first = offset // self.unit
        last = (offset + length - 1) // self.unit
        wanted = range(first, self.numbers.randint(first, last) + 1)
        assert self.pending.isdisjoint(wanted), "two allocations of one cluster meet"
        self.pending.update(wanted)
        try:
            await self._pause()
            if self.fails_to_allocate is not None:
                raise self.fails_to_allocate
        except BaseException:
            self.pending.difference_update(wanted)
            raise
        if len(wanted) == 1 and self.free:
            host = self.free.pop(0)
        else:
            host, self.end = self.end, self.end + len(wanted) * self.unit
        return Allocation(first * self.unit, len(wanted) * self.unit, self.file, host, wanted)

    async def commit(self, allocation: Allocation) -> None:
        wanted = allocation.token
        assert isinstance(wanted, range) and self.pending.issuperset(wanted)
        self.pending.difference_update(wanted)
        old = [self.places.get(index) for index in wanted]
        for count, index in enumerate(wanted):
            self.places[index] = _Place(allocation.offset + count * self.unit)
        await self._pause()
        for place in old:
            await self._release(place)

    async def abandon(self, allocation: Allocation) -> None:
        wanted = allocation.token
        assert isinstance(wanted, range) and self.pending.issuperset(wanted)
        self.pending.difference_update(wanted)
        for count in range(len(wanted)):
            await self._release(_Place(allocation.offset + count * self.unit))

    async def write_compressed(self, offset: int, data: Buffer) -> bool:
        view = memoryview(data)
        if self.numbers.random() < 0.2:
            return False
        contents = [bytes(view[start : start + self.unit]) for start in range(0, len(view), self.unit)]
        blobs = [zlib.compress(content.ljust(self.unit, b"\0")) for content in contents]
        if any(len(packed) > self.unit for packed in blobs):
            return False
        for index, packed in enumerate(blobs, offset // self.unit):
            assert index not in self.pending
            host = self.free.pop(0) if self.free else self._more()
            await self.file.write(host, packed)
            old = self.places.get(index)
            self.places[index] = _Place(host, writable=False, packed=len(packed))
            await self._release(old)
        return True

    # --- the rest ----------------------------------------------------------------------------------------

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        await self._pause()
        if self.numbers.random() < 0.2:
            return False
        await self._set(offset, length, _Place(-1, zero=True))
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self._pause()
        await self._set(offset, length, None)

    async def _set(self, offset: int, length: int, place: _Place | None) -> None:
        assert offset % self.unit == 0
        for index in range(offset // self.unit, -(-(offset + length) // self.unit)):
            assert index not in self.pending
            old = self.places.pop(index, None)
            if place is not None:
                self.places[index] = place
            await self._release(old)

    async def flush(self) -> None:
        await self.file.flush()

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        await self._pause()
        cut = [index for index in self.places if index * self.unit >= size]
        within, last = size % self.unit, self.places.get(size // self.unit)
        if size < self.size and within and last is not None and not last.zero:
            assert last.writable, "a cluster that is shared or packed cannot be cut here"
            await self.file.write(last.host + within, bytes(self.unit - within))
        self.size = size
        for index in cut:
            await self._release(self.places.pop(index))

    def share(self) -> None:
        """As an internal snapshot does: no present place may be overwritten."""
        for place in self.places.values():
            place.writable = False

    def _more(self) -> int:
        self.end += self.unit
        return self.end - self.unit

    async def _release(self, place: _Place | None) -> None:
        if place is None or place.zero or (not place.writable and not place.packed):
            return
        await self.file.write(place.host, POISON * self.unit)
        self.free.append(place.host)

    def _whole_size(self) -> int:
        """Aligned requests may reach to the end of the last unit of alignment."""
        return -(-self.size // self.options.alignment) * self.options.alignment

    async def _pause(self) -> None:
        for _ in range(self.numbers.randrange(4)):
            await asyncio.sleep(0)
