"""Named dirty bitmaps of a node: who owns them, what records, what is frozen, what is in a file.

The bits live in `core.dirty`. A bitmap that a job uses is frozen; a successor records meanwhile, and the two become
one again when the job ends (QEMU's block/dirty-bitmap.c). A guarded one has its bits in a file (`graph.guarding`):
the file has every mark, also while it is frozen. Must not know jobs or requests.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockyard.base.errors import BitmapInconsistent, BlockError, ResourceBusy
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.interface.vault import VaultFile

if TYPE_CHECKING:
    from blockyard.node.graph.guarding import Guard


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
    guard: "Guard | None" = None
    file: VaultFile | None = None
    kept: DirtyBitmap | None = None
    """The bits in the file; `bits` themselves unless frozen."""

    def mark(self, offset: int, length: int) -> None:
        bits = self.bits if self.successor is None else self.successor
        if self.kept is None:
            bits.mark(offset, length)
        else:
            self._mark_kept(bits, self.kept, offset, length)

    def _mark_kept(self, bits: DirtyBitmap, kept: DirtyBitmap, offset: int, length: int) -> None:
        if bits is not kept:
            bits.mark(offset, length)
        before, guard = kept.count, self.guard
        assert guard is not None
        try:
            kept.mark(offset, length)
        except BlockError as problem:  # the node grew, and its file cannot
            guard.give_up(problem)
            return
        if kept.count != before:
            guard.touched(offset, length)

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
        if self.kept is not None:
            self.bits = self.kept.copy()
        self.successor = DirtyBitmap(self.bits.size, self.bits.granularity)
        if self.guard is not None:
            self.guard.refresh()

    def thaw(self, keep: DirtyBitmap | None) -> None:
        """End a freeze: `keep` is what stays dirty of the frozen bits, beside what was written meanwhile.

        Call `settle` after it: until then a power cut may bring back what is not dirty any more.
        """
        assert self.successor is not None
        bits = self.successor
        if keep is not None:
            bits.merge(keep)
        self.successor, self.owner = None, ""
        self.become(bits)

    def become(self, bits: DirtyBitmap) -> None:
        """Say what these bits say, which are the bitmap's from now on."""
        kept = self.kept
        if kept is None or bits is kept:
            self.bits = bits
            return
        is_more = not bits.within(kept)
        try:
            kept.become(bits)
        except BlockError as problem:
            self.bits = bits
            self._lose(problem)
            return
        self.bits = kept
        if self.guard is not None:
            self.guard.refresh()
            if is_more:
                self.guard.touched(0, max(1, kept.size))

    async def settle(self) -> None:
        """What it says now survives a power cut, if anything of it does. Raises VaultUnusable."""
        if self.guard is not None:
            await self.guard.sync()

    def attach(self, kept: DirtyBitmap, file: VaultFile) -> None:
        """Its bits are in a file from now on, where they are already."""
        assert self.successor is None
        self.bits = self.kept = kept
        self.file = file

    def detach(self) -> VaultFile | None:
        """Its bits are in memory from now on; the file that had them, which is the caller's."""
        if self.kept is not None and self.bits is self.kept:
            self.bits = self.kept.copy()
        file = self.file
        self.kept = self.file = self.guard = None
        return file

    def resize(self, size: int) -> None:
        """Follow the node's size."""
        if self.successor is not None:
            self.successor.resize(size)
        if self.kept is not None:
            try:
                self.kept.resize(size)
            except BlockError as problem:
                self._lose(problem)
        if self.bits is not self.kept:
            self.bits.resize(size)
        if self.guard is not None:
            self.guard.refresh()

    def _lose(self, problem: BlockError) -> None:
        assert self.guard is not None
        self.guard.give_up(problem)
