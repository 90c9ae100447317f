"""Dirty bitmaps that an image keeps: taken over when its driver opens, stored before it closes.

Theory. While the node is open the bits of the graph are right, and those of the image are what was stored last,
marked as in use (`interface.bitmaps`). So the image is told at the ends of a driver's life only: whoever closes a
driver calls `store` before, whoever opened one calls `adopt` after. A driver that is opened again under the same
node finds what was just stored, and the graph goes on with its own; only after a hand-over others may have changed
them.

Must not know qcow2. Nothing is in flight in the node in any of this.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from blockyard.base.errors import BlockError, OperationUnsupported
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.drain import drained
from blockyard.node.interface.bitmaps import ImageBitmap, StoresBitmaps

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


def image_of(node: "Node") -> StoresBitmaps | None:
    """The driver, if its image can keep bitmaps."""
    driver = node.driver
    return driver if isinstance(driver, StoresBitmaps) and driver.stores_bitmaps else None


def adopt(node: "Node", *, anew: bool = False) -> None:
    """Take over what the driver found in its image when it was opened.

    `anew`: somebody else had the image meanwhile, and what he left is right. Otherwise the graph's own bits are.
    """
    image = image_of(node)
    found = {each.name: each for each in image.take_bitmaps()} if image is not None else {}
    if anew:
        for bitmap in [each for each in node.bitmaps.values() if each.in_image and each.name not in found]:
            del node.bitmaps[bitmap.name]
    for name, each in found.items():
        present = node.bitmaps.get(name)
        if present is None:
            node.bitmaps[name] = _bitmap(each, node.driver.size)
        elif anew and present.in_image:
            fresh = _bitmap(each, node.driver.size)
            present.bits, present.inconsistent, present.recording = fresh.bits, fresh.inconsistent, fresh.recording
    if found or anew:
        node.record_bitmaps()


def _bitmap(found: ImageBitmap, size: int) -> Bitmap:
    bits = found.bits if found.bits is not None else DirtyBitmap(0, found.granularity)
    return Bitmap(
        found.name,
        bits,
        recording=found.recording,
        persistent=True,
        in_image=True,
        inconsistent=found.bits is None,
    )


async def store(node: "Node") -> None:
    """The image says what the graph knows; to be called before the driver closes. Raises catalogue errors."""
    image = image_of(node)
    if node.context.read_only or node.context.inactive:
        return
    if image is None:
        if any(bitmap.in_image for bitmap in node.bitmaps.values()):  # it became version 2 meanwhile
            raise OperationUnsupported(node.name, node.driver.name, "keep a dirty bitmap")
        return
    await image.store_bitmaps([_stored(each) for each in node.bitmaps.values() if each.in_image])


def _stored(bitmap: Bitmap) -> ImageBitmap:
    bits: DirtyBitmap | None = bitmap.bits
    if bitmap.inconsistent:
        bits = None
    elif bitmap.successor is not None:
        bits = bitmap.bits.copy()
        bits.merge(bitmap.successor)
    return ImageBitmap(bitmap.name, bitmap.bits.granularity, bits, bitmap.recording)


async def store_early(node: "Node") -> None:
    """Store before the catalogue forgets a node that nobody uses: a crash between the two must not cost its
    bitmaps.

    If it fails, closing tells.
    """
    if any(bitmap.in_image for bitmap in node.bitmaps.values()):
        with suppress(BlockError):
            async with drained(node):
                await store(node)


async def close_driver(node: "Node") -> bool:
    """Store, and close the driver also if that fails: then the image's bitmaps stay marked as in use. Whether the
    image has them."""
    is_stored = False
    try:
        await store(node)
        is_stored = True
    except BlockError as problem:
        node.context.report("bitmaps-not-stored", {"error": str(problem)})
    finally:
        await node.driver.close()
    return is_stored


def check_can_keep(node: "Node", name: str, granularity: int) -> None:
    """Whether the node's image can keep one more bitmap.

    Raises OperationUnsupported, NodeReadOnly, LimitReached or InvalidArgument.
    """
    image = image_of(node)
    if image is None:
        raise OperationUnsupported(node.name, node.driver.name, "keep a dirty bitmap")
    require_changeable(node)
    image.check_can_store([*(each.name for each in node.bitmaps.values() if each.in_image), name], granularity)


def require_changeable(node: "Node") -> None:
    """A change of a bitmap that an image keeps must reach the image. Raises NodeReadOnly or NodeInactive."""
    if node.read_only:
        raise node.write_refusal()


async def use(node: "Node") -> None:
    """Before bitmaps that the node's image keeps are changed by other than writes. Raises catalogue errors."""
    image = image_of(node)
    if image is not None and not node.context.read_only and not node.context.inactive:
        await image.use_bitmaps()


async def remove(node: "Node", name: str) -> None:
    """The node's image keeps this bitmap no longer."""
    image = image_of(node)
    if image is not None:
        await image.remove_bitmap(name)
