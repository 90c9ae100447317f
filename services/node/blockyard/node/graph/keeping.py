"""Which entries of the catalogue a change of the graph concerns, and how it becomes durable or is undone.

| change | order |
|---|---|
| open | opened, kept, then seen by others; a failure closes it again |
| close | unseen, dropped, then closed; a failure leaves it open |
| transaction, pivot | applied while guests are held, kept, then guests go on; a failure takes it back first |
| header of an image | the present link is kept as one that no header decides; the header; the edge, kept |
| bitmap, export | made, kept; a failure takes it away again. Dropped, kept |

So a crash finds the state before or after, and data that was acknowledged is where the catalogue says.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from blockyard.base.errors import BlockError, EntryNotRestored
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.checkpoint_names import CHECKPOINT, checkpoint_of
from blockyard.node.graph.kept_kinds import BITMAP, NODE, THRESHOLD
from blockyard.node.graph.present import root_of
from blockyard.node.graph.user import User

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


class Keeping:
    """The catalogue as the graph uses it."""

    def __init__(self, catalogue: Catalogue, nodes: "dict[str, Node]") -> None:
        self.catalogue = catalogue
        self._nodes = nodes
        self._arriving: dict[str, Node] = {}
        """Nodes that are kept before anyone sees them."""

    # --- what there is -----------------------------------------------------------------------------------

    def lasting(self, name: str) -> "Node | None":
        """The node as far as the catalogue is concerned."""
        return self._nodes.get(name) or self._arriving.get(name)

    def lasting_part(self, name: str) -> "Node | None":
        """As `lasting`, if the node comes back, alone or as a part of another's definition."""
        node = self.lasting(name)
        root = root_of(node) if node is not None else None
        return node if root is not None and self.lasting(root.name) is root else None

    def check_not_reserved(self, name: str) -> None:
        """Raises EntryNotRestored for a name that belongs to a node that did not come back."""
        if (key := self.catalogue.reserved.get(name)) is not None:
            raise EntryNotRestored(*key, str(self.catalogue.failed[key]))

    # --- what changed ------------------------------------------------------------------------------------

    def touch(self, *nodes: "Node") -> None:
        """What is kept of these nodes, of whoever refers to them, and of their users, may have changed."""
        if not self.catalogue.enabled:
            return
        pending, seen = list(nodes), set[str]()
        while pending:
            node = pending.pop()
            if node.uid in seen:
                continue
            seen.add(node.uid)
            self.catalogue.touch(NODE, node.name)
            self.catalogue.touch(THRESHOLD, node.name)
            for bitmap in node.bitmaps:
                self.catalogue.touch(BITMAP, f"{node.name}/{bitmap}")
                if (checkpoint := checkpoint_of(bitmap)) is not None:
                    self.catalogue.touch(CHECKPOINT, f"{node.name}/{checkpoint}")
            if node in nodes or node.implicit:
                pending += self._touch_users(node)

    def _touch_users(self, node: "Node") -> "list[Node]":
        """Touches what holds a node from outside; the parents that are nodes."""
        for edge in node.parents:
            if isinstance(edge, User):
                self.catalogue.touch(edge.kind, edge.name)
        return [edge.parent for edge in node.parents if edge.parent is not None]

    def touch_bitmap(self, node: "Node", name: str) -> None:
        """A bitmap of the node came or went."""
        self.catalogue.touch(BITMAP, f"{node.name}/{name}")

    def touch_below(self, node: "Node") -> None:
        """Also what is closed with a node."""
        self.touch(node)
        for edge in node.children.values():
            if edge.node.implicit:
                self.touch_below(edge.node)

    # --- keeping it --------------------------------------------------------------------------------------

    async def keep(self, undo: Callable[[], object], *nodes: "Node") -> None:
        """A change of these nodes is durable, or undone. Raises CatalogueNotWritten.

        Call it while the nodes are drained if guests write through what changed: no write may be acknowledged that
        a restart would look for elsewhere.
        """
        self.touch(*nodes)
        await self.commit(undo)

    async def commit(self, undo: Callable[[], object]) -> None:
        """What was touched is durable, or undone. Raises CatalogueNotWritten."""
        try:
            await self.catalogue.commit()
        except BaseException:
            undo()
            await self.overwrite()
            raise

    async def overwrite(self) -> None:
        """After a commit that failed and was undone: what became durable of it nonetheless is overwritten."""
        with suppress(BlockError):
            await self.catalogue.commit()

    async def keep_opened(
        self, opened: "Sequence[Node]", prepare: "Callable[[Node], Awaitable[None]] | None" = None
    ) -> None:
        """Nodes that nobody has seen yet are durable, each after `prepare`. Raises CatalogueNotWritten."""
        if not self.catalogue.enabled:
            return
        self._arriving.update((node.name, node) for node in opened)
        try:
            if prepare is not None:
                for node in opened:
                    await prepare(node)
            self.touch(*opened)
            await self.catalogue.commit()
        finally:
            for node in opened:
                del self._arriving[node.name]

    async def drop_closing(self, node: "Node") -> None:
        """A node that nobody uses is no longer kept, and not found either. Raises CatalogueNotWritten; then it is
        as it was."""
        if not self.catalogue.enabled:
            return
        del self._nodes[node.name]
        node.leaving = True
        self.touch_below(node)

        def undo() -> None:
            self._nodes[node.name] = node
            node.leaving = False

        await self.commit(undo)

    async def keep_link(self, node: "Node") -> None:
        """From now on the node's backing file is what it is, whatever its header says: that will be written next.

        Raises CatalogueNotWritten.
        """
        followed = node.follows_header
        node.follows_header = False

        def undo() -> None:
            node.follows_header = followed

        await self.keep(undo, node)
