"""Driver `blkverify`: compares an image under test with a raw copy of what it should contain (QEMU's
block/blkverify.c, which ends the process where this one fails the request and reports it).

What must not live here: repairing; nobody knows which of the two is right.

Theory. Every change goes to both, every read comes from both and must be the same, and so must be success and
failure. A change excludes all other requests of its range, so a difference is always a bug or a write from behind.
A discard may read as anything afterwards; here it zeroes with leave to unmap, which both must show. The raw copy is
not flushed: it needs no better durability than the comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from blockyard.base.errors import BlockError, CopiesDiffer, InvalidArgument, OperationUnsupported
from blockyard.base.units import MIB
from blockyard.node.drivers import _copies
from blockyard.node.drivers._copies import Answer
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import ChildSlot, DriverContext, FilterDriver
from blockyard.node.interface.flags import MAY_UNMAP, NO_FALLBACK, Preallocation, Role
from blockyard.node.interface.mapping import MapKind, Mapping
from blockyard.node.interface.permissions import RESIZE, WRITE, Permissions, of_image_file

INLINE_MAX: Final = MIB // 2
"""Both copies of an inline read together stay below what may hold up the loop."""
MISMATCH: Final = "blkverify-mismatch"
"""The event."""


@dataclass(frozen=True, slots=True)
class BlkverifyOptions:
    """Options of driver `blkverify`."""


class BlkverifyDriver(FilterDriver):
    """Compares two images on every request."""

    name = "blkverify"
    Options = BlkverifyOptions
    children = (ChildSlot("test", Role.FILTERED), ChildSlot("raw", Role.FILE))
    primary = "test"
    changes_exclude = True

    def __init__(self, context: DriverContext) -> None:
        self._context = context
        self.file = context.children["test"]
        self._raw = context.children["raw"]

    @classmethod
    async def open(cls, options: BlkverifyOptions, context: DriverContext) -> Self:
        test, raw = context.children["test"], context.children["raw"]
        if raw.size < test.size:
            raise InvalidArgument("raw", f"a node of at least {test.size} bytes, as the test image", str(raw.size))
        return cls(context)

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """Nobody else may change one of the two."""
        if child == "raw":
            return of_image_file(above, writable=writable)
        return Permissions(above.used, above.shared & ~(WRITE | RESIZE))

    @property
    def _both(self) -> tuple[Child, Child]:
        return self.file, self._raw

    def read_now(self, offset: int, into: memoryview) -> bool:
        if len(into) > INLINE_MAX:
            return False
        copy = bytearray(len(into))
        try:
            return (
                self.file.read_now(offset, into)
                and self._raw.read_now(offset, memoryview(copy))
                and _copies.is_same(copy, into)
            )
        except BlockError:
            return False

    async def read(self, offset: int, into: memoryview) -> None:
        copies = [bytearray(len(into)), bytearray(len(into))]
        answers = await _copies.read_each(self._both, offset, copies)
        self._judge("read", offset, len(into), answers)
        place = _copies.first_difference(copies[0], copies[1])
        if place >= 0:
            raise self._differ(
                "read", offset, len(into), offset + place, _copies.bytes_at(self._both, copies, place)
            )
        into[:] = copies[0]

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        return False  # one of them might, and the other not

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        self._judge("write", offset, len(data), await _copies.write_each(self._both, offset, data, flags))

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        if flags & NO_FALLBACK:
            # What only one of them can would make them differ.
            raise OperationUnsupported(self._context.node_name, self.name, "promise to zero without writing")
        requests = [child.zero(offset, length, flags) for child in self._both]
        self._judge("write-zeroes", offset, length, await _copies.to_the_end(_copies.ask(requests)))
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self.zero(offset, length, MAY_UNMAP)

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """Both; the raw copy is never the shorter one, whatever fails. See `Resizable.truncate`."""
        first, second = (self._raw, self.file) if size > self.file.size else (self.file, self._raw)
        await first.truncate(size, preallocation, exact)
        await second.truncate(size, preallocation, exact)

    async def map(self, offset: int, length: int) -> Mapping:
        """Zeroes where the image under test knows them. All else must be read from both."""
        mapping = await super().map(offset, length)
        return mapping if mapping.kind is MapKind.ZERO else Mapping(MapKind.DATA, mapping.length, self.file, offset)

    def _judge(self, operation: str, offset: int, length: int, answers: Sequence[Answer]) -> None:
        """Raises the failure that both met, or CopiesDiffer."""
        test, raw = answers
        if _copies.outcome(test) != _copies.outcome(raw):
            words = (
                f"{child.name} {'succeeded' if answer is None else f'failed: {answer}'}"
                for child, answer in zip(self._both, answers, strict=True)
            )
            raise self._differ(operation, offset, length, offset, ", ".join(words))
        if test is not None:
            raise test

    def _differ(self, operation: str, offset: int, length: int, place: int, detail: str) -> CopiesDiffer:
        details = {"type": operation, "offset_bytes": str(offset), "length_bytes": str(length)}
        details |= {"first_difference_bytes": str(place), "detail": detail}
        self._context.report(MISMATCH, details)
        return CopiesDiffer(self._context.node_name, operation, place, detail)
