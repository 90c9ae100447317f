"""Several changes of the graph as one: all of them happen at one instant, or none does (QEMU's qmp_transaction).

What an action does is `graph.actions` and its siblings; here is the order in which they do it.

Theory. Every action goes through the same phases, and each phase is done for all actions before the next begins:

| phase | who waits | may fail | what it does |
|---|---|---|---|
| prepare | nobody | yes | opens what will be needed, checks what cannot change meanwhile |
| settle down | guests of the touched nodes, from here on | yes | flushes what must be durable before the change |
| apply | everyone: it does not await | yes | checks, and moves edges, all noted in `Changes` |
| switch | guests | yes | what cannot be done without awaiting: drivers opened anew, exports, copy sessions |
| keep | guests | yes | the catalogue says durably what the graph is now; then guests see it |
| commit | nobody any more | no | closes what has gone, tells watchers |

A failure before the end of `keep` takes everything back in reverse order. Failures of prepare and apply are
gathered, so that a caller learns of all of them; permissions are judged when every edge has moved.

Invariants
1. Nothing is published and no etag changes unless all of it stands.
2. An edge that has moved is frozen until the end, so that nobody builds on what may be taken back.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import (
    BlockError,
    LimitReached,
    NodeNotFound,
    TransactionFailed,
)
from blockyard.node.graph.changes import Changes
from blockyard.node.graph.drain import drained, parents_first
from blockyard.node.graph.holding import entering_own
from blockyard.node.graph.moving import own_freeze

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

MAX_ACTIONS: Final = 256
"""Actions of one transaction: a snapshot and a bitmap for each of a hundred disks."""

_numbers: Final = count(1)


@dataclass(slots=True)
class Plan:
    """What the actions of one transaction share."""

    graph: "Graph"
    changes: Changes = field(default_factory=Changes)
    opened: "dict[str, Node]" = field(default_factory=dict)
    """Nodes that actions have opened; in the graph from `apply` on."""
    closed: "list[Node]" = field(default_factory=list)
    """Nodes that leave the graph, parents first."""
    altered: "list[Node]" = field(default_factory=list)
    """Nodes whose options change."""
    moving: set[str] = field(default_factory=set)
    """Attachments whose tray or medium is moved."""

    def get(self, name: str) -> "Node":
        """A node of the graph, or one that an action before has opened. Raises NodeNotFound."""
        node = self.opened.get(name) or self.graph.nodes.get(name)
        if node is None or node in self.closed:
            raise NodeNotFound(name)
        return node

    def present(self, edges: "Iterable[Edge]") -> "list[Edge]":
        """Those of the edges that are there at this place of the list: actions further down have opened their nodes
        already, and what they hold must neither stop nor follow what comes before them."""
        nodes = self.graph.nodes
        return [
            edge
            for edge in edges
            if edge.parent is None
            or self.opened.get(edge.parent.name) is not edge.parent
            or nodes.get(edge.parent.name) is edge.parent
        ]

    def enter(self, nodes: "Iterable[Node]") -> None:
        """Put opened nodes into the graph."""
        present = self.graph.nodes
        for node in nodes:
            present[node.name] = node
            self.changes.also(functools.partial(present.pop, node.name))

    def leave(self, node: "Node") -> None:
        """Take a node out of the graph, and the implicit ones that it alone holds. Its driver is closed later."""
        present, children = self.graph.nodes, [edge.node for edge in node.children.values()]
        if present.pop(node.name, None) is None:
            raise NodeNotFound(node.name)
        self.closed.append(node)

        def restore() -> None:
            present[node.name] = node
            self.closed.remove(node)

        self.changes.also(restore)
        for edge in list(node.children.values()):
            self.changes.detach(edge)
        for child in children:
            if child.implicit and not child.parents and child.name in present:
                self.leave(child)


class Action:
    """One change. Override the phases that it needs; see the module's table."""

    async def prepare(self, plan: Plan) -> None:
        """Raises catalogue errors, and leaves nothing behind if it does."""

    def touches(self, plan: Plan) -> "list[Node]":
        """Nodes whose requests must be held while it happens. Raises NodeNotFound."""
        return []

    async def settle_down(self, plan: Plan) -> None:
        """No request is in flight in what it touches, and nothing has changed yet."""

    def apply(self, plan: Plan) -> None:
        """Raises catalogue errors; what is in `plan.changes` is taken back."""

    async def switch(self, plan: Plan) -> None:
        """Raises catalogue errors, and leaves nothing behind if it does."""

    async def switch_back(self, plan: Plan) -> None:
        """Undo `switch`."""

    async def restored(self, plan: Plan) -> None:
        """Edges are as they were, after a `switch` that was taken back or failed; guests are still held."""

    def kept(self, plan: Plan) -> None:
        """All of it stands, and guests are still held. Must not fail."""

    async def commit(self, plan: Plan) -> None:
        """Guests go on."""

    async def abort(self, plan: Plan) -> None:
        """Undo `prepare`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An action that failed, by its place in the list."""

    index: int
    error: BlockError


