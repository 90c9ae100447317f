"""One connection in the transmission phase: requests out, replies in, matched by their cookies.

Must not reconnect, and must not know the graph. Data of large reads is received straight into the reader's buffer.

Invariants
1. Every request ends: with its result, with the server's error (`Refused`), or with `ConnectionLost`.
2. Nothing the server sends is believed: a reply to no request, data outside the range that was asked, a length
   above the bounds ends the connection (ProtocolViolation as the cause of `ConnectionLost`).
3. A read that succeeds has filled its whole range with bytes of this reply, never with what lay in the buffer.
4. A request that nobody waits for any more writes to no buffer of the caller's.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from blockyard.base.errors import ProtocolViolation
from blockyard.base.units import KIB
from blockyard.node.formats import nbd
from blockyard.node.interface.child import Buffer

INBOX_BYTES: Final = 256 * KIB
"""Receive buffer. Larger payloads bypass it, smaller ones are copied out of it."""
MAX_CHUNK: Final = 64 * KIB
"""Payload of a chunk that is no data: block status (12 bytes for one extent), error texts up to 4096 bytes."""
JOINED_BYTES: Final = 64 * KIB
"""Up to here a request and its data leave in one call; a longer copy costs more than a second call."""


class ConnectionLost(Exception):
    """The connection ended before the reply; what the request did is not known."""


class Refused(Exception):
    """The server's answer is an error."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(errno, text)
        self.errno = errno
        self.text = text


@dataclass(slots=True, eq=False)
class Pending:
    """A request on its way."""

    kind: int
    offset: int
    length: int
    into: memoryview | None
    future: "asyncio.Future[list[tuple[int, int]]]"
    """Extents of a block status, else nothing."""
    error: Refused | None = None
    filled: int = 0
    """Bytes of `into` that were received."""
    next_offset: int = 0
    """Where the next chunk begins if they come in order."""
    extents: list[tuple[int, int]] = field(default_factory=list)


