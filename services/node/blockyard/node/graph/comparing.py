"""Points in time beside each other: where one holds data, and where two differ.

A point is a node as it is now, with its whole backing chain, or a snapshot inside its image. Two points can be
compared if they have a layer in common: two states of one image, layers of one chain, overlays of one base.

Theory. Above their lowest common part both points have only what was written since they parted. So a range differs
where either holds it above the common layer, or where that layer has two states (a snapshot and the disk) that
differ. Everything else both read from the same place. What was written with equal bytes counts as a difference;
what both are known to read as zeroes does not. The answer may be more than what differs, never less. Past the end
of the base its bytes count as zeroes.

Must not read data. What is called "now" moves while guests write; whoever wants a fixed answer names snapshots, or
layers that nobody writes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from blockyard.base.errors import InvalidArgument, RangeOutside
from blockyard.base.ranges import ByteRange
from blockyard.node.core.accounting import BLOCK_STATUS
from blockyard.node.graph.chain import layers
from blockyard.node.graph.internal_snapshots import image_of
from blockyard.node.graph.reading import map_own
from blockyard.node.graph.user import READER, User
from blockyard.node.interface.driver import FormatDriver
from blockyard.node.interface.internal_snapshots import HasSnapshots, SnapshotView, Stretch
from blockyard.node.interface.mapping import MapKind
from blockyard.node.interface.permissions import NOTHING

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

STEPS_MAX: Final = 4096
"""Look-ups for one batch: it covers less of a range that is in many small pieces."""
_STEPS_AT_ONCE: Final = 16
"""Look-ups between two turns of the loop."""


class Point(NamedTuple):
    """What a client names: a node, and a snapshot inside its image by id or name, or nothing."""

    node_name: str
    snapshot: str = ""


class Extent(NamedTuple):
    """A range that holds data, or reads as zeroes."""

    offset: int
    length: int
    zero: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """What was found up to `next_offset`, where the next one begins."""

    extents: list[Extent]
    next_offset: int
    size: int
    """Of the target."""


class _Found(NamedTuple):
    """The start of a range as one point has it."""

    length: int
    above: bool
    """Decided above the common layer; the rest says nothing if not."""
    zero: bool


@dataclass(slots=True)
class _Stage:
    """A point, opened: its layers stay as long as this is open."""

    layers: "list[Node]"
    drivers: list[object]
    users: list[User]
    view: SnapshotView | None
    shown: str

    @property
    def size(self) -> int:
        return self.view.size if self.view is not None else self.layers[0].driver.size

    @property
    def is_current(self) -> bool:
        """Whether the chain is what it was when the stage was opened."""
        now = [*layers(self.layers[0])]
        return [(node.uid, node.driver) for node in now] == [
            (node.uid, driver) for node, driver in zip(self.layers, self.drivers, strict=True)
        ]

    def state(self, index: int) -> tuple[object, ...]:
        """What a layer shows: its image, and the snapshot."""
        node = self.layers[index]
        if isinstance(node.driver, HasSnapshots) and node.primary is not None:
            shown = self.shown if index == 0 and self.shown else node.driver.shown_snapshot
            return (node.driver.name, node.primary.node.uid), shown
        return node.uid, ""

    async def find(self, offset: int, length: int, stop: int, start: int = 0) -> _Found:
        """From layer `start` down, as far as above layer `stop`."""
        for index in range(start, stop):
            node = self.layers[index]
            size = self.size if index == 0 else node.driver.size
            if offset >= size:
                # A short layer ends in zeroes that the one above it shows as its own.
                return _Found(length, True, True)
            await self.users[index].entered(BLOCK_STATUS)
            if index == 0 and self.view is not None:
                mapping = await self.view.map(offset, min(length, size - offset))
            else:
                mapping = await map_own(node, offset, min(length, size - offset))
            length = mapping.length
            if mapping.kind is MapKind.BACKING:
                continue
            zero = mapping.kind is MapKind.ZERO
            # A layer without a format of its own has the file's holes.
            if isinstance(node.driver, FormatDriver) and node.driver.transparent and mapping.child is not None:
                below = await mapping.child.map(mapping.offset, mapping.length)
                length, zero = below.length, below.kind is MapKind.ZERO
            return _Found(length, True, zero)
        at_end = stop == len(self.layers)
        return _Found(length, at_end, at_end)

    async def look(self, index: int, held: AsyncExitStack) -> SnapshotView:
        """The state of a layer that keeps snapshots."""
        if index == 0 and self.view is not None:
            return self.view
        return await held.enter_async_context(image_of(self.layers[index]).view(""))

    async def whole(self, offset: int, length: int, start: int = 0) -> _Found:
        return await self.find(offset, length, len(self.layers), start)


@asynccontextmanager
async def _stage(graph: "Graph", point: Point, call: str) -> AsyncIterator[_Stage]:
    """Raises NodeNotFound, OperationUnsupported, ResourceNotFound, PermissionConflict."""
    node = graph.get(point.node_name)
    users: list[User] = []
    async with AsyncExitStack() as held:
        held.push_async_callback(_let_go, graph, users)
        shown, view = "", None
        if point.snapshot:
            shown = image_of(node).snapshot_named(point.snapshot).identifier
        chain = [*layers(node)]
        for each in chain:
            user = User("call", call, each, False, NOTHING if users else READER)
            user.stays = True
            users.append(user)
        if shown:
            view = await held.enter_async_context(image_of(node).view(shown))
        yield _Stage(chain, [each.driver for each in chain], users, view, shown)


async def _let_go(graph: "Graph", users: list[User]) -> None:
    nodes = [user.node for user in users]
    for user in users:
        user.detach()
    # What left the chain meanwhile waited for us.
    await graph.collect(*nodes)


# --- what is asked -------------------------------------------------------------------------------------------


def allocated(graph: "Graph", point: Point, range_: ByteRange, count: int) -> AsyncGenerator[Batch]:
    """What a point holds that is not known to be zeroes, at most `count` extents at a time.

    A range of length 0 is to the end. Raises as `_stage`, and RangeOutside; a batch comes at least once. Until the
    generator is closed the point cannot be deleted, nor its nodes closed.
    """
    return _batches(graph, [point], "StreamAllocatedExtents", range_, count)


def changed(graph: "Graph", base: Point, target: Point, range_: ByteRange, count: int) -> AsyncGenerator[Batch]:
    """What `target` has that `base` has not, likewise. Raises InvalidArgument for points with nothing in common."""
    return _batches(graph, [base, target], "StreamChangedExtents", range_, count)


async def _batches(
    graph: "Graph", points: list[Point], call: str, range_: ByteRange, count: int
) -> AsyncGenerator[Batch]:
    at, end = range_.offset, -1
    while True:
        async with AsyncExitStack() as held:
            stages = [await held.enter_async_context(_stage(graph, point, call)) for point in points]
            size = stages[-1].size
            if end < 0:
                end = range_.end if range_.length else max(size, at)
                if at < 0 or range_.length < 0 or end > size:
                    raise RangeOutside(points[-1].node_name, at, end - at, size)
            walk = _Allocated(stages[0]) if len(stages) == 1 else await _Changed.between(stages[0], stages[1], held)
            # The chain may change between two batches: then it is looked at anew.
            while all(stage.is_current for stage in stages):
                batch = _Gathering(at, min(end, stages[-1].size), stages[-1].size, count)
                while batch.goes_on:
                    await walk.step(batch)
                at = batch.at
                yield batch.result
                if at >= min(end, stages[-1].size):
                    return


class _Gathering:
    """A batch that grows: extents that touch and are alike become one."""

    def __init__(self, at: int, end: int, size: int, count: int) -> None:
        self.at = at
        self.end = end
        self._size = size
        self._count = count
        self._steps = 0
        self._is_full = False
        self._extents: list[Extent] = []

    @property
    def goes_on(self) -> bool:
        return self.at < self.end and self._steps < STEPS_MAX and not self._is_full

    async def add(self, length: int, counts: bool, zero: bool = False) -> None:
        """The next `length` bytes are (part of) an extent, or nothing to tell."""
        last = self._extents[-1] if self._extents else None
        if counts and last is not None and last.offset + last.length == self.at and last.zero == zero:
            self._extents[-1] = last._replace(length=last.length + length)
        elif counts and len(self._extents) == self._count:
            self._is_full = True
            return
        elif counts:
            self._extents.append(Extent(self.at, length, zero))
        self.at += length
        self._steps += 1
        if self._steps % _STEPS_AT_ONCE == 0:
            await asyncio.sleep(0)

    @property
    def result(self) -> Batch:
        return Batch(self._extents, self.at, self._size)


class _Allocated:
    """One point."""

    def __init__(self, stage: _Stage) -> None:
        self._stage = stage

    async def step(self, batch: _Gathering) -> None:
        found = await self._stage.whole(batch.at, batch.end - batch.at)
        await batch.add(found.length, not found.zero)


class _Changed:
    """Two points, and where their chains meet."""

    def __init__(self, base: _Stage, target: _Stage, meets: tuple[int, int]) -> None:
        self._base = base
        self._target = target
        self._in_base, self._in_target = meets
        self._views: tuple[SnapshotView, SnapshotView] | None = None
        """Of the layer where they meet, if they see two states of it."""

    @classmethod
    async def between(cls, base: _Stage, target: _Stage, held: AsyncExitStack) -> "_Changed":
        """Raises InvalidArgument if they have no layer in common."""
        grounds = {base.state(index)[0]: index for index in reversed(range(len(base.layers)))}
        for index in range(len(target.layers)):
            ground, shown = target.state(index)
            if ground in grounds:
                made = cls(base, target, (grounds[ground], index))
                if base.state(grounds[ground])[1] != shown:
                    made._views = (await base.look(grounds[ground], held), await target.look(index, held))
                return made
        names = (base.layers[0].name, target.layers[0].name)
        raise InvalidArgument("base", f"a point with a layer in common with {names[1]}", f"none: {names[0]}")

    async def step(self, batch: _Gathering) -> None:
        at, length = batch.at, batch.end - batch.at
        if at >= self._base.size:
            found = await self._target.whole(at, length)
            await batch.add(found.length, not found.zero)
            return
        target = await self._target.find(at, min(length, self._base.size - at), self._in_target)
        base = await self._base.find(at, target.length, self._in_base)
        if target.above or base.above:
            await self._resolve(batch, base.length)
        elif self._views is None:
            await batch.add(base.length, False)
        else:
            await self._compare(batch, base.length, *self._views)

    async def _resolve(self, batch: _Gathering, length: int) -> None:
        """Of a range that may differ: what the target has there; equal if both are known to be zeroes."""
        target = await self._target.whole(batch.at, length)
        if not target.zero:
            await batch.add(target.length, True)
            return
        base = await self._base.whole(batch.at, target.length)
        await batch.add(base.length, not base.zero, True)

    async def _compare(self, batch: _Gathering, length: int, base: SnapshotView, target: SnapshotView) -> None:
        inside = min(base.size, target.size) - batch.at
        if inside <= 0:
            await self._resolve(batch, length)
            return
        for stretch in await target.against(base, batch.at, min(length, inside)):
            end = batch.at + stretch.length
            while batch.at < end and batch.goes_on:
                if stretch.is_same:
                    await batch.add(end - batch.at, False)
                else:
                    await self._differing(batch, end - batch.at, stretch)
            if batch.at < end:
                return

    async def _differing(self, batch: _Gathering, length: int, stretch: Stretch) -> None:
        target = await self._kept(self._target, self._in_target, stretch.target, batch.at, length)
        base = await self._kept(self._base, self._in_base, stretch.base, batch.at, target.length)
        length = min(base.length, target.length)
        await batch.add(length, not (base.zero and target.zero), target.zero)

    async def _kept(self, stage: _Stage, index: int, kind: MapKind, at: int, length: int) -> _Found:
        if kind is MapKind.BACKING:
            return await stage.whole(at, length, index + 1)
        return _Found(length, True, kind is MapKind.ZERO)