@dataclass(slots=True)
class Outcome:
    """What a transaction did, or would do."""

    plan: Plan
    added_nodes: list[str] = field(default_factory=list)
    removed_nodes: list[str] = field(default_factory=list)
    changed_nodes: list[str] = field(default_factory=list)
    added_edges: "list[EdgeFacts]" = field(default_factory=list)
    removed_edges: "list[EdgeFacts]" = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    pause_ns: int = 0
    """How long requests of the touched nodes were held."""
    skew_ns: int = 0
    """Of that, until the last request that was in flight in any of them was done: so far apart are their last
    writes, at most."""


@dataclass(frozen=True, slots=True)
class EdgeFacts:
    """An edge as it came or went."""

    holder: str
    parent: str
    """Empty for a user from outside."""
    name: str
    role: str
    node_name: str


async def run(graph: "Graph", actions: Sequence[Action], *, validate_only: bool = False) -> Outcome:
    """Do all of it, or nothing. Raises the error of a single action, or TransactionFailed that names them all.

    With `validate_only` nothing is changed, and the failures stand in the outcome.
    """
    if len(actions) > MAX_ACTIONS:
        raise LimitReached("actions of a transaction", MAX_ACTIONS)
    return await _Run(graph, actions, validate_only).run()


class _Run:
    """One transaction under way."""

    def __init__(self, graph: "Graph", actions: Sequence[Action], validate_only: bool) -> None:
        self._graph = graph
        self._actions = actions
        self._validate_only = validate_only
        self._outcome = Outcome(Plan(graph))
        self._plan = self._outcome.plan
        self._prepared: list[tuple[int, Action]] = []
        self._undo = AsyncExitStack()
        self._reason = f"transaction {next(_numbers)} is changing it"

    async def run(self) -> Outcome:
        async with self._undo:
            await self._prepare()
            await self._change()
            if self._validate_only:
                return self._outcome
            self._undo.pop_all()
        await self._commit()
        return self._outcome

    async def _prepare(self) -> None:
        for index, action in enumerate(self._actions):
            try:
                await action.prepare(self._plan)
            except BlockError as error:
                self._fail(index, error)
            else:
                self._undo.push_async_callback(action.abort, self._plan)
                self._prepared.append((index, action))

    async def _change(self) -> None:
        clock = self._graph.environment.clock
        touched = parents_first(self._touched())
        started_ns = clock.monotonic_ns()
        with entering_own():
            async with drained(*touched):
                self._outcome.skew_ns = clock.monotonic_ns() - started_ns
                await self._happen()
        self._outcome.pause_ns = clock.monotonic_ns() - started_ns

    async def _happen(self) -> None:
        """Everything from the flush on, while guests of the touched nodes are held."""
        if not self._outcome.failures and not self._validate_only:
            for index, action in self._prepared:
                with self._naming(index):
                    await action.settle_down(self._plan)
        self._apply()
        if self._outcome.failures or self._validate_only:
            self._plan.changes.undo()
            self._refuse()
        else:
            await self._switch()

    def _touched(self) -> "list[Node]":
        found: list[Node] = []
        for index, action in self._prepared:
            try:
                found += action.touches(self._plan)
            except BlockError as error:
                self._fail(index, error)
        return found

    def _apply(self) -> None:
        """Until it returns nothing else runs. What it changes is told only when all of it stands."""
        changes, failures = self._plan.changes, self._outcome.failures
        failed = {failure.index for failure in failures}
        concerned: list[tuple[int, str]] = []
        """Which action touched which node: a conflict is told of the last one that did."""
        self._graph.hold_news()
        for index, action in self._prepared:
            if index in failed:
                continue
            before = len(changes)
            try:
                action.apply(self._plan)
            except BlockError as error:
                self._fail(index, error)
            concerned += [(index, name) for name in changes.names_since(before)]
        self._describe()
        if not failures:
            try:
                changes.settle()
                changes.freeze(self._reason)
            except BlockError as error:
                about = [index for index, name in concerned if name == getattr(error, "node_name", "")]
                self._fail((about or [index for index, _ in concerned])[-1], error)
        news = self._graph.take_news()
        self._plan.altered += [node for node in news if node not in self._plan.altered]

    async def _switch(self) -> None:
        async with AsyncExitStack() as back:
            # Guests are still held when all is as it was: what the catalogue may have learnt must not stay.
            back.push_async_callback(self._graph.kept.overwrite)
            back.callback(self._touch)
            for _, action in self._prepared:
                back.push_async_callback(action.restored, self._plan)
            back.callback(self._plan.changes.undo)
            token = own_freeze.set(self._reason)
            back.callback(own_freeze.reset, token)
            for index, action in self._prepared:
                with self._naming(index):
                    await action.switch(self._plan)
                back.push_async_callback(action.switch_back, self._plan)
            await self._keep()
            back.pop_all()
            own_freeze.reset(token)
        self._plan.changes.thaw()
        for _, action in self._prepared:
            action.kept(self._plan)

    async def _keep(self) -> None:
        """Durable before a guest's write can depend on it. Raises CatalogueNotWritten."""
        self._touch()
        await self._graph.kept.catalogue.commit()

    def _touch(self) -> None:
        plan = self._plan
        concerned = (plan.changes.touched.values(), plan.altered, plan.opened.values(), plan.closed)
        self._graph.kept.touch(*(node for nodes in concerned for node in nodes))

    async def _commit(self) -> None:
        plan, graph = self._plan, self._graph
        for _, action in self._prepared:
            await action.commit(plan)
        for node in plan.closed:
            await graph.retire(node)
        for node in plan.opened.values():
            graph.announce(node)
        touched = {*plan.changes.touched.values(), *plan.altered} - {*plan.opened.values(), *plan.closed}
        graph.changed(*touched)

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """What fails inside ends the transaction, and says which action it was."""
        try:
            yield
        except BlockError as error:
            self._fail(index, error)
            self._refuse()

    def _fail(self, index: int, error: BlockError) -> None:
        self._outcome.failures.append(Failed(index, error))

    def _refuse(self) -> None:
        failures = self._outcome.failures
        failures.sort(key=lambda failure: failure.index)
        if self._validate_only:
            return
        if len(self._actions) == 1:
            raise failures[0].error
        words = "; ".join(f"{each.index}: {each.error.reason}, {each.error}" for each in failures)
        raise TransactionFailed(len(failures), len(self._actions), words)

    def _describe(self) -> None:
        outcome, plan = self._outcome, self._plan
        outcome.added_nodes = sorted(plan.opened.keys() & self._graph.nodes.keys())
        outcome.removed_nodes = [node.name for node in plan.closed]
        outcome.changed_nodes = sorted({node.name for node in plan.altered})
        outcome.added_edges = [_facts(edge, node) for edge, node in plan.changes.arrived()]
        outcome.removed_edges = [_facts(edge, node) for edge, node in plan.changes.departed()]


def _facts(edge: "Edge", node: "Node") -> EdgeFacts:
    parent = edge.parent.name if edge.parent is not None else ""
    return EdgeFacts(edge.holder, parent, edge.name, edge.role.value, node.name)
