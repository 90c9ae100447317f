"""A node service and a jobs service over Unix sockets, as an operator would run them, and clients for both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blockyard.client import Client
from blockyard.client.definitions import file, memory, qcow2
from blockyard.jobs import app as jobs_app
from blockyard.jobs.config import JobsConfig
from blockyard.node import app as node_app
from blockyard.node.config import NodeConfig

CLUSTER = 65536


class House:
    """Both services, and shorthands in a test's words."""

    def __init__(self, folder: Path, node: Client, jobs: Client, running: node_app.Running) -> None:
        self.folder = folder
        self.node = node
        self.jobs = jobs.jobs
        self.running = running

    @property
    def node_address(self) -> str:
        return self.node.address

    async def memory(self, name: str, content: bytes | int) -> None:
        """A node in memory with this content, or so many zero bytes."""
        size = content if isinstance(content, int) else len(content)
        await self.node.nodes.open(memory(size, node_name=name))
        if isinstance(content, bytes):
            await self.node.data.write(name, 0, content)

    async def image(self, name: str, size: int, *, below: str = "") -> None:
        """A qcow2 image `NAME.qcow2`, opened as a node of its own above another node."""
        await self.node.images.create(f"{name}.qcow2", size, format="qcow2")
        more: dict[str, Any] = {"backing": below} if below else {}
        await self.node.nodes.open(qcow2(file(f"{name}.qcow2"), node_name=name, **more))

    async def write(self, name: str, offset: int, content: bytes) -> None:
        await self.node.data.write(name, offset, content)

    async def content(self, name: str) -> bytes:
        size = (await self.node.nodes.get(name)).size_bytes
        return bytes(await self.node.data.read(name, 0, size))

    async def below(self, name: str) -> list[str]:
        """Nodes that show through this one."""
        state = await self.node.nodes.get(name)
        return [child.node_name for child in state.children if child.name == "backing"]


@asynccontextmanager
async def node_service(folder: Path) -> AsyncIterator[tuple[node_app.Running, Client]]:
    config = NodeConfig(listen=(f"unix:{folder}/node.sock",), storage_roots=(str(folder),), grace_seconds=0.2)
    async with node_app.serving(config) as running, Client.connect(config.listen[0]) as client:
        yield running, client


@asynccontextmanager
async def jobs_service(folder: Path, **options: Any) -> AsyncIterator[Client]:
    settings = {"grace_seconds": 0.2, "node": f"unix:{folder}/node.sock", **options}
    config = JobsConfig(listen=(f"unix:{folder}/jobs.sock",), **settings)
    async with jobs_app.serving(config), Client.connect(config.listen[0]) as client:
        yield client


@asynccontextmanager
async def house(folder: Path, **options: Any) -> AsyncIterator[House]:
    async with node_service(folder) as (running, node), jobs_service(folder, **options) as jobs:
        yield House(folder, node, jobs, running)
