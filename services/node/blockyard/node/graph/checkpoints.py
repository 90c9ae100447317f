"""Checkpoints: named points in time of a node, each consumer's own, and what changed between any two.

Theory. All checkpoints of a node stand in one order, whoever took them. Each has a bitmap that records from its
instant until the next checkpoint is taken; so one bitmap records, however many there are. What changed from A to B
is what the bitmaps of A and of all after it before B have together. A checkpoint that goes gives its bits to the
one before.

The bitmap's name says whose it is, which, its number and its time, so a checkpoint is wherever its bitmap is:
inside an image it travels with it. What changes later, expiry and holders, is an entry of the catalogue.

Invariants
1. Of a node's checkpoints the last one's bitmap records, and no other.
2. Bits go to the checkpoint before durably, before a checkpoint goes.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import (
    BitmapInconsistent,
    BlockError,
    InvalidArgument,
    LimitReached,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph import persisting, recording
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.checkpoint_names import CHECKPOINT, NAME, Named, bitmap_name, parsed_name
from blockyard.node.graph.drain import drained
from blockyard.node.graph.kept_form import parsed
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.interface.keeper import Key

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

MAX_CHECKPOINTS: Final = 128
"""Of one node; each has a bitmap in memory."""
MAX_HOLDERS: Final = 64
MAX_HOLDER_BYTES: Final = 128


@dataclass(slots=True)
class Promise:
    """What a client said of a checkpoint beside its names."""

    expires_ns: int = 0
    """Wall clock; 0: never."""
    holders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One, as it is now."""

    node_name: str
    consumer: str
    name: str
    sequence: int
    created_ns: int
    bitmap: Bitmap
    promise: Promise

    @property
    def key(self) -> str:
        """Of the catalogue."""
        return f"{self.node_name}/{self.consumer}/{self.name}"


