"""grpc.health.v1.Health, for the server, its services, and single things that a service owns (`node/disk`).

Of services there are a few, and each says what it is. Things come and go by the thousand: their owner is asked when
somebody looks (`Conditions`), so nothing is kept of them here; a name that nobody knows is NOT_FOUND, and to a
watcher SERVICE_UNKNOWN, as the protocol wants. The health of a thing never changes that of the server.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status = health_pb2.HealthCheckResponse
_LONGEST: Final = 512
"""Characters of a name that is looked up."""


class Conditions:
    """The health of things, as their owner tells it. One may be served by several servers."""

    def __init__(self, is_well: Callable[[str], bool | None]) -> None:
        self.is_well = is_well
        """Of a name; None if there is no such thing."""
        self._listeners: list[Callable[[str], None]] = []

    def changed(self, name: str) -> None:
        """Tell all servers that the answer for a name is another one."""
        for listener in self._listeners:
            listener(name)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have `listener` called with every name whose answer changed."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[str], None]) -> None:
        """The opposite."""
        self._listeners.remove(listener)


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """What is asked for by name; the empty name is the server."""

    def __init__(self, conditions: Conditions | None = None) -> None:
        self._conditions = conditions
        self._services: dict[str, int] = {"": Status.SERVING}
        self._stopping = False
        self._watches: dict[str, set[asyncio.Event]] = {}
        if conditions is not None:
            conditions.listen(self._wake)

    def close(self) -> None:
        """Forget the owner of things."""
        if self._conditions is not None:
            self._conditions.unlisten(self._wake)

    async def set(self, name: str, status: int) -> None:
        """Say what a service is."""
        if not self._stopping:
            self._services[name] = status
            self._wake(name)

    async def enter_graceful_shutdown(self) -> None:
        """From now on everything is NOT_SERVING."""
        self._stopping = True
        for name in list(self._watches):
            self._wake(name)

    def status(self, name: str) -> int | None:
        """What is said of a name; None if there is nothing of that name."""
        known: int | None = self._services.get(name)
        if known is None and self._conditions is not None and len(name) <= _LONGEST:
            well = self._conditions.is_well(name)
            known = None if well is None else Status.SERVING if well else Status.NOT_SERVING
        return Status.NOT_SERVING if self._stopping and known is not None else known

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
        status = self.status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"nothing here is named {request.service[:_LONGEST]!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        name, woken = request.service, asyncio.Event()
        watches = self._watches.setdefault(name, set())
        watches.add(woken)
        last: int | None = None
        try:
            while True:
                woken.clear()
                status = self.status(name)
                now = Status.SERVICE_UNKNOWN if status is None else status
                if now != last:
                    await context.write(health_pb2.HealthCheckResponse(status=now))
                    last = now
                await woken.wait()
        finally:
            watches.discard(woken)
            if not watches:
                self._watches.pop(name, None)

    def _wake(self, name: str) -> None:
        for woken in self._watches.get(name, ()):
            woken.set()
