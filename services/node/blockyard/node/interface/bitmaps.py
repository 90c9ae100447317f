"""What a driver sees of the graph's named bitmaps: copies of their bits. The bitmaps live in `graph.bitmaps`."""

from typing import Protocol

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
