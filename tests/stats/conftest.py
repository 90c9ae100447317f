"""A node service that speaks WatchAccounting, and a stats service that listens to it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.rpc.address import Address
from blockyard.rpc.channel import open_channel
from blockyard.rpc.server import Running, Service, serving
from blockyard.stats import app
from blockyard.v1 import stats_pb2, stats_pb2_grpc
from blockyard.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from tests.support.accounting_node import SmallNode
from tests.support.eventually import eventually


class Yard:
    """Both sides. `node` may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.node_address = Address.parse(f"unix:{folder}/node.sock")
        self.clock = VirtualClock()
        self.node = SmallNode()
        self.running: Running
        self.stub: stats_pb2_grpc.StatsServiceStub
        self._node_server = AsyncExitStack()

    async def start_node(self, node: SmallNode) -> None:
        self.node = node
        service = Service("blockyard.v1.NodeService", add_NodeServiceServicer_to_server, node)
        await self._node_server.enter_async_context(serving([self.node_address], [service], grace_seconds=0))

    async def stop_node(self) -> None:
        await self._node_server.aclose()

    async def told(self, seconds: float = 1.0) -> None:
        """Let time pass, and what the node then says arrive."""
        await eventually(lambda: self.node.watchers)
        await self.clock.advance(seconds)
        self.node.tell()
        sample_ns = self.node.sample_ns

        async def arrived() -> bool:
            sources = await self.sources()
            return sources[0].last_sample_time.ToNanoseconds() == sample_ns

        while not await arrived():
            pass

    async def sources(self):
        return (await self.stub.ListSources(stats_pb2.ListSourcesRequest())).sources


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    yard = Yard(tmp_path)
    await yard.start_node(SmallNode())
    config = app.StatsConfig(
        listen=(f"unix:{tmp_path}/stats.sock",),
        node=(str(yard.node_address),),
        grace_seconds=0,
    )
    async with app.serving(config, clock=yard.clock) as running, open_channel(running.addresses[0]) as channel:
        yard.running = running
        yard.stub = stats_pb2_grpc.StatsServiceStub(channel)
        yield yard
    await yard.stop_node()
