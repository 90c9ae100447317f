"""Driver `snapshot-access`: shows the point in time that a filter below keeps (QEMU's block/snapshot-access.c).

A backup reads it as any image, while guests write on above that filter. It cannot be written; a discard says that a
range has been read and need be kept no longer.
"""

from dataclasses import dataclass
from typing import Any, Self

from blockyard.base.errors import OperationUnsupported
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import ChildSlot, DriverContext, ProtocolDriver
from blockyard.node.interface.flags import Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Mapping
from blockyard.node.interface.permissions import NOTHING, Permissions


@dataclass(frozen=True, slots=True)
class SnapshotAccessOptions:
    """Options of driver `snapshot-access`: none of its own."""


class SnapshotAccessDriver(ProtocolDriver):
    """Shows what a copy-before-write filter preserves."""

    name = "snapshot-access"
    Options = SnapshotAccessOptions
    children = (ChildSlot("file", Role.DATA, stays=True),)

    def __init__(self, file: Child, context: DriverContext) -> None:
        self.file = file
        self._context = context
        self.limits = Limits()

    @classmethod
    async def open(cls, options: Any, context: DriverContext) -> Self:
        """Raises OperationUnsupported for a child that keeps no point in time."""
        file = context.children["file"]
        if file.snapshot_size < 0:
            what = f"show a point in time of node {file.node_name!r}: it keeps none"
            raise OperationUnsupported(context.node_name, cls.name, what)
        return cls(file, context)

    @classmethod
    def opening_permissions(cls, role: Role, options: Any, *, writable: bool) -> Permissions:
        return NOTHING

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """What it reads is not what the filter's users read and write (snapshot_access_child_perm)."""
        return NOTHING

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.file.snapshot_size

    async def read(self, offset: int, into: memoryview) -> None:
        """Raises RangeNotKept or PointInTimeLost."""
        await self.file.read_snapshot(offset, into)

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        raise self._refusal()

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        raise self._refusal()

    def _refusal(self) -> OperationUnsupported:
        return OperationUnsupported(self._context.node_name, self.name, "write to a point in time")

    async def discard(self, offset: int, length: int) -> None:
        await self.file.discard_snapshot(offset, length)

    async def flush(self) -> None:
        """There is nothing to write back."""

    async def map(self, offset: int, length: int) -> Mapping:
        return await self.file.map_snapshot(offset, length)
