"""The client: one channel, one small object per service.

    async with Client.connect("unix:/run/blockyard/blockyard.sock") as client:
        node = await client.nodes.open(qcow2(file("disk.qcow2"), node_name="top"))
        job = await client.jobs.mirror("top", "copy")

Errors are the service's own classes (`blockyard.base.errors`). grpc.aio allows one event loop per process; a
program without one uses `SyncClient`.
"""

import asyncio
from functools import cached_property
from types import TracebackType
from typing import Self

from grpc import aio

from blockyard.base.errors import PeerUnavailable
from blockyard.client.addresses import default_address
from blockyard.client.attachments import Attachments
from blockyard.client.bitmaps import Bitmaps
from blockyard.client.calls import DEFAULT_TIMEOUT_S, Service, Settings
from blockyard.client.catalogue import Catalogue
from blockyard.client.checkpoints import Checkpoints
from blockyard.client.data import Data
from blockyard.client.debug import Debug
from blockyard.client.executors import Executors
from blockyard.client.exports import Exports
from blockyard.client.images import Images
from blockyard.client.jobs import Jobs
from blockyard.client.keys import Keys
from blockyard.client.nodes import Nodes, Server
from blockyard.client.operations import Operations
from blockyard.client.secrets import Secrets
from blockyard.client.snapshots import Snapshots
from blockyard.client.stats import Stats
from blockyard.client.throttling import Throttle
from blockyard.rpc.address import Address
from blockyard.rpc.channel import open_channel


class Client:
    """A connection to Blockyard's services at one address. Make it with `connect`."""

    def __init__(self, address: str, timeout: float | None) -> None:
        self.address = str(Address.parse(address))
        self._settings = Settings(self.address, timeout)
        self._channel: aio.Channel | None = None

    @classmethod
    def connect(cls, address: str = "", *, timeout: float | None = DEFAULT_TIMEOUT_S) -> Self:
        """A client for `async with`. `timeout` is the deadline of calls that name none of their own, except
        those whose work grows with an image; None is no deadline. Without an address: `default_address()`."""
        return cls(address or default_address(), timeout)

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self.address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; calls in flight are cancelled."""
        if self._channel is not None:
            await self._channel.close()

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until the service answers connections. Raises PeerUnavailable after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._open_channel.channel_ready()
        except TimeoutError:
            detail = f"no connection within {timeout} s"
            raise PeerUnavailable("blockyard", self.address, detail) from None

    @cached_property
    def nodes(self) -> Nodes:
        """The live graph."""
        return Nodes(self._service("NodeService"))

    @cached_property
    def catalogue(self) -> Catalogue:
        """What comes back after a restart."""
        return Catalogue(self._service("NodeService"))

    @cached_property
    def images(self) -> Images:
        """Image files that are not open."""
        return Images(self._service("NodeService"))

    @cached_property
    def operations(self) -> Operations:
        """Long operations on images that are open."""
        return Operations(self._service("NodeService"))

    @cached_property
    def server(self) -> Server:
        """What the service is."""
        return Server(self._service("NodeService"))

    @cached_property
    def data(self) -> Data:
        """Bytes of nodes."""
        return Data(self._service("DataService"))

    @cached_property
    def bitmaps(self) -> Bitmaps:
        """Dirty bitmaps."""
        return Bitmaps(self._service("BitmapService"))

    @property
    def checkpoints(self) -> Checkpoints:
        """Named points in time, and what changed between two."""
        return Checkpoints(self._service("BitmapService"))

    @cached_property
    def debug(self) -> Debug:
        """Breakpoints and faults, where the service allows them."""
        return Debug(self._service("DebugService"))

    @cached_property
    def executors(self) -> Executors:
        """Named pools for work that blocks."""
        return Executors(self._service("ExecutorService"))

    @cached_property
    def exports(self) -> Exports:
        """Ways in for guests."""
        return Exports(self._service("ExportService"))

    @cached_property
    def snapshots(self) -> Snapshots:
        """Snapshots inside images."""
        return Snapshots(self._service("SnapshotService"))

    @cached_property
    def keys(self) -> Keys:
        """Key slots of encrypted images that are open."""
        return Keys(self.nodes, self.operations)

    @cached_property
    def secrets(self) -> Secrets:
        """Passphrases and keys by name."""
        return Secrets(self._service("SecretService"))

    @cached_property
    def throttle(self) -> Throttle:
        """Limits that nodes share."""
        return Throttle(self._service("ThrottleService"))

    @cached_property
    def attachments(self) -> Attachments:
        """Users of nodes with policies, and a medium that may change."""
        return Attachments(self._service("AttachmentService"))

    @cached_property
    def jobs(self) -> Jobs:
        """Long work on the graph."""
        return Jobs(self._service("JobService"))

    @cached_property
    def stats(self) -> Stats:
        """Accounts of every request."""
        return Stats(self._service("StatsService"))

    def _service(self, name: str) -> Service:
        return Service(self._open_channel, name, self._settings)

    @property
    def _open_channel(self) -> aio.Channel:
        assert self._channel is not None, "a client is used inside `async with Client.connect(...)`"
        return self._channel
