"""The node service put together: the only place that builds its objects. No logic of its own.

Stopping is the reverse of starting: calls end, drains and copy sessions let go, exports go, every node is closed
(what fails is logged and the rest still closes), then threads and descriptors.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from blockyard.base.clock import Clock, SystemClock
from blockyard.base.errors import BlockError
from blockyard.node.config import NodeConfig
from blockyard.node.copying.kept import CopySessionKind
from blockyard.node.copying.sessions import CopySessions, session_directory
from blockyard.node.core.pool import FairPool
from blockyard.node.exports.exports import Exports
from blockyard.node.exports.kept import ExportKind
from blockyard.node.exports.nbd import NbdLimits, NbdServer
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.debugging import Debugging
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.kept_kinds import ExecutorKind
from blockyard.node.graph.leases import DrainLeases
from blockyard.node.graph.restoring import restore_all
from blockyard.node.graph.stalls import StallWatch
from blockyard.node.interface import tracing
from blockyard.node.interface.keeper import Keeper
from blockyard.node.interface.vault import Vault
from blockyard.node.keeping import DirectoryVault, SqliteKeeper, state_directory
from blockyard.node.rpc.attachments import AttachmentServicer
from blockyard.node.rpc.bitmaps import BitmapServicer
from blockyard.node.rpc.calls import Backstage, disabled
from blockyard.node.rpc.copy import CopyServicer
from blockyard.node.rpc.data import DataServicer
from blockyard.node.rpc.debug import DebugServicer
from blockyard.node.rpc.executors import ExecutorServicer, executor_named
from blockyard.node.rpc.exports import ExportServicer, nbd_address
from blockyard.node.rpc.memory import RequestMemory
from blockyard.node.rpc.nodes import NodeServicer
from blockyard.node.rpc.pieces import add_data_service
from blockyard.node.rpc.secrets import SecretServicer
from blockyard.node.rpc.session import SessionLimits
from blockyard.node.rpc.snapshots import SnapshotServicer
from blockyard.node.rpc.throttle import ThrottleServicer
from blockyard.node.storage import RootedStorage, SecretDirectory
from blockyard.rpc import server
from blockyard.rpc.address import Address
from blockyard.rpc.health_service import Conditions
from blockyard.rpc.server import Service
from blockyard.rpc.telemetry import Telemetry
from blockyard.v1 import (
    bitmap_pb2_grpc,
    control_pb2_grpc,
    copy_pb2_grpc,
    debug_pb2_grpc,
    export_pb2_grpc,
    node_pb2_grpc,
)

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A node service that accepts calls."""

    services: list[Service]
    """Everything it serves, so that another server can offer it too."""
    addresses: list[Address]
    """Where the API is, as bound."""
    graph: Graph
    exports: Exports
    copies: CopySessions
    attachments: Attachments
    conditions: Conditions
    """The health of single nodes, so that another server can tell it too."""


@asynccontextmanager
async def serving(
    config: NodeConfig, *, telemetry: Telemetry | None = None, clock: Clock | None = None
) -> AsyncIterator[Running]:
    """Run the node service while the body does. Raises InvalidArgument, PeerUnavailable or AddressUnavailable."""
    clock = clock or SystemClock()
    telemetry = telemetry or Telemetry("blockyard-node")
    telemetry.bind_request_path(tracing.active)
    async with AsyncExitStack() as stack:
        graph = await _graph(stack, config, clock)
        attachments = Attachments(graph)
        stack.callback(attachments.close)
        copies = await _copies(stack, config, graph)
        exports = await _exports(stack, config, graph, attachments, clock)
        copies.sweep()
        # Before anything ends: what the end takes away is to come back.
        stack.callback(graph.kept.catalogue.hold)
        leases = DrainLeases(graph)
        stack.callback(leases.close)
        debugging = Debugging(graph)
        services = _services(config, telemetry, graph, attachments, exports, copies, leases, debugging)
        watching, conditions = _stalls(graph, config.stall_seconds)
        stack.push_async_callback(_end, asyncio.create_task(watching.run()))
        beating = asyncio.create_task(_beat(graph, config.heartbeat_seconds))
        stack.push_async_callback(_end, beating)
        running = await stack.enter_async_context(
            server.serving(
                config.addresses,
                services,
                telemetry=telemetry,
                limits=config.limits,
                grace_seconds=config.grace_seconds,
                with_channelz=config.channelz,
                conditions=conditions,
            )
        )
        # Before anything else ends: who stands at a breakpoint would hold up every step of it.
        stack.callback(debugging.end)
        yield Running(running.services, running.addresses, graph, exports, copies, attachments, conditions)


