"""Calls as our clients see them: awaiting, iterating and writing raise errors of the catalogue.

Thin faces over grpc.aio's call objects; what they do not define is the call's own (`cancel`, `code`,
`time_remaining` ...). A call's span ends with the call, however it ends. Built by `channel` only.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Generator
from typing import Any, Final

import grpc

from blockyard.base.errors import BlockError
from blockyard.rpc.status import from_rpc_error
from blockyard.rpc.telemetry import CallSpan, Telemetry

EOF: Final[Any] = grpc.aio.EOF
"""What `read` gives after the last message."""
_OVER: Final = (grpc.aio.UsageError, asyncio.InvalidStateError)
"""What grpc.aio raises from a write to a call that has ended."""


RACED: Final = "Internal error from Core"
"""The status that grpc.aio 1.85 makes up when a write meets the server's end of the call. It may come before the
true one or overwrite it, so `Ended` notes the true one when it passes."""
RACED_TURNS: Final = 100
RACED_WAIT: Final = 0.01
"""Seconds; the true status is on its way already, so this is a bound and not a delay."""


class Ended:
    """Called when a call has ended, once for each status that grpc.aio gives it: its counts and its span."""

    __slots__ = ("_began_ns", "_method", "_span", "_telemetry", "status")

    def __init__(self, telemetry: Telemetry, method: str, span: CallSpan | None) -> None:
        self._telemetry = telemetry
        self._method = method
        self._span = span
        self._began_ns: int | None = time.perf_counter_ns()
        self.status: grpc.aio.AioRpcError | None = None
        """The true status, also if it is OK."""
        telemetry.made.running += 1

    def __call__(self, call: Any) -> None:
        code, details = _known(call.code()), str(_known(call.details()) or "")
        if details != RACED and code is not None:
            trailers = _known(call.trailing_metadata()) or grpc.aio.Metadata()
            self.status = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details=details)
        if self._began_ns is None:
            return
        name = code.name if code else "UNKNOWN"
        self._telemetry.made.running -= 1
        self._telemetry.made.add(self._method, name, time.perf_counter_ns() - self._began_ns)
        self._began_ns = None
        if self._span is not None:
            self._span.end(name, "" if name == "OK" else details)


def _known(coroutine: Any) -> Any:
    """The result of a coroutine that has nothing to wait for: a call that is done knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        return result.value
    coroutine.close()
    return None


class _Call:
    """What both kinds share."""

    __slots__ = ("_address", "_call", "_ended", "_method")

    def __init__(self, call: Any, ended: Ended, method: str, address: str) -> None:
        self._call = call
        self._ended = ended
        self._method = method
        self._address = address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def _meant(self, error: grpc.RpcError) -> BlockError | None:
        """The error of the catalogue for what grpc.aio raised; None if the call has ended well after all."""
        if getattr(error, "details", lambda: "")() == RACED:
            error = await self._true_status() or error
        if getattr(error, "code", lambda: None)() is grpc.StatusCode.OK:
            return None
        return from_rpc_error(error, self._method, self._address)

    async def _true_status(self) -> grpc.aio.AioRpcError | None:
        inner = self._call
        for _ in range(RACED_TURNS):
            if self._ended.status is not None:
                return self._ended.status
            code, details = await inner.code(), await inner.details() or ""
            if details != RACED:
                metadata = (await inner.initial_metadata(), await inner.trailing_metadata())
                return grpc.aio.AioRpcError(code, *metadata, details=details)
            await asyncio.sleep(RACED_WAIT)
        return None


class SingleReplyCall(_Call):
    """A call with one reply: await it; with a request stream, `write` and `done_writing` first."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._call.__await__())
        except grpc.RpcError as error:
            meant = yield from self._meant(error).__await__()
            raise (meant or from_rpc_error(error, self._method, self._address)) from None

    async def write(self, request: Any) -> None:
        await _write(self, request)

    async def done_writing(self) -> None:
        await _done_writing(self)


class StreamedReplyCall(_Call):
    """A call with a stream of replies: iterate it or `read`; with a request stream, `write` as well."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        reply = await self.read()
        if reply is EOF:
            raise StopAsyncIteration
        return reply

    async def read(self) -> Any:
        """The next reply, or EOF."""
        try:
            return await self._call.read()
        except grpc.RpcError as error:
            if meant := await self._meant(error):
                raise meant from None
            return EOF

    async def write(self, request: Any) -> None:
        await _write(self, request)

    async def done_writing(self) -> None:
        await _done_writing(self)


async def _write(call: _Call, request: Any) -> None:
    try:
        await call._call.write(request)
    except grpc.RpcError as error:
        if meant := await call._meant(error):
            raise meant from None
    except _OVER:
        await _raise_end(call)


async def _done_writing(call: _Call) -> None:
    try:
        await call._call.done_writing()
    except grpc.RpcError as error:
        if meant := await call._meant(error):
            raise meant from None
    except _OVER:
        await _raise_end(call)


async def _raise_end(call: _Call) -> None:
    """A write to a call that the server has ended: the reason is the call's status."""
    inner = call._call
    code = await inner.code()
    if code is grpc.StatusCode.OK:
        return
    metadata = (await inner.initial_metadata(), await inner.trailing_metadata())
    error = grpc.aio.AioRpcError(code, *metadata, details=await inner.details())
    if meant := await call._meant(error):
        raise meant
