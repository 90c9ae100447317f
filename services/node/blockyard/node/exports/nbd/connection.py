"""One client: its socket, when it is read and written, and how it ends.

Theory. The connection owns a non-blocking socket of the event loop (`add_reader`, `add_writer`) rather than an
asyncio transport: a transport joins vectors on 3.11 and hands every send through a buffer, which halved 256 KiB
reads. One method, `_advance`, moves everything on: send what is ready, then serve a turn, then say what to wait
for. Whoever has news (a readable or writable socket, an ended task, free memory) only calls it or schedules it.

Invariants
1. The socket is read only while a turn may take more: not while replies wait for a peer that does not read them,
   not while the next request waits for a place or for memory.
2. A client that breaks the protocol, stalls or vanishes is dropped; nobody else notices.
3. `gone` is done only when the socket is closed and no request is in flight: then its node may be let go.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from blockyard.base.errors import ProtocolViolation
from blockyard.node.exports.nbd.buffers import Budget, Inbox, Outbox
from blockyard.node.exports.nbd.commands import Commands, Report
from blockyard.node.exports.nbd.limits import (
    ARENA_BYTES,
    GATHER_BYTES,
    GATHER_TURNS,
    INBOX_BYTES,
    TURN_REQUESTS,
    NbdLimits,
)
from blockyard.node.exports.nbd.negotiation import Catalogue, Negotiation, State
from blockyard.node.exports.nbd.transmission import Figures, Transmission, Turn


class Phase(StrEnum):
    """What a connection is doing."""

    NEGOTIATING = "negotiating"
    SERVING = "serving"
    CLOSING = "closing"
    """The client said goodbye; what is in flight still ends."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A client as operators see it."""

    address: str
    """host:port; empty for a unix socket."""
    export: str
    """Empty while negotiating."""
    phase: Phase
    connected_ns: int
    """Wall clock."""
    requests: int
    in_flight: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a connection gets from its server."""

    catalogue: Catalogue
    budget: Budget
    limits: NbdLimits
    report: Report
    chosen: "Callable[[Connection], None]"
    """Called when the client has entered the transmission phase."""
    gone: "Callable[[Connection], None]"
    """Called once, when the socket is closed and nothing is in flight."""


class Connection:
    """A client from accept to the end."""

    def __init__(self, sock: socket.socket, address: str, connected_ns: int, around: Surroundings) -> None:
        self.phase = Phase.NEGOTIATING
        self.address = address
        self.export_name = ""
        self.connected_ns = connected_ns
        self.progress = 0
        """Grows with everything that the client sends or reads: a watcher sees whether it stalls."""
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._descriptor = sock.fileno()
        self._around = around
        self._inbox = Inbox(INBOX_BYTES)
        self._outbox = Outbox()
        self._negotiation = Negotiation(around.catalogue, around.limits.option_bytes)
        self._transmission: Transmission | None = None
        self._is_reading = self._is_writing = self._is_scheduled = False
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        """Greet the client."""
        self._advance_safely()

    # --- what others ask ---------------------------------------------------------------------------------

    def info(self) -> ClientInfo:
        transmission = self._transmission
        figures = transmission.figures if transmission else Figures()
        return ClientInfo(
            self.address,
            self.export_name,
            self.phase,
            self.connected_ns,
            figures.requests,
            transmission.in_flight if transmission else 0,
            figures.bytes_read,
            figures.bytes_written,
        )

    @property
    def owes(self) -> bool:
        """Memory is held for a payload that the client has not sent whole, or replies that it has not read."""
        return self._transmission is not None and (self._transmission.receiving or self._outbox.pending > 0)

    def drop(self, why: str) -> None:
        """End the connection now. Requests in flight end by themselves, unanswered."""
        if self.phase is Phase.CLOSED:
            return
        if why:
            self._around.report("nbd-client-dropped", {"export": self.export_name, "why": why})
        self.phase = Phase.CLOSED
        self._read(False)
        self._write(False)
        self._sock.close()
        if self._transmission is not None:
            self._transmission.abandon()
        self._retire()

    async def gone(self) -> None:
        """Until the socket is closed and nothing is in flight."""
        await asyncio.shield(self._ended)

    # --- events ------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        # While a turn is due, the inbox is emptied first.
        if not self._is_scheduled and self._receive():
            self._advance_safely()

    def _receive(self) -> bool:
        """Receive once; False if there was nothing or the connection ended by it."""
        try:
            count = self._inbox.receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionResetError:
            count = 0  # It closed its socket with replies unread: an end like any other.
        except OSError as problem:
            self.drop(f"receiving failed: {problem.strerror}")
            return False
        if not count:
            clean = self.phase is Phase.NEGOTIATING or not self._inbox.waiting
            self.drop("" if clean else "it vanished in the middle of a request")
            return False
        self.progress += 1
        return True

    def _resume(self) -> None:
        """There are replies to send, or room for the next request: go on soon, once for all news of this turn."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._scheduled)

    def _scheduled(self) -> None:
        self._is_scheduled = False
        if self.phase is not Phase.CLOSED:
            self._advance_safely()
        elif self._transmission is not None:
            self._transmission.sent()
            self._retire()

    def _advance_safely(self) -> None:
        try:
            self._advance()
        except ProtocolViolation as violation:
            self.drop(str(violation))
        except OSError as problem:
            self.drop(f"sending failed: {problem.strerror}")
        except Exception as problem:
            # A bug of ours costs this client its connection, never the server.
            self._around.report("nbd-internal-error", {"export": self.export_name, "problem": repr(problem)})
            self.drop("internal error")

    # --- moving on ---------------------------------------------------------------------------------------

    def _advance(self) -> None:
        if not self._send():
            return
        if self.phase is Phase.CLOSING:
            self._finish()
            return
        turn = self._negotiate() if self._transmission is None else self._serve(self._transmission)
        if self.phase is Phase.CLOSED or not self._send():
            return
        if turn is Turn.CLOSE:
            self.phase = Phase.CLOSING
            self._finish()
            return
        self._read(turn is not Turn.HELD)
        if turn is Turn.MORE:
            self._resume()

    def _send(self) -> bool:
        """Send the outbox; False if the peer must read first, and then nothing more is taken from it."""
        outbox = self._outbox
        pending = outbox.pending
        if pending and not outbox.send(self._sock):
            self.progress += outbox.pending < pending
            self._read(False)
            self._write(True)
            return False
        self._write(False)
        if self._transmission is not None:
            self._transmission.sent()
        return True

    def _serve(self, transmission: Transmission) -> Turn:
        turn = transmission.turn()
        for _ in range(GATHER_TURNS):
            if turn is not Turn.WAIT or not self._inbox.waiting or transmission.unsent >= GATHER_BYTES:
                break
            if not self._receive():
                break
            turn = transmission.turn()
        return turn

    def _negotiate(self) -> Turn:
        """Take options until there is no whole one, the client has chosen, or enough was answered for one turn."""
        inbox, negotiation = self._inbox, self._negotiation
        more = True
        for _ in range(TURN_REQUESTS):
            if len(negotiation.output) >= ARENA_BYTES:
                break
            consumed = negotiation.receive(inbox.view[inbox.start : inbox.end])
            inbox.start += consumed
            more = consumed > 0 and negotiation.state is State.OPTIONS
            if not more:
                break
        if negotiation.output:
            self._outbox.push(bytes(negotiation.output))
            negotiation.output.clear()
        if negotiation.state is State.ENDED:
            return Turn.CLOSE
        if negotiation.state is State.CHOSEN:
            self._enter()
            return Turn.MORE
        return Turn.MORE if more else Turn.WAIT

    def _enter(self) -> None:
        session = self._negotiation.session
        assert session is not None
        around = self._around
        self._transmission = Transmission(
            Commands(session, around.report), self._inbox, self._outbox, around.budget, around.limits, self._resume
        )
        self.phase = Phase.SERVING
        self.export_name = session.export.config.name
        self.export = session.export
        session.export.clients.add(self)
        around.chosen(self)

    def _finish(self) -> None:
        """After goodbye: close when all that was asked is done and answered."""
        self._read(False)
        if self._transmission is None or not self._transmission.in_flight:
            self.drop("")

    def _retire(self) -> None:
        if self._ended.done() or (self._transmission is not None and self._transmission.in_flight):
            return
        if self._transmission is not None:
            self.export.clients.discard(self)
        self._ended.set_result(None)
        self._around.gone(self)

    # --- readiness ---------------------------------------------------------------------------------------

    def _read(self, wanted: bool) -> None:
        if wanted is not self._is_reading:
            self._is_reading = wanted
            if wanted:
                self._loop.add_reader(self._descriptor, self._readable)
            else:
                self._loop.remove_reader(self._descriptor)

    def _write(self, wanted: bool) -> None:
        if wanted is not self._is_writing:
            self._is_writing = wanted
            if wanted:
                self._loop.add_writer(self._descriptor, self._advance_safely)
            else:
                self._loop.remove_writer(self._descriptor)
