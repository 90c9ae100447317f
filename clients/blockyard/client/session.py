"""A pipelined session on a node: `async with client.data.session("top") as session: await session.read(0, 4096)`.

Theory. Requests are numbered, may be many at once, and are answered in any order. What is submitted in one turn
of the loop, or while the stream is busy, travels as one message (the server submits it together). Credits are
counted on both sides: never more requests, and never more bytes of data, in flight than the server granted;
who asks for more waits in line.

Invariants:
1. An id is given back, with its credits, exactly once: when its result arrives or the session ends.
2. A caller that is cancelled gives up waiting, not its request: id and credits stay taken until the result.
3. After the session ended, for whatever reason, every request raises that reason and none hangs.
"""

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from grpc import aio

from blockyard.base.errors import CATALOGUE, BlockError, CallCancelled, PeerUnavailable, RemoteError
from blockyard.base.ranges import ByteRange
from blockyard.base.units import MIB
from blockyard.client.calls import Settings
from blockyard.client.remote import worded
from blockyard.v1 import data_pb2 as data

MAX_REQUEST: Final = MIB
"""Bytes of one request; longer reads and writes are cut."""

MAX_BATCH: Final = 2 * MIB
"""Bytes of writes that are put into one message before the next begins; gRPC refuses messages above 4 MiB."""

METHOD: Final = "/blockyard.v1.DataService/IoSession"


_READ: Final = data.IoRequest.OPERATION_READ
_WRITE: Final = data.IoRequest.OPERATION_WRITE


class Wanted(NamedTuple):
    """A request that has no number yet."""

    operation: "data.IoRequest.Operation"
    offset: int
    length: int
    content: bytes
    cost: int
    """Bytes of data that it takes of the credit."""
    fua: bool = False
    may_unmap: bool = False
    copy_on_read: bool = False
    compressed: bool = False
    no_fallback: bool = False


