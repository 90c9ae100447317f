"""From a definition to a node: children first, then the driver, then what the image's header names.

Opening is all or nothing: what was opened on the way is closed again if a later step fails. Must not publish: the
graph adds the nodes when everything stands.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import (
    BackingDenied,
    BackingFormatUnknown,
    BackingLoop,
    BackingMissing,
    BackingProtocolDenied,
    BlockError,
    ChainTooDeep,
    GraphCycle,
    InvalidArgument,
    LimitReached,
    NodeExists,
    NodeInactive,
)
from blockyard.node.drivers.catalogue import driver_class
from blockyard.node.graph.contending import naming_holders
from blockyard.node.graph.definition import AUTO_PREFIX, NodeDefinition, check_name, driver_options
from blockyard.node.graph.drivers import given_children
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.ephemeral import make_overlay, overlay_of
from blockyard.node.graph.executors import MAIN
from blockyard.node.graph.freezing import hold_chain, let_go
from blockyard.node.graph.internal_snapshots import confirm
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.named_files import named_files
from blockyard.node.graph.node import Node
from blockyard.node.graph.permissions import refresh
from blockyard.node.graph.persisting import adopt, close_driver
from blockyard.node.graph.referring import path_of
from blockyard.node.interface.abilities import NamesFiles
from blockyard.node.interface.driver import BackingReference, ChildSlot, Driver, DriverContext, FormatDriver
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import CHANGING, NOTHING

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph

_ABOUT_CHAIN: Final = (
    *(BackingMissing, BackingLoop, ChainTooDeep),
    *(BackingDenied, BackingProtocolDenied, BackingFormatUnknown),
)
"""Errors of a layer further down that speak for themselves."""
_NESTING_MAX: Final = 64
"""Definitions inside definitions; headers have their own bound (environment.max_chain_depth)."""


def driver_context(
    graph: "Graph",
    name: str,
    definition: NodeDefinition,
    children: Mapping[str, Edge],
    *,
    of_job: bool = False,
    restored: bool = False,
    begins_later: bool = False,
) -> DriverContext:
    """What a driver of the graph is opened with. `children` is looked at as it is then, so give the node's own."""
    environment = graph.environment
    return DriverContext(
        node_name=name,
        read_only=definition.opens_read_only,
        children=children,
        pool=graph.executors.share(name, definition.executor),
        storage=environment.storage,
        clock=environment.clock,
        throttling=environment.throttling,
        bitmaps=graph,
        secrets=environment.secrets,
        of_job=of_job,
        restored=restored,
        begins_later=begins_later,
        discard=definition.discard,
        direct=definition.direct,
        no_flush=definition.no_flush,
        force_share=definition.force_share,
        report=lambda kind, details: graph.report(name, kind, details),
        repermit=lambda: graph.repermit(name),
        inactive=definition.inactive,
    )


