"""Snapshots inside the image of a node, and its VM state: what the graph adds to what the format can do.

The node is the format's own; filters above it pass nothing of this on. Guests stay attached: their requests are
held while a snapshot is taken, applied or deleted.

Theory. A snapshot that is open as a node of its own reads the same file beside the writer: nobody overwrites what a
snapshot holds, as long as it is there. So only its deletion is refused. Opening and deletion may meet: both pass
`graph.snapshot_lock`, the one that opens with its edge in place and a second look at the image's table.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import InvalidArgument, NodeInUse, OperationUnsupported, ResourceBusy
from blockyard.node.graph import requests
from blockyard.node.graph.chain import above_filters, overlay_above
from blockyard.node.graph.drain import drained
from blockyard.node.graph.guarding import changed_everywhere
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.transaction import Action, Plan
from blockyard.node.graph.user import RESIZER, WRITER, User
from blockyard.node.interface.internal_snapshots import HasSnapshots, SnapshotFacts, SnapshotWish
from blockyard.node.interface.permissions import ALL, CONSISTENT_READ, RESIZE, WRITE, Permissions

if TYPE_CHECKING:
    from blockyard.node.graph.definition import NodeDefinition
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

_SAVER: Final = Permissions(CONSISTENT_READ | WRITE, ALL & ~RESIZE)
"""The VM state begins where the disk ends."""
_NOT_TAKEN_OVER: Final = ("repair", "snapshot", "lazy_refcounts")
"""Options of a node that one of its snapshots is not opened with."""


def image_of(node: "Node") -> HasSnapshots:
    """The node's driver. Raises OperationUnsupported; a filter is told to name what is below it."""
    if not isinstance(node.driver, HasSnapshots):
        below = f" (the image below it is {node.filtered.name})" if node.filtered is not None else ""
        raise OperationUnsupported(node.name, node.driver.name, f"keep snapshots inside an image{below}")
    return node.driver


async def create(graph: "Graph", node: "Node", wish: SnapshotWish) -> SnapshotFacts:
    """Take a snapshot. Raises OperationUnsupported, NodeReadOnly, ResourceExists, InvalidArgument ..."""
    image_of(node)
    wish.check()
    await ready_to_write(graph, node)
    with _writing(node, "CreateSnapshot", WRITER):
        async with drained(node):
            made = await image_of(node).create_snapshot(wish)
            node.write_generation += 1
    graph.changed(node)
    return made


async def revert(graph: "Graph", node: "Node", wanted: str) -> None:
    """Make the disk what it was. To its users all of it may have changed, its size too.

    Raises ResourceNotFound, NodeInUse for a job that works on it, PermissionConflict with who needs it unchanged.
    """
    image_of(node)
    await ready_to_write(graph, node)
    found = image_of(node).snapshot_named(wanted)
    if node.backing is not None and node.backing.frozen_reason:
        raise NodeInUse(node.name, "revert", node.backing.frozen_reason)
    if (above := above_filters(node)) is not node:
        raise NodeInUse(node.name, "revert", above.name)
    if (overlay := overlay_above(node)) is not None:
        raise NodeInUse(node.name, "revert", f"node/{overlay.name}, whose content would change")
    permissions = WRITER if found.disk_size == node.driver.size else RESIZER
    with _writing(node, "RevertToSnapshot", permissions):
        async with drained(node), changed_everywhere(node):
            try:
                await image_of(node).revert_to_snapshot(found.identifier)
            finally:
                _all_changed(node)
    graph.changed(node)


def _all_changed(node: "Node") -> None:
    node.write_generation += 1
    for bitmap in node.bitmaps.values():
        bitmap.resize(node.driver.size)
    for bitmap in node.recorders:
        bitmap.mark(0, node.driver.size)


async def delete(graph: "Graph", node: "Node", identifier: str, name: str) -> SnapshotFacts:
    """Forget a snapshot. Raises ResourceNotFound, ResourceBusy for one that is open as a node."""
    if not identifier and not name:
        raise InvalidArgument("id", "an id, a name, or both", "neither")
    image_of(node)
    await ready_to_write(graph, node)
    async with graph.snapshot_lock:
        found = image_of(node).find_snapshot(identifier, name)
        for other in beside(node):
            if isinstance(other.driver, HasSnapshots) and other.driver.shown_snapshot == found.identifier:
                raise ResourceBusy("snapshot", found.name, f"node/{other.name}")
        with _writing(node, "DeleteSnapshot", WRITER):
            async with drained(node):
                await image_of(node).delete_snapshot(found.identifier)
                node.write_generation += 1
    graph.changed(node)
    return found


