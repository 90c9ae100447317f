"""An NBD server over a memory node, with a clock that stands still."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.node.exports.nbd import ExportConfig, NbdLimits, NbdServer
from tests.support.export_source import MemorySource
from tests.support.nbd_peer import NbdPeer

SIZE = 4 * 1024 * 1024


@dataclass
class Stage:
    """A server that serves `source` as `disk`."""

    server: NbdServer
    source: MemorySource
    address: Path
    clock: VirtualClock
    reports: list[tuple[str, dict[str, str]]]

    async def open(self, structured: bool = True, contexts: tuple[str, ...] = ()) -> NbdPeer:
        return await NbdPeer.open(self.address, "disk", structured, contexts)

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the loop turn until the condition holds."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    @property
    def uri(self) -> str:
        return f"nbd+unix:///disk?socket={self.address}"


Factory = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def stage_with(tmp_path: Path) -> AsyncIterator[Factory]:
    servers: list[NbdServer] = []

    async def build(
        limits: NbdLimits | None = None,
        config: ExportConfig | None = None,
        size: int = SIZE,
        source: MemorySource | None = None,
    ) -> Stage:
        clock, reports = VirtualClock(), []
        server = NbdServer(clock, limits, lambda kind, detail: reports.append((kind, detail)))
        servers.append(server)
        source = source or MemorySource(size)
        await server.add_export(config or ExportConfig("disk", "a disk in memory", writable=True), source)
        address = tmp_path / f"nbd{len(servers)}.sock"
        await server.start(address)
        return Stage(server, source, address, clock, reports)

    yield build
    for server in servers:
        await server.stop()


@pytest.fixture
async def stage(stage_with: Factory) -> Stage:
    return await stage_with()