async def _graph(stack: AsyncExitStack, config: NodeConfig, clock: Clock) -> Graph:
    storage = stack.enter_context(
        RootedStorage(config.storage_roots, temporary_directory=config.temporary_directory)
    )
    pool = FairPool(config.pool_threads, name="node")
    stack.push_async_callback(pool.close)
    keeper, vault = await _kept(stack, config)
    environment = Environment(
        storage,
        pool,
        clock,
        config.follow_backing,
        config.max_chain_depth,
        config.max_nodes,
        config.allow_ioctl,
        secret_files=SecretDirectory(config.secret_directory),
        vault=vault,
        hot_bytes=config.bitmap_hot_bytes,
    )
    graph = Graph(environment, Catalogue(keeper))
    stack.push_async_callback(graph.executors.close)
    for text in config.executors:
        graph.executors.create(*executor_named(text))
    graph.kept.catalogue.add(ExecutorKind(graph.executors))
    stack.push_async_callback(_close, graph)
    return graph


async def _kept(stack: AsyncExitStack, config: NodeConfig) -> tuple[Keeper | None, Vault | None]:
    """What is kept of the graph, and of bitmaps."""
    if not config.state_directory:
        return None, None
    directory = stack.enter_context(state_directory(config.state_directory))
    vault = DirectoryVault.opened(directory)
    stack.callback(vault.close)
    return await stack.enter_async_context(SqliteKeeper.opened(directory)), vault


async def _copies(stack: AsyncExitStack, config: NodeConfig, graph: Graph) -> CopySessions:
    """Before exports: guests come after the sessions that follow them, and go before."""
    copies = CopySessions(graph, session_directory(config.state_directory) if config.state_directory else None)
    stack.push_async_callback(_let_go, copies)
    graph.kept.catalogue.add(CopySessionKind(copies))
    return copies


async def _exports(
    stack: AsyncExitStack, config: NodeConfig, graph: Graph, attachments: Attachments, clock: Clock
) -> Exports:
    limits = NbdLimits(connections=config.nbd_connections, total_bytes=config.nbd_total_bytes)
    nbd = NbdServer(clock, limits, lambda kind, detail: _log.warning(kind, extra=dict(detail)))
    own, later = config.export_addresses, bool(config.nbd)
    exports = Exports(graph, nbd, attachments, own_addresses=own, listens_later=later)
    stack.push_async_callback(exports.stop)
    graph.kept.catalogue.add(ExportKind(graph, exports, attachments))
    await restore_all(graph)
    # Clients that come back find their exports again.
    for text in config.nbd:
        await exports.listen(nbd_address(text))
    return exports


