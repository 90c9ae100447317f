"""The mirror: follows the guest's writes until its users move to the target, or the copy is left as it is."""

from typing import TYPE_CHECKING

from blockyard.base.errors import InvalidArgument, NodeInUse
from blockyard.base.failpoints import reach
from blockyard.node.copying.common import ChainedSession
from blockyard.node.copying.interposers import WriteBoth
from blockyard.node.copying.spec import CopyMode, FinishAction, SyncMode
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph import moving, requests
from blockyard.node.graph.chain import below_filters, descends, layers
from blockyard.node.graph.drain import drained
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.user import SOLE_WRITER, WRITER

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.user import User
    from blockyard.node.interface.permissions import Permissions


class MirrorSession(ChainedSession):
    """Follows the guest until the users move to the target (pivot) or the copy is left as it is (detach).

    A mirror into a layer of the source's own chain is an active commit.
    """

    lets_go = (*ChainedSession.lets_go, "_base", "_both")
    copy_mode = CopyMode.BACKGROUND
    """As it is now."""

    async def prepare(self) -> None:
        assert self.target is not None
        self._base = self._find_base()
        self._is_commit = self._base is not None and self._base is below_filters(self.target)
        if self.spec.replaces:
            self.graph.get(self.spec.replaces)
        if not self._is_commit:
            self.check_target_size()
            if descends(self.target, self.source):
                raise InvalidArgument(
                    "target_node_name", "a node that does not depend on the source", self.target.name
                )
        moving.check_movable(self.source, self.target, under_filters=True)
        bits = await self.new_bits()
        try:
            target = await self._take_target()
            self.take(self.source, "source", writable=False)
            self.filter = await self.open_filter("mirror-top")
            self.work = self.new_work(self._base, target, bits)
            async with drained(self.source):
                self._begin(bits)
        except BaseException:
            await self.undo()
            raise
        self.graph.changed(self.source, self.target, self.filter)

    def _begin(self, bits: DirtyBitmap) -> None:
        """Nothing is in flight in the source."""
        assert self.filter is not None
        if not self.resumes and (self.restored or self.spec.sync is not SyncMode.NONE):
            # A map that was lost said of guests' writes, too: everything may differ.
            bits.mark(0, bits.size)
        self._both = WriteBoth(self.filter.children["file"], self.work, self.note_failure)
        self.set_copy_mode(self.spec.copy_mode)
        self.interpose(self._both)
        self.put_filter_in()
        # An overlay between the filter and the source would take the writes that the map must hear of.
        self.filter.children["file"].frozen_reason = f"{self.spec.owner} follows the writes to this node"
        self.record(below_filters(self.source), bits)

    def set_copy_mode(self, mode: CopyMode) -> None:
        """Raises InvalidArgument for the way back, as QEMU."""
        if mode is CopyMode.BACKGROUND and self.copy_mode is not mode:
            raise InvalidArgument("copy_mode", "WRITE_BLOCKING", "a change back to BACKGROUND")
        if not self.finished:
            self.copy_mode = mode
            self._both.blocking = mode is CopyMode.WRITE_BLOCKING

    async def complete(self, action: FinishAction) -> None:
        if action is FinishAction.COMPLETE:
            action = FinishAction.PIVOT if self._is_commit else FinishAction.DETACH
        assert self.filter is not None and self.target is not None
        replaced = self.graph.get(self.spec.replaces) if self.spec.replaces else None
        # Nearly all that must be durable and copied is so before guests are held: it is the flush that takes long.
        await requests.flush(self.target)
        await self.catch_up()
        async with drained(*([replaced] if replaced else []), self.filter, self.source):
            # Guests are held here: what is left is what they wrote since the last order.
            await self.copy_rest()
            await requests.flush(self.target)
            if action is FinishAction.PIVOT:
                await self._move_users(replaced or self.filter, self.target)
            else:
                await self.seal()
            self.stop_recording(below_filters(self.source))
            filter_ = self.detach_filter()
        await self.leave_behind(filter_)
        await self._let_go()
        self.graph.changed(self.source, self.target)
        await self.leave_behind(self.source)

    async def _move_users(self, node: "Node", target: "Node") -> None:
        """The pivot itself: durable before any guest can write to the target, or taken back."""
        self._check_alone_on_top()
        self._permit_target(WRITER)
        moved = moving.move_users(node, target)
        given = self.give_for_writing()
        moved.freeze(f"{self.spec.owner} moves the users of {node.name}")
        unseal = self.seal_with_next_commit()

        def take_back() -> None:
            moved.undo()
            self.lend_again(given)
            self._permit_target(SOLE_WRITER)
            unseal()

        reach("node.pivot.before")
        await self.graph.kept.keep(take_back, *moved.touched.values())
        reach("node.pivot.after")
        moved.thaw()

    def _permit_target(self, permissions: "Permissions") -> None:
        """Guests may write to it when nothing is copied any more."""
        for user in self.users:
            if user.node is self.target and user.writable:
                user.permit(permissions)

    def _check_alone_on_top(self) -> None:
        """After the pivot of a commit guests write to the base: whoever still reads the top would see it change."""
        others = [
            edge.holder for edge in self.source.parents if edge not in self.users and edge.parent is not self.filter
        ]
        if self._is_commit and others:
            raise NodeInUse(self.source.name, "commit", ", ".join(others))

    async def undo(self) -> None:
        if self.filter is not None:
            async with drained(self.filter):
                self.interpose(None)
                self.stop_recording(below_filters(self.source))
                await self.take_filter_out()
        await self._let_go()

    async def _let_go(self) -> None:
        self.unfreeze()
        self.release_users()
        await self.restore_read_only()

    def _find_base(self) -> "Node | None":
        """Where copying stops: the target of an active commit, or what is below the top layer."""
        assert self.target is not None
        target = below_filters(self.target)
        if any(layer is target for layer in layers(self.source)):
            return target
        return self.top_base() if self.spec.sync is SyncMode.TOP else None

    async def _take_target(self) -> "User":
        assert self.target is not None
        if not self._is_commit:
            await ready_to_write(self.graph, self.target)
            return self.take(self.target, "target", writable=True)
        assert self._base is not None
        chain = list(layers(self.source))
        middle = chain[: chain.index(self._base)]
        self.check_unused(middle[1:])
        self.check_alone(self._base, middle[-1])
        self.freeze(*middle)
        await self.open_for_writing(self._base)
        target = self.take(self._base, "base", writable=True)
        await self.grow_base(self._base, target)
        return target
