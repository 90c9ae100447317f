"""A node service and jobs services as processes of their own: started, killed, stopped, started again."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.client import Client

READY_SECONDS = 30


@dataclass
class Service:
    """One service. It may live several times."""

    module: str
    folder: Path
    name: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()
    process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.folder}/{self.name}.sock"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    async def start(self, **environment: str) -> None:
        """Returns when it serves."""
        await self.launch(**environment)
        await self.ready()

    async def launch(self, **environment: str) -> None:
        """Returns when it runs; `ready` waits until it serves."""
        self._ready, told = os.pipe()
        with self.log.open("ab") as sink:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.module, "--listen", self.address, "--ready-fd", str(told)),
                *self.options,
                pass_fds=(told, *self.pass_fds),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, **self.environment, **environment},
            )
        os.close(told)

    async def ready(self) -> bool:
        """Wait until it serves; False if it ended before."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                return bool(await asyncio.to_thread(os.read, self._ready, 4096))
        finally:
            os.close(self._ready)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """As a machine that loses its process."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
        await self.ended()

    async def terminate(self) -> int:
        """As an operator ends it; its status."""
        assert self.process is not None
        self.process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end, however that comes."""
        assert self.process is not None
        async with asyncio.timeout(READY_SECONDS):
            return await self.process.wait()


def node_of(folder: Path, *options: str, **environment: str) -> Service:
    """A node with a state directory and its images in `folder/images`."""
    (folder / "images").mkdir(exist_ok=True)
    places = ("--storage-roots", f"{folder}/images", "--state-directory", f"{folder}/node-state")
    nbd = ("--nbd", f"unix:{folder}/nbd.sock")
    return Service("blockyard.node", folder, "node", (*places, *nbd, *options), environment)


def jobs_of(folder: Path, name: str = "jobs", *options: str, **environment: str) -> Service:
    """A jobs service for that node; kept in a state directory unless the options name a database."""
    kept = () if "--database" in options else ("--state-directory", f"{folder}/jobs-state")
    return Service(
        "blockyard.jobs", folder, name, ("--node", f"unix:{folder}/node.sock", *kept, *options), environment
    )


@asynccontextmanager
async def running(*services: Service) -> AsyncIterator[list[Client]]:
    """All of them, in this order, and a client of each; killed at the end."""
    async with AsyncExitStack() as stack:
        clients = []
        for service in services:
            stack.push_async_callback(_end, service)
            await service.start()
            clients.append(await stack.enter_async_context(Client.connect(service.address)))
        yield clients


async def _end(service: Service) -> None:
    if service.process is not None and service.process.returncode is None:
        service.process.send_signal(signal.SIGCONT)
        service.process.kill()
        await service.process.wait()
