"""Node, jobs and stats on one stack over private sockets, and one public server that offers all they offer.

Theory. The same code path as three processes: the services find each other by addresses and speak gRPC, so nothing
is wired by hand and nothing behaves differently here. The sockets lie in a directory of mode 0700 that exists only
while the daemon runs. Things stop in the reverse of the order in which they started: first nobody new gets in,
then stats, jobs and node end.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockyard.daemon.config import part
from blockyard.jobs import app as jobs
from blockyard.jobs.config import JobsConfig
from blockyard.node import app as node
from blockyard.node.config import NodeConfig
from blockyard.rpc import server
from blockyard.rpc.address import Address
from blockyard.rpc.config import ServiceConfig
from blockyard.rpc.ready import announce
from blockyard.rpc.server import Service
from blockyard.rpc.telemetry import Telemetry
from blockyard.stats import app as stats

NAME: Final = "blockyardd"


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that accepts calls."""

    services: list[Service]
    addresses: list[Address]
    """The public ones, as bound."""
    node: node.Running


@asynccontextmanager
async def serving(config: ServiceConfig) -> AsyncIterator[Running]:
    """Run all three and the public server until the block is left. `config` is a DaemonConfig."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blockyard-")))
        sockets = {name: f"unix:{folder}/{name}.sock" for name in ("node", "jobs", "stats")}
        # One per service, so that a trace shows three services here as well.
        own = {name: Telemetry.start(f"blockyard-{name}") for name in sockets}
        stack.push_async_callback(_stop_all, list(own.values()))
        node_running = await stack.enter_async_context(
            node.serving(part(config, NodeConfig, listen=(sockets["node"],)), telemetry=own["node"])
        )
        jobs_running = await stack.enter_async_context(
            jobs.serving(
                part(config, JobsConfig, listen=(sockets["jobs"],), node=sockets["node"]), telemetry=own["jobs"]
            )
        )
        stats_running = await stack.enter_async_context(
            stats.serving(
                part(config, stats.StatsConfig, listen=(sockets["stats"],), node=(sockets["node"],)),
                telemetry=own["stats"],
            )
        )
        offered = [*node_running.services, *jobs_running.services, *stats_running.services]
        for address in config.addresses:
            if address.is_unix:
                Path(address.path).parent.mkdir(mode=0o700, exist_ok=True)
        public = await stack.enter_async_context(
            server.serving(
                config.addresses,
                offered,
                limits=config.limits,
                grace_seconds=config.grace_seconds,
                with_channelz=config.channelz,
                conditions=node_running.conditions,
            )
        )
        yield Running(offered, public.addresses, node_running)


async def _stop_all(telemetries: list[Telemetry]) -> None:
    """At once: a collector that does not answer holds each of them up for seconds."""
    await asyncio.gather(*(asyncio.to_thread(telemetry.stop) for telemetry in telemetries))


async def main(config: ServiceConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with serving(config) as running:
        announce(NAME, running.addresses, config.ready_fd)
        await server.until_stopped()
