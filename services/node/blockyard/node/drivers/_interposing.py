"""The common half of the jobs' filter drivers: guests' writes go through an interposer, all else passes."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from blockyard.base.errors import OperationUnsupported
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import ChildSlot, DriverContext, FilterDriver
from blockyard.node.interface.flags import Preallocation, Role
from blockyard.node.interface.interposer import Interposer
from blockyard.node.interface.permissions import NOTHING, Permissions, passed_on


@dataclass(frozen=True, slots=True)
class NoOptions:
    """A filter without options of its own."""


class InterposingFilter(FilterDriver):
    """Without an interposer it only passes on."""

    Options: ClassVar[type[Any]] = NoOptions
    reopens = False
    children = (ChildSlot("file", Role.FILTERED), ChildSlot("target", Role.TARGET))

    def __init__(self, file: Child) -> None:
        self.file = file
        self.interposer: Interposer | None = None

    @classmethod
    async def open(cls, options: Any, context: DriverContext) -> Self:
        return cls(context.children["file"])

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """The copy session writes to the target by an edge of its own; this one only holds it."""
        return NOTHING if role is Role.TARGET else passed_on(above)

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        if self.interposer is not None and not self.interposer.free_now(offset, len(data)):
            return False
        return self.file.write_now(offset, data, flags)

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        if self.interposer is None:
            await self.file.write(offset, data, flags)
        else:
            await self.interposer.guest_write(offset, len(data), lambda child: child.write(offset, data, flags))

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        if self.interposer is None:
            await self.file.zero(offset, length, flags)
        else:
            await self.interposer.guest_write(offset, length, lambda child: child.zero(offset, length, flags))
        return True

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """Raises OperationUnsupported while a job is behind the filter: its map of the node has a fixed size."""
        if self.interposer is not None:
            raise OperationUnsupported(self.file.node_name, self.name, "change its size while a job follows it")
        await self.file.truncate(size, preallocation, exact)

    async def discard(self, offset: int, length: int) -> None:
        if self.interposer is None:
            await self.file.discard(offset, length)
        else:
            await self.interposer.guest_write(
                offset, length, lambda child: child.discard(offset, length), exact=False
            )