class Opener:
    """Opens one definition. `opened` lists the new nodes, children before parents."""

    def __init__(
        self,
        graph: "Graph",
        beside: "Mapping[str, Node] | None" = None,
        *,
        restoring: bool = False,
        of_job: bool = False,
        begins_later: bool = False,
    ) -> None:
        """`beside`: nodes that are not in the graph yet, and can be named nonetheless. `of_job`: a job's filter.
        `begins_later`: points in time begin with all else in a transaction."""
        self._graph = graph
        self._beside = beside or {}
        self._environment = graph.environment
        self._of_job = of_job
        self._begins_later = begins_later
        self._restoring = restoring
        """The definition is the catalogue's: it is complete, so nothing is inherited, and it knows all names."""
        self.claimed: set[str] = set()
        self.opened: list[Node] = []

    async def open(self, definition: NodeDefinition, *, implicit: bool = False) -> Node:
        """The top node. Raises catalogue errors and leaves nothing open."""
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.close)
            node = await self._open(definition, implicit=implicit, depth=0, chain=())
            undo.pop_all()
            return node

    def stood_on(self) -> list[Node]:
        """Nodes that were there before and have a new parent."""
        below = (edge.node for node in self.opened for edge in node.children.values())
        return [node for node in dict.fromkeys(below) if node not in self.opened]

    async def close(self) -> None:
        """Close what was opened, parents first, as if it had never been: nothing is published."""
        async with AsyncExitStack() as closing:  # goes on when one has a problem
            for node in self.opened:
                closing.callback(_detach, list(node.children.values()))
                closing.callback(let_go, node)
                closing.push_async_callback(self._graph.guards.close, node, is_stored=True)
                closing.push_async_callback(close_driver, node)
            self.opened = []
            self.leave_names()

    def leave_names(self) -> None:
        """The names are taken by nodes of the graph now, or free again."""
        self._graph.claimed -= self.claimed
        self.claimed = set()

    async def _open(
        self, definition: NodeDefinition, *, implicit: bool, depth: int, chain: tuple[str, ...]
    ) -> Node:
        if depth > max(_NESTING_MAX, self._environment.max_chain_depth):
            raise ChainTooDeep(definition.node_name or definition.driver, self._environment.max_chain_depth)
        definition.check()
        name = self._name(definition)
        given = definition if definition.ephemeral else definition.overlays
        if definition.ephemeral:
            definition = overlay_of(definition)
        class_ = driver_class(definition.driver)
        options = driver_options(class_, definition.options)
        edges = await self._open_children(name, class_, definition, options, depth, chain)
        definition = _placed(definition, edges)
        try:
            children = dict(edges)
            modes = {"of_job": self._of_job, "restored": self._restoring, "begins_later": self._begins_later}
            context = driver_context(self._graph, name, definition, children, **modes)
            if given is not None:
                await make_overlay(class_, context)
            with naming_holders(self._graph):
                driver = await class_.open(options, context)
        except BaseException:
            _detach([edge for _, edge in edges])
            raise
        node = await self._node(name, definition, driver, context, edges, implicit)
        node.given = given
        refresh(node)
        await confirm(self._graph, node)
        await self._follow_header(node, depth, chain)
        hold_chain(node)
        return node

    def _name(self, definition: NodeDefinition) -> str:
        """A name of its own, claimed so that no opening meanwhile takes it too."""
        graph, name = self._graph, definition.node_name
        if len(graph.nodes) + len(graph.claimed) >= self._environment.max_nodes:
            raise LimitReached("open nodes", self._environment.max_nodes)
        if not name:
            name = f"{AUTO_PREFIX}{graph.next_number()}"
        elif not self._restoring:
            check_name(name)
            graph.kept.check_not_reserved(name)
        if name in graph.nodes or name in graph.claimed:
            raise NodeExists(name)
        graph.claimed.add(name)
        self.claimed.add(name)
        return name

    async def _open_children(
        self,
        name: str,
        class_: type[Driver],
        definition: NodeDefinition,
        options: object,
        depth: int,
        chain: tuple[str, ...],
    ) -> list[tuple[str, Edge]]:
        edges: list[tuple[str, Edge]] = []

        async def add(child: str, slot: ChildSlot, reference: NodeDefinition | str) -> None:
            below = await self._resolve(reference, definition, slot, depth, chain)
            edges.append((child, await self._edge(name, class_, definition, options, child, slot, below)))

        try:
            for child, slot in given_children(class_, definition):
                reference = definition.children[child]
                assert reference is not None
                await add(child, slot, reference)
            if isinstance(class_, NamesFiles):
                context = driver_context(self._graph, name, definition, dict(edges))
                for child, named in (await named_files(self._environment, class_, options, context)).items():
                    await add(child, next(slot for slot in class_.children if slot.takes(child)), named)
        except BaseException:
            _detach([edge for _, edge in edges])
            raise
        return edges

    async def _edge(
        self,
        name: str,
        class_: type[Driver],
        definition: NodeDefinition,
        options: object,
        child: str,
        slot: ChildSlot,
        child_node: Node,
    ) -> Edge:
        permissions = NOTHING
        if not self._of_job:  # its session has edges of its own
            permissions = class_.opening_permissions(slot.role, options, writable=not definition.opens_read_only)
        if permissions.used & CHANGING:
            await ready_to_write(self._graph, child_node)
        elif not child_node.active and not definition.inactive:
            raise NodeInactive(child_node.name)
        edge = Edge(None, child, slot.role, child_node)
        edge.stays, edge.coming = slot.stays, name
        # Before the driver may touch the child. What it says itself comes when it is open.
        edge.permissions = permissions
        try:
            refresh(child_node)
        except BaseException:
            _detach([edge])
            raise
        return edge

    async def _resolve(
        self,
        reference: NodeDefinition | str,
        parent: NodeDefinition,
        slot: ChildSlot,
        depth: int,
        chain: tuple[str, ...],
    ) -> Node:
        if isinstance(reference, str):
            if reference == parent.node_name:
                raise GraphCycle(reference, slot.name)
            return self._beside.get(reference) or self._graph.get(reference)
        if self._restoring:
            return await self._open(reference, implicit=True, depth=depth + 1, chain=chain)
        return await self._open(
            inherit(reference, parent, slot.role), implicit=not reference.node_name, depth=depth + 1, chain=chain
        )

    async def _node(
        self,
        name: str,
        definition: NodeDefinition,
        driver: Driver,
        context: DriverContext,
        edges: list[tuple[str, Edge]],
        implicit: bool,
    ) -> Node:
        node = Node(
            name=name,
            definition=definition,
            driver=driver,
            clock=self._environment.clock,
            context=context,
            read_only=context.read_only,
            implicit=implicit,
            discard=definition.discard,
            no_flush=definition.no_flush,
            executor=definition.executor or MAIN,
            path=str(definition.options.get("filename", "")),
            on_limits=self._graph.limits_change,
            on_mode=self._graph.guards.mode_changed,
            on_blockers=self._graph.changed,
            resumes_read_only=definition.read_only or definition.auto_read_only,
        )
        for child, edge in edges:
            edge.parent = node
            node.children[child] = edge
        # The driver sees its children as they are, also a backing file that is attached later.
        context.children = node.children
        if node.primary is not None:
            node.path = node.primary.node.path
        node.filename = self._environment.storage.display(node.path) if node.path else ""
        if isinstance(driver, FormatDriver) and (reference := driver.backing()) is not None:
            node.backing_filename, node.backing_format = reference.filename, reference.format
        adopt(node)
        self.opened.append(node)
        return node

    # --- backing files that headers name -----------------------------------------------------------------

    async def _follow_header(self, node: Node, depth: int, chain: tuple[str, ...]) -> None:
        driver = node.driver
        slots = {slot.name for slot in driver.children}
        if "backing" not in slots or "backing" in node.definition.children:
            return
        node.follows_header = True
        reference = driver.backing() if isinstance(driver, FormatDriver) else None
        if reference is None:
            return
        image = node.filename or node.name
        if not self._environment.follow_backing:
            raise BackingDenied(image, reference.filename)
        if not reference.format:
            raise BackingFormatUnknown(image, reference.filename)
        if len(chain) >= self._environment.max_chain_depth:
            raise ChainTooDeep(image, self._environment.max_chain_depth)
        path = self._locate(node, reference)
        chain = (*chain, self._environment.storage.display(node.path) if node.path else node.name)
        if self._environment.storage.display(path) in chain:
            raise BackingLoop(image, reference.filename)
        below = await self._open_backing(node, reference, path, depth, chain)
        edge = node.children["backing"] = Edge(node, "backing", Role.BACKING, below)
        node.header_link = (edge, below)
        refresh(node)

    def _locate(self, node: Node, reference: BackingReference) -> str:
        if not node.path:
            raise BackingMissing(
                node.name, reference.filename, "the image is no file, so the name has no directory"
            )
        return path_of(self._environment.storage, node.path, node.filename, reference)

    async def _open_backing(
        self, node: Node, reference: BackingReference, path: str, depth: int, chain: tuple[str, ...]
    ) -> Node:
        file = NodeDefinition("file", options={"filename": path}, read_only=True)
        definition = NodeDefinition(
            reference.format, children={"file": file}, read_only=True, force_share=node.definition.force_share
        )
        if (was := node.definition.followed) is not None:
            definition = _named_as(definition, was)
        try:
            return await self._open(
                inherit(definition, node.definition, Role.BACKING), implicit=True, depth=depth, chain=chain
            )
        except (*_ABOUT_CHAIN, InvalidArgument):
            raise
        except BlockError as problem:
            raise BackingMissing(node.filename, reference.filename, str(problem)) from problem


