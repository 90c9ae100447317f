"""A user of the graph from outside: an export, a session, a job, a call (QEMU's BlockBackend).

It is a root edge that checks what a stranger may ask: ranges inside the node, writes only where allowed. Everything
that comes from a client or guest enters the graph through one of these.
"""

from typing import TYPE_CHECKING, ClassVar, Final

from blockyard.base.errors import BlockError, NodeReadOnly, RangeOutside, ResourceNotFound
from blockyard.base.ranges import ByteRange
from blockyard.node.core import accounting
from blockyard.node.core.accounting import FLUSH
from blockyard.node.graph import requests, status
from blockyard.node.graph.edge import Edge, span_starter
from blockyard.node.graph.permissions import refresh
from blockyard.node.graph.status import Extent
from blockyard.node.graph.tracking import asker
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.flags import Preallocation, Role
from blockyard.node.interface.permissions import ALL, CONSISTENT_READ, RESIZE, WRITE, WRITE_UNCHANGED, Permissions

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node

READER: Final = Permissions(CONSISTENT_READ, ALL)
"""What a guest, session or call that only reads takes; like QEMU's NBD server it excludes nobody."""
WRITER: Final = Permissions(CONSISTENT_READ | WRITE, ALL)
RESIZER: Final = Permissions(CONSISTENT_READ | WRITE | RESIZE, ALL)
POPULATOR: Final = Permissions(CONSISTENT_READ | WRITE_UNCHANGED, ALL)
"""A stream, which brings data up without changing what readers see."""
SOLE_WRITER: Final = Permissions(CONSISTENT_READ | WRITE | RESIZE, ALL & ~(WRITE | RESIZE))
"""A job's target: others may look, nobody else writes."""


