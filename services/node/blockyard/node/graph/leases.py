"""Drains that clients ask for: each ends by itself when its lease does, so that no client leaves a guest hanging.

Invariants
1. A lease holds its node by a user's edge, so the node cannot be closed under it.
2. Every lease ends exactly once: by `end`, by time, or with `close`.
"""

import asyncio
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import InvalidArgument, LimitReached, ResourceNotFound
from blockyard.node.graph import drain

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.user import User

MIN_SECONDS: Final = 0.001
MAX_SECONDS: Final = 60.0
DEFAULT_SECONDS: Final = 10.0
MAX_LEASES: Final = 256
REMEMBERED: Final = 1024
"""Leases that ended by time, so that their clients can be told."""


@dataclass(slots=True)
class _Lease:
    node: "Node"
    user: "User"
    timer: asyncio.Task[None]


class DrainLeases:
    """The drains of one graph that clients hold."""

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph
        self._leases: dict[str, _Lease] = {}
        self._expired: OrderedDict[str, None] = OrderedDict()

    async def begin(self, node_name: str, seconds: float = DEFAULT_SECONDS) -> str:
        """Hold the node's requests; returns when none is in flight, with the lease's id.

        The lease counts from now, so a drain that finds no rest in time ends as well.
        """
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise InvalidArgument("lease", "1 ms to 60 s", f"{seconds} s")
        if len(self._leases) >= MAX_LEASES:
            raise LimitReached("drains held by clients", MAX_LEASES)
        drain_id = uuid.uuid4().hex
        user = self._graph.use(node_name, "drain", drain_id, writable=False)
        node = user.node
        drain.begin(node)
        timer = asyncio.create_task(self._expire(drain_id, seconds))
        self._leases[drain_id] = _Lease(node, user, timer)
        try:
            await drain.at_rest(node)
        except BaseException:
            self.end(drain_id)
            raise
        return drain_id

    def end(self, drain_id: str) -> bool:
        """Let requests go on; True if the lease had ended before. Raises ResourceNotFound."""
        lease = self._leases.pop(drain_id, None)
        if lease is None:
            if drain_id not in self._expired:
                raise ResourceNotFound("drain", drain_id)
            return True
        lease.timer.cancel()
        self._release(lease)
        return False

    def close(self) -> None:
        """End all."""
        for drain_id in list(self._leases):
            self.end(drain_id)

    def _release(self, lease: _Lease) -> None:
        drain.end(lease.node)
        self._graph.release(lease.user)

    async def _expire(self, drain_id: str, seconds: float) -> None:
        await self._graph.environment.clock.sleep(seconds)
        lease = self._leases.pop(drain_id, None)
        if lease is None:
            return
        self._expired[drain_id] = None
        if len(self._expired) > REMEMBERED:
            self._expired.popitem(last=False)
        self._release(lease)
        self._graph.report(lease.node.name, "drain-expired", {"drain_id": drain_id})
