"""What the kinds of session share: the work map, the filter above the source, links of a chain that stay put.

Every preparation checks first and changes last; every change of the graph happens under a drain.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import (
    BlockError,
    CatalogueNotWritten,
    InvalidArgument,
    NodeInUse,
    OperationUnsupported,
    SizeTooLarge,
)
from blockyard.node.copying.kept_map import KeptMap
from blockyard.node.copying.session import Session
from blockyard.node.copying.work import CopyWork, default_granularity
from blockyard.node.core.dirty import MAX_BYTES, MAX_GRANULARITY, DirtyBitmap
from blockyard.node.graph import modes, moving, requests, surgery
from blockyard.node.graph.chain import below_filters
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.referring import reference_between
from blockyard.node.interface.driver import BackingReference, FormatDriver, Resizable
from blockyard.node.interface.flags import COMPRESSED, Preallocation, Role
from blockyard.node.interface.interposer import Interposable, Interposer

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.user import User


SIZE_MAX: Final = MAX_GRANULARITY * MAX_BYTES * 8
"""What the largest map covers: 256 PiB."""


def map_path(folder: Path, session_id: str) -> Path:
    """The file of a session's map. Its id may be any text."""
    return folder / f"{hashlib.sha256(session_id.encode()).hexdigest()[:32]}.map"


def loses_unflushed(node: "Node") -> bool:
    """Whether a kill of the process loses what was written and not flushed: a format keeps mappings in memory,
    where a file's bytes are the kernel's at once."""
    if isinstance(node.driver, FormatDriver) and not node.driver.transparent:
        return True
    return node.primary is not None and loses_unflushed(node.primary.node)


def forgets(node: "Node") -> bool:
    """Whether a node that comes back after a kill has lost what was in it, flushed or not."""
    if node.driver.forgets:
        return True
    return any(forgets(edge.node) for edge in node.children.values() if edge.name != "target")


class CopyingSession(Session):
    """What mirror, backup and commit share: a work map over the source and a target to write to."""

    async def new_bits(self) -> DirtyBitmap:
        """The map: as an earlier process left it, or an empty one. Raises SizeTooLarge or CatalogueNotWritten."""
        if self.kept is not None and self.resumes:
            return self.kept.left
        granularity, size = self.spec.granularity, self.source.driver.size
        if size > SIZE_MAX:
            raise SizeTooLarge("source of a copy", size, SIZE_MAX)
        if not granularity:
            nodes = [node for node in (self.source, self.target) if node is not None]
            infos = [await below_filters(node).driver.info() for node in nodes]
            granularity = default_granularity([info.cluster_size for info in infos], size)
        if self.folder is None:
            return DirtyBitmap(size, granularity)
        try:
            self.kept = KeptMap.create(map_path(self.folder, self.spec.session_id), size, granularity)
        except OSError as problem:
            raise CatalogueNotWritten(str(self.folder), str(problem)) from problem
        return self.kept.left

    def new_work(self, base: "Node | None", target: "User | None", bits: DirtyBitmap) -> CopyWork:
        pool = self.graph.executors.share(self.source.name, user=self.spec.owner)
        flags = COMPRESSED if self.spec.compress else 0
        volatile = self.kept is not None and any(map(loses_unflushed, self.flushes))
        return CopyWork(
            self.source,
            base,
            target,
            bits,
            pool,
            flags=flags,
            unmap=self.spec.unmap,
            kept=self.kept,
            volatile=volatile,
        )

    async def settle_source(self) -> None:
        """What the point in time shows is what a kill leaves, while guests are held: a format's mappings in memory
        would be lost, and the copy be of another instant than the rest."""
        source = below_filters(self.source)
        if self.kept is not None and loses_unflushed(source):
            await requests.flush(source)

    def top_base(self) -> "Node | None":
        """For sync TOP: what lies below the top layer."""
        backing = below_filters(self.source).backing
        return below_filters(backing.node) if backing is not None else None

    def check_target_size(self) -> None:
        assert self.target is not None
        if self.target.driver.size < self.source.driver.size:
            raise InvalidArgument(
                "target_node_name",
                f"a node of at least the source's {self.source.driver.size} bytes",
                f"{self.target.name} of {self.target.driver.size} bytes",
            )

    async def open_filter(self, driver: str) -> "Node":
        """The session's filter above the source, not yet in anyone's way."""
        assert self.target is not None
        definition = NodeDefinition(
            driver,
            self.filter_name,
            children={"file": self.source.name, "target": self.target.name},
            executor=self.source.executor,
        )
        opened = await self.graph.open(definition, of_job=True, restoring=self.restored)
        self.filter_name = opened.name
        return opened

    def interpose(self, interposer: Interposer | None) -> None:
        assert self.filter is not None
        assert isinstance(self.filter.driver, Interposable)
        self.filter.driver.interposer = interposer

    def put_filter_in(self) -> None:
        """Everyone above the source but this session's own users goes through the filter. The caller drained it."""
        assert self.filter is not None
        edges = moving.check_movable(self.source, self.filter, under_filters=True)
        moving.move_edges([edge for edge in edges if edge not in self.users], self.filter)

    async def take_filter_out(self) -> None:
        """Users see what is below the filter again; it is closed. The caller drained it, and nothing below it."""
        if self.filter is not None:
            await self.graph.collect(self.detach_filter())

    def detach_filter(self) -> "Node":
        """The filter, without users: they see what is below it again. Closing it flushes nothing, so that an error
        of the node below is told to those who flush that."""
        assert self.filter is not None
        node, self.filter = self.filter, None
        node.no_flush = True
        below = node.filtered
        assert below is not None
        moving.move_edges(list(node.parents), below)
        self.graph.changed(self.source)
        return node

    async def leave_behind(self, node: "Node") -> None:
        """Close a node that the end of the session left without users. The end stands, whatever becomes of it."""
        try:
            await self.graph.collect(node)
        except BlockError as problem:
            self.graph.report(node.name, "close-failed", {"error": str(problem)})


