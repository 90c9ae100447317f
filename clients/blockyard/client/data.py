"""Bytes of nodes: `client.data`. With `attachment` and an empty node name calls go through an attachment."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO

from blockyard.client.calls import Service
from blockyard.client.pieces import CHUNK, Piece, from_buffer, from_file, from_stream
from blockyard.client.session import IoSession
from blockyard.client.words import to_number
from blockyard.v1 import data_pb2 as data


class Data:
    """Reads and writes nodes. Ranges are bytes of any alignment; a length of 0 reads to the end."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def pieces(
        self,
        node_name: str,
        offset: int = 0,
        length: int = 0,
        *,
        sparse: bool = True,
        chunk_bytes: int = CHUNK,
        copy_on_read: bool = False,
        attachment: str = "",
        timeout: float | None = None,
    ) -> AsyncIterator[Piece]:
        """A range as pieces in order; with `sparse`, zero ranges come without data.

        `copy_on_read` stores in the node what its backing chain gives.
        """
        request = data.ReadRequest(
            node_name=node_name,
            offset_bytes=offset,
            length_bytes=length,
            chunk_bytes=chunk_bytes,
            sparse=sparse,
            copy_on_read=copy_on_read,
            attachment=attachment,
        )
        async for response in self._service.stream("Read", request, data.ReadResponse, timeout):
            if response.WhichOneof("content") == "zero_length_bytes":
                yield Piece(response.offset_bytes, response.zero_length_bytes, None)
            else:
                yield Piece(response.offset_bytes, len(response.data), response.data)

    async def prefetch(
        self,
        node_name: str,
        offset: int = 0,
        length: int = 0,
        *,
        attachment: str = "",
        timeout: float | None = None,
    ) -> int:
        """Store in a node what its backing chain gives of a range; how many bytes were stored. None comes here."""
        request = data.ReadRequest(
            node_name=node_name, offset_bytes=offset, length_bytes=length, prefetch=True, attachment=attachment
        )
        replies = self._service.stream("Read", request, data.ReadResponse, timeout)
        return sum([reply.zero_length_bytes async for reply in replies])

    async def read(
        self,
        node_name: str,
        offset: int = 0,
        length: int = 0,
        *,
        copy_on_read: bool = False,
        attachment: str = "",
        timeout: float | None = None,
    ) -> bytes:
        """A range as bytes in memory; `copy_on_read` stores in the node what its backing chain gives."""
        parts = [
            bytes(piece.length) if piece.data is None else piece.data
            async for piece in self.pieces(
                node_name, offset, length, copy_on_read=copy_on_read, attachment=attachment, timeout=timeout
            )
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(
        self,
        node_name: str,
        offset: int,
        content: bytes | bytearray | memoryview | Path | BinaryIO,
        *,
        sparse: bool = False,
        fua: bool = False,
        compressed: bool = False,
        attachment: str = "",
        timeout: float | None = None,
    ) -> int:
        """Write a buffer, a file or a readable stream; how many bytes. With `sparse`, zeroes travel as lengths."""
        if isinstance(content, Path):
            pieces = from_file(content, offset, sparse)
        elif isinstance(content, bytes | bytearray | memoryview):
            pieces = from_buffer(content, offset, sparse)
        else:
            pieces = from_stream(content, offset, sparse)
        return await self.write_pieces(
            node_name, pieces, fua=fua, compressed=compressed, attachment=attachment, timeout=timeout
        )

    async def write_pieces(
        self,
        node_name: str,
        pieces: AsyncIterable[Piece],
        *,
        fua: bool = False,
        compressed: bool = False,
        attachment: str = "",
        timeout: float | None = None,
    ) -> int:
        """Write pieces in any order. After an error any of them may be written."""
        first = data.WriteRequest(node_name=node_name, fua=fua, compressed=compressed, attachment=attachment)
        requests = _requests(first, pieces)
        return (await self._service.upload("Write", requests, data.WriteResponse, timeout)).written_bytes

    async def write_zeroes(
        self,
        node_name: str,
        offset: int,
        length: int,
        *,
        may_unmap: bool = False,
        no_fallback: bool = False,
        fua: bool = False,
        attachment: str = "",
        timeout: float | None = None,
    ) -> None:
        """Make a range read as zeroes."""
        request = data.WriteZeroesRequest(
            node_name=node_name,
            offset_bytes=offset,
            length_bytes=length,
            may_unmap=may_unmap,
            no_fallback=no_fallback,
            fua=fua,
            attachment=attachment,
        )
        await self._service.unary("WriteZeroes", request, data.WriteZeroesResponse, timeout)

    async def discard(
        self, node_name: str, offset: int, length: int, *, attachment: str = "", timeout: float | None = None
    ) -> None:
        """Tell that a range is not needed."""
        request = data.DiscardRequest(
            node_name=node_name, offset_bytes=offset, length_bytes=length, attachment=attachment
        )
        await self._service.unary("Discard", request, data.DiscardResponse, timeout)

    async def flush(
        self, node_name: str, *, level: str = "disk", attachment: str = "", timeout: float | None = None
    ) -> bool:
        """Make what was acknowledged durable; whether there was anything to do."""
        number = to_number(data.FlushLevel, level, "level")
        request = data.FlushRequest(node_name=node_name, level=number, attachment=attachment)
        return not (await self._service.unary("Flush", request, data.FlushResponse, timeout)).skipped

    async def block_status(
        self,
        node_name: str,
        offset: int = 0,
        length: int = 0,
        *,
        base_node_name: str = "",
        allocation_only: bool = False,
    ) -> AsyncIterator[data.BlockExtent]:
        """Where data is, in order; with a base only what is allocated above it counts.

        `allocation_only`: what is allocated, and where; the files below are not asked for their holes.
        """
        request = data.BlockStatusRequest(
            node_name=node_name,
            offset_bytes=offset,
            length_bytes=length,
            base_node_name=base_node_name,
            allocation_only=allocation_only,
        )
        async for response in self._service.stream("BlockStatus", request, data.BlockStatusResponse):
            for extent in response.extents:
                yield extent

    def session(
        self, node_name: str, *, max_in_flight: int = 64, client_name: str = "", attachment: str = ""
    ) -> IoSession:
        """A session of many requests on one stream; use it with `async with`."""
        call = self._service.duplex("IoSession", data.IoSessionResponse)
        return IoSession(call, node_name, max_in_flight, client_name, self._service.settings, attachment)


async def _requests(
    opening: data.WriteRequest, pieces: AsyncIterable[Piece]
) -> AsyncGenerator[data.WriteRequest, None]:
    first: data.WriteRequest | None = opening
    try:
        async for piece in pieces:
            request, first = first or data.WriteRequest(), None
            request.offset_bytes = piece.offset
            if piece.data is None:
                request.zero_length_bytes = piece.length
            else:
                request.data = piece.data
            yield request
        if first is not None:
            yield first
    finally:
        # A source that is not read to its end lets go of its file now, not when it is found to be garbage.
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
