"""Calls about a job that another replica works on go there: a client may call any of them.

What lives here: the way to the others. What must not: which calls there are. A call is forwarded once; one that
came from another replica is not sent on, so that two who disagree for a moment do not play with it.
"""

from collections.abc import AsyncGenerator
from typing import Any, Final

from blockyard.base.errors import InvalidArgument, JobElsewhere
from blockyard.rpc.address import Address
from blockyard.rpc.channel import Channel, open_channel
from blockyard.rpc.telemetry import Telemetry
from blockyard.v1.job_pb2_grpc import JobServiceStub

MARK: Final = "blockyard-forwarded"
FORWARD_SECONDS: Final = 60.0
"""Deadline of a call that came without one."""
MAX_PEERS: Final = 16
"""Replicas that are remembered; the oldest connection is closed first."""


class Peers:
    """The other replicas."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._channels: dict[str, Channel] = {}

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels = {}

    async def unary(self, method: str, request: Any, context: Any, elsewhere: JobElsewhere) -> Any:
        """The owner's answer. Raises `elsewhere` if it cannot be asked."""
        stub = await self._stub(context, elsewhere)
        return await getattr(stub, method)(request, timeout=_seconds(context), metadata=((MARK, "1"),))

    async def stream(
        self, method: str, request: Any, context: Any, elsewhere: JobElsewhere
    ) -> AsyncGenerator[Any, None]:
        """The owner's answers."""
        stub = await self._stub(context, elsewhere)
        call = getattr(stub, method)(request, metadata=((MARK, "1"),))
        try:
            async for answer in call:
                yield answer
        finally:
            call.cancel()

    async def _stub(self, context: Any, elsewhere: JobElsewhere) -> Any:
        metadata = context.invocation_metadata() if context is not None else ()
        if any(key == MARK for key, _ in metadata or ()):
            raise elsewhere
        try:
            where = str(Address.parse(elsewhere.owner))
        except InvalidArgument:
            raise elsewhere from None
        channel = self._channels.pop(where, None) or open_channel(where, telemetry=self._telemetry)
        self._channels[where] = channel
        while len(self._channels) > MAX_PEERS:
            await self._channels.pop(next(iter(self._channels))).close()
        return JobServiceStub(channel)  # type: ignore[no-untyped-call]


def _seconds(context: Any) -> float:
    left = context.time_remaining() if context is not None else None
    return float(left) if left is not None else FORWARD_SECONDS
