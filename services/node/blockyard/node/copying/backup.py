"""The backup: the source as it was at the start, however much the guest writes meanwhile."""

from typing import TYPE_CHECKING

from blockyard.base.errors import InvalidArgument, PointInTimeLost, ResourceNotFound
from blockyard.base.ranges import ByteRange
from blockyard.node.copying.common import CopyingSession
from blockyard.node.copying.interposers import CopyBeforeWrite
from blockyard.node.copying.spec import BitmapMode, Failure, FinishAction, Side, SyncMode
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph import requests
from blockyard.node.graph.chain import below_filters
from blockyard.node.graph.checkpoint_names import refuse_checkpoint
from blockyard.node.graph.drain import drained
from blockyard.node.graph.modes import ready_to_write

if TYPE_CHECKING:
    from blockyard.node.graph.bitmaps import Bitmap
    from blockyard.node.graph.node import Node


class BackupSession(CopyingSession):
    """Copies the source as it was when the session began."""

    bitmap: "Bitmap | None" = None

    @property
    def flushes(self) -> "tuple[Node, ...]":
        """The target alone: what a kill undoes of the source is what guests overwrote since, which nobody wants."""
        assert self.target is not None
        return (below_filters(self.target),)

    async def prepare(self) -> None:
        assert self.target is not None
        self.check_target_size()
        bitmap = self._find_bitmap() if not self.restored else None
        bits = await self.new_bits()
        base = self.top_base() if self.spec.sync is SyncMode.TOP else None
        await ready_to_write(self.graph, self.target)
        target = self.take(self.target, "target", writable=True)
        self.take(self.source, "source", writable=False)
        try:
            self.work = self.new_work(base, target, bits)
            if self.restored and not self.resumes:
                return self._lose("the node ended, and what it had copied or kept is not known")
            self.filter = await self.open_filter("copy-before-write")
            if not self.resumes:
                await self.settle_source()  # most of it, before guests are held
            async with drained(self.source):
                if not self.resumes:
                    await self.settle_source()
                # The bitmap's node too: no write in it may be before its mark when the successor comes.
                async with drained(below_filters(self.source)):
                    self._begin(bits, bitmap)
        except BaseException:
            await self._take_away()
            self._end()
            raise
        self.graph.changed(self.source, self.target, self.filter)

    def _begin(self, bits: DirtyBitmap, bitmap: "Bitmap | None") -> None:
        """Nothing is in flight in the source: this is the instant that the copy will show."""
        assert self.filter is not None
        if bitmap is not None:
            bitmap.require_free()
        if not self.resumes:
            self._seed(bits, bitmap)
        interposer = CopyBeforeWrite(
            self.filter.children["file"],
            self.work,
            break_snapshot=self.spec.break_snapshot,
            on_broken=self._on_broken,
        )
        self.interpose(interposer)
        self.put_filter_in()
        if bitmap is not None:
            bitmap.freeze(self.spec.owner)
            self.bitmap = bitmap

    async def complete(self, action: FinishAction) -> None:
        assert self.target is not None
        if self.spec.sync is not SyncMode.NONE:
            await self.copy_rest()
        await requests.flush(self.target)
        await self.seal()
        await self._take_away()
        if self.bitmap is not None:
            self.bitmap.thaw(self.bitmap.bits if self.spec.bitmap_mode is BitmapMode.NEVER else None)
            await self.bitmap.settle()
        self._end()

    async def undo(self) -> None:
        await self._take_away()
        if self.bitmap is not None:
            # A broken copy is worth nothing, and its map says nothing.
            partly = self.spec.bitmap_mode is BitmapMode.ALWAYS and not self.broken
            self.bitmap.thaw(self._left() if partly else self.bitmap.bits)
            await self.bitmap.settle()
        self._end()

    async def _take_away(self) -> None:
        if self.filter is not None:
            async with drained(self.filter):
                self.interpose(None)
                await self.take_filter_out()

    def _end(self) -> None:
        self.bitmap = None
        self.release_users()
        self.graph.changed(self.source)

    def _find_bitmap(self) -> "Bitmap | None":
        if self.spec.sync is SyncMode.BITMAP and not self.spec.bitmap:
            raise InvalidArgument("bitmap", "the name of a bitmap of the source, for sync BITMAP", "none")
        if not self.spec.bitmap:
            return None
        refuse_checkpoint(self.spec.bitmap)
        bitmap = below_filters(self.source).bitmaps.get(self.spec.bitmap) or self.source.bitmaps.get(
            self.spec.bitmap
        )
        if bitmap is None:
            raise ResourceNotFound("bitmap", self.spec.bitmap)
        bitmap.require_free()
        return bitmap

    def _seed(self, bits: DirtyBitmap, bitmap: "Bitmap | None") -> None:
        if self.spec.sync is SyncMode.BITMAP:
            assert bitmap is not None
            bits.merge(bitmap.bits)
        else:
            bits.mark(0, bits.size)

    def _left(self) -> DirtyBitmap:
        """What the bitmap said and the target does not have."""
        assert self.bitmap is not None
        left = DirtyBitmap(self.bitmap.bits.size, self.bitmap.bits.granularity)
        left.merge(self.work.bits)
        return left

    def _on_broken(self, failure: Failure) -> None:
        self.broken = failure
        if self.kept is not None:
            self.kept.distrust()

    def _lose(self, why: str) -> None:
        """Guests may have overwritten what the copy lacks: it can only be ended. They are not held up by it."""
        assert self.target is not None
        lost = PointInTimeLost(self.source.name, why)
        self.broken = Failure(Side.TARGET, ByteRange(0, self.work.size), lost)
