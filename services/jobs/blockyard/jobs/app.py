"""The jobs service, put together.

What lives here: the only place that builds its objects. What must not: logic.

At a stop the service first says NOT_SERVING. Then it lets go of its jobs: the next incarnation goes on with them.
Without a store that lasts it cancels every job that may still be cancelled and waits a while for that, so that
watchers see how each ended. What is left is safe at the node either way: guest I/O goes on, tracking and
copy-before-write go on, nothing stays drained.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.longrunning.operations_pb2_grpc import add_OperationsServicer_to_server

from blockyard.base.clock import Clock, SystemClock
from blockyard.jobs.config import JobsConfig
from blockyard.jobs.lifecycle.manager import Manager
from blockyard.jobs.node.remote import RemoteNode
from blockyard.jobs.rpc.forwarding import Peers
from blockyard.jobs.rpc.operations import OperationsServicer
from blockyard.jobs.rpc.service import JobServicer
from blockyard.jobs.store.memory import MemoryStore
from blockyard.jobs.store.port import JobStore
from blockyard.jobs.store.sqlite import sqlite_store
from blockyard.rpc.channel import open_channel
from blockyard.rpc.server import Running, Service
from blockyard.rpc.server import serving as served
from blockyard.rpc.telemetry import Telemetry
from blockyard.v1.job_pb2_grpc import add_JobServiceServicer_to_server

NAME = "blockyard-jobs"
SERVICE = "blockyard.v1.JobService"
OPERATIONS = "google.longrunning.Operations"


@asynccontextmanager
async def serving(config: JobsConfig, *, telemetry: Telemetry | None = None) -> AsyncIterator[Running]:
    """Serve jobs until the block is left. Raises InvalidArgument for options that cannot be."""
    telemetry = telemetry or Telemetry.start(NAME)
    clock = SystemClock()
    async with _store(config, clock) as store, open_channel(config.node_address, telemetry=telemetry) as channel:
        address = config.advertise or config.listen[0]
        # Greater than those of any store that was lost, as long as the clock did not go back.
        number = await store.begin(address, clock.wall_ns())
        manager = Manager(
            RemoteNode(channel, number),
            clock=clock,
            store=store,
            tracer=telemetry,
            fencing_token=number,
            address=address,
            limits=config.job_limits,
            patience=config.patience,
        )
        await manager.start()
        peers = Peers(telemetry)
        jobs = JobServicer(manager, peers)
        service = Service(SERVICE, add_JobServiceServicer_to_server, jobs, telemetry)
        operations = Service(OPERATIONS, add_OperationsServicer_to_server, OperationsServicer(jobs), telemetry)
        try:
            async with served(
                config.addresses,
                [service, operations],
                telemetry=telemetry,
                limits=config.limits,
                grace_seconds=config.grace_seconds,
                with_channelz=config.channelz,
            ) as running:
                try:
                    yield running
                finally:
                    await running.health.enter_graceful_shutdown()
                    await manager.stop()
        finally:
            await manager.stop()
            await peers.close()


@asynccontextmanager
async def _store(config: JobsConfig, clock: Clock) -> AsyncIterator[JobStore]:
    """Where the configuration says that jobs are kept."""
    if config.database:
        # psycopg is loaded for those who use it only.
        from blockyard.jobs.store.postgres import postgres_store

        async with postgres_store(config.database, clock) as shared:
            yield shared
    elif config.state_directory:
        async with sqlite_store(config.state_directory) as own:
            yield own
    else:
        yield MemoryStore()
