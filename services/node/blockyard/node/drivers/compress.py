"""Driver `compress`: the image below stores compressed what is written through it (QEMU's block/filter-compress.c).

Compression works on whole clusters, so those are what the filter wants to be asked for: the request path makes
smaller writes whole by reading what lies around them.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from blockyard.base.errors import OperationUnsupported
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import DriverContext, FilterDriver
from blockyard.node.interface.flags import COMPRESSED
from blockyard.node.interface.limits import Limits


@dataclass(frozen=True, slots=True)
class CompressOptions:
    """Options of driver `compress`: none of its own."""


class CompressDriver(FilterDriver):
    """Has the image below store what is written compressed."""

    name = "compress"
    Options = CompressOptions

    def __init__(self, file: Child) -> None:
        self.file = file

    @classmethod
    async def open(cls, options: Any, context: DriverContext) -> Self:
        """Raises OperationUnsupported if the child cannot store anything compressed."""
        file = context.children["file"]
        if not file.compresses:
            operation = f"compress what node {file.node_name!r} stores: its format has no compressed clusters"
            raise OperationUnsupported(context.node_name, cls.name, operation)
        return cls(file)

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        below = self.file.limits
        return replace(below, request_alignment=max(below.request_alignment, below.allocation_unit))

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        return False

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        await self.file.write(offset, data, flags | COMPRESSED)
