"""Who may call what: the seam. Today everyone who reaches the socket may call everything.

An authorizer sees the method and the metadata before anything is spent on the call. Must not know services.
"""

from dataclasses import dataclass
from typing import Protocol

import grpc


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    name: str


class Authorizer(Protocol):
    """Decides about every call, health and reflection included."""

    async def admit(self, method: str, context: "grpc.aio.ServicerContext[object, object]") -> Caller:
        """The caller. Raises Unauthenticated or CallerDenied."""
        ...


class AllowAll:
    """Trusts the socket's permissions and the network."""

    _anyone = Caller("anyone")

    async def admit(self, method: str, context: "grpc.aio.ServicerContext[object, object]") -> Caller:
        return self._anyone
