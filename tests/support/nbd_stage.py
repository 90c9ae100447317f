"""An NBD server for the client's tests: it can stop, lose what was not flushed, and be there again."""

import asyncio
from pathlib import Path

from blockyard.base.clock import SystemClock
from blockyard.node.exports.nbd import ExportConfig, NbdServer
from tests.support.export_source import MemorySource


class ForgetfulSource(MemorySource):
    """What was not flushed is gone after `crash`."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._durable = bytes(size)

    async def flush(self) -> None:
        await super().flush()
        self._durable = bytes(self.content)

    def crash(self) -> None:
        self.content[:] = self._durable


class NbdStage:
    """A server on a unix socket that serves `source` as `disk`."""

    def __init__(self, path: Path, source: MemorySource) -> None:
        self.path = path
        self.source = source
        self.writable = True
        self._server: NbdServer | None = None

    @property
    def options(self) -> dict[str, object]:
        return {"address": f"unix:{self.path}", "export": "disk"}

    async def start(self) -> None:
        self._server = NbdServer(SystemClock())
        await self._server.add_export(ExportConfig("disk", "", writable=self.writable), self.source)
        await self._server.start(self.path)

    async def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()


class ScriptedServer:
    """Sends exactly what a test tells it to, right or wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.arrived = asyncio.Event()
        self._server: asyncio.Server

    @property
    def options(self) -> dict[str, object]:
        return {"address": f"unix:{self.path}", "export": "disk"}

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, str(self.path))

    async def stop(self) -> None:
        self._server.close()
        if self.arrived.is_set():
            self.writer.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.arrived.set()
