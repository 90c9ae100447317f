"""Bytes on their way: pieces of data or zeroes, from buffers, files and streams, and into files.

What lives here: cutting into chunks, finding holes and zeroes, writing sparse files. What must not: calls.
Reading and writing files happens on threads, a MiB at a time, so that a slow disk or pipe does not stop the
loop; the hop costs about 50 us and is shared by four chunks.
"""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from blockyard.base.units import KIB, MIB

CHUNK: Final = 256 * KIB
"""Bytes per message; measured best between 64 KiB and 1 MiB."""

BLOCK: Final = MIB
"""Bytes per trip to a thread."""

_ZEROES: Final = bytes(CHUNK)


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes at an offset; `data` is None for zeroes."""

    offset: int
    length: int
    data: bytes | None


def is_zero(data: bytes) -> bool:
    """Whether all bytes are zero (a memcmp, 49 GB/s)."""
    return data == (_ZEROES if len(data) == CHUNK else bytes(len(data)))


def cut(data: bytes | bytearray | memoryview, offset: int, sparse: bool) -> Iterator[Piece]:
    """A buffer as pieces of at most a chunk. With `sparse`, chunks of zeroes carry no data."""
    view = memoryview(data).cast("B")
    for start in range(0, len(view), CHUNK):
        chunk = bytes(view[start : start + CHUNK])
        yield Piece(offset + start, len(chunk), None if sparse and is_zero(chunk) else chunk)


async def from_buffer(data: bytes | bytearray | memoryview, offset: int, sparse: bool) -> AsyncIterator[Piece]:
    """Pieces of a buffer in memory."""
    for piece in cut(data, offset, sparse):
        yield piece


async def from_stream(
    source: BinaryIO, offset: int, sparse: bool = True, limit: int | None = None
) -> AsyncIterator[Piece]:
    """Pieces of a pipe or any readable object until its end, or until `limit` bytes."""
    position, left = offset, limit
    while left is None or left > 0:
        wanted = BLOCK if left is None else min(BLOCK, left)
        block = await asyncio.to_thread(_read_fully, source, wanted)
        for piece in cut(block, position, sparse):
            yield piece
        position += len(block)
        left = None if left is None else left - len(block)
        if len(block) < wanted:
            return


async def from_file(path: Path, offset: int = 0, sparse: bool = True) -> AsyncIterator[Piece]:
    """Pieces of a file. Its holes are passed on as zeroes without being read; a pipe is read to its end."""
    with path.open("rb") as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            async for piece in from_stream(source, offset, sparse):
                yield piece
            return
        position, size = 0, os.fstat(source.fileno()).st_size
        while position < size:
            start = await asyncio.to_thread(_next_data, source.fileno(), position, size) if sparse else position
            if start > position:
                yield Piece(offset + position, start - position, None)
                position = start
                continue
            end = await asyncio.to_thread(_next_hole, source.fileno(), position, size) if sparse else size
            async for piece in _data(source.fileno(), position, end, offset, sparse):
                yield piece
            position = end


async def _data(descriptor: int, start: int, end: int, offset: int, sparse: bool) -> AsyncIterator[Piece]:
    while start < end:
        block = await asyncio.to_thread(os.pread, descriptor, min(BLOCK, end - start), start)
        if not block:
            return  # the file became shorter under us
        for piece in cut(block, offset + start, sparse):
            yield piece
        start += len(block)


async def to_file(
    pieces: AsyncIterable[Piece], path: Path, origin: int, observe: Callable[[Piece], None] = lambda piece: None
) -> int:
    """Write pieces to a file of their own, the byte `origin` at its start; zeroes become holes. Its size."""
    end = 0
    with path.open("wb") as sink:
        async for piece in pieces:
            position = piece.offset - origin
            end = max(end, position + piece.length)
            if piece.data is not None:
                await asyncio.to_thread(_write_fully, sink.fileno(), piece.data, position)
            observe(piece)
        await asyncio.to_thread(os.ftruncate, sink.fileno(), end)
    return end


async def to_stream(
    pieces: AsyncIterable[Piece], sink: BinaryIO, observe: Callable[[Piece], None] = lambda piece: None
) -> int:
    """Write pieces to a pipe, zeroes as bytes. How many bytes."""
    total = 0
    async for piece in pieces:
        if piece.data is not None:
            await asyncio.to_thread(sink.write, piece.data)
        else:
            await asyncio.to_thread(_write_zeroes, sink, piece.length)
        total += piece.length
        observe(piece)
    await asyncio.to_thread(sink.flush)
    return total


def _read_fully(source: BinaryIO, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0:
        part = source.read(length)
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_fully(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


def _write_zeroes(sink: BinaryIO, length: int) -> None:
    while length > 0:
        sink.write(_ZEROES[: min(length, CHUNK)])
        length -= CHUNK


def _next_data(descriptor: int, position: int, size: int) -> int:
    try:
        return min(os.lseek(descriptor, position, os.SEEK_DATA), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size  # nothing but a hole up to the end
        return position  # a file system that knows no holes


def _next_hole(descriptor: int, position: int, size: int) -> int:
    try:
        return min(os.lseek(descriptor, position, os.SEEK_HOLE), size)
    except OSError:
        return size
