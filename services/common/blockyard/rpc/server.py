"""One way to serve: health, reflection, the interceptor stack, a drain that is announced before it begins.

    async with serving([Address.parse("unix:/run/b.sock")], [Service(name, add, servicer)], telemetry=telemetry):
        await until_stopped()

Must not know any service of ours.
"""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from blockyard.base.errors import InvalidArgument, PeerUnavailable
from blockyard.rpc import reflection
from blockyard.rpc.address import Address
from blockyard.rpc.admission import Admission, Limits
from blockyard.rpc.auth import AllowAll, Authorizer
from blockyard.rpc.health_service import Conditions, HealthService
from blockyard.rpc.interceptors import Stack
from blockyard.rpc.stopping import until_stopped
from blockyard.rpc.telemetry import Telemetry
from blockyard.rpc.wire import MAX_MESSAGE

GRACE_SECONDS: Final = 5.0
"""How long calls may go on after a stop was asked for."""
OPTIONS: Final[Sequence[tuple[str, int]]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.keepalive_permit_without_calls", 1),
    # Our own clients ping every 30 s; the default of one ping in five minutes would send them away.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Two servers on one port would share calls between processes that know nothing of each other.
    ("grpc.so_reuseport", 0),
)

HEALTH_NAME: Final = "grpc.health.v1.Health"
_log = logging.getLogger(__name__)
__all__ = ["Running", "Service", "serving", "until_stopped"]


@dataclass(frozen=True, slots=True)
class Service:
    """A service to offer: its full proto name, the generated `add_XServicer_to_server`, and who does the work."""

    name: str
    add: Callable[[Any, Any], None]
    servicer: object
    telemetry: Telemetry | None = None
    """Whose name its spans carry; None takes the server's."""


@dataclass(slots=True)
class Running:
    """A server that accepts calls."""

    addresses: list[Address]
    """As bound: a port of 0 has become the real one."""
    services: list[Service]
    """As given, with their telemetry filled in, so that another server can offer them too."""
    admission: Admission
    health: HealthService = field(repr=False)
    """`set(name, status)` marks a single service."""


@asynccontextmanager
async def serving(
    addresses: Iterable[Address],
    services: Iterable[Service],
    *,
    telemetry: Telemetry | None = None,
    limits: Limits | None = None,
    authorizer: Authorizer | None = None,
    grace_seconds: float = GRACE_SECONDS,
    with_channelz: bool = False,
    conditions: Conditions | None = None,
) -> AsyncIterator[Running]:
    """Serve until the block is left: then NOT_SERVING, watches end, calls get `grace_seconds`, the rest is cut off.

    `conditions` tell the health of things that are no services.
    Raises InvalidArgument without an address, PeerUnavailable if one cannot be bound.
    """
    shared = telemetry or Telemetry("blockyard")
    offered = [replace(service, telemetry=service.telemetry or shared) for service in services]
    owners = {service.name: service.telemetry or shared for service in offered}
    admission = Admission(limits or Limits())
    stack = Stack(admission, authorizer or AllowAll(), lambda name: owners.get(name, shared))
    server = grpc.aio.server(interceptors=[stack], options=OPTIONS)
    for service in offered:
        service.add(service.servicer, server)
    checker = await _add_standard_services(server, [service.name for service in offered], with_channelz, conditions)
    with _bound(server, list(addresses)) as bound:
        await server.start()
        running = Running(bound, offered, admission, checker)
        _log.info("serving", extra={"addresses": ",".join(map(str, bound))})
        try:
            yield running
        finally:
            await _stop(server, running, grace_seconds)
            checker.close()


async def _stop(server: grpc.aio.Server, running: Running, grace_seconds: float) -> None:
    await running.health.enter_graceful_shutdown()
    # Watchers of health see NOT_SERVING before their streams end.
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(server.stop(grace_seconds))
    await asyncio.sleep(0)
    running.admission.end_watches()
    await stopping


async def _add_standard_services(
    server: grpc.aio.Server, names: list[str], with_channelz: bool, conditions: Conditions | None
) -> HealthService:
    checker = HealthService(conditions)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    for name in names:
        await checker.set(name, health_pb2.HealthCheckResponse.SERVING)
    listed = [*names, HEALTH_NAME]
    if with_channelz:
        from grpc_channelz.v1 import channelz

        channelz.add_channelz_servicer(server)
        listed.append("grpc.channelz.v1.Channelz")
    reflection.add(server, listed)
    return checker


@contextmanager
def _bound(server: grpc.aio.Server, addresses: list[Address]) -> Any:
    if not addresses:
        raise InvalidArgument("listen", "at least one address", "none")
    bound: list[Address] = []
    try:
        bound.extend(_bind(server, address) for address in addresses)
        yield bound
    finally:
        for address in bound:
            if address.is_unix:
                with suppress(FileNotFoundError):
                    Path(address.path).unlink()


def _bind(server: grpc.aio.Server, address: Address) -> Address:
    if address.is_unix:
        _remove_stale_socket(address)
    # The socket is created by the library, with the process's umask: nobody else may connect.
    previous = os.umask(0o177) if address.is_unix else None
    try:
        port = server.add_insecure_port(address.bind)
    except RuntimeError as error:
        raise PeerUnavailable("listener", str(address), f"the address cannot be bound: {error}") from error
    finally:
        if previous is not None:
            os.umask(previous)
    return address.with_port(port)


def _remove_stale_socket(address: Address) -> None:
    """Remove a socket that a dead process left behind. A live one is not taken away from its owner."""
    path = Path(address.path)
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise PeerUnavailable("listener", str(address), "the path exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise PeerUnavailable("listener", str(address), f"the socket is in use: {error}") from error
    raise PeerUnavailable("listener", str(address), "another process serves there")
