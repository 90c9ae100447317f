"""The NBD server: exports by name, the addresses they are reached at, the clients they have.

Theory. One server, several addresses, several exports; a client chooses by name. Everything runs in one event
loop, and a client's work in slices (`limits.TURN_REQUESTS`), so that clients take turns.

Invariants
1. After `remove_export` or `stop` no request on the export's source is in flight and none will come.
2. Connections and tasks are all in `_connections` and `_watches`; `stop` leaves none behind and may be repeated.
"""

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from blockyard.base.clock import Clock
from blockyard.base.errors import LimitReached, NodeInUse, ResourceExists, ResourceNotFound, ShuttingDown
from blockyard.node.exports.nbd.buffers import Budget
from blockyard.node.exports.nbd.commands import Report
from blockyard.node.exports.nbd.connection import ClientInfo, Connection, Phase, Surroundings
from blockyard.node.exports.nbd.export import Export, ExportConfig, check_config
from blockyard.node.exports.nbd.limits import NbdLimits
from blockyard.node.exports.nbd.listener import Address, Listener, listen
from blockyard.node.exports.source import ExportSource


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """An export as operators see it."""

    config: ExportConfig
    node_name: str
    size_bytes: int
    read_only: bool
    clients: tuple[ClientInfo, ...]


class NbdServer:
    """Serves exports. `report` is told of dropped clients and of our own bugs."""

    def __init__(
        self, clock: Clock, limits: NbdLimits | None = None, report: Report = lambda kind, detail: None
    ) -> None:
        self._clock = clock
        self._limits = limits or NbdLimits()
        self._report = report
        self._exports: dict[str, Export] = {}
        self._listeners: list[Listener] = []
        self._connections: set[Connection] = set()
        self._watches: set[asyncio.Task[None]] = set()
        self._handshakes: dict[Connection, asyncio.Task[None]] = {}
        self._stall_watch: asyncio.Task[None] | None = None
        self._stopping = False
        self._around = Surroundings(
            self,
            Budget(self._limits.total_bytes, self._watch_stalls),
            self._limits,
            report,
            self._chosen,
            self._gone,
        )

    # --- addresses ---------------------------------------------------------------------------------------

    async def start(self, address: Address) -> list[Address]:
        """Listen at one more address; where clients really connect (port 0 is replaced)."""
        if self._stopping:
            raise ShuttingDown("NBD")
        listeners = await listen(address, self._clock, self._arrived)
        self._listeners += listeners
        if self._stopping:
            await self.stop()
            raise ShuttingDown("NBD")
        return [listener.address for listener in listeners]

    async def end(self, address: Address) -> None:
        """Listen there no longer; clients that came from there stay. Unknown addresses are none."""
        ending = [listener for listener in self._listeners if listener.address == address]
        self._listeners = [listener for listener in self._listeners if listener not in ending]
        for listener in ending:
            await listener.close()

    @property
    def addresses(self) -> list[Address]:
        return [listener.address for listener in self._listeners]

    async def stop(self) -> None:
        """Close every address and drop every client; returns when no request is in flight. May be repeated."""
        self._stopping = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.close()
        await self._drop(set(self._connections), "")
        for watch in list(self._watches):
            watch.cancel()
        if self._watches:
            await asyncio.wait(self._watches)
        self._exports.clear()

    # --- exports -----------------------------------------------------------------------------------------

    async def add_export(self, config: ExportConfig, source: ExportSource) -> None:
        """Serve a node. The source stays the caller's: it must live until `remove_export` or `stop` returned."""
        if self._stopping:
            raise ShuttingDown("NBD")
        check_config(config, source)
        if config.name in self._exports:
            raise ResourceExists("export", config.name)
        if len(self._exports) >= self._limits.exports:
            raise LimitReached("exports", self._limits.exports)
        self._exports[config.name] = Export(config, source)

    async def remove_export(self, name: str, hard: bool = False) -> None:
        """Serve it no longer. Raises NodeInUse while clients are connected, unless `hard`: then drops them."""
        export = self._exports.get(name)
        if export is None:
            raise ResourceNotFound("export", name)
        if export.clients and not hard:
            owners = f"{len(export.clients)} NBD client(s) of export {name!r}"
            raise NodeInUse(export.source.node_name, "stop exporting", owners)
        del self._exports[name]
        await self._drop(set(export.clients), "the export was deleted")

    def exports(self) -> list[ExportInfo]:
        return [
            ExportInfo(
                export.config,
                export.source.node_name,
                export.source.size,
                export.read_only,
                tuple(connection.info() for connection in export.clients),
            )
            for export in self._exports.values()
        ]

    def clients(self) -> list[ClientInfo]:
        """All connections, also those that still negotiate."""
        return [connection.info() for connection in self._connections]

    # --- negotiation.Catalogue ---------------------------------------------------------------------------

    def find(self, name: str) -> Export | None:
        return self._exports.get(name)

    def listed(self) -> list[Export]:
        return list(self._exports.values())

    # --- connections -------------------------------------------------------------------------------------

    def _arrived(self, sock: socket.socket, address: str) -> None:
        if self._stopping or len(self._connections) >= self._limits.connections:
            self._report("nbd-client-refused", {"address": address, "limit": str(self._limits.connections)})
            sock.close()
            return
        connection = Connection(sock, address, self._clock.wall_ns(), self._around)
        self._connections.add(connection)
        self._handshakes[connection] = self._watch(self._limit_handshake(connection))
        connection.start()

    def _chosen(self, connection: Connection) -> None:
        if handshake := self._handshakes.pop(connection, None):
            handshake.cancel()

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._chosen(connection)

    async def _drop(self, connections: set[Connection], why: str) -> None:
        for connection in connections:
            connection.drop(why)
        for connection in connections:
            await connection.gone()

    # --- watches -----------------------------------------------------------------------------------------

    def _watch(self, watch: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(watch)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        return task

    async def _limit_handshake(self, connection: Connection) -> None:
        await self._clock.sleep(self._limits.handshake_seconds)
        self._handshakes.pop(connection, None)
        if connection.phase in (Phase.NEGOTIATING, Phase.CLOSING):
            connection.drop(f"it did not choose an export within {self._limits.handshake_seconds:g} s")

    def _watch_stalls(self) -> None:
        if self._stall_watch is None or self._stall_watch.done():
            self._stall_watch = self._watch(self._drop_stalled())

    async def _drop_stalled(self) -> None:
        """While clients wait for memory: drop those that hold it and neither send nor read."""
        budget = self._around.budget
        while budget.contended:
            before = {client: client.progress for client in self._connections if client.owes}
            await self._clock.sleep(self._limits.stall_seconds)
            for client, progress in before.items():
                if budget.contended and client.owes and client.progress == progress:
                    client.drop("it holds memory that others wait for, and neither sends nor reads")
