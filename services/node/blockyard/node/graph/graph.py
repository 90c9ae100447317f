"""The graph: which nodes there are, opening and closing them, and telling watchers.

Changes of edges between open nodes are in `surgery`; requests are in `requests`. One graph lives in one event loop,
so between two awaits nothing else runs, and a change of edges is one uninterrupted step.

Invariants
1. A node in `nodes` is usable; its name is its key.
2. An implicit node is closed with its last parent; an explicit one only by `close`.
3. Every change of a node's state that clients can see is published exactly once, after it happened.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import BlockError, NodeInUse, NodeNotFound, ResourceNotFound
from blockyard.node.core.accounting import Account
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph import requests
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.chain import above_filters
from blockyard.node.graph.checkpoints import Checkpoints
from blockyard.node.graph.debugging import passing
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.drain import drained
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.events import Hub
from blockyard.node.graph.executors import Executors
from blockyard.node.graph.freezing import let_go
from blockyard.node.graph.keeping import Keeping
from blockyard.node.graph.kept_bitmaps import KeptBitmaps
from blockyard.node.graph.kept_kinds import BitmapKind, NodeKind, ThresholdKind
from blockyard.node.graph.kept_throttling import ThrottleGroupKind
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.node import Node
from blockyard.node.graph.opening import Opener
from blockyard.node.graph.permissions import refresh
from blockyard.node.graph.persisting import close_driver, store_early
from blockyard.node.graph.secrets import SecretKind
from blockyard.node.graph.user import RESIZER, User
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.permissions import Permissions

if TYPE_CHECKING:
    from blockyard.node.graph.attached import Attachment

_FRAMES_PER_LAYER: Final = 8
"""A read that must load metadata goes down a chain by awaiting: this many frames of Python a layer."""
_FRAMES_MAX: Final = 12_000
"""Each takes about 500 bytes of the 8 MiB of C stack."""

_GUESTS: Final = frozenset({"export", "session", "call", "attachment"})
"""Kinds of users that stand for a guest: they enter above a job's filters, whenever they come."""

_LOOKING: Final = frozenset({"session", "call", "drain"})
"""Kinds of users that may read a node that was handed over; exports and jobs may not, as in QEMU."""


class NodeReport:
    """Something that happened to a node and is no change of its state: corrupted, io-error, write-threshold ..."""

    __slots__ = ("details", "kind", "node_name", "time_ns")

    def __init__(self, node_name: str, kind: str, details: Mapping[str, str], time_ns: int) -> None:
        self.node_name = node_name
        self.kind = kind
        self.details = details
        self.time_ns = time_ns


