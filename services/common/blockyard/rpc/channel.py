"""One way to dial a service: trace context and errors of the catalogue on every call, sane limits, few retries.

    async with open_channel(Address.parse("unix:/run/b.sock")) as channel:
        node = await NodeServiceStub(channel).GetNode(...)      # raises NodeNotFound, PeerUnavailable ...

The channel is grpc.aio's, wrapped: interceptors of grpc.aio cannot see the end of a stream and copy every call
object, a multicallable of our own does both jobs for a tenth of the cost. Must not know any service of ours.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import grpc

from blockyard.rpc import retries, trace_context
from blockyard.rpc.address import Address
from blockyard.rpc.calls import Ended, SingleReplyCall, StreamedReplyCall
from blockyard.rpc.telemetry import Telemetry
from blockyard.rpc.wire import MAX_MESSAGE

KEEPALIVE_MS: Final = 30_000
KEEPALIVE_TIMEOUT_MS: Final = 10_000

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # A connection per channel: a stream that fills its window must not slow another client's calls.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Not a wait: how long one attempt to connect may take (gRPC's min_connect_timeout). A busy machine needs more
    # than a tenth of a second to answer.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Block storage does not go through a web proxy because some shell exports one.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config", retries.service_config()),
)
NETWORK_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
)
"""A socket file tells at once that its peer is gone; a network need not."""
UNIX_OPTIONS: Final = (("grpc.default_authority", "localhost"),)


def open_channel(address: Address | str, *, telemetry: Telemetry | None = None) -> "Channel":
    """A channel to a service. Connects when first used, again whenever it must; never blocks."""
    where = Address.parse(address) if isinstance(address, str) else address
    options = (*OPTIONS, *(UNIX_OPTIONS if where.is_unix else NETWORK_OPTIONS))
    inner = grpc.aio.insecure_channel(where.target, options=options)
    return Channel(inner, where, telemetry or Telemetry("blockyard-client"))


class Channel(grpc.aio.Channel):
    """grpc.aio's channel with our calls. Stubs take it as they take any other."""

    def __init__(self, inner: grpc.aio.Channel, address: Address, telemetry: Telemetry) -> None:
        self._inner = inner
        self.address = address
        self.telemetry = telemetry

    async def __aenter__(self) -> "Channel":
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.close()

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    def unary_unary(self, method: str, *args: Any, **more: Any) -> Any:
        return self._callable(self._inner.unary_unary(method, *args, **more), method, SingleReplyCall)

    def unary_stream(self, method: str, *args: Any, **more: Any) -> Any:
        return self._callable(self._inner.unary_stream(method, *args, **more), method, StreamedReplyCall)

    def stream_unary(self, method: str, *args: Any, **more: Any) -> Any:
        return self._callable(self._inner.stream_unary(method, *args, **more), method, SingleReplyCall)

    def stream_stream(self, method: str, *args: Any, **more: Any) -> Any:
        return self._callable(self._inner.stream_stream(method, *args, **more), method, StreamedReplyCall)

    def _callable(self, inner: Callable[..., Any], path: str, face: type[Any]) -> Callable[..., Any]:
        telemetry, address, method = self.telemetry, str(self.address), path.lstrip("/")

        def begin(*args: Any, metadata: Any = None, **more: Any) -> Any:
            context = telemetry.current()
            span = None
            if telemetry.tracing is not None:
                span, context = telemetry.tracing.client_call(method)
            sent = tuple(metadata or ()) + (trace_context.to_metadata(context) if context else ())
            call = inner(*args, metadata=sent or None, **more)
            ended = Ended(telemetry, method, span)
            call.add_done_callback(ended)
            return face(call, ended, method, address)

        return begin