class IoSession:
    """Many requests on one stream. Make it with `client.data.session`."""

    def __init__(
        self,
        call: Any,
        node_name: str,
        max_in_flight: int,
        client_name: str,
        settings: Settings,
        attachment: str = "",
    ) -> None:
        self.node_name = node_name
        self.size_bytes = 0
        """Size of the node when the session was opened."""
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._wish = data.IoSessionOpen(
            node_name=node_name, client_name=client_name, max_in_flight=max_in_flight, attachment=attachment
        )
        self._settings = settings
        self._credits = self._max_bytes = self._bytes = 0
        self._last_id = 0
        self._waiting: dict[int, tuple[asyncio.Future[bytes], int]] = {}
        self._line: deque[tuple[Wanted, asyncio.Future[bytes]]] = deque()
        self._outgoing: deque[tuple[int, Wanted]] = deque()
        self._work = asyncio.Event()
        self._failure: BlockError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        try:
            with suppress(asyncio.InvalidStateError):  # ended at once; `read` raises why
                await self._call.write(data.IoSessionRequest(open=self._wish))
            first = await self._call.read()
            if first is aio.EOF:
                raise self._silent_end()
        except BaseException:
            self._call.cancel()
            raise
        self._credits = max(first.opened.max_in_flight, 1)
        self._bytes = self._max_bytes = first.opened.max_bytes_in_flight or self._credits * MAX_REQUEST
        self.size_bytes = first.opened.size_bytes
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the session. On a clean exit every request that was sent is waited for."""
        if kind is None and self._failure is None:
            pending = [future for future, _ in self._waiting.values()] + [item[1] for item in self._line]
            await asyncio.gather(*pending, return_exceptions=True)
        self._end(CallCancelled(METHOD, "the session was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._call.cancel()

    @property
    def in_flight(self) -> int:
        """Requests that the server has and has not answered."""
        return len(self._waiting)

    async def read(self, offset: int, length: int, *, copy_on_read: bool = False) -> bytes:
        """Bytes of a range; `copy_on_read` stores in the node what its backing chain gives of it."""
        limit = min(MAX_REQUEST, self._max_bytes)
        first = Wanted(_READ, offset, length, b"", length, copy_on_read=copy_on_read)
        if length <= limit:
            return await self._submit(first)
        pieces = ByteRange(offset, length).pieces(limit)
        wanted = (first._replace(offset=piece.offset, length=piece.length, cost=piece.length) for piece in pieces)
        return b"".join(await _all([self._submit(each) for each in wanted]))

    async def prefetch(self, offset: int, length: int) -> None:
        """Store in the node what its backing chain gives of a range."""
        await self._submit(Wanted(data.IoRequest.OPERATION_PREFETCH, offset, length, b"", 0))

    async def write(self, offset: int, content: bytes, *, fua: bool = False, compressed: bool = False) -> None:
        """Write bytes; a write of more than a MiB is several writes."""
        limit = min(MAX_REQUEST, self._max_bytes)
        whole = Wanted(_WRITE, offset, 0, content, len(content), fua, compressed=compressed)
        if len(content) <= limit:
            await self._submit(whole)
            return
        view = memoryview(content)
        parts = ((offset + at, bytes(view[at : at + limit])) for at in range(0, len(view), limit))
        wanted = (whole._replace(offset=at, content=part, cost=len(part)) for at, part in parts)
        await _all([self._submit(each) for each in wanted])

    async def write_zeroes(
        self,
        offset: int,
        length: int,
        *,
        may_unmap: bool = False,
        no_fallback: bool = False,
        fua: bool = False,
    ) -> None:
        """Make a range read as zeroes; `no_fallback` fails rather than write zero buffers."""
        operation = data.IoRequest.OPERATION_WRITE_ZEROES
        await self._submit(Wanted(operation, offset, length, b"", 0, fua, may_unmap, no_fallback=no_fallback))

    async def discard(self, offset: int, length: int) -> None:
        """Tell that a range is not needed."""
        await self._submit(Wanted(data.IoRequest.OPERATION_DISCARD, offset, length, b"", 0))

    async def flush(self) -> None:
        """Make every write that was answered durable."""
        await self._submit(Wanted(data.IoRequest.OPERATION_FLUSH, 0, 0, b"", 0))

    def _submit(self, wanted: "Wanted") -> "asyncio.Future[bytes]":
        future: asyncio.Future[bytes] = self._loop.create_future()
        if self._failure is not None:
            future.set_exception(self._failure)
        elif not self._line and self._fits(wanted.cost):
            self._start(wanted, future)
        else:
            self._line.append((wanted, future))
        return future

    def _fits(self, cost: int) -> bool:
        return len(self._waiting) < self._credits and cost <= self._bytes

    def _start(self, wanted: "Wanted", future: "asyncio.Future[bytes]") -> None:
        self._last_id += 1
        self._waiting[self._last_id] = (future, wanted.cost)
        self._bytes -= wanted.cost
        self._outgoing.append((self._last_id, wanted))
        self._work.set()

    async def _send(self) -> None:
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while self._outgoing:
                    await self._call.write(data.IoSessionRequest(batch=self._next_batch()))
        except asyncio.InvalidStateError:
            pass  # the stream has ended; `_receive` reads why
        except BlockError as error:
            self._end(error)

    def _next_batch(self) -> data.IoBatch:
        batch, size = data.IoBatch(), 0
        add = batch.requests.add
        while self._outgoing and size < MAX_BATCH:
            number, (operation, offset, length, content, _, fua, may_unmap, *flags) = self._outgoing.popleft()
            copy_on_read, compressed, no_fallback = flags
            size += len(content)
            # Made in place: appending a message would copy it.
            add(
                id=number,
                operation=operation,
                offset_bytes=offset,
                length_bytes=length,
                data=content,
                fua=fua,
                may_unmap=may_unmap,
                copy_on_read=copy_on_read,
                compressed=compressed,
                no_fallback=no_fallback,
            )
        return batch

    async def _receive(self) -> None:
        try:
            while (response := await self._call.read()) is not aio.EOF:
                for result in response.results:
                    self._finish(result)
                self._let_in()
            self._end(self._silent_end())
        except BlockError as error:
            self._end(error)

    def _finish(self, result: data.IoResult) -> None:
        found = self._waiting.pop(result.id, None)
        if found is None:
            return  # an answer to nothing; the server is not trusted to count
        future, cost = found
        self._bytes += cost
        if future.done():
            return
        if result.code:
            future.set_exception(failure_of(result))
        else:
            future.set_result(result.data)

    def _let_in(self) -> None:
        while self._line:
            wanted, future = self._line[0]
            if not future.done() and not self._fits(wanted.cost):
                return
            self._line.popleft()
            if not future.done():
                self._start(wanted, future)

    def _end(self, failure: BlockError) -> None:
        if self._failure is None:
            self._failure = failure
        futures = [future for future, _ in self._waiting.values()] + [item[1] for item in self._line]
        self._waiting.clear()
        self._line.clear()
        self._outgoing.clear()
        for future in futures:
            if not future.done():
                future.set_exception(self._failure)
                future.exception()  # nobody may be waiting any more

    def _silent_end(self) -> BlockError:
        return PeerUnavailable("node", self._settings.address, "the service ended the session")


def failure_of(result: data.IoResult) -> BlockError:
    """The error that a result carries, with the service's own words."""
    kind = CATALOGUE.get(result.reason)
    if kind is None:
        return RemoteError(METHOD, str(result.code), result.reason, result.error_message)
    return worded(kind, result.error_message)


async def _all(futures: list["asyncio.Future[bytes]"]) -> list[bytes]:
    # All pieces are waited for, so that none is in flight when the first failure is raised.
    results = await asyncio.gather(*futures, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, bytes)]