class Graph:
    """All open nodes of one node service."""

    def __init__(self, environment: Environment, catalogue: Catalogue | None = None) -> None:
        self.environment = environment
        _make_room_for_frames(environment.max_chain_depth)
        self.nodes: dict[str, Node] = {}
        self.kept = Keeping(catalogue or Catalogue(), self.nodes)
        self.kept.catalogue.add(SecretKind(environment.secrets))
        self.kept.catalogue.add(ThrottleGroupKind(environment.throttling))
        self.kept.catalogue.add(NodeKind(self))
        self.kept.catalogue.add(ThresholdKind(self))
        self.kept.catalogue.add(BitmapKind(self))
        self.guards = KeptBitmaps(self)
        self.checkpoints = Checkpoints(self)
        self.kept.catalogue.add(self.checkpoints)
        self.claimed: set[str] = set()
        """Names of nodes that are being opened or closed."""
        self.snapshot_lock = asyncio.Lock()
        """Held while an internal snapshot is deleted, or one that was opened is looked at again."""
        self.executors = Executors(self, environment.pool)
        self.hub: Hub[Node | NodeReport | Attachment] = Hub(first_revision=environment.clock.wall_ns() // 1_000_000)
        self._numbers = count(1)
        self._limits: dict[str, Limits | None] = {}
        """Of nodes whose limits change just now, what they were before."""
        self._news: dict[str, Node] | None = None
        """Changes that are not told yet, while a transaction applies its own."""
        self.on_closed: list[Callable[[Node], None]] = [self.checkpoints.node_closed]
        self.on_changed: list[Callable[[Node], None]] = []
        """Told of every change of a node that watchers are told of."""

    # --- looking ---------------------------------------------------------------------------------------

    def get(self, name: str) -> Node:
        """Raises NodeNotFound."""
        node = self.nodes.get(name)
        if node is None:
            raise NodeNotFound(name)
        return node

    def copy_of(self, node_name: str, name: str) -> DirtyBitmap:
        """The bits of a bitmap (`interface.bitmaps`).

        Raises NodeNotFound, ResourceNotFound, ResourceBusy or BitmapInconsistent.
        """
        bitmap = self.get(node_name).bitmaps.get(name)
        if bitmap is None:
            raise ResourceNotFound("bitmap", name)
        bitmap.require_free()
        return bitmap.bits.copy()

    def number_from(self, number: int) -> None:
        """Names that the service chooses begin above this number."""
        self._numbers = count(number + 1)

    def next_number(self) -> int:
        """For names that the service chooses."""
        return next(self._numbers)

    def accounts(self) -> list[tuple[Node, Account]]:
        """Every node with its account."""
        return [(node, node.account) for node in self.nodes.values()]

    # --- opening and closing ---------------------------------------------------------------------------

    async def open(
        self,
        definition: NodeDefinition,
        *,
        validate_only: bool = False,
        of_job: bool = False,
        restoring: bool = False,
    ) -> Node:
        """Open a node and what is defined below it; all or nothing. `of_job`: a job's filter; `restoring`: under
        the name that the service once chose.

        Raises catalogue errors.
        """
        opener = Opener(self, of_job=of_job, restoring=restoring)
        node = await opener.open(definition)
        if validate_only:
            await opener.close()
            return node
        if of_job:
            node.implicit = node.of_job = True
        try:
            await self.kept.keep_opened(opener.opened, self.guards.protect)
        except BaseException:
            await opener.close()
            await self.kept.overwrite()
            raise
        self._appear(opener)
        return node

    def _appear(self, opener: Opener) -> None:
        for opened in opener.opened:
            self.executors.settle(opened)
            self.nodes[opened.name] = opened
        opener.leave_names()
        for opened in opener.opened:
            self._publish("added", opened)
        self.changed(*opener.stood_on())

    async def restore(self, definition: NodeDefinition) -> Node:
        """Open what the catalogue kept, as it kept it. Raises catalogue errors."""
        opener = Opener(self, restoring=True)
        node = await opener.open(definition)
        self._appear(opener)
        return node

    async def close(self, name: str, *, validate_only: bool = False) -> list[str]:
        """Close a node and the implicit ones that it alone holds; their names, parents first.

        Raises NodeNotFound, or NodeInUse that names the holders.
        """
        node = self.get(name)
        if node.parents:
            raise NodeInUse(name, "close", ", ".join(node.holders()))
        if validate_only:
            return []
        await store_early(node)
        await self.kept.drop_closing(node)
        return await self._release(node)

    async def close_all(self) -> list[str]:
        """Close everything, parents before children; problems are collected, for the rest must close too.

        Users that are still there lose their node: the service ends.
        """
        problems: list[str] = []
        while self.nodes:
            tops = [node for node in self.nodes.values() if all(edge.parent is None for edge in node.parents)]
            assert tops, "an edge without its parent keeps every node"
            for node in tops:
                try:
                    await self._release(node)
                except BlockError as problem:
                    problems.append(f"{node.name}: {problem}")
        return problems

    async def collect(self, *candidates: Node) -> list[str]:
        """Close those of the nodes that are implicit and have no parent any more."""
        closed: list[str] = []
        for node in candidates:
            if node.implicit and not node.parents and self.nodes.get(node.name) is node:
                closed += await self._release(node)
        return closed

    async def _release(self, node: Node) -> list[str]:
        """Flush and close one node, then the implicit ones below it, also when this one has a problem."""
        self.nodes.pop(node.name, None)
        closed = [node.name]
        children = [edge.node for edge in node.children.values()]
        try:
            with passing(node):
                async with drained(node):
                    try:
                        await requests.flush(node)
                    finally:
                        await self.guards.close(node, is_stored=await close_driver(node))
        finally:
            let_go(node)
            for edge in node.children.values():
                edge.detach()
            refresh(*children)
            for listener in self.on_closed:
                listener(node)
            self._publish("removed", node)
            closed += await self.collect(*children)
            self.changed(*children)
        return closed

    # --- users -----------------------------------------------------------------------------------------

    def use(
        self, name: str, kind: str, user_name: str, *, writable: bool, permissions: Permissions | None = None
    ) -> User:
        """A root edge to a node; a guest's goes to the filters that jobs put above it. Release it with `release`.

        `permissions`: by default those of a reader or writer that excludes nobody.
        Raises NodeNotFound, NodeReadOnly, NodeInactive or PermissionConflict. A writer calls `modes.ready_to_write`
        before.
        """
        node = self.get(name)
        if kind in _GUESTS:
            node = above_filters(node)
        if (writable and node.read_only) or not (node.active or kind in _LOOKING):
            raise node.write_refusal()
        user = User(kind, user_name, node, writable, permissions)
        self.changed(node)
        return user

    def release(self, user: User) -> None:
        """Give a user's edge back."""
        node = user.node
        user.detach()
        self.changed(node)

    # --- small changes ---------------------------------------------------------------------------------

    async def resize(self, name: str, size: int, preallocation: Preallocation) -> Node:
        """Change a node's size. Raises OperationUnsupported, NodeReadOnly, NoSpace ..."""
        await ready_to_write(self, self.get(name))
        user = self.use(name, "call", "resize", writable=True, permissions=RESIZER)
        try:
            await user.truncate(size, preallocation, exact=True)
        finally:
            self.release(user)
        return self.get(name)

    def repermit(self, name: str) -> None:
        """A driver needs less of its children than before."""
        node = self.nodes.get(name)
        if node is not None:
            refresh(node)
            self.changed(node)

    # --- telling ---------------------------------------------------------------------------------------

    def hold_news(self) -> None:
        """Tell nobody of changes until `take_news`: what is under way may be taken back. Nothing awaits between."""
        assert self._news is None
        self._news = {}

    def take_news(self) -> list[Node]:
        """The nodes that changed meanwhile; telling is up to the caller."""
        assert self._news is not None
        news, self._news = self._news, None
        return list(news.values())

    def announce(self, node: Node) -> None:
        """Publish that a node is there."""
        self._publish("added", node)

    async def retire(self, node: Node) -> None:
        """Close a node that was flushed and has left the graph, and publish that it is gone."""
        try:
            await self.guards.close(node, is_stored=await close_driver(node))
        except BlockError as problem:
            self.report(node.name, "close-failed", {"error": str(problem)})
        for listener in self.on_closed:
            listener(node)
        self._publish("removed", node)

    def changed(self, *nodes: Node) -> None:
        """Publish that clients can see something new about the nodes."""
        if self._news is not None:
            self._news.update((node.uid, node) for node in nodes)
            return
        for node in nodes:
            if self.nodes.get(node.name) is node:
                self._publish("modified", node)

    def limits_change(self, node: Node) -> None:
        """Publish it if the node has other limits when the present step is over: till then it may be taken back."""
        if node.uid in self._limits:
            return
        self._limits[node.uid] = node.limits

        def tell() -> None:
            if self._limits.pop(node.uid) != node.limits:
                self.changed(node)

        asyncio.get_running_loop().call_soon(tell)

    def report(self, node_name: str, kind: str, details: Mapping[str, str]) -> None:
        """Publish an event of a node."""
        event = NodeReport(node_name, kind, details, self.environment.clock.wall_ns())
        self.hub.publish("event", node_name, event)

    def _publish(self, kind: str, node: Node) -> None:
        self.kept.touch(node)
        node.revision = self.hub.revision + 1
        self.hub.publish(kind, node.name, node)  # type: ignore[arg-type]
        for listener in self.on_changed:
            listener(node)


def _make_room_for_frames(depth: int) -> None:
    """Python's own limit of 1000 frames ends a read at some 150 layers."""
    needed = min(1000 + depth * _FRAMES_PER_LAYER, _FRAMES_MAX)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), needed))
