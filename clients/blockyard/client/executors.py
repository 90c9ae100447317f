"""Executors, the named pools where work of nodes that blocks is done: `client.executors`."""

from collections.abc import Sequence

from blockyard.client.calls import Service
from blockyard.v1 import control_pb2 as control
from blockyard.v1.control_pb2 import Executor


class Executors:
    """Makes, shows and removes executors; `client.nodes.set_executor` moves nodes between them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, name: str, threads: int = 0) -> Executor:
        """Make one; with 0 threads the service chooses."""
        request = control.CreateExecutorRequest(executor=Executor(name=name, threads=threads))
        return await self._service.unary("CreateExecutor", request, Executor)

    async def get(self, name: str) -> Executor:
        """One executor, with the nodes that run on it."""
        return await self._service.unary("GetExecutor", control.GetExecutorRequest(name=name), Executor)

    async def list(self) -> Sequence[Executor]:
        """All of them by name; `main` is always there."""
        request = control.ListExecutorsRequest()
        return tuple((await self._service.unary("ListExecutors", request, control.ListExecutorsResponse)).executors)

    async def delete(self, name: str, *, allow_missing: bool = False) -> None:
        """Remove one that runs no node."""
        request = control.DeleteExecutorRequest(name=name, allow_missing=allow_missing)
        await self._service.unary("DeleteExecutor", request, control.DeleteExecutorResponse)
