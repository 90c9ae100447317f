"""How every call is made: its path, its classes and its deadline.

What lives here: `Service`, one per service of the API, with the four call shapes. What must not: knowledge of
any single method beyond whether it is long by nature. The response class stands at the place of the call, so
that the type checker knows it; the first use compares it with the service's descriptor.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from grpc import aio

Response = TypeVar("Response", bound=Message)

PACKAGE: Final = "blockyard.v1"
DEFAULT_TIMEOUT_S: Final = 60.0
"""Deadline of a call that answers once, unless it is in `UNHURRIED` or the caller says otherwise."""

UNHURRIED: Final = frozenset(
    {
        "CreateImage",
        "CheckImage",
        "MeasureImage",
        "ResizeNode",
        "CloseNode",
        "MakeEmpty",
        "Flush",
        "WriteZeroes",
        "Discard",
    }
)
"""Methods whose work grows with the image: no deadline but the caller's."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all calls of a client share."""

    address: str
    timeout_s: float | None = DEFAULT_TIMEOUT_S


class Service:
    """Calls to one service over one channel. The channel raises errors of the catalogue (`blockyard.rpc.calls`)."""

    def __init__(self, channel: aio.Channel, name: str, settings: Settings) -> None:
        self._channel = channel
        self._name = name
        self.settings = settings
        self._methods: dict[str, Any] = {}

    async def unary(
        self, method: str, request: Message, response: type[Response], timeout: float | None = None
    ) -> Response:
        """One request, one response."""
        call = self._method("unary_unary", method, response)
        answer: Response = await call(request, timeout=self._deadline(method, timeout))
        return answer

    async def stream(
        self, method: str, request: Message, response: type[Response], timeout: float | None = None
    ) -> AsyncIterator[Response]:
        """One request, many responses. Leaving the loop early ends the call."""
        call = self._method("unary_stream", method, response)(request, timeout=timeout)
        try:
            async for message in call:
                yield message
        finally:
            call.cancel()

    async def upload(
        self,
        method: str,
        requests: AsyncGenerator[Message, None],
        response: type[Response],
        timeout: float | None = None,
    ) -> Response:
        """Many requests, one response. What raises in `requests` ends the call and is raised here."""
        call = self._method("stream_unary", method, response)(timeout=timeout)
        try:
            async with aclosing(requests):
                async for request in requests:
                    if call.done():
                        break
                    await call.write(request)
            await call.done_writing()
            answer: Response = await call
        except asyncio.InvalidStateError:
            # The server ended the call between two writes; why stands in the call.
            answer = await call
        finally:
            call.cancel()
        return answer

    def path(self, method: str) -> str:
        """The method as it is named on the wire."""
        return f"/{PACKAGE}.{self._name}/{method}"

    def duplex(self, method: str, response: type[Message]) -> Any:
        """Many requests, many responses: the call itself, for `IoSession`."""
        return self._method("stream_stream", method, response)()

    def _deadline(self, method: str, timeout: float | None) -> float | None:
        if timeout is not None:
            return timeout
        return None if method in UNHURRIED else self.settings.timeout_s

    def _method(self, shape: str, method: str, response: type[Message]) -> Any:
        found = self._methods.get(method)
        if found is None:
            service = descriptor_pool.Default().FindServiceByName(f"{PACKAGE}.{self._name}")
            described = service.methods_by_name[method]
            assert described.output_type.full_name == response.DESCRIPTOR.full_name, method
            found = self._methods[method] = getattr(self._channel, shape)(
                self.path(method),
                request_serializer=_serialize,
                response_deserializer=response.FromString,
            )
        return found


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
