"""The pipelined session on a node: many requests on one stream, answered in any order, with credits.

Theory. The requests of one message are served in one go, inline as far as the driver does not block, and their
results travel back as one message. What would block becomes a task; results that come while a message is being sent
wait and go with the next one. So the cost of gRPC is shared by all requests of a batch.

Invariants
1. Never more requests, nor more bytes of data, are taken than were granted: a client that sends more ends its
   session. A credit is given back with the result that carries it.
2. One message is being sent at a time.
3. When the session ends, for whatever reason, none of its tasks runs and its node is let go.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import grpc
from google.rpc import code_pb2

from blockyard.base.errors import (
    BlockError,
    FileBusy,
    FileReadOnly,
    InternalError,
    InvalidArgument,
    LimitReached,
    NodeReadOnly,
)
from blockyard.base.units import MIB
from blockyard.node.core.accounting import WRITE as ACCOUNT_WRITE
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.chain import above_filters
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.modes import ready_to_write, settle
from blockyard.node.graph.user import User
from blockyard.node.interface.flags import COMPRESSED, FUA, MAY_UNMAP, NO_FALLBACK
from blockyard.node.rpc.attachment_words import check_one
from blockyard.node.rpc.merging import adjacent, joined
from blockyard.node.rpc.traced import spare_after
from blockyard.rpc.interceptors import ClientGone
from blockyard.v1.data_pb2 import (
    IoRequest,
    IoSessionOpen,
    IoSessionOpened,
    IoSessionRequest,
    IoSessionResponse,
)

MAX_REQUEST: Final = 1 * MIB
MAX_CLIENT_NAME: Final = 128
MAX_ERROR: Final = 1024
"""Characters of an error's text in a result."""
RESPONSE_BYTES: Final = 1 * MIB
"""Data of results in one message, or a single result; twice as much is read before it is sent."""
TURN_REQUESTS: Final = 128
"""Requests served inline before others get the loop."""

Write = Callable[[IoSessionResponse], Awaitable[None]]

_log = logging.getLogger(__name__)
_numbers = count(1)
READ, WRITE = IoRequest.OPERATION_READ, IoRequest.OPERATION_WRITE


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may hold."""

    default_in_flight: int = 64
    max_in_flight: int = 256
    max_bytes_in_flight: int = 16 * MIB


async def serve_session(
    graph: Graph,
    attachments: Attachments,
    requests: AsyncIterator[IoSessionRequest],
    write: Write,
    limits: SessionLimits,
) -> None:
    """A session's life: the opening message, batches until the client ends it, and what is left of them."""
    stream = aiter(requests)
    first = await anext(stream, None)
    if first is None or first.WhichOneof("message") != "open":
        raise InvalidArgument("open", "a first message that opens the session", "something else")
    wish = first.open
    async with _user(graph, attachments, wish) as user:
        session = Session(
            user, write, limits, min(max(0, wish.max_in_flight) or limits.default_in_flight, limits.max_in_flight)
        )
        try:
            await session.run(stream)
        finally:
            await session.settle()


@asynccontextmanager
async def _user(graph: Graph, attachments: Attachments, wish: IoSessionOpen) -> AsyncIterator[User]:
    """An edge of the session's own, or its attachment's."""
    name = wish.client_name[:MAX_CLIENT_NAME] or str(next(_numbers))
    check_one(wish)
    if wish.attachment:
        with attachments.used(wish.attachment, f"session/{name}") as shared:
            yield shared
        return
    node = graph.get(wish.node_name)
    if node.active and node.waits_for_writer:
        with suppress(FileReadOnly, FileBusy, NodeReadOnly):  # then it is a session that reads
            await ready_to_write(graph, above_filters(node))
    user = graph.use(wish.node_name, "session", name, writable=not node.read_only)
    try:
        yield user
    finally:
        node = user.node
        graph.release(user)
        await settle(graph, node)


