"""Named dirty bitmaps as clients see them: made, switched, merged, read, and kept while an export shows them.

The bits live in `core.dirty`, freezing in `bitmaps`. Must not know the wire.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import InvalidArgument, LimitReached, ResourceExists, ResourceNotFound
from blockyard.base.units import KIB
from blockyard.node.core.dirty import DEFAULT_GRANULARITY, DirtyBitmap
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.drain import drained
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.persisting import check_can_keep, image_of, remove, require_changeable, use

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

MAX_NAME_BYTES: Final = 1023
"""BDRV_BITMAP_MAX_NAME_SIZE (include/block/dirty-bitmap.h)."""
MAX_BITMAPS: Final = 256
"""Per node; every write marks each that records."""
_DEFAULT_LEAST: Final = 4 * KIB


def find(node: "Node", name: str) -> Bitmap:
    """Raises ResourceNotFound."""
    bitmap = node.bitmaps.get(name) if name else None
    if bitmap is None:
        raise ResourceNotFound("bitmap", name)
    return bitmap


def _found_to_change(node: "Node", name: str) -> Bitmap:
    """Raises ResourceNotFound, or NodeReadOnly for one that only a writable image can keep so."""
    bitmap = find(node, name)
    if bitmap.in_image:
        require_changeable(node)
    return bitmap


def create(
    graph: "Graph",
    node: "Node",
    name: str,
    granularity: int = 0,
    *,
    recording: bool = True,
    persistent: bool = False,
) -> Bitmap:
    """Begin to record a node's writes. Raises ResourceExists, InvalidArgument or LimitReached; for a persistent one
    also OperationUnsupported or NodeReadOnly."""
    if not 1 <= len(name.encode(errors="surrogatepass")) <= MAX_NAME_BYTES or "\0" in name:
        raise InvalidArgument("name", f"1 to {MAX_NAME_BYTES} bytes without NUL", repr(name[:64]))
    if name in node.bitmaps:
        raise ResourceExists("bitmap", name)
    if len(node.bitmaps) >= MAX_BITMAPS:
        raise LimitReached("bitmaps of a node", MAX_BITMAPS)
    bits = DirtyBitmap(node.driver.size, granularity or default_granularity(node))
    in_image = persistent and image_of(node) is not None
    if in_image:
        check_can_keep(node, name, bits.granularity)
    elif persistent:
        graph.guards.check_can_keep(node)
    bitmap = Bitmap(name, bits, recording=recording, persistent=persistent, in_image=in_image)
    node.bitmaps[name] = bitmap
    _changed(graph, node)
    return bitmap


async def create_durably(
    graph: "Graph",
    node: "Node",
    name: str,
    granularity: int = 0,
    *,
    recording: bool = True,
    persistent: bool = False,
) -> Bitmap:
    """As `create`; the catalogue, and a file for its bits if it is to survive a crash, are there when it
    returns."""
    if not persistent:
        bitmap = create(graph, node, name, granularity, recording=recording)
        await graph.kept.commit(lambda: delete(graph, node, name))
        return bitmap
    if node.waits_for_writer and image_of(node) is not None:
        await ready_to_write(graph, node)
    async with drained(node):  # no write is between its two marks
        bitmap = create(graph, node, name, granularity, recording=recording, persistent=True)
        try:
            if graph.guards.can_guard(node):
                await graph.guards.guard(node, bitmap)
        except BaseException:
            delete(graph, node, name)
            raise
        graph.kept.touch_bitmap(node, name)

        def undo() -> None:
            delete(graph, node, name)
            if bitmap.guard is not None:
                bitmap.guard.drop(bitmap)

        await graph.kept.commit(undo)
    return bitmap


def lost(graph: "Graph", node: "Node", name: str, granularity: int) -> Bitmap:
    """A bitmap of an earlier process, whose bits ended with it: it records nothing and can only be deleted.

    Raises ResourceExists or InvalidArgument.
    """
    bitmap = create(graph, node, name, granularity, recording=False)
    bitmap.inconsistent = True
    return bitmap


def default_granularity(node: "Node") -> int:
    """The cluster size between 4 and 64 KiB (bdrv_get_default_bitmap_granularity, block/dirty-bitmap.c)."""
    cluster = node.driver.limits.allocation_unit
    return min(max(cluster, _DEFAULT_LEAST), DEFAULT_GRANULARITY) if cluster else DEFAULT_GRANULARITY


def delete(graph: "Graph", node: "Node", name: str) -> Bitmap:
    """Forget a bitmap; what it was. Raises ResourceNotFound or ResourceBusy."""
    bitmap = _found_to_change(node, name)
    bitmap.require_unowned()
    del node.bitmaps[name]
    graph.kept.touch_bitmap(node, name)
    _changed(graph, node)
    return bitmap


async def delete_durably(graph: "Graph", node: "Node", name: str) -> None:
    """As `delete`; the image, or the catalogue, has forgotten it too when this returns."""
    bitmap = find(node, name)
    bitmap.require_unowned()
    if bitmap.in_image:
        await ready_to_write(graph, node)
        require_changeable(node)
        async with drained(node):
            await remove(node, name)
    deleted = delete(graph, node, name)
    await graph.kept.commit(lambda: put_back(graph, node, deleted))
    if deleted.guard is not None:
        deleted.guard.drop(deleted)


@asynccontextmanager
async def changing(graph: "Graph", node: "Node", name: str) -> AsyncIterator[None]:
    """While a bitmap is changed by other than writes: if it survives a crash, so does the change when this ends."""
    bitmap = find(node, name)
    if bitmap.in_image and node.waits_for_writer:
        await ready_to_write(graph, node)
    if bitmap.guard is None:
        yield
        return
    async with drained(node):
        if bitmap.in_image:
            await use(node)
        yield
        await bitmap.settle()


def put_back(graph: "Graph", node: "Node", bitmap: Bitmap) -> None:
    """Undo `delete`: what was written meanwhile is unknown, so nothing is known to be clean."""
    bitmap.bits.mark(0, bitmap.bits.size)
    node.bitmaps[bitmap.name] = bitmap
    _changed(graph, node)


def clear(graph: "Graph", node: "Node", name: str) -> Bitmap:
    """Mark nothing dirty. Raises ResourceNotFound or ResourceBusy."""
    bitmap = _found_to_change(node, name)
    bitmap.require_free()
    bitmap.bits.clear_all()
    graph.changed(node)
    return bitmap


def set_recording(graph: "Graph", node: "Node", name: str, recording: bool) -> Bitmap:
    """Record new writes, or stop. Raises ResourceNotFound or ResourceBusy."""
    bitmap = _found_to_change(node, name)
    bitmap.require_free()
    bitmap.recording = recording
    _changed(graph, node)
    return bitmap


def merge(graph: "Graph", node: "Node", name: str, sources: Sequence[Bitmap]) -> Bitmap:
    """Mark dirty here what is dirty in others; all or nothing. Raises ResourceBusy for any in use."""
    target = _found_to_change(node, name)
    for bitmap in (target, *sources):
        bitmap.require_free()
    for source in sources:
        target.bits.merge(source.bits)
    graph.changed(node)
    return target


def claim(graph: "Graph", node: "Node", names: Sequence[str], owner: str) -> list[Bitmap]:
    """Keep bitmaps from being changed by others; they go on recording. Raises ResourceNotFound or ResourceBusy."""
    bitmaps = [find(node, name) for name in names]
    for bitmap in bitmaps:
        bitmap.require_free()
    for bitmap in bitmaps:
        bitmap.owner = owner
    graph.changed(node)
    return bitmaps


def unclaim(graph: "Graph", node: "Node", bitmaps: Sequence[Bitmap]) -> None:
    """Give back what `claim` took."""
    for bitmap in bitmaps:
        bitmap.owner = ""
    graph.changed(node)


def _changed(graph: "Graph", node: "Node") -> None:
    node.record_bitmaps()
    graph.changed(node)
