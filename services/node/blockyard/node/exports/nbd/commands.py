"""What each request means: who may send it, what it asks of the node, how its answer is built.

This is the awaited form, used for everything that `transmission` could not serve inline. It knows no socket: a
request comes in, the pieces of its reply go out, and no error of the node leaves by any other way.
"""

import errno as errno_module
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final, NamedTuple

from blockyard.base.errors import (
    AttachmentReadOnly,
    BlockError,
    IoError,
    NodeReadOnly,
    NoSpace,
    OperationUnsupported,
    RangeMisaligned,
    RangeNotKept,
    ShuttingDown,
)
from blockyard.node.exports.nbd.buffers import Piece
from blockyard.node.exports.nbd.limits import INLINE_BYTES, STATUS_EXTENTS
from blockyard.node.exports.nbd.negotiation import Session
from blockyard.node.formats import nbd
from blockyard.node.formats.nbd import Request
from blockyard.node.interface.flags import FUA, MAY_UNMAP, NO_FALLBACK

Report = Callable[[str, dict[str, str]], None]
"""Tell people of an event of the server, with details."""


class _Rule(NamedTuple):
    """How a command is checked before anything is done (sections "Request types" and "Error values")."""

    flags: int
    changes: bool
    past_end: int
    bounded: bool = False
    """`length` is a payload or a buffer, so NBD_INFO_BLOCK_SIZE's maximum holds."""


# FUA is valid with every command, whether it writes or not (section "Command flags").
RULES: Final[dict[int, _Rule]] = {
    nbd.CMD_READ: _Rule(nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_DF, False, nbd.EINVAL, True),
    nbd.CMD_WRITE: _Rule(nbd.CMD_FLAG_FUA, True, nbd.ENOSPC, True),
    nbd.CMD_FLUSH: _Rule(nbd.CMD_FLAG_FUA, False, 0),
    nbd.CMD_TRIM: _Rule(nbd.CMD_FLAG_FUA, True, nbd.EINVAL),
    nbd.CMD_CACHE: _Rule(nbd.CMD_FLAG_FUA, False, nbd.EINVAL, True),
    nbd.CMD_WRITE_ZEROES: _Rule(nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO, True, nbd.ENOSPC),
    nbd.CMD_BLOCK_STATUS: _Rule(nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_REQ_ONE, False, nbd.EINVAL),
}

_ERRORS: Final[tuple[tuple[type[BlockError], int], ...]] = (
    (NoSpace, nbd.ENOSPC),
    (NodeReadOnly, nbd.EPERM),
    (AttachmentReadOnly, nbd.EPERM),
    (RangeMisaligned, nbd.EINVAL),
    (OperationUnsupported, nbd.EINVAL),
    (RangeNotKept, nbd.EINVAL),
    (ShuttingDown, nbd.ESHUTDOWN),
)
_ERRNOS: Final = {
    errno_module.ENOSPC: nbd.ENOSPC,
    errno_module.EDQUOT: nbd.ENOSPC,
    errno_module.EFBIG: nbd.ENOSPC,
    errno_module.EPERM: nbd.EPERM,
    errno_module.EROFS: nbd.EPERM,
    errno_module.EACCES: nbd.EPERM,
    errno_module.ENOMEM: nbd.ENOMEM,
}
_STATUS_COST: Final = 8 * STATUS_EXTENTS


