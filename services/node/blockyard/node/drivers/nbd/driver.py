"""The request side of driver `nbd`: the graph's words in NBD's, and the server's errors in ours.

Must not know sockets or the wire.
"""

import errno
from typing import Final, NoReturn, Self

from blockyard.base.errors import FileReadOnly, IoError, NodeReadOnly, NoSpace
from blockyard.base.ranges import align_down, align_up
from blockyard.base.units import GIB, MIB
from blockyard.node.drivers.nbd.options import NbdOptions, checked
from blockyard.node.drivers.nbd.session import Away, Session
from blockyard.node.drivers.nbd.transmission import Refused
from blockyard.node.formats import nbd
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import DriverContext, NodeInfo, ProtocolDriver
from blockyard.node.interface.flags import FUA, MAY_UNMAP, NO_FALLBACK, DiscardMode
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import MapKind, Mapping

MAX_TRANSFER: Final = 32 * MIB
"""The specification's largest payload that every server takes."""
MAX_ZEROES: Final = 1 * GIB
"""Largest write-zeroes or trim: the wire takes 4 GiB, which a server without holes would work on for long."""
ASSUMED_ALIGNMENT: Final = 512
"""What the specification wants a client to assume of a server that says nothing."""


class NbdDriver(ProtocolDriver):
    """An export of an NBD server."""

    name = "nbd"
    fixed_options = frozenset({"address", "export"})
    Options = NbdOptions

    def __init__(self, options: NbdOptions, context: DriverContext, session: Session) -> None:
        self._options = options
        self._context = context
        self._session = session
        self.size = session.export.size
        self.limits = _limits(session)

    @classmethod
    async def open(cls, options: NbdOptions, context: DriverContext) -> Self:
        address = checked(options)
        session = Session(address, options.export, context.clock, options.reconnect_delay_seconds, context.report)
        await session.open(options.open_timeout_seconds)
        try:
            _check_writable(session, context)
        except BaseException:
            await session.close()
            raise
        return cls(options, context, session)

    async def reconfigure(self, context: DriverContext) -> None:
        """See `Reconfigurable`: the connection stays."""
        _check_writable(self._session, context)
        self._context = context

    async def close(self) -> None:
        await self._session.close()

    # --- requests ----------------------------------------------------------------------------------------

    async def read(self, offset: int, into: memoryview) -> None:
        await self._do("read", nbd.CMD_READ, offset, len(into), into=into)

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        self._check(offset + len(data), "write")
        await self._do("write", nbd.CMD_WRITE, offset, len(data), self._fua(flags), data=data)
        await self._finish_fua(flags)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        self._check(offset + length, "zero")
        export = self._session.export
        fast = nbd.CMD_FLAG_FAST_ZERO if flags & NO_FALLBACK else 0
        if not export.can(nbd.FLAG_SEND_WRITE_ZEROES) or (fast and not export.can(nbd.FLAG_SEND_FAST_ZERO)):
            return False
        hole = 0 if flags & MAY_UNMAP and self._unmaps else nbd.CMD_FLAG_NO_HOLE
        try:
            await self._session.request(nbd.CMD_WRITE_ZEROES, offset, length, self._fua(flags) | fast | hole)
        except Refused as refusal:
            if refusal.errno == nbd.ENOTSUP:
                return False
            self._fail(refusal, "zero")
        except Away as away:
            self._fail_away(away, "zero")
        await self._finish_fua(flags)
        return True

    async def discard(self, offset: int, length: int) -> None:
        self._check(offset + length, "discard")
        if self._unmaps and self._session.export.can(nbd.FLAG_SEND_TRIM):
            await self._do("discard", nbd.CMD_TRIM, offset, length)

    async def flush(self) -> None:
        if self._context.no_flush or self._context.read_only:
            return
        try:
            await self._session.flush()
        except Refused as refusal:
            self._fail(refusal, "flush")
        except Away as away:
            self._fail_away(away, "flush")

    async def map(self, offset: int, length: int) -> Mapping:
        if self._session.export.allocation_id is None:
            return Mapping(MapKind.DATA, length, None, offset, True)
        unit = self.limits.request_alignment
        start, end = align_down(offset, unit), min(align_up(offset + length, unit), self.size)
        asked = min(end - start, align_down(nbd.MAX_LENGTH, unit))
        extents = await self._do("block status", nbd.CMD_BLOCK_STATUS, start, asked, nbd.CMD_FLAG_REQ_ONE)
        known, status = extents[0]
        found = min(start + known - offset, length)
        if found <= 0:
            raise IoError(self._context.node_name, "block status", errno.EIO, "the server answered for less")
        kind = MapKind.ZERO if status & nbd.STATE_ZERO else MapKind.DATA
        return Mapping(kind, found, None, offset, True)

    async def info(self) -> NodeInfo:
        return NodeInfo(filename=f"nbd:{self._session.shown}:exportname={self._options.export}")

    # --- errors ------------------------------------------------------------------------------------------

    async def _do(
        self,
        operation: str,
        kind: int,
        offset: int,
        length: int,
        flags: int = 0,
        into: memoryview | None = None,
        data: Buffer | None = None,
    ) -> list[tuple[int, int]]:
        try:
            return await self._session.request(kind, offset, length, flags, into, data)
        except Refused as refusal:
            self._fail(refusal, operation)
        except Away as away:
            self._fail_away(away, operation)

    def _fail(self, refusal: Refused, operation: str) -> NoReturn:
        name = self._context.node_name
        if refusal.errno == nbd.ENOSPC:
            raise NoSpace(name, operation) from refusal
        detail = f"the server at {self._session.shown} says {refusal.text or 'no more than the number'}"
        raise IoError(name, operation, refusal.errno, detail) from refusal

    def _fail_away(self, away: Away, operation: str) -> NoReturn:
        detail = f"no connection to {self._session.shown}: {away}"
        raise IoError(self._context.node_name, operation, errno.ENOTCONN, detail) from away

    def _check(self, end: int, operation: str) -> None:
        if self._context.read_only:
            raise NodeReadOnly(self._context.node_name)
        if end > self.size:
            raise NoSpace(self._context.node_name, operation)

    @property
    def _unmaps(self) -> bool:
        return self._context.discard is DiscardMode.UNMAP

    # --- durability --------------------------------------------------------------------------------------

    def _fua(self, flags: int) -> int:
        wanted = flags & FUA and not self._context.no_flush
        return nbd.CMD_FLAG_FUA if wanted and self._session.export.can(nbd.FLAG_SEND_FUA) else 0

    async def _finish_fua(self, flags: int) -> None:
        """A flush for a server that knows no FUA."""
        if flags & FUA and not self._session.export.can(nbd.FLAG_SEND_FUA):
            await self.flush()


def _check_writable(session: Session, context: DriverContext) -> None:
    if not context.read_only and session.export.can(nbd.FLAG_READ_ONLY):
        raise FileReadOnly(f"the export at {session.shown}")


def _limits(session: Session) -> Limits:
    export = session.export
    block = export.block
    least = block.minimum if block else ASSUMED_ALIGNMENT if export.size % ASSUMED_ALIGNMENT == 0 else 1
    largest = min(block.maximum, MAX_TRANSFER) if block else MAX_TRANSFER
    return Limits(
        request_alignment=least,
        max_transfer=align_down(largest, least),
        opt_transfer=block.preferred if block and block.preferred < MAX_TRANSFER else 0,
        max_zeroes=MAX_ZEROES,
        zero_alignment=least,
        max_discard=MAX_ZEROES,
        discard_alignment=least,
    )