class ChainedSession(CopyingSession):
    """What stream and commit share: links of a chain that nobody else may change meanwhile."""

    _frozen: "tuple[Edge, ...]" = ()
    _opened_for_writing: "Node | None" = None

    def freeze(self, *nodes: "Node") -> None:
        """Nobody may change the backing links of these layers until the session ends. Raises NodeInUse."""
        edges = [edge for node in nodes if (edge := node.backing) is not None]
        for edge in edges:
            if edge.frozen_reason:
                raise NodeInUse(edge.node.name, "change the link to", edge.frozen_reason)
        for edge in edges:
            edge.frozen_reason = self._reason
        self._frozen = tuple(edges)

    @property
    def _reason(self) -> str:
        return f"{self.spec.owner} works on this chain"

    async def relink(self, node: "Node", base: "Node | None") -> None:
        """Name the base in a layer's header and link it: the one change of a frozen link, the session's own."""
        edge, reference = node.backing, self.reference_to(node, base)
        if edge is not None:
            edge.frozen_reason = ""
        try:
            await surgery.set_backing(
                self.graph, node, base, reference, header=True, together_with=self.seal_with_next_commit
            )
        except BaseException:
            if edge is not None:
                edge.frozen_reason = self._reason
            raise

    def unfreeze(self) -> None:
        for edge in self._frozen:
            edge.frozen_reason = ""
        self._frozen = ()

    async def undo(self) -> None:
        self.unfreeze()
        self.release_users()
        await self.restore_read_only()

    async def open_for_writing(self, node: "Node") -> None:
        """A layer that is read-only now becomes writable until `restore_read_only`."""
        if node.read_only:
            await modes.set_writable(self.graph, node, True)
            self._opened_for_writing = node
            node.lent_for_writing = True

    async def restore_read_only(self) -> None:
        node, self._opened_for_writing = self._opened_for_writing, None
        if node is not None and self.graph.nodes.get(node.name) is node:
            await modes.set_writable(self.graph, node, False)
        if node is not None:
            node.lent_for_writing = False

    def give_for_writing(self) -> "Node | None":
        """What was opened for writing stays so: guests write to it from now on."""
        node, self._opened_for_writing = self._opened_for_writing, None
        if node is not None:
            node.lent_for_writing = False
        return node

    def lend_again(self, node: "Node | None") -> None:
        """Undo `give_for_writing`."""
        self._opened_for_writing = node
        if node is not None:
            node.lent_for_writing = True

    async def grow_base(self, base: "Node", target: "User") -> None:
        """A base smaller than what is committed into it grows first."""
        size = self.source.driver.size
        if size > base.driver.size:
            if not isinstance(base.driver, Resizable):
                raise OperationUnsupported(base.name, base.driver.name, "grow to the size of the top")
            await target.truncate(size, Preallocation.OFF)

    def check_alone(self, base: "Node", above: "Node") -> None:
        """A base that is written to must have no reader but the chain that hides what is written."""
        others = [edge.holder for edge in base.parents if edge is not above.backing]
        if others:
            raise NodeInUse(base.name, "commit into", ", ".join(others))

    def check_unused(self, middle: "list[Node]") -> None:
        """Layers that change under their readers must have no users but the chain itself."""
        for node in middle:
            others = [edge.holder for edge in node.parents if edge.role is not Role.BACKING]
            if others:
                raise NodeInUse(node.name, "commit", ", ".join(others))

    def reference_to(self, node: "Node", base: "Node | None") -> BackingReference | None:
        """How `node`'s header shall name its new backing file."""
        if base is None:
            return None
        return reference_between(self.graph.environment.storage, node, base, self.spec.backing_file)
