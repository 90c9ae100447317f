"""Stream and commit: data moves within one backing chain, and a header then names a shorter one.

The order of durable steps at the end is the crash contract (design, section 4): copied data and mappings first,
then the header that drops the old place, then success. QEMU 7.2 writes that header before the mappings are durable.
"""

from blockyard.base.errors import InvalidArgument, OperationUnsupported
from blockyard.node.copying.common import ChainedSession
from blockyard.node.copying.spec import FinishAction
from blockyard.node.graph import modes, requests
from blockyard.node.graph.chain import below_filters, layers, overlay_above
from blockyard.node.graph.user import POPULATOR
from blockyard.node.interface.driver import BackingChangeable


class StreamSession(ChainedSession):
    """Brings the layers between a node and its base up into the node."""

    lets_go = (*ChainedSession.lets_go, "top", "base")

    async def prepare(self) -> None:
        self.top = below_filters(self.source)
        self.base = below_filters(self.graph.get(self.spec.base)) if self.spec.base else None
        chain = list(layers(self.top))
        if self.base is not None and self.base not in chain[1:]:
            raise InvalidArgument("base_node_name", f"a layer below {self.top.name}", self.base.name)
        if not isinstance(self.top.driver, BackingChangeable):
            raise OperationUnsupported(self.top.name, self.top.driver.name, "change its backing file")
        self.reference_to(self.top, self.base)
        bits = await self.new_bits()
        self.freeze(*(chain[: chain.index(self.base)] if self.base is not None else chain))
        try:
            await self.open_for_writing(self.top)
            self.take(self.source, "stream", writable=False, permissions=POPULATOR)
        except BaseException:
            await self.undo()
            raise
        if not self.resumes:
            bits.mark(0, bits.size)
        self.work = self.new_work(self.base, None, bits)

    async def complete(self, action: FinishAction) -> None:
        await self.copy_rest()
        # Mappings are durable before the header stops naming the chain that they replace.
        await requests.flush(self.top)
        await self.relink(self.top, self.base)
        await self.undo()


class CommitSession(ChainedSession):
    """Brings layers of a chain down into their base, under the active layer (the active one is mirrored)."""

    lets_go = (*ChainedSession.lets_go, "top", "base", "overlay")

    async def prepare(self) -> None:
        assert self.target is not None
        self.top, self.base = below_filters(self.source), below_filters(self.target)
        chain = list(layers(self.top))
        if self.base not in chain[1:]:
            raise InvalidArgument("target_node_name", f"a layer below {self.top.name}", self.base.name)
        self.overlay = overlay_above(self.top)
        assert self.overlay is not None
        self.reference_to(self.overlay, self.base)
        middle = chain[: chain.index(self.base)]
        self.check_unused(middle)
        self.check_alone(self.base, middle[-1])
        bits = await self.new_bits()
        self.freeze(self.overlay, *middle)
        try:
            # Nobody else holds them: who has the overlay open may close it.
            self.take(self.overlay, "overlay", writable=False)
            self.take(self.top, "top", writable=False)
            await self.open_for_writing(self.base)
            target = self.take(self.base, "base", writable=True)
            await self.grow_base(self.base, target)
        except BaseException:
            await self.undo()
            raise
        if not self.resumes:
            bits.mark(0, bits.size)
        self.work = self.new_work(self.base, target, bits)

    async def complete(self, action: FinishAction) -> None:
        assert self.overlay is not None
        await self.copy_rest()
        await self._end_as_the_top_does()
        # The base holds everything durably before a header stops naming the layers above it.
        await requests.flush(self.base)
        read_only = self.overlay.read_only
        if read_only:
            await modes.set_writable(self.graph, self.overlay, True)
        await self.relink(self.overlay, self.base)
        if read_only:
            await modes.set_writable(self.graph, self.overlay, False)
        await self.undo()

    async def _end_as_the_top_does(self) -> None:
        """Past the end of a short top the overlay reads zeroes; a longer base would show there from now on."""
        assert self.overlay is not None and self.work.target is not None
        start, end = self.top.driver.size, min(self.base.driver.size, self.overlay.driver.size)
        if start < end:
            await self.work.target.zero(start, end - start)
