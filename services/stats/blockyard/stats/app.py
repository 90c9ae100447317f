"""The stats service, built: `serving(config)` is the only place that makes its objects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from blockyard.base.clock import Clock, SystemClock
from blockyard.base.errors import InvalidArgument
from blockyard.rpc.address import Address
from blockyard.rpc.channel import open_channel
from blockyard.rpc.config import ServiceConfig
from blockyard.rpc.ready import announce
from blockyard.rpc.server import Running, Service, until_stopped
from blockyard.rpc.server import serving as serving_rpc
from blockyard.rpc.telemetry import Telemetry
from blockyard.stats.collect.source import Source
from blockyard.stats.export import otel
from blockyard.stats.model.ledger import Ledger
from blockyard.stats.rpc.service import StatsService
from blockyard.v1.stats_pb2_grpc import add_StatsServiceServicer_to_server

NAME: Final = "blockyard-stats"
SERVICE_NAME: Final = "blockyard.v1.StatsService"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsConfig(ServiceConfig):
    """Accounts for every request of every node: counters, rates and latencies, asked for or exported."""

    node: tuple[str, ...] = ()
    """Addresses of the node services to listen to: unix:/path, host:port or [ipv6]:port."""
    gather_seconds: float = 1.0
    """Time between two readings of a node service, 0.1 to 3600."""
    prometheus_listen: str = ""
    """host:port for a Prometheus scrape endpoint (/metrics); empty is none."""


@asynccontextmanager
async def serving(
    config: StatsConfig, *, telemetry: Telemetry | None = None, clock: Clock | None = None
) -> AsyncIterator[Running]:
    """Serve StatsService and listen to the configured nodes until the block is left."""
    if not config.node:
        raise InvalidArgument("node", "the address of a node service", "none")
    own = telemetry or Telemetry.start(NAME)
    now = clock or SystemClock()
    ledgers = [Ledger(address) for address in config.node]
    service = Service(
        SERVICE_NAME,
        add_StatsServiceServicer_to_server,
        StatsService(ledgers, now, config.gather_seconds),
        own,
    )
    async with AsyncExitStack() as stack:
        if telemetry is None:
            stack.push_async_callback(asyncio.to_thread, own.stop)
        otel.register(own, ledgers)
        if config.prometheus_listen:
            from blockyard.stats.export.prometheus import scraped

            stack.enter_context(scraped(Address.parse(config.prometheus_listen), ledgers))
        await stack.enter_async_context(_listening(ledgers, own, now, config.gather_seconds))
        running = await stack.enter_async_context(
            serving_rpc(
                config.addresses,
                [service],
                telemetry=own,
                limits=config.limits,
                grace_seconds=config.grace_seconds,
                with_channelz=config.channelz,
            )
        )
        yield running


@asynccontextmanager
async def _listening(
    ledgers: list[Ledger], telemetry: Telemetry, clock: Clock, gather_seconds: float
) -> AsyncIterator[None]:
    async with AsyncExitStack() as channels, asyncio.TaskGroup() as tasks:
        listening = []
        for ledger in ledgers:
            channel = await channels.enter_async_context(open_channel(ledger.state.address, telemetry=telemetry))
            source = Source(ledger, channel, clock, gather_seconds)
            listening.append(tasks.create_task(source.run(), name=f"listen {ledger.state.address}"))
        try:
            yield
        finally:
            for task in listening:
                task.cancel()


async def main(config: StatsConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with serving(config) as running:
        announce(NAME, running.addresses, config.ready_fd)
        await until_stopped()
