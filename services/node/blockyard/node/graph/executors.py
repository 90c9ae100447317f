"""Executors: named bounded pools for the work of nodes that blocks (QEMU's AioContexts and iothreads).

All nodes are served in one event loop; what an executor separates is what blocks: a disk that hangs fills the
threads of its own executor and delays nobody on another. So, unlike in QEMU, a node may run elsewhere than its
parents: nothing is shared between executors that would need a lock.

A move follows the seed: the subtree is drained, parents detach before their children, children attach before their
parents. Whoever works for a node in a pool does so in a share of `Executors.share`, which moves with the node: so
jobs follow.

Invariants
1. Every node names an executor that is there; `main` always is.
2. A share works in its node's executor, but while both change.
3. A move that fails or is cancelled leaves every node where it was.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    LimitReached,
    NodeInUse,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.node.core.pool import FairPool, PoolShare
from blockyard.node.graph.chain import subtree
from blockyard.node.graph.definition import check_name
from blockyard.node.graph.drain import drained
from blockyard.node.interface.driver import Driver

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

MAIN: Final = "main"
EXECUTORS_MAX: Final = 16
"""`main` included: with 64 threads each they hold as many threads as a process should have."""
THREADS_MAX: Final = 64
"""QEMU's thread-pool-max."""
THREADS: Final = 4
"""A disk of its own: enough depth to keep it busy."""
_NAMED: Final = 8
"""Nodes that an error names."""


class NodeShare(PoolShare):
    """A share that works for a node, and moves with it."""

    def __init__(self, pool: FairPool, name: str, node_name: str) -> None:
        super().__init__(pool, name)
        self.node_name = node_name


