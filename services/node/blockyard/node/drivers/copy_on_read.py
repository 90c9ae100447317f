"""Driver `copy-on-read`: what is read through it from a backing chain is stored in the image below, so that it is
read from afar only once (QEMU's block/copy-on-read.c).

The copying is the graph's (`graph.populating`); here is only when. What the image holds already is read inline.
"""

from dataclasses import dataclass
from typing import Self

from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import DriverContext, FilterDriver
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import (
    CONSISTENT_READ,
    RESIZE,
    WRITE,
    WRITE_UNCHANGED,
    Permissions,
)

_PASSED_ON = CONSISTENT_READ | WRITE | RESIZE


@dataclass(frozen=True, slots=True)
class CopyOnReadOptions:
    """Options of driver `copy-on-read`."""

    bottom: str = ""
    """The lowest node of the chain from which data is copied up. Default: the whole chain."""


class CopyOnReadDriver(FilterDriver):
    """Stores in the image what is read from its backing chain."""

    name = "copy-on-read"
    Options = CopyOnReadOptions
    copies_on_read = True

    def __init__(self, file: Child, bottom: str) -> None:
        self.file = file
        self.bottom = bottom

    @classmethod
    async def open(cls, options: CopyOnReadOptions, context: DriverContext) -> Self:
        return cls(context.children["file"], options.bottom)

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """Its writes change nothing that is read, and nobody else's of that kind disturb it (cor_child_perm)."""
        used = above.used & _PASSED_ON | WRITE_UNCHANGED
        return Permissions(used, above.shared & _PASSED_ON | WRITE_UNCHANGED)

    def read_now(self, offset: int, into: memoryview) -> bool:
        return self.file.populated_now(offset, len(into)) and self.file.read_now(offset, into)

    async def read(self, offset: int, into: memoryview) -> None:
        await self.file.populate(offset, len(into), self.bottom)
        await self.file.read(offset, into)
