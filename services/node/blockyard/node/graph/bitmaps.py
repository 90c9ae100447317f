"""Named dirty bitmaps of a node: who owns them, what records, what is frozen.

The bits live in `core.dirty`. A bitmap that a job uses is frozen; a successor records meanwhile, and the two become
one again when the job ends (QEMU's block/dirty-bitmap.c). Must not know jobs or requests.
"""

from dataclasses import dataclass

from blockyard.base.errors import BitmapInconsistent, ResourceBusy
from blockyard.node.core.dirty import DirtyBitmap


@dataclass(slots=True, eq=False)
class Bitmap:
    """A bitmap with a name (empty for one that a session keeps for itself)."""

    name: str
    bits: DirtyBitmap
    recording: bool = True
    owner: str = ""
    """Who froze it; empty if nobody."""
    persistent: bool = False
    in_image: bool = False
    """It is persistent, and the node's image keeps it."""
    internal: bool = False
    """A session's own, not a client's."""
    inconsistent: bool = False
    """It missed writes: it can only be deleted."""
    successor: DirtyBitmap | None = None
    """Records instead of `bits` while frozen."""

    def mark(self, offset: int, length: int) -> None:
        bits = self.bits if self.successor is None else self.successor
        bits.mark(offset, length)

    def require_free(self) -> None:
        """Raises ResourceBusy if an owner froze it, or BitmapInconsistent."""
        self.require_unowned()
        self.require_consistent()

    def require_unowned(self) -> None:
        """Raises ResourceBusy if an owner froze it."""
        if self.owner:
            raise ResourceBusy("bitmap", self.name, self.owner)

    def require_consistent(self) -> None:
        """Raises BitmapInconsistent for one whose bits say nothing."""
        if self.inconsistent:
            raise BitmapInconsistent(self.name)

    def freeze(self, owner: str) -> None:
        """New writes go to a successor until `thaw`. Raises ResourceBusy."""
        self.require_free()
        self.owner = owner
        self.successor = DirtyBitmap(self.bits.size, self.bits.granularity)

    def thaw(self, keep: DirtyBitmap | None) -> None:
        """End a freeze: `keep` is what stays dirty of the frozen bits, beside what was written meanwhile."""
        assert self.successor is not None
        bits = self.successor
        if keep is not None:
            bits.merge(keep)
        self.bits, self.successor, self.owner = bits, None, ""

    def resize(self, size: int) -> None:
        """Follow the node's size."""
        self.bits.resize(size)
        if self.successor is not None:
            self.successor.resize(size)