def _detach(edges: list[Edge]) -> None:
    for edge in edges:
        edge.detach()
    refresh(*(edge.node for edge in edges))


def _named_as(definition: NodeDefinition, was: NodeDefinition) -> NodeDefinition:
    """What a header leads to, under the names that it had when the catalogue kept it."""
    file, file_was = definition.children["file"], was.children.get("file")
    if definition.driver != was.driver or not isinstance(file, NodeDefinition):
        return definition
    if isinstance(file_was, NodeDefinition) and file_was.driver == file.driver:
        file = replace(file, node_name=file_was.node_name)
    return replace(definition, node_name=was.node_name, followed=was.followed, children={"file": file})


def inherit(child: NodeDefinition, parent: NodeDefinition, role: Role) -> NodeDefinition:
    """A child that is defined inside its parent takes over what the parent's user meant for all of it."""
    if role is Role.BACKING:
        return replace(
            child,
            read_only=True,
            force_share=child.force_share or parent.force_share,
            direct=child.direct or parent.direct,
            executor=child.executor or parent.executor,
            children={
                name: replace(below, read_only=True) if isinstance(below, NodeDefinition) else below
                for name, below in child.children.items()
            },
        )
    return replace(
        child,
        read_only=child.read_only or parent.read_only,
        auto_read_only=child.auto_read_only or parent.auto_read_only,
        force_share=child.force_share or parent.force_share,
        direct=child.direct or parent.direct,
        no_flush=child.no_flush or parent.no_flush,
        executor=child.executor or parent.executor,
    )


def _placed(definition: NodeDefinition, edges: list[tuple[str, Edge]]) -> NodeDefinition:
    """A node whose executor nobody chose goes where its file already is, as QEMU's do; so filters stay with it."""
    file = dict(edges).get("file")
    if definition.executor or file is None or file.node.executor == MAIN:
        return definition
    return replace(definition, executor=file.node.executor)
