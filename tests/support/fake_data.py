"""DataService in memory: ranges are checked, chunks are honoured, a session counts its credits.

Must not know how clients work; the session records what it saw, so that tests can judge them.
"""

import asyncio
from typing import TYPE_CHECKING

from google.rpc import code_pb2

from blockyard.base.errors import BlockError, InvalidArgument
from blockyard.v1 import data_pb2, data_pb2_grpc

if TYPE_CHECKING:
    from tests.support.fake_services import FakeGraph, FakeNode

BLOCK = 4096


class FakeData(data_pb2_grpc.DataServiceServicer):
    """Bytes of fake nodes."""

    def __init__(self, graph: "FakeGraph") -> None:
        self.graph = graph
        self.chunks: list[int] = []
        """Bytes of data per message of every Write; 0 for zeroes."""
        self.sessions: list[Session] = []
        self.credits = 8
        self.credit_bytes = 1 << 20
        self.hold = 1
        """A session answers when so many requests are waiting (or none came for a turn), the last one first."""
        self.session_dies_after: int | None = None
        self.copies_on_read = 0
        """Reads that asked for it."""

    async def Read(self, request, context):  # noqa: N802
        node = self.graph.node(request.node_name)
        length = request.length_bytes or len(node.content) - request.offset_bytes
        node.check(request.offset_bytes, length)
        position, end = request.offset_bytes, request.offset_bytes + length
        self.copies_on_read += request.copy_on_read
        if request.prefetch:
            yield data_pb2.ReadResponse(offset_bytes=position, zero_length_bytes=length)
            return
        while position < end:
            piece = bytes(node.content[position : min(end, position + (request.chunk_bytes or 262144))])
            if request.sparse and not any(piece):
                yield data_pb2.ReadResponse(offset_bytes=position, zero_length_bytes=len(piece))
            else:
                yield data_pb2.ReadResponse(offset_bytes=position, data=piece)
            position += len(piece)

    async def Write(self, request_iterator, context):  # noqa: N802
        node, written = None, 0
        async for request in request_iterator:
            if node is None:
                node = self.graph.node(request.node_name)
            elif request.node_name:
                raise InvalidArgument("node_name", "only in the first message", repr(request.node_name))
            kind = request.WhichOneof("content")
            length = len(request.data) if kind == "data" else request.zero_length_bytes
            node.check(request.offset_bytes, length, writing=True)
            self.chunks.append(len(request.data))
            content = request.data if kind == "data" else bytes(length)
            node.content[request.offset_bytes : request.offset_bytes + length] = content
            if kind == "data":
                self._mark(node, request.offset_bytes, length)
            written += length
        return data_pb2.WriteResponse(written_bytes=written)

    async def WriteZeroes(self, request, context):  # noqa: N802
        node = self.graph.node(request.node_name)
        node.check(request.offset_bytes, request.length_bytes, writing=True)
        node.content[request.offset_bytes : request.offset_bytes + request.length_bytes] = bytes(
            request.length_bytes
        )
        return data_pb2.WriteZeroesResponse()

    async def Discard(self, request, context):  # noqa: N802
        self.graph.node(request.node_name).check(request.offset_bytes, request.length_bytes, writing=True)
        return data_pb2.DiscardResponse()

    async def Flush(self, request, context):  # noqa: N802
        node = self.graph.node(request.node_name)
        return data_pb2.FlushResponse(skipped=not node.data_ranges)

    async def BlockStatus(self, request, context):  # noqa: N802
        node = self.graph.node(request.node_name)
        for start in range(0, len(node.content), 65536):
            held = any(block in node.data_ranges for block in range(start // BLOCK, (start + 65536) // BLOCK))
            extent = data_pb2.BlockExtent(
                offset_bytes=start,
                length_bytes=min(65536, len(node.content) - start),
                allocated=held,
                data=held,
                zero=not held,
                node_name=request.node_name if held else "",
                host_offset_bytes=start if held else -1,
            )
            yield data_pb2.BlockStatusResponse(extents=[extent], size_bytes=len(node.content))

    async def IoSession(self, request_iterator, context):  # noqa: N802
        first = await anext(aiter(request_iterator))
        session = Session(self, self.graph.node(first.open.node_name))
        self.sessions.append(session)
        opened = data_pb2.IoSessionOpened(
            max_in_flight=min(self.credits, first.open.max_in_flight),
            max_bytes_in_flight=self.credit_bytes,
            size_bytes=len(session.node.content),
        )
        yield data_pb2.IoSessionResponse(opened=opened)
        reader = asyncio.create_task(session.take(request_iterator))
        try:
            while (results := await session.results()) is not None:
                yield data_pb2.IoSessionResponse(results=results)
        finally:
            reader.cancel()

    @staticmethod
    def _mark(node: "FakeNode", offset: int, length: int) -> None:
        node.data_ranges.update(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1))


class Session:
    """One session: what was asked, and what the client had in flight at most."""

    def __init__(self, owner: FakeData, node: "FakeNode") -> None:
        self.owner, self.node = owner, node
        self.batches: list[int] = []
        self.most_requests = self.most_bytes = self.bytes = 0
        self.repeated_ids: list[int] = []
        self._waiting: dict[int, data_pb2.IoRequest] = {}
        self._answered = 0
        self._came = asyncio.Event()
        self._ended = False

    async def take(self, requests) -> None:
        async for request in requests:
            self.batches.append(len(request.batch.requests))
            for item in request.batch.requests:
                if item.id in self._waiting:
                    self.repeated_ids.append(item.id)
                self._waiting[item.id] = item
                self.bytes += self._cost(item)
                self.most_requests = max(self.most_requests, len(self._waiting))
                self.most_bytes = max(self.most_bytes, self.bytes)
            self._came.set()
        self._ended = True
        self._came.set()

    async def results(self) -> list[data_pb2.IoResult] | None:
        while len(self._waiting) < self.owner.hold and not self._ended:
            before = len(self._waiting)
            self._came.clear()
            try:
                async with asyncio.timeout(0.02 if before else None):
                    await self._came.wait()
            except TimeoutError:
                if len(self._waiting) == before:
                    break
        if not self._waiting:
            return None if self._ended else []
        if self.owner.session_dies_after is not None and self._answered >= self.owner.session_dies_after:
            raise InvalidArgument("session", "a session that lives", "one that was told to die")
        requests = [self._waiting.pop(key) for key in sorted(self._waiting, reverse=True)]
        self._answered += len(requests)
        return [self._result(request) for request in requests]

    @staticmethod
    def _cost(request: data_pb2.IoRequest) -> int:
        reads = request.operation == data_pb2.IoRequest.OPERATION_READ
        return request.length_bytes if reads else len(request.data)

    def _result(self, request: data_pb2.IoRequest) -> data_pb2.IoResult:
        self.bytes -= self._cost(request)
        result = data_pb2.IoResult(id=request.id)
        content, kind = self.node.content, data_pb2.IoRequest
        try:
            length = len(request.data) or request.length_bytes
            self.node.check(request.offset_bytes, length, writing=request.operation == kind.OPERATION_WRITE)
            if request.operation == kind.OPERATION_READ:
                result.data = bytes(content[request.offset_bytes : request.offset_bytes + length])
            elif request.operation in (kind.OPERATION_WRITE, kind.OPERATION_WRITE_ZEROES):
                data = request.data or bytes(length)
                content[request.offset_bytes : request.offset_bytes + length] = data
        except BlockError as error:
            result.code = code_pb2.Code.Value(error.canonical())
            result.reason, result.error_message = error.reason, str(error)
        return result
