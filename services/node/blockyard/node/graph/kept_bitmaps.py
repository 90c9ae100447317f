"""Guarded bitmaps: made, brought back after a restart, protected while an image's own copy is old, and let go.

Which bitmaps. Persistent ones of nodes whose image cannot keep them have their bits in the state directory and
nowhere else. Persistent ones inside an image are there too while the node may be written: the image's copy is
marked as in use then, and would be lost with a crash (`graph.persisting`). Either way the catalogue's entry of the
bitmap names its files, and without a state directory nothing of this exists.

Every change here is made while the node is drained: no write is between its two marks.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from blockyard.base.errors import BlockError, OperationUnsupported
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.core.heat import MAX_SLOTS, REGION, HeatLog, length_for
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.drain import drained
from blockyard.node.graph.guarding import Guard
from blockyard.node.graph.kept_form import parsed
from blockyard.node.graph.persisting import image_of
from blockyard.node.interface.keeper import Key
from blockyard.node.interface.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

BITMAP = "bitmap"


class KeptBitmaps:
    """Those of one graph."""

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph
        self._changing = asyncio.Lock()
        """Held while guards come: entries are restored at the same time."""

    @property
    def _vault(self) -> Vault | None:
        return self._graph.environment.vault

    def can_guard(self, node: "Node") -> bool:
        """Whether its bitmaps may have files: the node comes back, and there is somewhere to put them."""
        return self._vault is not None and self._graph.kept.lasting_part(node.name) is not None

    def check_can_keep(self, node: "Node") -> None:
        """Raises OperationUnsupported for a node whose bitmaps would have nowhere to be."""
        if not self.can_guard(node):
            what = "keep a dirty bitmap: it has no image that could, and the service no state directory"
            raise OperationUnsupported(node.name, node.driver.name, what)

    # --- making ------------------------------------------------------------------------------------------

    async def guard(self, node: "Node", bitmap: Bitmap) -> None:
        """Guard a bitmap of a drained node. Raises VaultUnusable; then it is as it was."""
        vault = self._vault
        assert vault is not None
        async with self._changing:
            guard = node.guard or await self._new_guard(node, vault)
            try:
                file = await vault.create(bitmap.bits.serialized_size)
                kept = DirtyBitmap(bitmap.bits.size, bitmap.bits.granularity, file.room)
                kept.become(bitmap.bits)
                await file.sync()
            except BaseException:
                if node.guard is None:
                    vault.remove(guard.heat.name)
                raise
            bitmap.attach(kept, file)
            guard.add(bitmap)
            self._attach(node, guard)

    async def _new_guard(self, node: "Node", vault: Vault) -> Guard:
        heat = await vault.create(length_for(MAX_SLOTS))
        HeatLog(heat.room(length_for(MAX_SLOTS))).begin(vault.boot, clean=True)
        await heat.sync()
        return self._guard(node, vault, heat)

    def _guard(self, node: "Node", vault: Vault, heat: "object") -> Guard:
        hot_bytes = self._graph.environment.hot_bytes
        return Guard(node, vault, heat, hot_bytes, lambda: self._graph.changed(node))  # type: ignore[arg-type]

    def _attach(self, node: "Node", guard: Guard) -> None:
        if node.guard is None:
            node.guard = guard
            node.adopt_driver()

    async def protect(self, node: "Node") -> None:
        """Guard what the node's image keeps, if the node may be written. Nobody writes it yet."""
        if node.read_only or not self.can_guard(node):
            return
        for bitmap in node.bitmaps.values():
            if bitmap.in_image and not bitmap.inconsistent and bitmap.file is None and not bitmap.owner:
                try:
                    await self.guard(node, bitmap)
                except BlockError as problem:  # then it is as safe as QEMU's
                    node.context.report("bitmap-not-guarded", {"name": bitmap.name, "error": str(problem)})

    async def mode_changed(self, node: "Node") -> None:
        """The node's driver was opened in another mode. It is drained."""
        if self._vault is None or not any(bitmap.in_image for bitmap in node.bitmaps.values()):
            return
        if not node.read_only and not node.context.read_only:
            await self.protect(node)
        else:
            self.release(node, lambda bitmap: bitmap.in_image)
        keys = [Key(BITMAP, f"{node.name}/{name}") for name in node.bitmaps]
        for name in node.bitmaps:
            self._graph.kept.touch_bitmap(node, name)
        with suppress(BlockError):  # a later commit will; until then the files of what was released are gone
            await self._graph.kept.catalogue.commit(*keys)

    def release(self, node: "Node", which: "Callable[[Bitmap], bool]") -> None:
        """Guard these no longer: somebody else has their bits, or nobody wants them."""
        if node.guard is not None:
            for bitmap in [each for each in node.guard.bitmaps if which(each)]:
                bitmap.guard.drop(bitmap)  # type: ignore[union-attr]

    # --- coming back -------------------------------------------------------------------------------------

    async def restore(self, node: "Node", name: str, definition: str) -> bool:
        """Bring a guarded bitmap back as its files say. False if they cannot say it: it has to be called lost."""
        values = parsed(definition)
        vault, present = self._vault, node.bitmaps.get(name)
        if present is not None and not present.inconsistent:
            # The image has it, and not as in use: it was stored.
            self._graph.kept.touch_bitmap(node, name)
            return True
        if vault is None or not all(isinstance(values.get(each), str) for each in ("bits", "heat")):
            return False
        async with self._changing:
            try:
                bitmap = await self._restored(node, vault, name, values)
            except BlockError as problem:
                if values.get("in_image") and present is None:
                    # It was stored, the file went, and somebody took it out of the image.
                    self._graph.kept.touch_bitmap(node, name)
                    return True
                node.context.report("bitmap-lost", {"name": name, "error": str(problem)})
                return False
        if bitmap is None:
            return False
        node.record_bitmaps()
        return True

    async def _restored(self, node: "Node", vault: Vault, name: str, values: "dict[str, object]") -> Bitmap | None:
        guard = node.guard or self._guard(node, vault, await vault.open(str(values["heat"])))
        if guard.begun or guard.heat.name != values["heat"] or not guard.is_readable:
            return None
        file = await vault.open(str(values["bits"]))
        kept = DirtyBitmap(node.driver.size, int(str(values["granularity"])), file.room)
        for region in guard.missed():
            start = region * REGION
            kept.mark(start, max(0, min(REGION, kept.size - start)))
        present = node.bitmaps.get(name)
        in_image = bool(values.get("in_image")) and image_of(node) is not None
        bitmap = present or Bitmap(name, kept, persistent=True, in_image=in_image)
        bitmap.inconsistent, bitmap.recording = False, bool(values.get("recording"))
        bitmap.attach(kept, file)
        guard.add(bitmap)
        node.bitmaps[name] = bitmap
        self._attach(node, guard)
        return bitmap

    async def end_of_restoring(self) -> None:
        """What images keep is guarded, and files that nobody names are removed."""
        await self.protect_restored()
        if self._vault is not None:
            self._vault.sweep(self._named())

    async def protect_restored(self) -> None:
        """What images keep of nodes that came back is guarded."""
        if self._vault is None:
            return
        for node in list(self._graph.nodes.values()):
            if any(bitmap.in_image and bitmap.file is None for bitmap in node.bitmaps.values()):
                async with drained(node):
                    await self.protect(node)
                self._graph.kept.touch(node)
        await self._graph.kept.catalogue.commit()

    def _named(self) -> set[str]:
        found: set[str] = set()
        for key, entry in self._graph.kept.catalogue.entries.items():
            if key.kind == BITMAP:
                try:
                    values = parsed(entry.definition)
                except BlockError:
                    continue
                found |= {str(values[each]) for each in ("bits", "heat") if each in values}
        return found

    # --- the end -----------------------------------------------------------------------------------------

    async def close(self, node: "Node", *, is_stored: bool) -> None:
        """The node closes. What the catalogue still has comes back; the rest goes, files and all.

        `is_stored`: the image has its bitmaps. Others may change them there before we come back.
        """
        if node.guard is None:
            return
        entries = self._graph.kept.catalogue.entries
        self.release(
            node,
            lambda bitmap: (
                (is_stored and bitmap.in_image) or Key(BITMAP, f"{node.name}/{bitmap.name}") not in entries
            ),
        )
        if node.guard is not None:
            await node.guard.leave()