def check_none_shown(node: "Node", operation: str) -> None:
    """Raises NodeInUse if another node shows a snapshot of the image: it reads places that are about to move.

    Call it with `graph.snapshot_lock` held.
    """
    for other in beside(node):
        if isinstance(other.driver, HasSnapshots) and other.driver.shown_snapshot:
            raise NodeInUse(node.name, operation, f"node/{other.name}, which shows a snapshot of it")


def beside(node: "Node") -> "Iterator[Node]":
    """All nodes that stand on the same file, through whatever is between."""
    bottom = node
    while bottom.primary is not None:
        bottom = bottom.primary.node
    pending = [bottom]
    while pending:
        for edge in pending.pop().parents:
            if edge.parent is not None and edge is edge.parent.primary:
                pending.append(edge.parent)
                yield edge.parent


async def confirm(graph: "Graph", node: "Node") -> None:
    """For a node that was just opened: if it shows a snapshot, that is still there. Raises ResourceNotFound."""
    if isinstance(node.driver, HasSnapshots) and node.driver.shown_snapshot:
        async with graph.snapshot_lock:
            await node.driver.confirm_shown()


async def open_node(graph: "Graph", node: "Node", wanted: str, new_name: str) -> "Node":
    """Open a snapshot as a read-only node above the same file and backing file."""
    found = image_of(node).snapshot_named(wanted)
    return await graph.open(definition_of_snapshot(node, found, new_name))


def definition_of_snapshot(node: "Node", found: SnapshotFacts, new_name: str) -> "NodeDefinition":
    options = {name: value for name, value in node.definition.options.items() if name not in _NOT_TAKEN_OVER}
    children: dict[str, NodeDefinition | str | None] = {"backing": None}
    children.update((name, edge.node.name) for name, edge in node.children.items())
    return replace(
        node.definition,
        node_name=new_name,
        options={**options, "snapshot": found.identifier},
        children=children,
        read_only=True,
        auto_read_only=False,
        ephemeral=False,
        followed=None,
        inactive=False,
        labels={},
    )


async def save_state(graph: "Graph", node: "Node", pieces: AsyncIterator[bytes | memoryview]) -> int:
    """Put a VM state beside the disk; its bytes. The disk cannot be resized meanwhile."""
    image_of(node)
    await ready_to_write(graph, node)
    with _writing(node, "SaveVmState", _SAVER):
        try:
            return await image_of(node).save_vm_state(pieces)
        finally:
            node.write_generation += 1


async def load_state(node: "Node", wanted: str, length: int) -> AsyncIterator[bytes]:
    """The VM state of a snapshot, or so many bytes of what is beside the disk."""
    image = image_of(node)
    identifier = image.snapshot_named(wanted).identifier if wanted else ""
    user = User("call", "LoadVmState", node, False)
    try:
        async for piece in image.load_vm_state(identifier, length):
            yield piece
    finally:
        user.detach()


@contextmanager
def _writing(node: "Node", call: str, permissions: Permissions) -> "Iterator[None]":
    """Hold the node as a writer. Raises NodeReadOnly or PermissionConflict."""
    user = User("call", call, node, True, permissions)
    try:
        yield
    finally:
        user.detach()


class CreateSnapshot(Action):
    """Take a snapshot inside an image (QEMU's blockdev-snapshot-internal-sync): one instant for all of them."""

    def __init__(self, node_name: str, wish: SnapshotWish) -> None:
        self._name = node_name
        self._wish = wish
        self._made = ""

    async def prepare(self, plan: Plan) -> None:
        node = plan.get(self._name)
        image_of(node)
        self._wish.check()
        await ready_to_write(plan.graph, node)

    def touches(self, plan: Plan) -> "list[Node]":
        return [plan.get(self._name)]

    async def settle_down(self, plan: Plan) -> None:
        await requests.flush(plan.get(self._name))

    def apply(self, plan: Plan) -> None:
        node = plan.get(self._name)
        if node.read_only:
            raise node.write_refusal()
        plan.altered.append(node)

    async def switch(self, plan: Plan) -> None:
        self._made = (await image_of(plan.get(self._name)).create_snapshot(self._wish)).identifier

    async def switch_back(self, plan: Plan) -> None:
        await image_of(plan.get(self._name)).delete_snapshot(self._made)
