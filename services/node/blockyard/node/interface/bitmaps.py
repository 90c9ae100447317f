"""What a driver sees of the graph's named bitmaps (`graph.bitmaps`); and images that keep some of them.

Theory of images that keep bitmaps. While a node is open the graph has the bits; the image has what was stored last,
marked as in use before the first write. Closing the node, or opening it in another mode, stores them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from blockyard.base.errors import ResourceNotFound
from blockyard.node.core.dirty import DirtyBitmap


class Bitmaps(Protocol):
    """The bitmaps of all nodes, by the node's name and their own."""

    def copy_of(self, node_name: str, name: str) -> DirtyBitmap:
        """What it says now. Raises NodeNotFound, ResourceNotFound, ResourceBusy or BitmapInconsistent."""
        ...


class NoBitmaps:
    """Where there are none."""

    def copy_of(self, node_name: str, name: str) -> DirtyBitmap:
        raise ResourceNotFound("bitmap", name)


@dataclass(slots=True)
class ImageBitmap:
    """A dirty bitmap as an image keeps it."""

    name: str
    granularity: int
    bits: DirtyBitmap | None
    """None if it says nothing: it was in use when its image was left, or cannot be understood."""
    recording: bool


@runtime_checkable
class StoresBitmaps(Protocol):
    """A format that can keep dirty bitmaps inside the image. No request is in flight while it changes them."""

    @property
    def stores_bitmaps(self) -> bool:
        """Whether this very image can; else they are kept elsewhere."""
        ...

    def take_bitmaps(self) -> list[ImageBitmap]:
        """Those that were found when the image was opened; their bits are the caller's."""
        ...

    def check_can_store(self, names: Sequence[str], granularity: int) -> None:
        """Whether these and no others could be stored, the last of them with this granularity.

        Raises LimitReached or InvalidArgument.
        """
        ...

    async def use_bitmaps(self) -> None:
        """From now on what the image says of its bitmaps is old; it says so durably when this returns. The first
        write does the same."""
        ...

    async def store_bitmaps(self, bitmaps: Sequence[ImageBitmap]) -> None:
        """These are all that the image keeps, durably when it returns. Those without bits stay as they are."""
        ...

    async def remove_bitmap(self, name: str) -> None:
        """The image keeps this one no longer, durably when it returns; no error if it does not."""
        ...
