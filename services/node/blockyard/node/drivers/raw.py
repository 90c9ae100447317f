"""Driver `raw`: another node's bytes as they are, or a window of them (QEMU's block/raw-format.c).

It has no metadata, so every look-up is an addition and nothing is ever allocated. Without `size` the window reaches
to the end of the child and follows it when the child grows.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NoReturn, Self

from blockyard.base.errors import InvalidArgument, NoSpace, OperationUnsupported
from blockyard.base.ranges import is_aligned
from blockyard.base.units import MAX_SIZE
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import ChildSlot, DriverContext, FormatDriver
from blockyard.node.interface.flags import Preallocation, Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Allocation, MapKind, Mapping
from blockyard.node.interface.permissions import NOTHING, Permissions, of_data, passed_on


@dataclass(frozen=True, slots=True)
class RawOptions:
    """Options of driver `raw`."""

    offset: int = 0
    """First byte of the window, a multiple of the child's request alignment."""
    size: int | None = None
    """Size of the window. Default: to the end, and growing with it."""


@dataclass(frozen=True, slots=True)
class RawCreateOptions:
    """Options for a new raw image."""

    size: int
    preallocation: Preallocation = Preallocation.OFF


class RawDriver(FormatDriver):
    """Plain bytes."""

    name = "raw"
    transparent = True
    Options = RawOptions
    CreateOptions: ClassVar[type[RawCreateOptions]] = RawCreateOptions
    children = (ChildSlot("file", Role.FILE),)

    def __init__(self, options: RawOptions, context: DriverContext) -> None:
        self._node_name = context.node_name
        self._child: Child = context.children["file"]
        self._offset = options.offset
        self._fixed_size = options.size

    @classmethod
    async def open(cls, options: RawOptions, context: DriverContext) -> Self:
        child = context.children["file"]
        alignment = child.limits.request_alignment
        if not 0 <= options.offset <= child.size or not is_aligned(options.offset, alignment):
            raise InvalidArgument(
                "offset", f"a multiple of {alignment} in the {child.size} bytes of the file", str(options.offset)
            )
        room = child.size - options.offset
        if options.size is not None and not 0 <= options.size <= room:
            raise InvalidArgument("size", f"0 to the {room} bytes after the offset", str(options.size))
        return cls(options, context)

    @classmethod
    async def create(cls, options: RawCreateOptions, context: DriverContext) -> None:
        """Give the file its size; what it held before stays, as with QEMU."""
        await context.children["file"].truncate(options.size, options.preallocation, exact=True)

    @classmethod
    def probe(cls, head: bytes) -> int:
        """Anything may be raw, and everything else is a better guess."""
        return 1

    @classmethod
    def measure(cls, options: RawCreateOptions, data_bytes: int) -> tuple[int, int]:
        """Holes count too: they are part of the file's length."""
        return options.size, options.size

    @classmethod
    def measure_unit(cls, options: RawCreateOptions) -> int:
        return 1

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes of the window; none if the child shrank below its begin."""
        if self._fixed_size is not None:
            return self._fixed_size
        return max(0, self._child.size - self._offset)

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """It takes anything: the child aligns and cuts, with what lies around the window. What spares the child
        that is preferred here."""
        free, below = Limits(), self._child.limits
        aligned = below.request_alignment if below.request_alignment > free.request_alignment else 0
        return replace(
            below,
            opt_transfer=max(below.opt_transfer, aligned),
            request_alignment=free.request_alignment,
            min_mem_alignment=free.min_mem_alignment,
            max_zeroes=free.max_zeroes,
            zero_alignment=free.zero_alignment,
            max_discard=free.max_discard,
            discard_alignment=free.discard_alignment,
        )

    def straight(self) -> tuple[Child, int] | None:
        return None if self._fixed_size is not None else (self._child, self._offset)

    @classmethod
    def opening_permissions(cls, role: Role, options: Any, *, writable: bool) -> Permissions:
        """Opening touches nothing."""
        return NOTHING

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """No metadata: without a window it passes on as a filter does (QEMU's raw_open sets such roles)."""
        return of_data(above) if self._fixed_size is not None or self._offset else passed_on(above)

    def lookup(self, offset: int, length: int) -> Mapping:
        if self._fixed_size is not None and offset + length > self._fixed_size:
            # Only a write comes here: reads past the end never reach a driver.
            raise NoSpace(self._node_name, "write")
        return Mapping(MapKind.DATA, length, self._child, self._offset + offset, True)

    async def map(self, offset: int, length: int) -> Mapping:
        return self.lookup(offset, length)

    async def allocate(self, offset: int, length: int, flags: int) -> Allocation:
        self._never_allocates()

    async def commit(self, allocation: Allocation) -> None:
        self._never_allocates()

    async def abandon(self, allocation: Allocation) -> None:
        self._never_allocates()

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        await self._child.zero(self._offset + offset, length, flags)
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self._child.discard(self._offset + offset, length)

    async def flush(self) -> None:
        await self._child.flush()

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """See `Resizable.truncate`."""
        if self._fixed_size is not None:
            raise OperationUnsupported(self._node_name, self.name, "change the size of a fixed window")
        if not 0 <= size <= MAX_SIZE - self._offset:
            raise InvalidArgument("size", f"0 to {MAX_SIZE - self._offset}", str(size))
        await self._child.truncate(self._offset + size, preallocation, exact)

    def _never_allocates(self) -> NoReturn:
        raise AssertionError("every place of a raw node is writable")
