"""What a connection holds in memory: bytes received and not yet parsed, bytes to send, and the account of both.

Must not know messages. Sockets are only received from and sent to here.
"""

import socket
from collections import deque
from collections.abc import Callable
from typing import Final

Piece = bytes | bytearray | memoryview

_VECTOR: Final = 64
"""Pieces in one sendmsg; far below IOV_MAX, and more than a turn of async replies usually leaves."""
_ROOM: Final = 4096
"""With less room than this behind what waits, what waits is moved to the front before more is received."""


class Inbox:
    """A receive buffer that messages are parsed in, in place. Bytes `[start, end)` wait.

    A write larger than the buffer is received straight into a buffer of its own (`expect`), so that its data
    is never copied; smaller ones lie whole in `view` when the parser gets to them.
    """

    __slots__ = ("_filled", "_large", "data", "end", "start", "view")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)
        self.start = self.end = 0
        self._large: memoryview | None = None
        self._filled = 0

    def receive(self, sock: socket.socket) -> int:
        """One recv; bytes received, 0 at the end of the stream. Raises BlockingIOError and OSError."""
        if self._large is not None:
            count = sock.recv_into(self._large[self._filled :])
            self._filled += count
            return count
        if self.start == self.end:
            self.start = self.end = 0
        elif self.start and len(self.data) - self.end < _ROOM:
            self.compact()
        count = sock.recv_into(self.view[self.end :])
        self.end += count
        return count

    def compact(self) -> None:
        """Move what waits to the front."""
        waiting = self.end - self.start
        self.view[:waiting] = self.view[self.start : self.end]
        self.start, self.end = 0, waiting

    def fits(self, length: int) -> bool:
        """Whether a message of `length` bytes that begins at `start` can lie in the buffer; makes room for it."""
        if length > len(self.data):
            return False
        if self.start + length > len(self.data):
            self.compact()
        return True

    def expect(self, length: int) -> None:
        """Receive the next `length` bytes, more than wait here, into a buffer of their own."""
        self._large = memoryview(bytearray(length))
        self._filled = self.end - self.start
        self._large[: self._filled] = self.view[self.start : self.end]
        self.start = self.end = 0

    @property
    def waiting(self) -> bool:
        """There are bytes of a message that is not whole."""
        return self.start < self.end or self._large is not None

    def taken(self) -> memoryview | None:
        """The expected bytes once all are there; they belong to the caller then."""
        large = self._large
        if large is None or self._filled < len(large):
            return None
        self._large = None
        return large


class Outbox:
    """Pieces to send, in order. The owner of a piece does not touch it until `pending` no longer counts it."""

    __slots__ = ("_pieces", "pending")

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self.pending = 0
        """Bytes not yet taken by the socket."""

    def push(self, piece: Piece) -> None:
        self._pieces.append(memoryview(piece))
        self.pending += len(piece)

    def send(self, sock: socket.socket) -> bool:
        """Send until empty (True) or until the socket is full. Raises OSError if the peer is gone."""
        pieces = self._pieces
        while pieces:
            try:
                if len(pieces) == 1:
                    sent = sock.send(pieces[0])
                else:
                    sent = sock.sendmsg([pieces[index] for index in range(min(len(pieces), _VECTOR))])
            except BlockingIOError:
                return False
            self.pending -= sent
            while sent:
                piece = pieces.popleft()
                if sent < len(piece):
                    pieces.appendleft(piece[sent:])
                    break
                sent -= len(piece)
        return True


class Budget:
    """Bytes of buffers that all clients may hold together. Who gets none waits in line."""

    def __init__(self, total: int, exhausted: Callable[[], None]) -> None:
        self.total = total
        self.used = 0
        self._exhausted = exhausted
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, count: int, resume: Callable[[], None]) -> bool:
        """Whether the caller may hold `count` bytes more; if not, `resume` is called when it may ask again.

        Nobody overtakes those who wait, so that small requests do not starve a large one; and when nothing is
        held, anything is granted.
        """
        if count and self.used and (self._waiting or self.used + count > self.total):
            if resume not in self._waiting:
                self._waiting.append(resume)
            self._exhausted()
            return False
        self.used += count
        return True

    def give(self, count: int) -> None:
        """Hand back. Everyone who waits asks again, in order; who does not is no longer waited for."""
        self.used -= count
        assert self.used >= 0
        if count and self._waiting:
            waiting, self._waiting = self._waiting, deque()
            for resume in waiting:
                resume()

    @property
    def contended(self) -> bool:
        return bool(self._waiting)

    def forget(self, resume: Callable[[], None]) -> None:
        """A client that waits is gone."""
        if resume in self._waiting:
            self._waiting.remove(resume)
