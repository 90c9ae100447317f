"""ExecutorService: named bounded pools. Moving nodes between them is NodeService.SetExecutor."""

from collections.abc import Awaitable, Callable
from typing import Any

from blockyard.base.errors import InvalidArgument, ResourceNotFound
from blockyard.node.graph.executors import THREADS, Executors
from blockyard.node.graph.keeping import Keeping
from blockyard.node.graph.kept_kinds import EXECUTOR
from blockyard.v1 import control_pb2
from blockyard.v1.control_pb2_grpc import ExecutorServiceServicer


def executor_named(text: str) -> tuple[str, int]:
    """An operator's NAME or NAME:THREADS. Raises InvalidArgument."""
    name, colon, threads = text.partition(":")
    if colon and not (threads.isascii() and threads.isdigit()):
        raise InvalidArgument("executors", "NAME or NAME:THREADS", repr(text))
    return name, int(threads) if colon else THREADS


class ExecutorServicer(ExecutorServiceServicer):
    """The executors of a graph."""

    def __init__(self, executors: Executors, kept: Keeping) -> None:
        self._executors = executors
        self._kept = kept

    async def CreateExecutor(  # noqa: N802
        self, request: control_pb2.CreateExecutorRequest, context: Any
    ) -> control_pb2.Executor:
        wanted = request.executor
        self._executors.create(wanted.name, wanted.threads or THREADS)
        await self._keep(wanted.name, lambda: self._executors.delete(wanted.name))
        return self._executor(wanted.name)

    async def GetExecutor(self, request: control_pb2.GetExecutorRequest, context: Any) -> control_pb2.Executor:  # noqa: N802
        if not request.name:
            raise ResourceNotFound("executor", "")
        return self._executor(request.name)

    async def ListExecutors(  # noqa: N802
        self, request: control_pb2.ListExecutorsRequest, context: Any
    ) -> control_pb2.ListExecutorsResponse:
        return control_pb2.ListExecutorsResponse(executors=map(self._executor, self._executors.names()))

    async def DeleteExecutor(  # noqa: N802
        self, request: control_pb2.DeleteExecutorRequest, context: Any
    ) -> control_pb2.DeleteExecutorResponse:
        if not (request.allow_missing and request.name not in self._executors.names()):
            threads = self._executors.pool(request.name).threads
            await self._executors.delete(request.name)

            async def undo() -> None:
                self._executors.create(request.name, threads)

            await self._keep(request.name, undo)
        return control_pb2.DeleteExecutorResponse()

    async def _keep(self, name: str, undo: Callable[[], Awaitable[None]]) -> None:
        """Durable, or undone. Raises CatalogueNotWritten."""
        self._kept.catalogue.touch(EXECUTOR, name)
        try:
            await self._kept.catalogue.commit()
        except BaseException:
            await undo()
            await self._kept.overwrite()
            raise

    def _executor(self, name: str) -> control_pb2.Executor:
        pool = self._executors.pool(name)
        return control_pb2.Executor(
            name=name,
            threads=pool.threads,
            node_names=self._executors.nodes(name),
            running=pool.running,
            waiting=pool.queued,
        )
