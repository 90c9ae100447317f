"""Another backing file under a layer and its users, who see no change (qemu-img rebase, but live).

Theory. What the layer itself does not hold shows the old chain; wherever the new chain shows something else, the
old content is copied into the layer, as copy on read does it. When all of that is in the layer, the change itself
is order of writes: the mappings of what was copied are durable, then the header names the new file, durably, then
the edge moves (`surgery.set_backing`). QEMU 7.2 writes the header first, and 10 of 28 crash states of a rebase show
wrong data. Up to the header a crash or a cancellation leaves the old chain, with copies that say the same.

A guest's write in the meantime only adds to what the layer holds. A discard may take something away again: so a
bitmap records what changes, and that is looked at once more at the end, while the node is drained.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from blockyard.base.errors import GraphCycle, InvalidArgument, NodeInUse, OperationUnsupported, ResourceBusy
from blockyard.base.ranges import ByteRange, align_up
from blockyard.base.units import KIB
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph import requests
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.chain import above_filters, below_filters, descends, layers, overlay_above
from blockyard.node.graph.contents import Comparer, Side, Stretch, alike, is_zero, stretches
from blockyard.node.graph.drain import drained
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.reading import map_own
from blockyard.node.graph.referring import reference_between
from blockyard.node.graph.surgery import set_backing
from blockyard.node.graph.user import READER, User
from blockyard.node.interface.driver import BackingChangeable, BackingReference, FormatDriver
from blockyard.node.interface.mapping import MapKind
from blockyard.node.interface.operations import AwaitsBacking, Progress
from blockyard.node.interface.permissions import ALL, CONSISTENT_READ, RESIZE, WRITE, WRITE_UNCHANGED, Permissions

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

_CALL: Final = "RebaseImage"
_RECORDER: Final = "#rebase"
_GRANULARITY: Final = 64 * KIB
_COPIER: Final = Permissions(CONSISTENT_READ | WRITE_UNCHANGED, ALL & ~RESIZE)
_STILL: Final = Permissions(CONSISTENT_READ, ALL & ~(WRITE | RESIZE))
"""Of the new chain's top: what is compared with it must stay so."""


async def rebase(
    graph: "Graph",
    node: "Node",
    backing: "Node | None",
    progress: Progress,
    *,
    backing_file: str = "",
    backing_format: str = "",
    unsafe: bool = False,
) -> int:
    """Give a layer another backing node; bytes copied. `unsafe`: whatever it shows then, nothing is copied.

    Raises OperationUnsupported, GraphCycle, NodeInUse, PermissionConflict, InvalidArgument: nothing has changed.
    """
    if not isinstance(node.driver, BackingChangeable):
        raise OperationUnsupported(node.name, node.driver.name, "change its backing file")
    reference = _reference(graph, node, backing, backing_file, backing_format)
    if backing is not None and descends(backing, node):
        raise GraphCycle(node.name, backing.name)
    if (above := above_filters(node)) is not node:
        raise NodeInUse(node.name, "rebase", above.name)
    await ready_to_write(graph, node)
    if unsafe:
        await _rebase_unsafely(graph, node, backing, reference)
        return 0
    with ExitStack() as held:
        return await _Rebase(graph, node, backing, progress, held).run(reference)


def _reference(
    graph: "Graph", node: "Node", backing: "Node | None", name: str, form: str
) -> BackingReference | None:
    if backing is None:
        if name or form:
            raise InvalidArgument("backing_file", "nothing without backing_node_name", name or form)
        return None
    return reference_between(graph.environment.storage, node, backing, name, form)


async def _rebase_unsafely(
    graph: "Graph", node: "Node", backing: "Node | None", reference: BackingReference | None
) -> None:
    if (overlay := overlay_above(node)) is not None:
        raise NodeInUse(node.name, "rebase", f"node/{overlay.name}, whose content would change")
    user = User("call", _CALL, node, True)
    try:
        async with drained(node):
            await set_backing(graph, node, backing, reference, header=True)
            node.wrote(0, node.driver.size, 0)
    finally:
        user.detach()


