"""A LUKS header where it lies: at an offset of a child, with its key material behind it.

Everything that is read is bounded: 4 KiB first, then what the version's codec allows.
"""

from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import FormatMismatch, ImageCorrupt
from blockyard.base.ranges import ByteRange
from blockyard.node.formats.luks import luks1, luks2
from blockyard.node.formats.luks.volume import Volume
from blockyard.node.interface.child import Child

_FIRST: Final = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Where a header is."""

    child: Child
    offset: int
    room: int
    """Bytes there that may be the header's."""
    image: str
    """Name for messages."""
    detached: bool = False
    """The payload is in another file."""
    inside: bool = False
    """Of a qcow2 image."""

    async def read(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        await self.child.read(self.offset + offset, memoryview(data))
        return bytes(data)

    async def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= self.room, "a header stays in its room"
        await self.child.write(self.offset + offset, data)

    async def flush(self) -> None:
        await self.child.flush()

    def at(self, area: ByteRange) -> tuple[int, int]:
        """Where an area of the header is in the child."""
        return self.offset + area.offset, area.length


@dataclass(slots=True)
class Header:
    """A header that was read and judged."""

    place: Place
    volume: Volume
    copy: luks2.Copy | None = None
    """Of LUKS2: the state that counts."""
    broken: bool = False
    """Of LUKS2: one of the two copies is damaged or old, and to be written anew."""
    fresh: bool = False
    """It is about to be written for the first time."""


async def read(place: Place) -> Header:
    """Raises FormatMismatch, ImageCorrupt or UnsupportedFeature."""
    first = await place.read(0, min(_FIRST, place.room))
    if luks1.looks_like(first) == 1:
        volume = luks1.decode(
            first[: luks1.SIZE], place.image, place.room, detached=place.detached, inside=place.inside
        )
        return Header(place, volume)
    if place.inside:
        raise ImageCorrupt(place.image, "encryption header", "LUKS version 1", repr(first[:8]))
    return await _read_second_version(place, first)


async def _read_second_version(place: Place, first: bytes) -> Header:
    copies = [await _copy_at(place, 0, first)]
    sizes = (copies[0].size,) if copies[0] is not None else luks2.COPY_SIZES
    for at in sizes:
        if at + luks2.BINARY_BYTES <= place.room:
            found = await _copy_at(place, at, await place.read(at, luks2.BINARY_BYTES))
            if found is not None:
                copies.append(found)
                break
    good = [copy for copy in copies if copy is not None]
    if not good:
        if luks1.looks_like(first) != 2:
            raise FormatMismatch(place.image, "luks", f"it begins with {first[:8]!r}")
        raise ImageCorrupt(place.image, "header", "a whole one of two copies", "none whose checksum is right")
    newest = max(good, key=lambda copy: copy.sequence)
    same = len(good) == 2 and good[0].sequence == good[1].sequence
    volume = luks2.volume_of(newest, place.image, place.room, detached=place.detached)
    return Header(place, volume, newest, broken=not same)


async def _copy_at(place: Place, at: int, binary: bytes) -> luks2.Copy | None:
    size = luks2.copy_size(binary, at)
    if not size or at + size > place.room:
        return None
    return luks2.decode_copy(await place.read(at, size), at)


async def write_copies(header: Header, copy: luks2.Copy) -> None:
    """Make a state of LUKS2 the one that counts: one copy, flush, the other. One is whole at any moment.

    Durable when it returns; the second copy is after the next flush.
    """
    place = header.place
    # Of a new header the first copy comes last: with it the file is a volume.
    first, second = (copy.size, 0) if header.fresh else (0, copy.size)
    await place.write(first, luks2.encode_copy(copy, first, place.image))
    await place.flush()
    await place.write(second, luks2.encode_copy(copy, second, place.image))
    header.copy, header.broken, header.fresh = copy, False, False
    header.volume = luks2.volume_of(copy, place.image, place.room, detached=place.detached)


async def mend(header: Header) -> None:
    """Write a damaged or old copy of LUKS2 anew, from the one that counts."""
    if header.copy is not None and header.broken:
        copy, place = header.copy, header.place
        # The one that is whole last: it may be either.
        whole_first = await _copy_at(place, 0, await place.read(0, luks2.BINARY_BYTES)) == copy
        for at in (copy.size, 0) if whole_first else (0, copy.size):
            await place.write(at, luks2.encode_copy(copy, at, place.image))
            await place.flush()
        header.broken = False
