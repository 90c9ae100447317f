"""An export: a node under a name, with what it tells clients of itself. No protocol state lives here."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockyard.base.errors import InvalidArgument, ResourceNotFound
from blockyard.base.ranges import is_power_of_two
from blockyard.node.exports.source import ExportSource
from blockyard.node.formats import nbd

if TYPE_CHECKING:
    from blockyard.node.exports.nbd.connection import Connection


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What the operator chooses for an export."""

    name: str
    """What clients ask for; empty is the protocol's default export."""
    description: str = ""
    writable: bool = False
    writethrough: bool = False
    """Every write is on stable storage before it is acknowledged."""
    bitmaps: tuple[str, ...] = ()
    """Dirty bitmaps offered as contexts `qemu:dirty-bitmap:NAME`."""
    allocation_depth: bool = False
    """Offer the context `qemu:allocation-depth`."""
    max_connections: int = 100
    """Clients at once; 1 makes the export exclusive."""


@dataclass(eq=False, slots=True)
class Export:
    """A served export and who uses it."""

    config: ExportConfig
    source: ExportSource
    clients: "set[Connection]" = field(default_factory=set)
    """Connections in the transmission phase."""

    @property
    def read_only(self) -> bool:
        return not self.config.writable or self.source.read_only

    def contexts(self) -> list[str]:
        """Names of the metadata contexts it offers."""
        names = [nbd.BASE_ALLOCATION]
        if self.config.allocation_depth:
            names.append(nbd.QEMU_ALLOCATION_DEPTH)
        return names + [nbd.QEMU_DIRTY_BITMAP + name for name in self.config.bitmaps]

    def flags(self, structured: bool) -> int:
        """Transmission flags.

        Several connections are safe: all of them reach one node object, and a flush or FUA there covers what
        any of them wrote before. There is no cache of a connection's own.
        """
        flags = nbd.FLAG_HAS_FLAGS | nbd.FLAG_SEND_FLUSH | nbd.FLAG_SEND_FUA
        flags |= nbd.FLAG_CAN_MULTI_CONN | nbd.FLAG_SEND_CACHE
        if structured:
            flags |= nbd.FLAG_SEND_DF
        if self.read_only:
            return flags | nbd.FLAG_READ_ONLY
        return flags | nbd.FLAG_SEND_TRIM | nbd.FLAG_SEND_WRITE_ZEROES | nbd.FLAG_SEND_FAST_ZERO

    def block_size(self) -> nbd.BlockSize:
        """The request path takes any alignment, so the minimum is 1; the preferred size spares it bounces.

        A source with block sizes of its own has them obeyed, as a disk would.
        """
        limits = self.source.limits
        if (sizes := self.source.block_sizes) is not None:
            return nbd.BlockSize(sizes[0], max(4096, sizes[1]), nbd.MAX_PAYLOAD)
        preferred = max(4096, limits.request_alignment)
        if preferred < limits.opt_transfer <= nbd.MAX_PAYLOAD and is_power_of_two(limits.opt_transfer):
            preferred = limits.opt_transfer
        return nbd.BlockSize(1, preferred, nbd.MAX_PAYLOAD)


def check_config(config: ExportConfig, source: ExportSource) -> None:
    """Raises InvalidArgument or ResourceNotFound for what could not be served."""
    for name, text in (("name", config.name), ("description", config.description)):
        if len(text.encode()) > nbd.MAX_STRING or "\0" in text:
            raise InvalidArgument(name, f"at most {nbd.MAX_STRING} bytes without NUL", f"{len(text)} characters")
    if not 1 <= config.max_connections <= 1000:
        raise InvalidArgument("max_connections", "1 to 1000", str(config.max_connections))
    if len(set(config.bitmaps)) != len(config.bitmaps):
        raise InvalidArgument("bitmaps", "each name once", ", ".join(config.bitmaps))
    known = source.bitmaps()
    for bitmap in config.bitmaps:
        if bitmap not in known:
            raise ResourceNotFound("bitmap", bitmap)
        if len(nbd.QEMU_DIRTY_BITMAP) + len(bitmap.encode()) > nbd.MAX_STRING:
            raise InvalidArgument("bitmaps", f"names that fit {nbd.MAX_STRING} bytes", f"{len(bitmap)} characters")
