"""DataService: bytes in and out of nodes. The pipelined session is in `session`.

Every call holds its node by an edge of its own, which is given back whatever happens to the call. A chunk is tried
inline first; a task or a thread is only taken when the driver would block.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from blockyard.base.errors import AttachmentReadOnly, InvalidArgument
from blockyard.base.units import KIB, MIB
from blockyard.node.core.accounting import BLOCK_STATUS, READ
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.chain import descends
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.status import Extent
from blockyard.node.graph.temporary import borrowed, borrowed_to_write
from blockyard.node.graph.user import User
from blockyard.node.interface.flags import COMPRESSED, FUA, MAY_UNMAP, NO_FALLBACK
from blockyard.node.rpc.attachment_words import check_one
from blockyard.node.rpc.pieces import Piece
from blockyard.node.rpc.session import SessionLimits, serve_session
from blockyard.node.rpc.traced import spare_after
from blockyard.v1 import data_pb2 as data
from blockyard.v1.data_pb2_grpc import DataServiceServicer

CHUNK: Final = 256 * KIB
"""Default piece of a stream: the measured sweet spot of grpc.aio (design, section 5)."""
MIN_CHUNK: Final = 4 * KIB
MAX_CHUNK: Final = 1 * MIB
MAX_EXTENTS: Final = 10_000
DEFAULT_EXTENTS: Final = 1000
_ZEROES: Final = bytes(MAX_CHUNK)


class DataServicer(DataServiceServicer):
    """Bytes of the graph's nodes."""

    def __init__(self, graph: Graph, attachments: Attachments, limits: SessionLimits) -> None:
        self._graph = graph
        self._attachments = attachments
        self._limits = limits

    async def Read(self, request: data.ReadRequest, context: Any) -> AsyncIterator[data.ReadResponse]:  # noqa: N802
        chunk = _within("chunk_bytes", request.chunk_bytes or CHUNK, MIN_CHUNK, MAX_CHUNK)
        async with self._used(request, "Read") as user:
            offset, length = request.offset_bytes, _length(user, request, READ)
            user.check_blocks(offset, length)
            if request.prefetch:
                copied = await user.populate(offset, length)
                yield data.ReadResponse(offset_bytes=offset, zero_length_bytes=copied)
                return
            buffer, count = memoryview(bytearray(min(chunk, length))), 0
            # Zeroes of a backing chain are stored too, so nothing is passed over then.
            sparse = request.sparse and not request.copy_on_read
            async for start, end, zero in _stretches(user, offset, length, sparse):
                if zero:
                    yield data.ReadResponse(offset_bytes=start, zero_length_bytes=end - start)
                    continue
                for position in range(start, end, chunk):
                    spare_after(count)
                    count += 1
                    part = buffer if end - position >= len(buffer) else buffer[: end - position]
                    if request.copy_on_read:
                        await user.populate(position, len(part))
                    if not user.read_now(position, part):
                        await user.read(position, part)
                    yield _piece(position, bytes(part), request.sparse)

    async def Write(self, requests: AsyncIterator[Piece], context: Any) -> data.WriteResponse:  # noqa: N802
        stream = aiter(requests)
        first = await anext(stream, None)
        if first is None:
            raise InvalidArgument("node_name", "a first message that names the node", "an empty stream")
        flags = COMPRESSED if first.compressed else 0
        async with self._used(first, "Write", writable=True) as user:
            written, count = await _write_piece(user, first, flags), 1
            async for request in stream:
                spare_after(count)
                written, count = written + await _write_piece(user, request, flags), count + 1
            if first.fua:
                await user.flush()
        return data.WriteResponse(written_bytes=written)

    async def WriteZeroes(self, request: data.WriteZeroesRequest, context: Any) -> data.WriteZeroesResponse:  # noqa: N802
        flags = FUA * request.fua | MAY_UNMAP * request.may_unmap | NO_FALLBACK * request.no_fallback
        async with self._used(request, "WriteZeroes", writable=True) as user:
            user.check_blocks(request.offset_bytes, request.length_bytes)
            await user.zero(request.offset_bytes, request.length_bytes, flags)
        return data.WriteZeroesResponse()

    async def Discard(self, request: data.DiscardRequest, context: Any) -> data.DiscardResponse:  # noqa: N802
        async with self._used(request, "Discard", writable=True) as user:
            user.check_blocks(request.offset_bytes, request.length_bytes)
            await user.discard(request.offset_bytes, request.length_bytes)
        return data.DiscardResponse()

    async def Flush(self, request: data.FlushRequest, context: Any) -> data.FlushResponse:  # noqa: N802
        async with self._used(request, "Flush") as user:
            if request.level == data.FLUSH_LEVEL_OS:
                await user.flush_to_os()
                return data.FlushResponse()
            return data.FlushResponse(skipped=not await user.flushed())

    async def BlockStatus(  # noqa: N802
        self, request: data.BlockStatusRequest, context: Any
    ) -> AsyncIterator[data.BlockStatusResponse]:
        count = _within("max_results", request.max_results or DEFAULT_EXTENTS, 1, MAX_EXTENTS)
        with borrowed(self._graph, request.node_name, "BlockStatus", writable=False) as user:
            base = self._graph.get(request.base_node_name) if request.base_node_name else None
            if base is not None and not descends(user.node, base):
                raise InvalidArgument("base_node_name", f"a node below {user.node.name}", repr(base.name))
            offset, length = request.offset_bytes, _length(user, request, BLOCK_STATUS)
            end, size = offset + length, user.size
            while offset < end:
                extents = await user.block_status(offset, end - offset, count, base, request.allocation_only)
                yield data.BlockStatusResponse(extents=map(_extent, extents), size_bytes=size)
                offset = extents[-1].offset + extents[-1].length
            if not length:
                yield data.BlockStatusResponse(size_bytes=size)

    async def IoSession(self, requests: AsyncIterator[data.IoSessionRequest], context: Any) -> None:  # noqa: N802
        await serve_session(self._graph, self._attachments, requests, context.write, self._limits)

    @asynccontextmanager
    async def _used(self, request: Any, call: str, *, writable: bool = False) -> AsyncIterator[User]:
        """The edge for one call, of its own or its attachment's."""
        check_one(request)
        if not request.attachment and writable:
            async with borrowed_to_write(self._graph, request.node_name, call) as own:
                yield own
            return
        if not request.attachment:
            with borrowed(self._graph, request.node_name, call, writable=False) as own:
                yield own
            return
        with self._attachments.used(request.attachment, f"call/{call}") as shared:
            if writable and not shared.writable:
                raise AttachmentReadOnly(request.attachment)
            yield shared