class Commands:
    """The requests of one session."""

    def __init__(self, session: Session, report: Report) -> None:
        self.session = session
        self._export = session.export
        self._source = session.export.source
        self._report = report
        self.write_flags = FUA if session.export.config.writethrough else 0

    # --- before ------------------------------------------------------------------------------------------

    def refusal(self, request: Request) -> Piece | None:
        """The reply to a request that may not be done; None if it may."""
        rule = RULES.get(request.kind)
        if rule is None:
            return self.failure(request, nbd.EINVAL, f"command {request.kind} is not known here")
        if request.flags & ~rule.flags:
            return self.failure(request, nbd.EINVAL, f"flags {request.flags:#x} are not valid with this command")
        if rule.changes and self._export.read_only:
            return self.failure(request, nbd.EPERM, "the export is read-only")
        if rule.past_end and request.offset + request.length > self._source.size:
            if not self._source.present:
                return self.failure(request, nbd.EIO, "there is no medium")
            return self.failure(request, rule.past_end, f"the export ends at {self._source.size}")
        if rule.past_end and (request.offset | request.length) & self.session.block_mask:
            wanted = self.session.block_mask + 1
            return self.failure(request, nbd.EINVAL, f"requests are multiples of the block size, {wanted} bytes")
        if rule.bounded and request.length > nbd.MAX_PAYLOAD:
            return self.failure(request, nbd.EINVAL, f"requests are at most {nbd.MAX_PAYLOAD} bytes long")
        if request.kind == nbd.CMD_BLOCK_STATUS and not self.session.contexts:
            return self.failure(request, nbd.EINVAL, "no metadata context was negotiated")
        return None

    def cost(self, request: Request) -> int:
        """Bytes of buffers it will hold."""
        if request.kind in (nbd.CMD_READ, nbd.CMD_WRITE):
            return request.length
        if request.kind == nbd.CMD_BLOCK_STATUS:
            return _STATUS_COST * len(self.session.contexts)
        return min(request.length, INLINE_BYTES) if request.kind == nbd.CMD_CACHE else 0

    # --- doing -------------------------------------------------------------------------------------------

    async def perform(self, request: Request, data: Piece) -> tuple[Piece, ...]:
        """Do it; the pieces of the reply. Whatever goes wrong is in the reply."""
        try:
            if not request.length and request.kind != nbd.CMD_FLUSH:
                return (self.success(request),)
            return await self._HANDLERS[request.kind](self, request, data)
        except Exception as problem:
            return (self.failed(request, problem),)

    async def _read(self, request: Request, _data: Piece) -> tuple[Piece, ...]:
        if not self.session.structured:
            reply = bytearray(nbd.SIMPLE_REPLY.size + request.length)
            await self._source.read(request.offset, memoryview(reply)[nbd.SIMPLE_REPLY.size :])
            nbd.SIMPLE_REPLY.pack_into(reply, 0, nbd.SIMPLE_REPLY_MAGIC, 0, request.cookie)
            return (reply,)
        reply = bytearray(nbd.DATA_CHUNK.size + request.length)
        await self._source.read(request.offset, memoryview(reply)[nbd.DATA_CHUNK.size :])
        nbd.DATA_CHUNK.pack_into(
            reply,
            0,
            nbd.STRUCTURED_REPLY_MAGIC,
            nbd.REPLY_FLAG_DONE,
            nbd.REPLY_TYPE_OFFSET_DATA,
            request.cookie,
            request.length + 8,
            request.offset,
        )
        return (reply,)

    async def _write(self, request: Request, data: Piece) -> tuple[Piece, ...]:
        flags = FUA if request.flags & nbd.CMD_FLAG_FUA else self.write_flags
        await self._source.write(request.offset, data, flags)
        return (self.success(request),)

    async def _flush(self, request: Request, _data: Piece) -> tuple[Piece, ...]:
        await self._source.flush()
        return (self.success(request),)

    async def _trim(self, request: Request, _data: Piece) -> tuple[Piece, ...]:
        await self._source.discard(request.offset, request.length)
        if request.flags & nbd.CMD_FLAG_FUA or self.write_flags:
            await self._source.flush()
        return (self.success(request),)

    async def _cache(self, request: Request, _data: Piece) -> tuple[Piece, ...]:
        # Reading is what brings bytes nearer, whatever the node's storage is.
        scratch = memoryview(bytearray(min(request.length, INLINE_BYTES)))
        end = request.offset + request.length
        for start in range(request.offset, end, INLINE_BYTES):
            part = scratch[: end - start]
            if not self._source.read_now(start, part):
                await self._source.read(start, part)
        return (self.success(request),)

    async def _write_zeroes(self, request: Request, _data: Piece) -> tuple[Piece, ...]:
        flags = FUA if request.flags & nbd.CMD_FLAG_FUA else self.write_flags
        if not request.flags & nbd.CMD_FLAG_NO_HOLE:
            flags |= MAY_UNMAP
        if not request.flags & nbd.CMD_FLAG_FAST_ZERO:
            await self._source.zero(request.offset, request.length, flags)
            return (self.success(request),)
        try:
            await self._source.zero(request.offset, request.length, flags | NO_FALLBACK)
        except OperationUnsupported as slow:
            return (self.failure(request, nbd.ENOTSUP, str(slow)),)
        return (self.success(request),)

    async def _block_status(self, request: Request, _data: Piece) -> tuple[Piece, ...]:
        one = bool(request.flags & nbd.CMD_FLAG_REQ_ONE)
        chunks = []
        last = self.session.contexts[-1]
        for context in self.session.contexts:
            extents = await self._extents(context[1], request, 1 if one else STATUS_EXTENTS)
            chunks.append(nbd.block_status_chunk(request.cookie, context[0], extents, done=context is last))
        return tuple(chunks)

    async def _extents(self, context: str, request: Request, limit: int) -> list[tuple[int, int]]:
        offset, length = request.offset, request.length
        if context.startswith(nbd.QEMU_DIRTY_BITMAP):
            name = context.removeprefix(nbd.QEMU_DIRTY_BITMAP)
            runs = self._source.bitmap_extents(name, offset, length, limit)
            return [(run, nbd.STATE_DIRTY if dirty else 0) for run, dirty in runs]
        extents = await self._source.block_status(offset, length, limit)
        if context == nbd.QEMU_ALLOCATION_DEPTH:
            found = [(extent.length, extent.depth + 1 if extent.allocated else 0) for extent in extents]
        else:
            found = [
                (extent.length, nbd.STATE_HOLE * (not extent.data) | nbd.STATE_ZERO * extent.zero)
                for extent in extents
            ]
        return merged(found)

    _HANDLERS: ClassVar[dict[int, Callable[["Commands", Request, Piece], Awaitable[tuple[Piece, ...]]]]] = {
        nbd.CMD_READ: _read,
        nbd.CMD_WRITE: _write,
        nbd.CMD_FLUSH: _flush,
        nbd.CMD_TRIM: _trim,
        nbd.CMD_CACHE: _cache,
        nbd.CMD_WRITE_ZEROES: _write_zeroes,
        nbd.CMD_BLOCK_STATUS: _block_status,
    }

    # --- answering ---------------------------------------------------------------------------------------

    def success(self, request: Request) -> Piece:
        """The reply to a request that was done and returns nothing."""
        # A read must not be answered by a simple reply once structured replies are negotiated.
        if self.session.structured and request.kind in (nbd.CMD_READ, nbd.CMD_BLOCK_STATUS):
            return nbd.chunk(nbd.REPLY_TYPE_NONE, request.cookie)
        return nbd.simple_reply(request.cookie)

    def failure(self, request: Request, error: int, text: str) -> Piece:
        if self.session.structured:
            return nbd.error_chunk(request.cookie, error, text)
        return nbd.simple_reply(request.cookie, error)

    def failed(self, request: Request, problem: Exception) -> Piece:
        """The reply to a request that the node could not do."""
        if isinstance(problem, BlockError):
            return self.failure(request, error_number(problem), str(problem))
        # A bug of ours: the guest sees a disk error, the operator sees what it was.
        self._report("nbd-internal-error", {"export": self._export.config.name, "problem": repr(problem)})
        return self.failure(request, nbd.EIO, "internal error")


def error_number(problem: BlockError) -> int:
    """The value of the section "Error values" that says it best."""
    if isinstance(problem, IoError):
        return _ERRNOS.get(problem.errno, nbd.EIO)
    return next((number for kind, number in _ERRORS if isinstance(problem, kind)), nbd.EIO)


def merged(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbours of equal status as one ("the server SHOULD use different status values")."""
    result: list[tuple[int, int]] = []
    for length, status in extents:
        if result and result[-1][1] == status:
            result[-1] = (result[-1][0] + length, status)
        else:
            result.append((length, status))
    return result