class Executors:
    """The executors of one graph."""

    def __init__(self, graph: "Graph", main: FairPool) -> None:
        self._graph = graph
        self._pools = {MAIN: main}
        self._closing: set[str] = set()
        self._moving: set[str] = set()
        """Nodes on their way."""
        self._shares: WeakSet[NodeShare] = WeakSet()

    # --- the executors -----------------------------------------------------------------------------------

    def pool(self, name: str) -> FairPool:
        """Its pool. Raises ResourceNotFound."""
        found = self._pools.get(name or MAIN)
        if found is None:
            raise ResourceNotFound("executor", name)
        return found

    def names(self) -> list[str]:
        """All of them, in order."""
        return sorted(self._pools)

    def nodes(self, name: str) -> list[str]:
        """Nodes that run there, or are about to: those that are being opened have a share already."""
        pool = self._pools[name]
        here = {share.node_name for share in self._shares if share.pool is pool}
        here &= self._graph.nodes.keys() | self._graph.claimed
        return sorted(here | {node.name for node in self._graph.nodes.values() if node.executor == name})

    def create(self, name: str, threads: int = THREADS) -> FairPool:
        """Make one; its threads start when they have work. Raises InvalidArgument, ResourceExists, LimitReached."""
        check_name(name, "executor.name")
        if not 1 <= threads <= THREADS_MAX:
            raise InvalidArgument("executor.threads", f"1 to {THREADS_MAX}", str(threads))
        if name in self._pools or name in self._closing:
            raise ResourceExists("executor", name)
        if len(self._pools) + len(self._closing) >= EXECUTORS_MAX:
            raise LimitReached("executors", EXECUTORS_MAX)
        pool = self._pools[name] = FairPool(threads, name=f"executor-{name}")
        return pool

    async def delete(self, name: str) -> None:
        """End one that runs no node. Raises ResourceNotFound, InvalidArgument for `main`, ResourceBusy."""
        pool = self.pool(name)
        if name in ("", MAIN):
            raise InvalidArgument("name", f"an executor other than {MAIN}", repr(name))
        if users := self.nodes(name):
            more = f" and {len(users) - _NAMED} more" if len(users) > _NAMED else ""
            raise ResourceBusy("executor", name, ", ".join(f"node/{user}" for user in users[:_NAMED]) + more)
        del self._pools[name]
        self._closing.add(name)
        try:
            # Nodes that are just being closed, and sessions that survived their source, end their work in `main`.
            for share in [share for share in self._shares if share.pool is pool]:
                await share.detach()
                share.attach(self._pools[MAIN])
        except BaseException:
            self._pools[name] = pool
            raise
        finally:
            self._closing.discard(name)
        await pool.close()

    async def close(self) -> None:
        """End all but `main`, which belongs to whoever made it."""
        for name in self.names():
            if name != MAIN:
                await self._pools.pop(name).close()

    # --- who works there -----------------------------------------------------------------------------------

    def share(self, node_name: str, executor: str = "", user: str = "") -> NodeShare:
        """A fair part for work on a node: where the node is, or in `executor` if it is just being opened.

        Raises ResourceNotFound.
        """
        node = self._graph.nodes.get(node_name)
        pool = self.pool(node.executor if node is not None else executor)
        share = NodeShare(pool, user or node_name, node_name)
        self._shares.add(share)
        return share

    def settle(self, node: "Node") -> None:
        """A node is open; if its executor was deleted meanwhile, it is on `main`."""
        if node.executor not in self._pools:
            node.executor = MAIN

    async def move(self, node: "Node", name: str) -> None:
        """Move a node and everything below it. Raises ResourceNotFound, or NodeInUse if one of them moves already.

        Waits until the nodes are drained and their work in threads has ended.
        """
        name = name or MAIN
        self.pool(name)
        while any(item.executor != name for item in subtree(node)):
            nodes = subtree(node)
            names = {item.name for item in nodes}
            if busy := names & self._moving:
                raise NodeInUse(min(busy), "move", "another SetExecutor")
            self._moving |= names
            try:
                async with drained(*nodes):
                    # Someone may have changed what is below while we waited.
                    if subtree(node) == nodes:
                        await self._move(nodes, name)
            finally:
                self._moving -= names

    async def move_for_good(self, node: "Node", name: str) -> None:
        """As `move`, and it is so after a restart. Raises CatalogueNotWritten; then it is where it was."""
        before = [(each, each.executor, each.definition) for each in subtree(node)]
        await self.move(node, name)
        kept = self._graph.kept
        try:
            kept.touch(*(each for each, _, _ in before))
            await kept.catalogue.commit()
        except BlockError:
            for each, former, _ in before:  # parents come first, and what is below them may have been elsewhere
                await self.move(each, former)
            for each, _, definition in before:
                each.definition = replace(each.definition, executor=definition.executor)
            await kept.overwrite()
            raise

    async def _move(self, nodes: "list[Node]", name: str) -> None:
        detached = [_Detached(node, node.driver) for node in nodes]
        begun: list[_Detached] = []
        try:
            for part in detached:
                begun.append(part)
                await part.driver.detach_executor()
                # A session may begin meanwhile, and then there is one share more.
                while (share := self._attached_share(part.node, part.shares)) is not None:
                    await share.detach()
                    part.shares.append(share)
            pool = self.pool(name)  # it may have been deleted meanwhile
        except BaseException:
            for part in reversed(begun):
                part.attach(None)
            raise
        for part in reversed(detached):
            before, part.node.executor = part.node.executor, name
            part.node.definition = replace(part.node.definition, executor=name)
            part.attach(pool)
            if before != name:
                self._graph.report(part.node.name, "executor-changed", {"from": before, "to": name})
        self._graph.changed(*nodes)

    def _attached_share(self, node: "Node", held: list[NodeShare]) -> NodeShare | None:
        return next((share for share in self._shares if share.node_name == node.name and share not in held), None)


class _Detached:
    """A node between two executors."""

    def __init__(self, node: "Node", driver: Driver) -> None:
        self.node = node
        self.driver = driver
        self.shares: list[NodeShare] = []

    def attach(self, pool: FairPool | None) -> None:
        """Go on in `pool`, or where it was."""
        for share in self.shares:
            share.attach(pool or share.pool)
        # A node that was closed or reopened meanwhile has left this driver.
        if self.node.driver is self.driver:
            self.driver.attach_executor()
