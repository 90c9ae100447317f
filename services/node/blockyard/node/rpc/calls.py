"""What the parts of the node's services share, and how an RPC whose work comes later answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from blockyard.base.errors import NotImplementedYet, ServiceDisabled
from blockyard.node.copying.sessions import CopySessions
from blockyard.node.exports.exports import Exports
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.leases import DrainLeases
from blockyard.node.rpc.memory import RequestMemory

Servicer = TypeVar("Servicer")


@dataclass(frozen=True, slots=True)
class Backstage:
    """What stands behind the services."""

    graph: Graph
    attachments: Attachments
    leases: DrainLeases
    instance_id: str
    """Identity of the process."""
    version: str
    limits: dict[str, int]
    """Bounds by name, as in docs/limits.md."""
    memory: RequestMemory
    exports: Exports
    copies: CopySessions


class Calls:
    """Base of the parts of NodeService."""

    def __init__(self, backstage: Backstage) -> None:
        self._backstage = backstage
        self._graph = backstage.graph
        self._attachments = backstage.attachments
        self._memory = backstage.memory


def later(operation: str, why: str) -> Callable[..., Awaitable[Any]]:
    """A method that answers UNIMPLEMENTED with the reason; for calls with one reply and for streams."""

    async def answer(self: object, request: object, context: object) -> Any:
        raise NotImplementedYet(operation, why)

    return answer


def disabled(base: type[Servicer], option: str) -> Servicer:
    """A servicer that the operator has not switched on: all of its methods answer PERMISSION_DENIED."""
    service = base.__name__.removesuffix("Servicer")

    async def answer(self: object, request: object, context: object) -> Any:
        raise ServiceDisabled(service, option)

    methods = {name: answer for name, value in vars(base).items() if name[0].isupper() and callable(value)}
    made: Servicer = type(base.__name__, (base,), methods)()
    return made