def _services(
    config: NodeConfig,
    telemetry: Telemetry,
    graph: Graph,
    attachments: Attachments,
    exports: Exports,
    copies: CopySessions,
    leases: DrainLeases,
    debugging: Debugging,
) -> list[Service]:
    memory = RequestMemory()
    session = SessionLimits(
        max_in_flight=config.session_in_flight, max_bytes_in_flight=config.session_bytes_in_flight
    )
    instance_id = config.instance_id or telemetry.instance_id
    version = metadata.version("blockyard")
    limits = _limits(config)
    backstage = Backstage(graph, attachments, leases, instance_id, version, limits, memory, exports, copies)
    guests = AttachmentServicer(attachments, memory)
    offered = (
        ("NodeService", node_pb2_grpc.add_NodeServiceServicer_to_server, NodeServicer(backstage)),
        ("DataService", add_data_service, DataServicer(graph, attachments, session)),
        ("AttachmentService", control_pb2_grpc.add_AttachmentServiceServicer_to_server, guests),
        ("BitmapService", bitmap_pb2_grpc.add_BitmapServiceServicer_to_server, BitmapServicer(graph, memory)),
        ("ExportService", export_pb2_grpc.add_ExportServiceServicer_to_server, ExportServicer(exports, memory)),
        (
            "ExecutorService",
            control_pb2_grpc.add_ExecutorServiceServicer_to_server,
            ExecutorServicer(graph.executors, graph.kept),
        ),
        ("DebugService", debug_pb2_grpc.add_DebugServiceServicer_to_server, _debug(config, debugging)),
        (
            "ThrottleService",
            control_pb2_grpc.add_ThrottleServiceServicer_to_server,
            ThrottleServicer(graph.environment.throttling, graph.kept, memory),
        ),
        (
            "SnapshotService",
            control_pb2_grpc.add_SnapshotServiceServicer_to_server,
            SnapshotServicer(graph, memory),
        ),
        ("CopyService", copy_pb2_grpc.add_CopyServiceServicer_to_server, CopyServicer(copies)),
        (
            "SecretService",
            control_pb2_grpc.add_SecretServiceServicer_to_server,
            SecretServicer(graph.environment.secrets, graph.kept, memory),
        ),
    )
    return [Service(f"blockyard.v1.{name}", add, servicer, telemetry) for name, add, servicer in offered]


def _debug(config: NodeConfig, debugging: Debugging) -> object:
    return DebugServicer(debugging) if config.debug else disabled(debug_pb2_grpc.DebugServiceServicer, "debug")


def _limits(config: NodeConfig) -> dict[str, int]:
    return {
        "max_nodes": config.max_nodes,
        "max_chain_depth": config.max_chain_depth,
        "pool_threads": config.pool_threads,
        "session_in_flight": config.session_in_flight,
        "session_bytes_in_flight": config.session_bytes_in_flight,
        "nbd_connections": config.nbd_connections,
        "nbd_total_bytes": config.nbd_total_bytes,
    }


def _stalls(graph: Graph, seconds: float) -> tuple[StallWatch, Conditions]:
    """The watchdog, and what it says of nodes as health by the name `node/NAME`."""

    def is_well(name: str) -> bool | None:
        kind, _, node_name = name.partition("/")
        node = graph.nodes.get(node_name) if kind == "node" else None
        return None if node is None else not watch.is_stalled(node)

    def told(node_name: str) -> None:
        if (node := graph.nodes.get(node_name)) is not None and watch.is_stalled(node):
            _log.warning("the oldest request of a node is older than stall_seconds", extra={"node": node_name})
        conditions.changed(f"node/{node_name}")

    watch, conditions = StallWatch(graph, seconds, told), Conditions(is_well)
    graph.on_changed.append(lambda node: conditions.changed(f"node/{node.name}"))
    return watch, conditions


async def _beat(graph: Graph, seconds: float) -> None:
    """Tell silent watchers that they are up to date."""
    while True:
        await graph.environment.clock.sleep(seconds)
        graph.hub.bookmark()
        await graph.checkpoints.expire()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _let_go(copies: CopySessions) -> None:
    try:
        await copies.suspend_all()
    except BlockError as problem:
        _log.error("a copy session was not taken down cleanly", extra={"problem": problem})


async def _close(graph: Graph) -> None:
    for problem in await graph.close_all():
        _log.error("a node was not closed cleanly", extra={"problem": problem})