def _length(user: User, request: data.ReadRequest | data.BlockStatusRequest, kind: int) -> int:
    """The length asked for; 0 is to the end. Raises RangeOutside."""
    length = request.length_bytes or max(0, user.size - request.offset_bytes)
    user.check(request.offset_bytes, length, kind)
    return length


async def _stretches(user: User, offset: int, length: int, sparse: bool) -> AsyncIterator[tuple[int, int, bool]]:
    """Start and end of stretches, and whether they are known to read as zeroes."""
    end = offset + length
    if not sparse:
        yield offset, end, False
        return
    while offset < end:
        for extent in await user.block_status(offset, end - offset, DEFAULT_EXTENTS):
            yield extent.offset, extent.offset + extent.length, extent.zero
            offset = extent.offset + extent.length


def _piece(offset: int, content: bytes, sparse: bool) -> data.ReadResponse:
    if sparse and content == (_ZEROES if len(content) == len(_ZEROES) else _ZEROES[: len(content)]):
        return data.ReadResponse(offset_bytes=offset, zero_length_bytes=len(content))
    return data.ReadResponse(offset_bytes=offset, data=content)


async def _write_piece(user: User, piece: Piece, flags: int) -> int:
    content = piece.data
    user.check_blocks(piece.offset, piece.zero_length if content is None else len(content))
    if content is None:
        await user.zero(piece.offset, piece.zero_length, MAY_UNMAP)
        return piece.zero_length
    if len(content) > MAX_CHUNK:
        raise InvalidArgument("data", f"at most {MAX_CHUNK} bytes", str(len(content)))
    if not user.write_now(piece.offset, content, flags):
        await user.write(piece.offset, content, flags)
    return len(content)


def _extent(extent: Extent) -> data.BlockExtent:
    return data.BlockExtent(
        offset_bytes=extent.offset,
        length_bytes=extent.length,
        allocated=extent.allocated,
        zero=extent.zero,
        data=extent.data,
        compressed=extent.compressed,
        depth=extent.depth,
        node_name=extent.node_name,
        host_offset_bytes=extent.host_offset,
    )


def _within(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise InvalidArgument(name, f"{least} to {most}", str(value))
    return value