class _Rebase:
    """One safe rebase. What it takes it enters in `held`."""

    def __init__(
        self, graph: "Graph", node: "Node", backing: "Node | None", progress: Progress, held: ExitStack
    ) -> None:
        self._graph = graph
        self._node = node
        self._backing = backing
        self._progress = progress
        self._held = held
        self._copied = 0

    async def run(self, reference: BackingReference | None) -> int:
        node = self._node
        links = self._freeze()
        users = self._held.enter_context(ExitStack())
        user = self._use(users, node, _COPIER)
        old = Side(self._use(users, below_filters(node.backing.node), READER) if node.backing is not None else None)
        new = Side(self._use(users, self._backing, _STILL) if self._backing is not None else None)
        recorder = self._held.enter_context(_recorded(node))
        if node.backing is None and self._backing is not None:
            self._held.enter_context(_awaited(node))
        whole = ByteRange(0, node.driver.size)
        await self._copy(old, new, whole, user)
        async with drained(node):
            for dirty in list(recorder.bits.extents()):
                await self._copy(old, new, dirty, None)
            self._progress("changing the backing file", 0, 1)
            if node.backing is not None:
                node.backing.frozen_reason = ""
                links.remove(node.backing)
            users.close()  # nobody but the chain holds the old layers: those that nobody opened are closed
            await set_backing(self._graph, node, self._backing, reference, header=True)
        return self._copied

    def _use(self, users: ExitStack, node: "Node", permissions: Permissions) -> User:
        user = User("call", _CALL, node, bool(permissions.used & WRITE_UNCHANGED), permissions)
        users.callback(user.detach)
        return user

    def _freeze(self) -> "list[Edge]":
        """Nobody changes the links of the two chains. Raises NodeInUse."""
        chains = [*layers(self._node), *(layers(self._backing) if self._backing is not None else ())]
        edges = list({id(edge): edge for each in chains if (edge := each.backing) is not None}.values())
        for edge in edges:
            if edge.frozen_reason:
                raise NodeInUse(edge.node.name, "change the link to", edge.frozen_reason)
        for edge in edges:
            edge.frozen_reason = f"call/{_CALL} works on this chain"

        def thaw() -> None:
            for edge in edges:
                edge.frozen_reason = ""

        self._held.callback(thaw)
        return edges

    async def _copy(self, old: Side, new: Side, part: ByteRange, user: User | None) -> None:
        """Bring up what the new chain does not show. `user`: its edge waits for drains; None inside of one."""
        node, position = self._node, part.offset
        assert isinstance(node.driver, FormatDriver)
        comparer = Comparer(old, new)
        while position < part.end:
            self._progress("copying", position, node.driver.size)
            if user is not None:
                await user.entered()
            mapping = await map_own(node, position, part.end - position)
            if mapping.kind is MapKind.BACKING:
                ahead = Side(old.user), Side(new.user)
                async for stretch in stretches(*ahead, position, position + mapping.length):
                    if not stretch.is_alike:
                        await self._bring_up(comparer, stretch, user)
            position += mapping.length

    async def _bring_up(self, comparer: Comparer, stretch: Stretch, user: User | None) -> None:
        node, unit = self._node, max(1, self._node.driver.limits.allocation_unit)
        async for offset, one, other in comparer.chunks(stretch):
            self._progress("copying", offset, node.driver.size)
            for start, end in _differing(one, other, offset, unit):
                if user is not None:
                    await user.entered()
                end = min(end, node.driver.size)
                inside = start >= stretch.offset and end <= stretch.end
                if is_zero(stretch.first) and (inside or node.backing is None):
                    self._copied += await requests.populate_zeroes(node, start, end - start)
                else:
                    self._copied += await requests.populate(node, start, end - start)


def _differing(one: memoryview, other: memoryview, offset: int, unit: int) -> Iterator[tuple[int, int]]:
    """Runs of whole units, as guest offsets, that hold a difference."""
    if alike(one, other):
        return
    differs = np.flatnonzero(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8))
    units = np.unique((differs + offset) // unit)
    breaks = np.flatnonzero(np.diff(units) != 1) + 1
    for run in np.split(units, breaks):
        yield int(run[0]) * unit, (int(run[-1]) + 1) * unit


@contextmanager
def _recorded(node: "Node") -> Iterator[Bitmap]:
    """A bitmap of what changes meanwhile. Raises ResourceBusy while another rebase works on the node."""
    if _RECORDER in node.bitmaps:
        raise ResourceBusy("node", node.name, "another rebase")
    granularity = max(_GRANULARITY, node.driver.limits.allocation_unit)
    bits = DirtyBitmap(align_up(node.driver.size, 512), granularity)
    bitmap = node.bitmaps[_RECORDER] = Bitmap("", bits, owner=f"call/{_CALL}", internal=True)
    node.record_bitmaps()
    try:
        yield bitmap
    finally:
        del node.bitmaps[_RECORDER]
        node.record_bitmaps()


@contextmanager
def _awaited(node: "Node") -> Iterator[None]:
    """The driver knows that a backing file comes: what reads as zeroes for want of one must say so itself."""
    driver = node.driver
    if not isinstance(driver, AwaitsBacking):
        raise OperationUnsupported(node.name, driver.name, "get a backing file while it is open")
    driver.await_backing(True)
    try:
        yield
    finally:
        driver.await_backing(False)
