"""A service of the tests over gRPC's own messages: every call kind, every way a handler can end.

The messages are `google.protobuf.StringValue`; the text says what the handler shall do.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from blockyard.base.errors import NodeInUse

NAME = "blockyard.test.Echo"
DATA_NAME = "blockyard.test.DataService"


class Echo:
    """`gate` holds calls that say "wait"; `seen` tells what handlers met."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.arrived = asyncio.Event()
        self.seen: list[str] = []
        self.observe: Callable[[], None] = lambda: None

    async def unary(self, request: StringValue, context: Any) -> StringValue:
        self.observe()
        return await self._do(request.value)

    async def replies(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        task = asyncio.current_task()
        try:
            self.observe()
            if request.value == "endless":
                while True:
                    yield StringValue(value="x" * 65536)
            for word in request.value.split():
                yield await self._do(word)
        except GeneratorExit:
            self.seen.append("closed here" if asyncio.current_task() is task else "closed elsewhere")
            raise
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        finally:
            self.seen.append("replies ended")

    async def requests(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        words = []
        async for request in requests:
            words.append(request.value)
            await self._do(request.value)
            self.arrived.set()
        self.seen.append("end of requests")
        return StringValue(value=" ".join(words))

    async def both(self, requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield await self._do(request.value)

    async def written(self, request: StringValue, context: Any) -> None:
        for word in request.value.split():
            await context.write(StringValue(value=word))

    async def _do(self, word: str) -> StringValue:
        if word == "wait":
            self.arrived.set()
            await self.gate.wait()
        elif word == "swallow":
            self.arrived.set()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.seen.append("swallowed")
        elif word == "block error":
            raise NodeInUse("top", "close", "export 'x'")
        elif word == "bug":
            raise ZeroDivisionError("a bug")
        elif word == "own-cancel":
            inner = asyncio.ensure_future(asyncio.sleep(3600))
            await asyncio.sleep(0)
            inner.cancel()
            await inner
        elif word == "long error":
            raise NodeInUse("ü" * 10_000, "close", "o" * 100_000)
        return StringValue(value=word)


def _handlers(servicer: Echo) -> dict[str, Any]:
    codec = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    return {
        "Unary": grpc.unary_unary_rpc_method_handler(servicer.unary, **codec),
        "Replies": grpc.unary_stream_rpc_method_handler(servicer.replies, **codec),
        "WatchReplies": grpc.unary_stream_rpc_method_handler(servicer.replies, **codec),
        "Requests": grpc.stream_unary_rpc_method_handler(servicer.requests, **codec),
        "Both": grpc.stream_stream_rpc_method_handler(servicer.both, **codec),
        "Written": grpc.unary_stream_rpc_method_handler(servicer.written, **codec),
    }


def add_echo(servicer: Echo, server: grpc.aio.Server) -> None:
    """As generated code would add it, under two names: one for control calls, one for data."""
    for name in (NAME, DATA_NAME):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, _handlers(servicer)),))


class Stub:
    """As generated code would call it."""

    def __init__(self, channel: Any, name: str = NAME) -> None:
        codec = {
            "request_serializer": StringValue.SerializeToString,
            "response_deserializer": StringValue.FromString,
        }
        self.unary = channel.unary_unary(f"/{name}/Unary", **codec)
        self.replies = channel.unary_stream(f"/{name}/Replies", **codec)
        self.watch = channel.unary_stream(f"/{name}/WatchReplies", **codec)
        self.requests = channel.stream_unary(f"/{name}/Requests", **codec)
        self.both = channel.stream_stream(f"/{name}/Both", **codec)
        self.written = channel.unary_stream(f"/{name}/Written", **codec)
        self.missing = channel.unary_unary(f"/{name}/Missing", **codec)


def text(value: str) -> StringValue:
    return StringValue(value=value)
