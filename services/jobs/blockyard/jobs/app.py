"""The jobs service, put together.

What lives here: the only place that builds its objects. What must not: logic.

At a stop the service first says NOT_SERVING, then cancels every job that may still be cancelled and waits a while
for that, so that watchers see how each ended; then it lets go. A job that did not end in time leaves its session
at the node: guest I/O goes on, tracking and copy-before-write go on, nothing stays drained. Creating the same job
again, at the next incarnation with its higher fencing token, takes that session over.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.longrunning.operations_pb2_grpc import add_OperationsServicer_to_server

from blockyard.base.clock import SystemClock
from blockyard.jobs.config import JobsConfig
from blockyard.jobs.lifecycle.manager import Manager
from blockyard.jobs.node.remote import RemoteNode
from blockyard.jobs.rpc.operations import OperationsServicer
from blockyard.jobs.rpc.service import JobServicer
from blockyard.jobs.store.memory import MemoryStore
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
    # Grows with every incarnation as long as the clock does not go back; the durable store will keep the count.
    token = clock.wall_ns()
    async with open_channel(config.node_address, telemetry=telemetry) as channel:
        manager = Manager(
            RemoteNode(channel, token),
            clock=clock,
            store=MemoryStore(),
            tracer=telemetry,
            fencing_token=token,
            limits=config.job_limits,
            patience=config.patience,
        )
        jobs = JobServicer(manager)
        service = Service(SERVICE, add_JobServiceServicer_to_server, jobs, telemetry)
        operations = Service(OPERATIONS, add_OperationsServicer_to_server, OperationsServicer(jobs), telemetry)
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