class Transmission(asyncio.BufferedProtocol):
    """Requests and replies."""

    def __init__(
        self, structured: bool, allocation_id: int | None, lost: Callable[["Transmission", Exception], None]
    ) -> None:
        self._structured = structured
        self._allocation_id = allocation_id
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, Pending] = {}
        self._cookie = 0
        self._data = bytearray(INBOX_BYTES)
        self._view = memoryview(self._data)
        self._start = self._end = 0
        self._direct: memoryview | None = None
        """Where the payload that is being received goes."""
        self._receiving: tuple[Pending, bool] | None = None
        """Whose it is, and whether its reply ends with it."""
        self._cause: Exception | None = None
        self._room: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport

    # --- requests ----------------------------------------------------------------------------------------

    async def request(
        self, kind: int, offset: int, length: int, flags: int, into: memoryview | None, data: Buffer | None
    ) -> list[tuple[int, int]]:
        """Send and wait for the reply. Raises Refused or ConnectionLost."""
        while self._room is not None:
            await asyncio.shield(self._room)
        if self._cause is not None:
            raise ConnectionLost from self._cause
        pending = Pending(kind, offset, length, into, self._loop.create_future(), next_offset=offset)
        self._cookie = cookie = (self._cookie + 1) & (1 << 64) - 1
        self._pending[cookie] = pending
        self._write(nbd.request(kind, cookie, offset, length, flags), data)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._forget(pending)
            if data is not None and self._transport.get_write_buffer_size():
                await asyncio.wait([pending.future])  # the transport may still hold the caller's bytes
            raise

    def _write(self, header: bytes, data: Buffer | None) -> None:
        if data is None:
            self._transport.write(header)
        elif len(data) <= JOINED_BYTES:
            self._transport.write(b"".join((header, data)))
        else:
            self._transport.write(header)
            self._transport.write(memoryview(data))

    def _forget(self, pending: Pending) -> None:
        if pending.into is None:
            return
        scratch = memoryview(bytearray(pending.length))
        if self._direct is not None and self._receiving is not None and self._receiving[0] is pending:
            self._direct = scratch[: len(self._direct)]
        pending.into = scratch

    def say_goodbye(self) -> None:
        """NBD_CMD_DISC, and close."""
        if self._cause is None:
            self._transport.write(nbd.request(nbd.CMD_DISC, 0))
            self._transport.close()

    def abort(self, cause: Exception) -> None:
        """End the connection at once."""
        if self._cause is None:
            self._end_all(cause)
            self._transport.abort()

    # --- the transport's side ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._end_all(error or ConnectionResetError("the server hung up"))

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    def _end_all(self, cause: Exception) -> None:
        if self._cause is not None:
            return
        self._cause = cause
        self.resume_writing()
        pending, self._pending = self._pending, {}
        self._direct = self._receiving = None
        for each in pending.values():
            if not each.future.done():
                lost = ConnectionLost()
                lost.__cause__ = cause
                each.future.set_exception(lost)
        self._lost(self, cause)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._direct is not None:
            return self._direct
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._data) - self._end < MAX_CHUNK + nbd.CHUNK.size:
            waiting = self._end - self._start
            self._view[:waiting] = self._view[self._start : self._end]
            self._start, self._end = 0, waiting
        return self._view[self._end :]

    def buffer_updated(self, count: int) -> None:
        try:
            if self._direct is None:
                self._end += count
            else:
                self._direct = self._direct[count:]
                if self._direct:
                    return
                self._received()
            while self._direct is None and self._cause is None and self._parse():
                pass
        except ProtocolViolation as violation:
            self.abort(violation)

    # --- replies -----------------------------------------------------------------------------------------

    def _parse(self) -> bool:
        """One message, as far as it is there; False if more must come first."""
        waiting = self._end - self._start
        if waiting < 4:
            return False
        magic = int.from_bytes(self._view[self._start : self._start + 4], "big")
        if magic == nbd.SIMPLE_REPLY_MAGIC:
            return waiting >= nbd.SIMPLE_REPLY.size and self._simple()
        return waiting >= nbd.CHUNK.size and self._chunk(waiting)

    def _simple(self) -> bool:
        cookie, error = nbd.parse_simple_reply(self._take(nbd.SIMPLE_REPLY.size))
        pending = self._of(cookie)
        if error:
            pending.error = Refused(error, "")
        if pending.kind != nbd.CMD_READ or error:
            self._finish(cookie, pending)
            return True
        if self._structured:
            raise ProtocolViolation("NBD", "reply to a read", "a structured one", "a simple one")
        self._fill(cookie, pending, pending.offset, pending.length, done=True)
        return True

    def _chunk(self, waiting: int) -> bool:
        header = nbd.parse_chunk(self._view[self._start : self._start + nbd.CHUNK.size])
        if not self._structured:
            raise ProtocolViolation("NBD", "reply", "a simple one", "a structured one")
        pending, done = self._of(header.cookie), bool(header.flags & nbd.REPLY_FLAG_DONE)
        if header.kind == nbd.REPLY_TYPE_OFFSET_DATA:
            if waiting < nbd.DATA_CHUNK.size:
                return False
            offset = int(nbd.DATA_CHUNK.unpack(self._take(nbd.DATA_CHUNK.size))[-1])
            self._fill(header.cookie, pending, offset, header.length - 8, done)
            return True
        if header.length > MAX_CHUNK:
            raise ProtocolViolation("NBD", "chunk length", f"at most {MAX_CHUNK}", str(header.length))
        if waiting < nbd.CHUNK.size + header.length:
            return False
        self._take(nbd.CHUNK.size)
        self._small_chunk(pending, header.kind, bytes(self._take(header.length)))
        if done:
            self._finish(header.cookie, pending)
        return True

    def _small_chunk(self, pending: Pending, kind: int, payload: bytes) -> None:
        if kind & nbd.REPLY_ERROR_BIT:
            error, text = nbd.parse_error(payload)
            pending.error = pending.error or Refused(error or nbd.EIO, text)
        elif kind == nbd.REPLY_TYPE_OFFSET_HOLE:
            offset, length = nbd.parse_hole(payload)
            target = self._target(pending, offset, length)
            target[:] = bytes(length)
            pending.filled += length
        elif kind == nbd.REPLY_TYPE_BLOCK_STATUS and pending.kind == nbd.CMD_BLOCK_STATUS:
            context_id, extents = nbd.parse_block_status(payload)
            if context_id == self._allocation_id:
                pending.extents = extents
        elif kind != nbd.REPLY_TYPE_NONE or payload:
            raise ProtocolViolation("NBD", "chunk type", "one that answers the request", str(kind))

    def _fill(self, cookie: int, pending: Pending, offset: int, length: int, done: bool) -> None:
        """Receive data of a read: what is here at once, the rest as it comes."""
        target = self._target(pending, offset, length)
        pending.filled += length
        here = min(length, self._end - self._start)
        target[:here] = self._take(here)
        if here < length:
            self._direct = target[here:]
            self._receiving = (pending, done)
            self._receiving_cookie = cookie
        elif done:
            self._finish(cookie, pending)

    def _received(self) -> None:
        assert self._receiving is not None
        (pending, done), self._receiving, self._direct = self._receiving, None, None
        if done:
            self._finish(self._receiving_cookie, pending)

    def _target(self, pending: Pending, offset: int, length: int) -> memoryview:
        """The part of the reader's buffer that a chunk is for."""
        at = offset - pending.offset
        if pending.into is None or length <= 0 or at < 0 or at + length > pending.length:
            asked = f"inside [{pending.offset}, +{pending.length})"
            raise ProtocolViolation("NBD", "data of a reply", asked, f"[{offset}, +{length})")
        if offset != pending.next_offset:
            # Chunks may come in any order, but a server that leaves some out shows nobody what was in the buffer.
            rest = pending.into[pending.next_offset - pending.offset :]
            rest[:] = bytes(len(rest))
            pending.next_offset = pending.offset + pending.length
        else:
            pending.next_offset = offset + length
        return pending.into[at : at + length]

    def _finish(self, cookie: int, pending: Pending) -> None:
        del self._pending[cookie]
        if pending.error is None:
            self._check_whole(pending)
        if pending.future.done():
            return
        if pending.error is not None:
            pending.future.set_exception(pending.error)
        else:
            pending.future.set_result(pending.extents)

    def _check_whole(self, pending: Pending) -> None:
        if pending.kind == nbd.CMD_READ and pending.filled != pending.length:
            wrong = ProtocolViolation("NBD", "data of a read", str(pending.length), str(pending.filled))
        elif pending.kind == nbd.CMD_BLOCK_STATUS and not pending.extents:
            wrong = ProtocolViolation("NBD", "block status", "an extent", "none")
        else:
            return
        self._pending[0] = pending  # it ends with the connection
        raise wrong

    def _of(self, cookie: int) -> Pending:
        pending = self._pending.get(cookie)
        if pending is None:
            raise ProtocolViolation("NBD", "cookie of a reply", "one of a request in flight", str(cookie))
        return pending

    def _take(self, count: int) -> memoryview:
        taken = self._view[self._start : self._start + count]
        self._start += count
        return taken