class User(Edge):
    """A root edge. `kind` and `name` tell people who it is: export/disk0, job/m1, session/7."""

    __slots__ = ("held_since_ns", "kind", "writable")

    may_hold: ClassVar[bool] = False
    """Its requests may wait for an operator, without end."""

    def __init__(
        self, kind: str, name: str, node: "Node", writable: bool, permissions: Permissions | None = None
    ) -> None:
        """Raises NodeReadOnly, or PermissionConflict with whoever excludes it; then there is no edge."""
        if writable and node.read_only:
            raise node.write_refusal()
        super().__init__(None, name, Role.FILE, node)
        self.kind = kind
        self.writable = writable
        self.held_since_ns = node.clock.wall_ns()
        try:
            self.permit(permissions or (WRITER if writable else READER))
        except BlockError:
            super().detach()
            raise

    def permit(self, permissions: Permissions) -> None:
        """Ask for other permissions. Raises PermissionConflict; then it has what it had."""
        before, self.permissions = self.permissions, permissions
        try:
            refresh(self.node)
        except BlockError:
            self.permissions = before
            raise

    def detach(self) -> None:
        super().detach()
        refresh(self.node)

    @property
    def holder(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def read_only(self) -> bool:
        return not self.writable or self.node.read_only

    @property
    def present(self) -> bool:
        """There is a medium."""
        return True

    @property
    def stopped(self) -> bool:
        """Requests wait until an operator lets them go on."""
        return False

    @property
    def block_sizes(self) -> tuple[int, int] | None:
        """Logical and physical block size that guests are told; None leaves it to the node's limits."""
        return None

    def check_blocks(self, offset: int, length: int) -> None:
        """Raises RangeMisaligned if the user asks for whole blocks, and these are none."""

    def check(self, offset: int, length: int, kind: int = 0) -> None:
        """Raises RangeOutside unless the range lies inside the node. `kind`: the account's type of request, which
        then counts as invalid."""
        size = self.node.driver.size
        if offset < 0 or length < 0 or offset + length > size:
            raise self._refused(kind, RangeOutside(self.node.name, offset, length, size))

    def _refused(self, kind: int, error: BlockError) -> BlockError:
        if kind:
            self.node.account.refuse(kind)
        return error

    def read_now(self, offset: int, into: memoryview) -> bool:
        node = self.node
        if offset < 0 or offset + len(into) > node.driver.size:
            raise self._refused(accounting.READ, RangeOutside(node.name, offset, len(into), node.driver.size))
        return not node.quiesced and span_starter() is None and node.read_now(node, offset, into)

    async def read(self, offset: int, into: memoryview) -> None:
        self.check(offset, len(into), accounting.READ)
        await super().read(offset, into)

    async def populate(self, offset: int, length: int, bottom: str = "") -> int:
        """Copy on read for a client. Raises NodeReadOnly or PermissionConflict if the layer may not be written."""
        self.check(offset, length, accounting.COPY)
        used, shared = self.permissions
        if not used & WRITE_UNCHANGED:
            self.permit(Permissions(used | WRITE_UNCHANGED, shared))
        return await super().populate(offset, length, bottom)

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        node = self.node
        if offset < 0 or offset + len(data) > node.driver.size:
            raise self._refused(accounting.WRITE, RangeOutside(node.name, offset, len(data), node.driver.size))
        if not self.writable:
            raise self._refused(accounting.WRITE, NodeReadOnly(node.name))
        return not node.quiesced and span_starter() is None and node.write_now(node, offset, data, flags)

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        self._check_write(offset, len(data), accounting.WRITE)
        await super().write(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        self._check_write(offset, length, accounting.WRITE_ZEROES)
        await super().zero(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        self._check_write(offset, length, accounting.DISCARD)
        await super().discard(offset, length)

    async def flush(self) -> None:
        await self.flushed()

    async def flushed(self) -> bool:
        """As `flush`; False if nothing had been written since the last one."""
        return await requests.flush(await self.entered(FLUSH))

    async def flush_to_os(self) -> None:
        """Cached metadata of the node's driver goes to the file below, flushed only where order demands it."""
        await (await self.entered(FLUSH)).driver.flush_to_os()

    async def truncate(
        self, size: int, preallocation: Preallocation = Preallocation.OFF, exact: bool = True
    ) -> None:
        if not self.writable:
            raise self._refused(accounting.TRUNCATE, NodeReadOnly(self.node.name))
        await super().truncate(size, preallocation, exact)

    async def block_status(
        self,
        offset: int,
        length: int,
        max_extents: int = 1000,
        base: "Node | None" = None,
        allocation_only: bool = False,
    ) -> list[Extent]:
        """Extents from the start of the range; see `graph.status`."""
        self.check(offset, length, accounting.BLOCK_STATUS)
        asker.set(self.holder)
        return await status.block_status(self.node, offset, length, base, max_extents, allocation_only)

    def bitmaps(self) -> list[str]:
        """Names of the node's bitmaps."""
        return [name for name in self.node.bitmaps if name]

    def bitmap_extents(self, name: str, offset: int, length: int, max_extents: int) -> list[tuple[int, bool]]:
        """Runs (length, dirty) that cover the start of the range. Raises ResourceNotFound."""
        bitmap = self.node.bitmaps.get(name)
        if bitmap is None:
            raise ResourceNotFound("bitmap", name)
        runs: list[tuple[int, bool]] = []
        position, end = offset, offset + length
        while position < end and len(runs) < max_extents:
            dirty = bitmap.bits.next_dirty(position, end)
            if dirty is None:
                runs.append((end - position, False))
                break
            inside = dirty.intersection(ByteRange(offset, length))
            if inside.offset > position:
                runs.append((inside.offset - position, False))
            runs.append((inside.length, True))
            position = inside.end
        return runs[:max_extents]

    def _check_write(self, offset: int, length: int, kind: int) -> None:
        self.check(offset, length, kind)
        if not self.writable:
            raise self._refused(kind, NodeReadOnly(self.node.name))