class Session:
    """Requests of one session."""

    def __init__(self, user: User, write: Write, limits: SessionLimits, in_flight: int) -> None:
        self._user = user
        self._held_to_blocks = user.block_sizes is not None
        self._write = write
        self._credits = self._granted = in_flight
        self._bytes = self._granted_bytes = limits.max_bytes_in_flight
        self._ready: deque[_Answers] = deque()
        """What waits to be sent; results are added to the last while it has room."""
        self._sending = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._scratch = memoryview(bytearray(0))

    async def run(self, stream: AsyncIterator[IoSessionRequest]) -> None:
        """Serve until the client ends the stream, and send every result."""
        opened = IoSessionOpened(
            max_in_flight=self._granted, max_bytes_in_flight=self._granted_bytes, size_bytes=self._user.size
        )
        await self._put(IoSessionResponse(opened=opened))
        served = 0
        async for message in stream:
            spare_after(served)
            if message.WhichOneof("message") != "batch":
                raise InvalidArgument("message", "a batch of requests", "a session is opened once")
            served += len(message.batch.requests)
            await self._batch(message.batch.requests)
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._send()

    async def settle(self) -> None:
        """End what still runs, and outlast it: a thread may be working on its buffers."""
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            try:
                await asyncio.wait(self._tasks)
            except asyncio.CancelledError:
                continue  # the call is ending already; its first cancellation goes on

    async def _batch(self, requests: Any) -> None:
        self._credits -= len(requests)
        if self._credits < 0:
            raise LimitReached("requests in flight in this session", self._granted)
        waiting, at, turn = list(requests), 0, TURN_REQUESTS
        while at < len(waiting):
            count = adjacent(waiting, at)
            if count == 1 or not self._write_merged(waiting[at : at + count]):
                for request in waiting[at : at + count]:
                    self._begin(request)
            at += count
            if len(self._ready) > 1:
                await self._send()
            elif at >= turn:
                turn = at + TURN_REQUESTS
                await asyncio.sleep(0)
        if self._ready:
            await self._send()

    def _write_merged(self, requests: list[IoRequest]) -> bool:
        """Serve adjacent writes as one, inline; False if that is not possible: then take them one by one, for what
        is wrong with one of them is its own affair."""
        costs = [len(request.data) for request in requests]
        user, end = self._user, requests[-1].offset_bytes + costs[-1]
        # Zeroes among them would not be found any more.
        if sum(costs) > self._bytes or end > user.size or not user.writable or user.node.zero_flags is not None:
            return False
        try:
            if user.block_sizes is not None:  # each must be whole blocks, not only all together
                for request, cost in zip(requests, costs, strict=True):
                    user.check_blocks(request.offset_bytes, cost)
            if not user.write_now(requests[0].offset_bytes, joined(requests)):
                return False
        except BlockError:
            return False
        self._bytes -= sum(costs)
        user.node.account.merge(ACCOUNT_WRITE, len(requests) - 1)
        for request, cost in zip(requests, costs, strict=True):
            self._done(request.id, cost)
        return True

    def _begin(self, request: IoRequest) -> None:
        """Serve a request inline, or begin a task for it. Raises LimitReached."""
        operation = request.operation
        content = b"" if operation == READ else request.data
        length = request.length_bytes if operation == READ else len(content)
        cost = max(0, length)
        self._bytes -= cost
        if self._bytes < 0:
            raise LimitReached("bytes in flight in this session", self._granted_bytes)
        try:
            if self._held_to_blocks:
                self._user.check_blocks(request.offset_bytes, len(content) or request.length_bytes)
            if operation == READ and 0 < length <= MAX_REQUEST and not request.copy_on_read:
                if length > len(self._scratch):
                    self._scratch = memoryview(bytearray(length))
                part = self._scratch if length == len(self._scratch) else self._scratch[:length]
                if self._user.read_now(request.offset_bytes, part):
                    self._done(request.id, cost, bytes(part))
                    return
            elif (
                operation == WRITE
                and length <= MAX_REQUEST
                and self._user.write_now(request.offset_bytes, content, _write_flags(request))
            ):
                self._done(request.id, cost)
                return
        except BlockError as problem:
            self._failed(request.id, cost, problem)
            return
        task = asyncio.create_task(self._serve(request, cost))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: IoRequest, cost: int) -> None:
        try:
            content = await _OPERATIONS.get(request.operation, _unknown)(self._user, request)
            self._done(request.id, cost, content)
        except BlockError as problem:
            self._failed(request.id, cost, problem)
        except Exception as problem:
            _log.exception("a session's request ended in a bug of ours")
            self._failed(request.id, cost, InternalError(type(problem).__name__))
        # Requests that a thread answered end in one turn: let them share a message.
        await asyncio.sleep(0)
        try:
            await self._send()
        except ClientGone:
            return  # the call's own task learns it too

    def _done(self, request_id: int, cost: int, content: bytes = b"") -> None:
        answers = self._room(cost, len(content))
        answers.response.results.add(id=request_id, data=content)

    def _failed(self, request_id: int, cost: int, problem: BlockError) -> None:
        # Names of files may hold bytes that are no UTF-8; protobuf refuses those.
        message = str(problem)[:MAX_ERROR].encode(errors="backslashreplace").decode()
        self._room(cost, len(message)).response.results.add(
            id=request_id,
            code=code_pb2.Code.Value(problem.canonical()),
            reason=problem.reason,
            error_message=message,
        )

    def _room(self, cost: int, length: int) -> "_Answers":
        """The message that the next result goes into."""
        if not self._ready or self._ready[-1].length + length > RESPONSE_BYTES:
            self._ready.append(_Answers())
        answers = self._ready[-1]
        answers.count += 1
        answers.cost += cost
        answers.length += length
        return answers

    async def _send(self) -> None:
        if self._sending:
            return
        self._sending = True
        try:
            while self._ready:
                answers = self._ready.popleft()
                self._credits += answers.count
                self._bytes += answers.cost
                await self._put(answers.response)
        finally:
            self._sending = False

    async def _put(self, response: IoSessionResponse) -> None:
        try:
            await self._write(response)
        except (grpc.aio.UsageError, grpc.aio.InternalError) as problem:
            raise ClientGone from problem