class Checkpoints:
    """Those of one graph; also the catalogue's kind of entries for what was promised of them."""

    name = CHECKPOINT

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph
        self._promises: dict[str, Promise] = {}
        self._changing = asyncio.Lock()

    # --- looking -----------------------------------------------------------------------------------------

    def of(self, node: "Node") -> list[Checkpoint]:
        """A node's, in their order."""
        found = []
        for bitmap in node.bitmaps.values():
            if (named := parsed_name(bitmap.name)) is not None:
                promise = self._promises.get(f"{node.name}/{named.consumer}/{named.name}") or Promise()
                names = (named.consumer, named.name, named.sequence, named.created_ns)
                found.append(Checkpoint(node.name, *names, bitmap, promise))
        return sorted(found, key=lambda each: each.sequence)

    def find(self, node: "Node", consumer: str, name: str) -> Checkpoint:
        """Raises ResourceNotFound."""
        for each in self.of(node):
            if (each.consumer, each.name) == (consumer, name):
                return each
        raise ResourceNotFound(CHECKPOINT, f"{consumer}/{name}")

    def delta(self, node: "Node", base: Checkpoint, target: Checkpoint | None) -> DirtyBitmap:
        """What changed between two, or until now. Raises InvalidArgument or BitmapInconsistent."""
        if target is not None and target.sequence <= base.sequence:
            raise InvalidArgument("target", f"a checkpoint after {base.consumer}/{base.name}", target.name)
        end = target.sequence if target is not None else None
        between = [
            each for each in self.of(node) if base.sequence <= each.sequence and (not end or each.sequence < end)
        ]
        for each in between:
            if each.bitmap.inconsistent:
                raise BitmapInconsistent(each.bitmap.name)
        changed = DirtyBitmap(node.driver.size, min(each.bitmap.bits.granularity for each in between))
        for each in between:
            changed.merge(each.bitmap.bits)
        return changed

    # --- changing ----------------------------------------------------------------------------------------

    async def create(
        self, node: "Node", consumer: str, name: str, granularity: int, promise: Promise
    ) -> Checkpoint:
        """Remember this instant. Raises ResourceExists, LimitReached, InvalidArgument ..."""
        _check(consumer, name, promise)
        async with self._changing:
            if node.waits_for_writer and persisting.image_of(node) is not None:
                await ready_to_write(self._graph, node)
            async with drained(node):
                return await self._create(node, consumer, name, granularity, promise)

    async def _create(
        self, node: "Node", consumer: str, name: str, granularity: int, promise: Promise
    ) -> Checkpoint:
        graph, present = self._graph, self.of(node)
        if any((each.consumer, each.name) == (consumer, name) for each in present):
            raise ResourceExists(CHECKPOINT, f"{consumer}/{name}")
        if len(present) >= MAX_CHECKPOINTS:
            raise LimitReached("checkpoints of a node", MAX_CHECKPOINTS)
        last = present[-1] if present else None
        number = last.sequence + 1 if last is not None else 1
        own = bitmap_name(Named(number, graph.environment.clock.wall_ns(), consumer, name))
        if not granularity and last is not None:
            granularity = last.bitmap.bits.granularity
        self._promises[f"{node.name}/{consumer}/{name}"] = promise
        self._touch(node, consumer, name)
        try:
            await recording.create_durably(graph, node, own, granularity, persistent=self._can_persist(node))
        except BaseException:
            del self._promises[f"{node.name}/{consumer}/{name}"]
            raise
        if last is not None:
            await self._stop(node, last.bitmap)
        return self.find(node, consumer, name)

    def _can_persist(self, node: "Node") -> bool:
        has_image = persisting.image_of(node) is not None and not node.read_only
        return has_image or self._graph.guards.can_guard(node)

    async def _stop(self, node: "Node", bitmap: Bitmap) -> None:
        """The next one records from this instant on. If that cannot be kept, both do, which is no less true."""
        bitmap.recording = False
        node.record_bitmaps()
        self._graph.kept.touch_bitmap(node, bitmap.name)
        await self._graph.kept.overwrite()

    async def delete(self, node: "Node", consumer: str, name: str) -> None:
        """Forget one. Raises ResourceNotFound, or ResourceBusy for one that is held."""
        async with self._changing:
            found = self.find(node, consumer, name)
            if found.promise.holders:
                raise ResourceBusy(CHECKPOINT, f"{consumer}/{name}", ", ".join(found.promise.holders))
            await self._delete(node, found)

    async def _delete(self, node: "Node", gone: Checkpoint) -> None:
        before = [each for each in self.of(node) if each.sequence < gone.sequence]
        if gone.bitmap.in_image and node.waits_for_writer:
            await ready_to_write(self._graph, node)
        async with drained(node):
            if before and before[-1].bitmap.in_image:
                await persisting.use(node)
            if before:
                await self._inherit(node, before[-1].bitmap, gone.bitmap)
            self._promises.pop(gone.key, None)
            self._touch(node, gone.consumer, gone.name)
            await recording.delete_durably(self._graph, node, gone.bitmap.name)

    async def _inherit(self, node: "Node", heir: Bitmap, gone: Bitmap) -> None:
        """Invariant 2."""
        if gone.inconsistent:
            heir.inconsistent, heir.recording = True, False
        elif not heir.inconsistent:
            heir.bits.merge(gone.bits)
            heir.recording = gone.recording
        node.record_bitmaps()
        if heir.guard is not None:
            heir.guard.touched(0, max(1, node.driver.size))
            await heir.settle()
        self._graph.kept.touch_bitmap(node, heir.name)

    async def hold(self, node: "Node", consumer: str, name: str, holder: str, *, release: bool) -> Checkpoint:
        """Raises ResourceNotFound, InvalidArgument, LimitReached or CatalogueNotWritten."""
        async with self._changing:
            found = self.find(node, consumer, name)
            holders = [each for each in found.promise.holders if each != holder]
            if not release:
                holders.append(holder)
            return await self._promise(node, found, Promise(found.promise.expires_ns, holders))

    async def set_expiry(self, node: "Node", consumer: str, name: str, expires_ns: int) -> Checkpoint:
        """Raises ResourceNotFound or CatalogueNotWritten. 0: it does not expire."""
        async with self._changing:
            found = self.find(node, consumer, name)
            return await self._promise(node, found, Promise(expires_ns, found.promise.holders))

    async def _promise(self, node: "Node", found: Checkpoint, promise: Promise) -> Checkpoint:
        _check(found.consumer, found.name, promise)
        self._promises[found.key] = promise
        self._touch(node, found.consumer, found.name)

        def undo() -> None:
            self._promises[found.key] = found.promise

        await self._graph.kept.commit(undo)
        return self.find(node, found.consumer, found.name)

    async def expire(self) -> None:
        """Those whose time has come go, unless somebody holds them. Called from time to time."""
        now = self._graph.environment.clock.wall_ns()
        for node in list(self._graph.nodes.values()):
            due = [each for each in self.of(node) if 0 < each.promise.expires_ns <= now]
            for each in due:
                try:
                    await self.delete(node, each.consumer, each.name)
                except BlockError as problem:
                    if not each.promise.holders:
                        self._graph.report(node.name, "checkpoint-not-expired", {"error": str(problem)})

    # --- what the catalogue keeps ------------------------------------------------------------------------

    def _touch(self, node: "Node", consumer: str, name: str) -> None:
        self._graph.kept.catalogue.touch(CHECKPOINT, f"{node.name}/{consumer}/{name}")

    def node_closed(self, node: "Node") -> None:
        """What was promised of its checkpoints ends with it."""
        for key in [key for key in self._promises if key.startswith(f"{node.name}/")]:
            del self._promises[key]

    def names(self) -> Iterable[str]:
        return list(self._promises)

    def definition(self, name: str) -> str | None:
        promise, node = self._promises.get(name), self._graph.kept.lasting_part(name.partition("/")[0])
        if promise is None or node is None or not (promise.expires_ns or promise.holders):
            return None
        if all(each.key != name for each in self.of(node)):
            return None
        return json.dumps({"expires_ns": promise.expires_ns, "holders": promise.holders})

    def needs(self, name: str, definition: str) -> list[Key]:
        return [Key("node", name.partition("/")[0])]

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        values = parsed(definition)
        expires, holders = values.get("expires_ns"), values.get("holders")
        if not isinstance(expires, int) or not isinstance(holders, list):
            raise InvalidArgument("definition", "expires_ns and holders", definition[:64])
        self._promises[name] = Promise(expires, [str(each) for each in holders])

    def shown(self, definition: str) -> str:
        return f"json:{definition}"


def _check(consumer: str, name: str, promise: Promise) -> None:
    for what, value in (("consumer", consumer), ("name", name)):
        if not NAME.fullmatch(value):
            raise InvalidArgument(what, "1 to 63 characters of [A-Za-z0-9._-]", repr(value[:80]))
    if len(promise.holders) > MAX_HOLDERS:
        raise LimitReached("holders of a checkpoint", MAX_HOLDERS)
    if len(set(promise.holders)) < len(promise.holders):
        raise InvalidArgument("holders", "each once", ", ".join(promise.holders))
    for holder in promise.holders:
        if not 1 <= len(holder.encode(errors="surrogatepass")) <= MAX_HOLDER_BYTES:
            raise InvalidArgument("holder", f"1 to {MAX_HOLDER_BYTES} bytes", repr(holder[:80]))
