"""The actions on dirty bitmaps that a transaction may consist of: what `graph.recording` does, with a way back.

All of them happen in `apply`, between two turns of the loop: together with a snapshot or a backup in the same
transaction they are about one instant.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blockyard.base.errors import BlockError
from blockyard.node.graph import persisting, recording
from blockyard.node.graph.checkpoint_names import refuse_checkpoint
from blockyard.node.graph.drain import drained
from blockyard.node.graph.transaction import Action, Plan

if TYPE_CHECKING:
    from blockyard.node.graph.bitmaps import Bitmap
    from blockyard.node.graph.node import Node


class _OnNode(Action):
    """An action on one bitmap. Writes to its node are held, so that it is exact."""

    def __init__(self, node_name: str, name: str) -> None:
        refuse_checkpoint(name)
        self._node_name = node_name
        self._name = name

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._node_name)]

    async def settle_down(self, plan: Plan) -> None:
        for node in self.touches(plan):
            if any(bitmap.in_image for bitmap in node.bitmaps.values()):
                await persisting.use(node)

    async def switch(self, plan: Plan) -> None:
        await self.restored(plan)

    async def restored(self, plan: Plan) -> None:
        node = plan.graph.nodes.get(self._node_name)
        if node is not None:
            await _settle(node)

    def _keep_content(self, plan: Plan, node: "Node", bitmap: "Bitmap") -> None:
        """Its bits and its switch come back if the transaction fails."""
        bits, is_recording = bitmap.bits.copy(), bitmap.recording

        def restore() -> None:
            bitmap.become(bits)
            bitmap.recording = is_recording
            node.record_bitmaps()

        plan.changes.also(restore)


async def _settle(node: "Node") -> None:
    """What its bitmaps say survives a crash, if they do."""
    if node.guard is not None:
        await node.guard.sync()


class CreateBitmap(_OnNode):
    """Begin to record a node's writes."""

    def __init__(
        self,
        node_name: str,
        name: str,
        granularity: int = 0,
        *,
        is_recording: bool = True,
        is_persistent: bool = False,
    ) -> None:
        super().__init__(node_name, name)
        self._granularity = granularity
        self._persistent = is_persistent
        self._recording = is_recording

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._node_name)
        recording.create(
            plan.graph,
            node,
            self._name,
            self._granularity,
            recording=self._recording,
            persistent=self._persistent,
        )

        def restore() -> None:
            del node.bitmaps[self._name]
            node.record_bitmaps()

        plan.changes.also(restore)


class DeleteBitmap(_OnNode):
    """Forget a bitmap."""

    _deleted: "Bitmap | None" = None

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._node_name)
        before = dict(node.bitmaps)
        self._deleted = recording.delete(plan.graph, node, self._name)

        def restore() -> None:
            node.bitmaps.clear()
            node.bitmaps.update(before)
            node.record_bitmaps()

        plan.changes.also(restore)

    async def commit(self, plan: Plan) -> None:
        node = plan.graph.nodes.get(self._node_name)
        if self._deleted is not None and self._deleted.guard is not None:
            self._deleted.guard.drop(self._deleted)
        if node is not None and self._deleted is not None and self._deleted.in_image:
            try:
                async with drained(node):
                    await persisting.remove(node, self._name)
            except BlockError as problem:  # closing the node stores those that are left
                plan.graph.report(node.name, "bitmap-not-removed", {"name": self._name, "error": str(problem)})


class ClearBitmap(_OnNode):
    """Mark nothing dirty."""

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._node_name)
        self._keep_content(plan, node, recording.find(node, self._name))
        recording.clear(plan.graph, node, self._name)


class SetRecording(_OnNode):
    """Record new writes, or stop."""

    def __init__(self, node_name: str, name: str, is_recording: bool) -> None:
        super().__init__(node_name, name)
        self._recording = is_recording

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._node_name)
        self._keep_content(plan, node, recording.find(node, self._name))
        recording.set_recording(plan.graph, node, self._name, self._recording)


class MergeBitmaps(_OnNode):
    """Mark dirty here what is dirty in others, which may be of other nodes."""

    def __init__(self, node_name: str, name: str, sources: Sequence[tuple[str, str]]) -> None:
        super().__init__(node_name, name)
        self._sources = sources

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(name) for name in (self._node_name, *(name for name, _ in self._sources))]

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._node_name)
        sources = [recording.find(plan.get(node_name), name) for node_name, name in self._sources]
        self._keep_content(plan, node, recording.find(node, self._name))
        recording.merge(plan.graph, node, self._name, sources)