class _Answers:
    """Results that travel in one message, and the credits that they give back."""

    __slots__ = ("cost", "count", "length", "response")

    def __init__(self) -> None:
        self.response = IoSessionResponse()
        self.count = 0
        self.cost = 0
        """Bytes of data of their requests."""
        self.length = 0
        """Bytes of data of the results."""


def _write_flags(request: IoRequest) -> int:
    # Tests, not products: nearly every write has no flag, and this is on its way.
    return (FUA if request.fua else 0) | (COMPRESSED if request.compressed else 0)


async def _read(user: User, request: IoRequest) -> bytes:
    if not 0 <= request.length_bytes <= MAX_REQUEST:
        raise InvalidArgument("length_bytes", f"0 to {MAX_REQUEST}", str(request.length_bytes))
    if request.copy_on_read:
        await user.populate(request.offset_bytes, request.length_bytes)
    content = bytearray(request.length_bytes)
    await user.read(request.offset_bytes, memoryview(content))
    return bytes(content)


async def _prefetch(user: User, request: IoRequest) -> bytes:
    await user.populate(request.offset_bytes, request.length_bytes)
    return b""


async def _write(user: User, request: IoRequest) -> bytes:
    if len(request.data) > MAX_REQUEST:
        raise InvalidArgument("data", f"at most {MAX_REQUEST} bytes", str(len(request.data)))
    await user.write(request.offset_bytes, request.data, _write_flags(request))
    return b""


async def _write_zeroes(user: User, request: IoRequest) -> bytes:
    flags = FUA * request.fua | MAY_UNMAP * request.may_unmap | NO_FALLBACK * request.no_fallback
    await user.zero(request.offset_bytes, request.length_bytes, flags)
    return b""


async def _discard(user: User, request: IoRequest) -> bytes:
    await user.discard(request.offset_bytes, request.length_bytes)
    return b""


async def _flush(user: User, request: IoRequest) -> bytes:
    await user.flush()
    return b""


async def _unknown(user: User, request: IoRequest) -> bytes:
    raise InvalidArgument("operation", "a known operation", str(request.operation))


_OPERATIONS: Final[dict[int, Callable[[User, IoRequest], Awaitable[bytes]]]] = {
    READ: _read,
    WRITE: _write,
    IoRequest.OPERATION_WRITE_ZEROES: _write_zeroes,
    IoRequest.OPERATION_DISCARD: _discard,
    IoRequest.OPERATION_FLUSH: _flush,
    IoRequest.OPERATION_PREFETCH: _prefetch,
}
