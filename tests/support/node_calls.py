"""A real node service over a real unix socket, with the client library and with bare stubs of every service."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from blockyard.base.clock import Clock
from blockyard.client import Client
from blockyard.node import app
from blockyard.node.config import NodeConfig
from blockyard.rpc.status import from_rpc_error
from blockyard.rpc.telemetry import Telemetry
from blockyard.v1 import (
    bitmap_pb2_grpc,
    control_pb2_grpc,
    data_pb2_grpc,
    debug_pb2_grpc,
    export_pb2_grpc,
    node_pb2_grpc,
)


class Raising:
    """A stub whose unary calls raise the catalogue's errors."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, method: str) -> Callable[[Any], Any]:
        async def call(request: Any) -> Any:
            try:
                return await getattr(self._stub, method)(request)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, method) from None

        return call


@dataclass
class NodeHouse:
    """The service and the ways to it."""

    folder: Path
    running: app.Running
    client: Client
    channel: grpc.aio.Channel

    @property
    def graph(self) -> Any:
        return self.running.graph

    @property
    def nodes(self) -> Raising:
        return Raising(node_pb2_grpc.NodeServiceStub(self.channel))

    @property
    def exports(self) -> Raising:
        return Raising(export_pb2_grpc.ExportServiceStub(self.channel))

    @property
    def bitmaps(self) -> Raising:
        return Raising(bitmap_pb2_grpc.BitmapServiceStub(self.channel))

    @property
    def debug(self) -> Raising:
        return Raising(debug_pb2_grpc.DebugServiceStub(self.channel))

    @property
    def throttle(self) -> Raising:
        return Raising(control_pb2_grpc.ThrottleServiceStub(self.channel))

    @property
    def snapshots(self) -> Raising:
        return Raising(control_pb2_grpc.SnapshotServiceStub(self.channel))

    @property
    def attachments(self) -> Raising:
        return Raising(control_pb2_grpc.AttachmentServiceStub(self.channel))

    @property
    def data(self) -> Any:
        """The bare stub, for streams."""
        return data_pb2_grpc.DataServiceStub(self.channel)

    @property
    def watch(self) -> Any:
        """The bare stub of NodeService, for streams."""
        return node_pb2_grpc.NodeServiceStub(self.channel)

    def users(self, name: str) -> list[str]:
        return list(self.graph.get(name).holders())

    def raw_file(self, name: str, content: bytes | int) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else bytes(content))
        return path


@asynccontextmanager
async def node_house(
    folder: Path, *, clock: Clock | None = None, telemetry: Telemetry | None = None, **options: Any
) -> AsyncIterator[NodeHouse]:
    """A service whose storage root is the folder's `images`; its socket lies beside it."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    address = f"unix:{folder}/node.sock"
    config = NodeConfig(listen=(address,), storage_roots=(str(images),), grace_seconds=0.2, **options)
    async with (
        app.serving(config, clock=clock, telemetry=telemetry) as running,
        Client.connect(address) as client,
        grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", 16 << 20)]) as channel,
    ):
        yield NodeHouse(images, running, client, channel)
