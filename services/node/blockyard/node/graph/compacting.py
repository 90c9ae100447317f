"""Making an image's file as short as what is in it: leaks, stored zeroes and free room between are given back.

Theory. What readers see never changes, so guests go on, but for the steps: each drains the node, moves a bounded
number of bytes (`Compactable`) and lets go. To cancel ends it between two steps, or leaves the last one unmade.
Whoever shows a snapshot of the image as a node of its own reads places that would move: then it is refused.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from blockyard.base.errors import ImageCorrupt, OperationUnsupported
from blockyard.base.units import MIB
from blockyard.node.graph import requests
from blockyard.node.graph.drain import drained
from blockyard.node.graph.internal_snapshots import check_none_shown
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.user import WRITER, User
from blockyard.node.interface.driver import Checkable, FormatDriver
from blockyard.node.interface.flags import MAY_UNMAP
from blockyard.node.interface.mapping import MapKind
from blockyard.node.interface.operations import Compactable, Progress, untold

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

PIECE: Final = 4 * MIB
"""Bytes that are searched for zeroes while guests wait: some 2 ms from the page cache."""


@dataclass(slots=True)
class Compacted:
    """What was gained, in bytes."""

    before: int = 0
    """Of the file that were in use or lay before something in use."""
    after: int = 0
    leaked: int = 0
    """Clusters that nothing referred to; a count."""
    zeroed: int = 0
    """Given back because it reads as zeroes."""
    moved: int = 0


async def compact(graph: "Graph", node: "Node", progress: Progress, *, detect_zeroes: bool = False) -> Compacted:
    """`detect_zeroes`: read all data, and give back clusters of zeroes too.

    Raises OperationUnsupported, NodeReadOnly, NodeInUse for a snapshot that is open, or ImageCorrupt for an image
    that must be repaired first.
    """
    if not isinstance(node.driver, Compactable) or not isinstance(node.driver, Checkable):
        raise OperationUnsupported(node.name, node.driver.name, "compact an image")
    await ready_to_write(graph, node)
    user = User("call", "CompactImage", node, True, WRITER)
    try:
        return await _Compaction(graph, node, user, progress).run(detect_zeroes)
    finally:
        user.detach()
        graph.changed(node)


class _Compaction:
    """One run."""

    def __init__(self, graph: "Graph", node: "Node", user: User, progress: Progress) -> None:
        self._graph = graph
        self._node = node
        self._user = user
        self._progress = progress
        self._result = Compacted()

    async def run(self, detect_zeroes: bool) -> Compacted:
        result = self._result
        async with self._still() as driver:
            await requests.flush(self._node)
            assert isinstance(driver, Checkable)
            report = await driver.check(True, False, untold)
            if report.corruptions or report.check_errors:
                found = f"{report.corruptions} errors, {report.check_errors} places not checked"
                raise ImageCorrupt(
                    self._node.filename or self._node.name, "metadata", "none that is damaged", found
                )
            result.leaked = report.leaks_fixed
        if detect_zeroes:
            await self._drop_zeroes()
        async with self._still() as driver:
            self._progress("reclaiming", 0, 1)
            result.zeroed += await driver.reclaim()
        await self._move()
        return result

    @asynccontextmanager
    async def _still(self) -> AsyncIterator[Compactable]:
        """The driver, while no request is in flight and nobody opens a snapshot of the image."""
        async with self._graph.snapshot_lock:
            check_none_shown(self._node, "compact")
            async with drained(self._node):
                assert isinstance(self._node.driver, Compactable)
                yield self._node.driver

    async def _move(self) -> None:
        result, last = self._result, -1
        while True:
            async with self._still() as driver:
                step = await driver.compact()
            result.before = result.before or step.end
            result.moved += step.moved
            result.after = step.end
            self._progress("moving", result.before - step.end, max(1, result.before - step.used))
            if step.done or step.end == last:
                return
            last = step.end

    # --- stored zeroes -----------------------------------------------------------------------------------

    async def _drop_zeroes(self) -> None:
        offset, size = 0, self._node.driver.size
        while offset < size:
            self._progress("looking for zeroes", offset, size)
            extents = await self._user.block_status(offset, size - offset, 1)
            end = offset + extents[0].length
            if not extents[0].data or extents[0].node_name != self._node.name:
                offset = end
                continue
            while offset < end:
                async with self._still():
                    offset += await self._search(offset, min(PIECE, end - offset))

    async def _search(self, offset: int, length: int) -> int:
        """Give back the clusters of zeroes at the begin of a range, which nobody writes now; how much was seen."""
        driver = self._node.driver
        assert isinstance(driver, FormatDriver)
        mapping = await driver.map(offset, length)
        if mapping.kind is not MapKind.DATA or mapping.child is None:
            return mapping.length
        data = memoryview(bytearray(mapping.length))
        if not mapping.child.read_now(mapping.offset, data):
            await mapping.child.read(mapping.offset, data)
        unit = max(1, driver.limits.allocation_unit)
        begun = -1
        for at in range(0, len(data) + 1, unit):
            piece = data[at : at + unit]
            whole = len(piece) == unit and (offset + at) % unit == 0
            empty = whole and not np.frombuffer(piece, np.uint64).any()
            if empty and begun < 0:
                begun = at
            elif not empty and begun >= 0:
                if await driver.zero(offset + begun, at - begun, MAY_UNMAP):
                    self._result.zeroed += at - begun
                begun = -1
        return mapping.length
