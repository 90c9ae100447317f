"""The transmission phase: parse every request in the receive buffer, serve it inline, gather the replies.

Theory (design, section 3, rule 2). One turn handles all that was received, up to a bound, with one system call in
(`recv_into`), one per request (the node's `read_now` or `write_now`), one out. Replies are built in an arena:
headers and data lie behind one another, data read by the kernel straight into its place, so that a batch leaves
in one `send` and nothing is copied or joined. A request that would block becomes a task; the others go on.

Invariants
1. The arena is filled from the front until it is sent (`sent`), and not touched while the socket is full.
2. A request leaves the inbox only when its reply is in the arena or outbox, or its task runs.
3. Data of a task is its own: nothing in the inbox is referred to after the turn.

What must not be here: sockets and their readiness (`connection`), what a request means (`commands`).
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Final

from blockyard.base.errors import ProtocolViolation
from blockyard.node.exports.nbd.buffers import Budget, Inbox, Outbox, Piece
from blockyard.node.exports.nbd.commands import Commands
from blockyard.node.exports.nbd.limits import (
    ARENA_BYTES,
    GATHER_BYTES,
    INLINE_BYTES,
    TURN_REQUESTS,
    NbdLimits,
    arena_size,
)
from blockyard.node.formats import nbd
from blockyard.node.formats.nbd import Request
from blockyard.node.interface.flags import FUA

_HEADER: Final = nbd.REQUEST.size
_READ_FLAGS: Final = nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_DF


class Turn(Enum):
    """How a turn ended."""

    WAIT = auto()
    """All is served that has arrived."""
    MORE = auto()
    """There is more to serve: call again when others had the loop and the replies are sent."""
    HELD = auto()
    """The next request must wait: for a place among those in flight, or for memory."""
    CLOSE = auto()
    """The client said goodbye."""


class Figures:
    """What a client did."""

    __slots__ = ("bytes_read", "bytes_written", "requests")

    def __init__(self) -> None:
        self.requests = self.bytes_read = self.bytes_written = 0


class Transmission:
    """The requests of one connection.

    `answered` is called when a task put its reply into the outbox, `resume` when memory is there again.
    """

    def __init__(
        self,
        commands: Commands,
        inbox: Inbox,
        outbox: Outbox,
        budget: Budget,
        limits: NbdLimits,
        answered: Callable[[], None],
    ) -> None:
        self.figures = Figures()
        self.in_flight = 0
        self._commands = commands
        self._source = commands.session.export.source
        self._read_only = commands.session.export.read_only
        self._block_mask = commands.session.block_mask
        self._inbox = inbox
        self._outbox = outbox
        self._budget = budget
        self._limits = limits
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._arena = bytearray(arena_size(nbd.DATA_CHUNK.size))
        self._room = memoryview(self._arena)
        self._filled = self._left = 0
        self._held = 0
        """Bytes of the budget taken for tasks, an expected payload, and replies not yet sent."""
        self._unsent = 0
        """The part of `_held` whose replies are in the outbox."""
        self._expected: Request | None = None
        """A large write whose payload is being received; its place and memory are reserved."""
        self._skipping = 0
        """Bytes of a refused write's payload still to come; then `_skipped_reply` is sent."""
        self._skipped_reply: Piece = b""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def receiving(self) -> bool:
        """In the middle of a large payload, which holds memory that others may wait for."""
        return self._expected is not None

    # --- one turn ----------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes of the arena in use; another turn may add to it while it is below `GATHER_BYTES`."""
        return self._filled

    def turn(self) -> Turn:
        """Serve what has arrived."""
        start, self._left = self._filled, TURN_REQUESTS
        assert start < GATHER_BYTES
        outcome = self._payload()
        while outcome is None:
            outcome = self._next()
        self.figures.requests += TURN_REQUESTS - self._left
        if self._filled > start:
            self._outbox.push(self._room[start : self._filled])
        return outcome

    def _next(self) -> Turn | None:
        """Serve a run of requests of one kind; None to go on."""
        inbox = self._inbox
        if inbox.end - inbox.start < _HEADER:
            return Turn.WAIT
        if not self._left:
            return Turn.MORE
        magic, flags, kind, cookie, offset, length = nbd.REQUEST.unpack_from(inbox.data, inbox.start)
        if magic != nbd.REQUEST_MAGIC:
            raise ProtocolViolation("NBD", "request magic", f"{nbd.REQUEST_MAGIC:#x}", f"{magic:#x}")
        if kind == nbd.CMD_READ:
            return self._reads()
        if kind == nbd.CMD_WRITE:
            return self._writes()
        if kind == nbd.CMD_DISC:
            return Turn.CLOSE
        return self._defer(Request(flags, kind, cookie, offset, length), b"", inbox.start + _HEADER)

    def _reads(self) -> Turn | None:
        """A run of reads, served into the arena while the node can do so without waiting."""
        inbox, arena, room = self._inbox, self._arena, self._room
        data, position, end = inbox.data, inbox.start, inbox.end
        read_now, size, unpack = self._source.read_now, self._source.size, nbd.REQUEST.unpack_from
        mask = self._block_mask
        structured = self._commands.session.structured
        head = nbd.DATA_CHUNK.size if structured else nbd.SIMPLE_REPLY.size
        filled, left, read = self._filled, self._left, 0
        outcome: Turn | None = None
        deferred: Request | None = None
        while left and end - position >= _HEADER:
            magic, flags, kind, cookie, offset, length = unpack(data, position)
            if kind != nbd.CMD_READ or magic != nbd.REQUEST_MAGIC:
                break
            start = filled + head
            stop = start + length
            if (
                not 0 < length <= INLINE_BYTES
                or offset + length > size
                or flags & ~_READ_FLAGS
                or (mask and (offset | length) & mask)
            ):
                deferred = Request(flags, kind, cookie, offset, length)
                break
            if stop > ARENA_BYTES and filled:
                outcome = Turn.MORE
                break
            try:
                if not read_now(offset, room[start:stop]):
                    deferred = Request(flags, kind, cookie, offset, length)
                    break
            except Exception as problem:
                self._fail(Request(flags, kind, cookie, offset, length), problem)
            else:
                if structured:
                    _data_into(arena, filled, _MAGIC, _DONE, _DATA, cookie, length + 8, offset)
                else:
                    _simple_into(arena, filled, nbd.SIMPLE_REPLY_MAGIC, 0, cookie)
                filled = stop
                read += length
            position += _HEADER
            left -= 1
        self.figures.bytes_read += read
        inbox.start, self._filled, self._left = position, filled, left
        return self._defer(deferred, b"", position + _HEADER) if deferred else outcome

    def _writes(self) -> Turn | None:
        """A run of writes whose data is here, done while the node can do so without waiting."""
        inbox, arena = self._inbox, self._arena
        data, view, position, end = inbox.data, inbox.view, inbox.start, inbox.end
        write_now, size, unpack = self._source.write_now, self._source.size, nbd.REQUEST.unpack_from
        always, mask = self._commands.write_flags, self._block_mask
        filled, left, written = self._filled, self._left, 0
        deferred: Request | None = None
        while left and end - position >= _HEADER:
            magic, flags, kind, cookie, offset, length = unpack(data, position)
            if kind != nbd.CMD_WRITE or magic != nbd.REQUEST_MAGIC:
                break
            start = position + _HEADER
            stop = start + length
            if (
                not 0 < length <= INLINE_BYTES
                or stop > end
                or offset + length > size
                or self._read_only
                or flags & ~nbd.CMD_FLAG_FUA
                or (mask and (offset | length) & mask)
            ):
                deferred = Request(flags, kind, cookie, offset, length)
                break
            try:
                if not write_now(offset, view[start:stop], FUA if flags else always):
                    deferred = Request(flags, kind, cookie, offset, length)
                    break
            except Exception as problem:
                self._fail(Request(flags, kind, cookie, offset, length), problem)
            else:
                _simple_into(arena, filled, nbd.SIMPLE_REPLY_MAGIC, 0, cookie)
                filled += nbd.SIMPLE_REPLY.size
                written += length
            position = stop
            left -= 1
        self.figures.bytes_written += written
        inbox.start, self._filled, self._left = position, filled, left
        return self._defer_write(deferred) if deferred else Turn.WAIT if end - position < _HEADER else None

    # --- requests that wait ------------------------------------------------------------------------------

    def _defer(self, request: Request, data: memoryview | bytes, stop: int) -> Turn | None:
        """Refuse the request at the inbox's start, or make a task of it. It ends at `stop` of the inbox."""
        refusal = self._commands.refusal(request)
        if refusal is not None:
            self._outbox.push(refusal)
        elif not self._reserve(request):
            return Turn.HELD
        else:
            self._start(request, bytes(data))
        self._inbox.start = stop
        self._left -= 1
        return None

    def _defer_write(self, request: Request) -> Turn | None:
        inbox = self._inbox
        start = inbox.start + _HEADER
        stop = start + request.length
        if stop <= inbox.end:
            return self._defer(request, inbox.view[start:stop], stop)
        if request.length > nbd.MAX_PAYLOAD:
            raise ProtocolViolation("NBD", "write length", f"at most {nbd.MAX_PAYLOAD}", str(request.length))
        if inbox.fits(_HEADER + request.length):
            return Turn.WAIT
        refusal = self._commands.refusal(request)
        if refusal is not None:
            # Its reply must not overtake the payload: the client does not know the request before it is sent.
            self._skipping, self._skipped_reply = request.length, refusal
            inbox.start = start
        elif not self._reserve(request):
            return Turn.HELD
        else:
            inbox.start = start
            inbox.expect(request.length)
            self._expected = request
        self._left -= 1
        return self._payload()

    def _payload(self) -> Turn | None:
        """Go on with a payload that is received apart; None if there is none or it is complete."""
        inbox = self._inbox
        if self._skipping:
            skipped = min(self._skipping, inbox.end - inbox.start)
            inbox.start += skipped
            self._skipping -= skipped
            if self._skipping:
                return Turn.WAIT
            self._outbox.push(self._skipped_reply)
        elif self._expected is not None:
            payload = inbox.taken()
            if payload is None:
                return Turn.WAIT
            request, self._expected = self._expected, None
            self._start(request, payload)
        return None

    def _reserve(self, request: Request) -> bool:
        """Take a place among the requests in flight, and the memory it needs."""
        limits, cost = self._limits, self._commands.cost(request)
        if self.in_flight >= limits.requests_in_flight:
            return False
        if self._held and self._held + cost > limits.client_bytes:
            return False
        # What waits for an operator must not take the memory of everyone else; the rest waits in its socket.
        if self.in_flight and self._source.stopped and self._held + cost > limits.stopped_bytes:
            return False
        if not self._budget.take(cost, self._answered):
            return False
        self._held += cost
        self.in_flight += 1
        return True

    def _start(self, request: Request, data: Piece) -> None:
        task = self._loop.create_task(self._run(request, data))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, request))

    def _ended(self, request: Request, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._settle(request)

    async def _run(self, request: Request, data: Piece) -> None:
        for piece in await self._commands.perform(request, data):
            self._outbox.push(piece)
        self._settle(request)

    def _settle(self, request: Request) -> None:
        """The request is over; what it held is free when its reply is sent."""
        self.in_flight -= 1
        self._unsent += self._commands.cost(request)
        if request.kind == nbd.CMD_READ:
            self.figures.bytes_read += request.length
        elif request.kind == nbd.CMD_WRITE:
            self.figures.bytes_written += request.length
        self._answered()

    def _fail(self, request: Request, problem: Exception) -> None:
        self._outbox.push(self._commands.failed(request, problem))

    # --- the owner's side --------------------------------------------------------------------------------

    def sent(self) -> None:
        """The outbox is empty: the arena and the memory of what was in it are free."""
        self._filled = 0
        if self._unsent:
            count, self._unsent = self._unsent, 0
            self._held -= count
            self._budget.give(count)

    def abandon(self) -> None:
        """The client is gone: give back what no task holds. Tasks end by themselves, but for those that may wait
        for an operator: nobody is there any more to see them done."""
        if self._source.may_hold:
            for task in self._tasks:
                task.cancel()
        self._budget.forget(self._answered)
        if self._expected is not None:
            self._unsent += self._commands.cost(self._expected)
            self._expected = None
            self.in_flight -= 1
        self.sent()


_data_into = nbd.DATA_CHUNK.pack_into
_simple_into = nbd.SIMPLE_REPLY.pack_into
_MAGIC: Final = nbd.STRUCTURED_REPLY_MAGIC
_DONE: Final = nbd.REPLY_FLAG_DONE
_DATA: Final = nbd.REPLY_TYPE_OFFSET_DATA
