"""An export over connections that follow one another: requests survive the loss of one.

Must not know the graph's words; `driver` translates.

Theory (QEMU's nbd_co_request and reconnect-delay). When a connection is lost the session connects again until it
succeeds or is closed. For `reconnect_delay_seconds` requests wait and are sent again; then they fail at once until
there is a connection. Before anything else the new connection gets what was acknowledged and not flushed
(`unflushed`). That is right as long as nobody else writes to the export, which permissions above see to.

Invariants
1. A flush that succeeds covers every write that was acknowledged before it was asked for, whatever became of
   connections and servers between them.
2. A server that is back with another size, or read-only where it was writable, is not used.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from blockyard.base.clock import Clock
from blockyard.base.errors import BlockError, PeerUnavailable
from blockyard.node.drivers.nbd.handshake import Export, negotiate
from blockyard.node.drivers.nbd.options import Address
from blockyard.node.drivers.nbd.transmission import ConnectionLost, Refused, Transmission
from blockyard.node.drivers.nbd.unflushed import FLUSH_BYTES, MAX_BYTES, Unflushed
from blockyard.node.formats import nbd
from blockyard.node.interface.child import Buffer

MAX_IN_FLIGHT: Final = 64
"""Requests on the wire at once. Servers work on 16 (qemu-nbd, nbdkit) and leave the rest in the socket."""
HANDSHAKE_SECONDS: Final = 10.0
"""For connecting and agreeing, together."""
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0
"""Between attempts; each pause is twice the one before."""
_KEEP_ALIVE: Final = (
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 4),
)
"""A peer that is cut off is noticed after 30 s without traffic; the kernel's own idea is two hours."""
_UNACKNOWLEDGED_MS: Final = 30_000
"""The same while data of ours waits for the peer's acknowledgement (TCP_USER_TIMEOUT)."""
_CHANGING: Final = (nbd.CMD_WRITE, nbd.CMD_WRITE_ZEROES, nbd.CMD_TRIM)
_FAILURES: Final = (OSError, BlockError, ConnectionLost, Refused)

Report = Callable[[str, dict[str, str]], None]
Result = TypeVar("Result")


class Away(Exception):
    """There is no connection, and nobody waits for one any more."""


class Session:
    """`await Session.open(...)`; then `request` and `flush`."""

    def __init__(
        self, address: Address, export_name: str, clock: Clock, reconnect_delay: float, report: Report
    ) -> None:
        self.shown = f"unix:{address}" if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self.export: Export
        self._address = address
        self._name = export_name
        self._clock = clock
        self._delay = reconnect_delay
        self._report = report
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._unflushed = Unflushed()
        self._flushing: asyncio.Task[None] | None = None
        self._live: Transmission | None = None
        self._why = ""
        """What became of the last connection, or attempt."""
        self._gave_up = False
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolved when there is a connection again, or requests are not to wait for one any more."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone: dict[Transmission, asyncio.Event] = {}
        self._closing = False

    async def open(self, timeout_seconds: float) -> None:
        """Connect, trying again for so long. Raises what `negotiate` raises, or PeerUnavailable."""
        deadline_ns = self._clock.monotonic_ns() + round(timeout_seconds * 1e9)
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                self._live, self.export = await self._connect()
            except (OSError, PeerUnavailable) as problem:
                if self._clock.monotonic_ns() >= deadline_ns:
                    raise self._unavailable(problem) from problem
            else:
                return
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def close(self) -> None:
        """Say goodbye. What was not flushed is the caller's loss."""
        self._closing = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._live is not None:
            self._live.say_goodbye()
        for transmission, gone in tuple(self._gone.items()):
            if transmission is not self._live:
                transmission.abort(ConnectionAbortedError("closed"))
            await gone.wait()
        self._fail_waiters()

    # --- requests ----------------------------------------------------------------------------------------

    async def request(
        self,
        kind: int,
        offset: int,
        length: int,
        flags: int = 0,
        into: memoryview | None = None,
        data: Buffer | None = None,
    ) -> list[tuple[int, int]]:
        """The reply, over as many connections as it takes. Raises Refused or Away."""
        changes = kind in _CHANGING and self.export.can(nbd.FLAG_SEND_FLUSH)
        if changes and self._unflushed.bytes > MAX_BYTES:
            await self._make_room()
        while True:
            async with self._slots:
                transmission = self._live or await self._again()
                try:
                    extents = await transmission.request(kind, offset, length, flags, into, data)
                except ConnectionLost:
                    continue
            if changes and not flags & nbd.CMD_FLAG_FUA:
                self._unflushed.add(kind, offset, length, flags, None if data is None else bytes(data))
                if self._unflushed.bytes > FLUSH_BYTES:
                    self._flush_beside()
            return extents

    async def flush(self) -> None:
        """Everything that was acknowledged is on stable storage. Raises Refused or Away."""
        if not self.export.can(nbd.FLAG_SEND_FLUSH):
            return
        mark = self._unflushed.mark()
        await self.request(nbd.CMD_FLUSH, 0, 0)
        self._unflushed.settle(mark)

    def _flush_beside(self) -> asyncio.Task[None]:
        """So that less is kept; one at a time. If it fails, the next flush that is asked for tells."""
        if self._flushing is None or self._flushing.done():
            self._flushing = self._start(self.flush())
            self._flushing.add_done_callback(_failed)
        return self._flushing

    async def _make_room(self) -> None:
        """Raises Refused or Away if the server does not flush: then it gets no more to lose."""
        flushing = self._flush_beside()
        await asyncio.wait([flushing])
        if not flushing.cancelled() and (problem := flushing.exception()) is not None:
            raise problem

    # --- connections -------------------------------------------------------------------------------------

    async def _again(self) -> Transmission:
        """The next connection. Raises Away."""
        while self._live is None:
            if self._gave_up or self._closing:
                raise Away(self._why)
            await asyncio.shield(self._turn)
        return self._live

    def _lost(self, transmission: Transmission, cause: Exception) -> None:
        self._gone.pop(transmission).set()
        if transmission is not self._live:
            return
        self._live = None
        if self._closing:
            return
        self._why = str(cause)
        self._turn = asyncio.get_running_loop().create_future()
        self._gave_up = not self._delay
        self._report("connection-lost", {"address": self.shown, "error": self._why})
        self._start(self._reconnect())

    async def _reconnect(self) -> None:
        patience = self._start(self._give_up_later()) if self._delay else None
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                live, export = await self._connect()
                await self._take_over(live, export)
            except _FAILURES as problem:
                self._why = str(self._unavailable(problem))
            else:
                break
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        if patience is not None:
            patience.cancel()
        self._live, self._gave_up = live, False
        self._fail_waiters()
        self._report("reconnected", {"address": self.shown})

    async def _give_up_later(self) -> None:
        await self._clock.sleep(self._delay)
        self._gave_up = True
        self._fail_waiters()

    def _fail_waiters(self) -> None:
        """Everyone who waits looks again."""
        if not self._turn.done():
            self._turn.set_result(None)

    async def _take_over(self, live: Transmission, export: Export) -> None:
        """Bring a server that is there again to where the last one was."""
        try:
            self._check_same(export)
            for entry in self._unflushed.entries():
                await live.request(entry.kind, entry.offset, entry.length, entry.flags, None, entry.data)
        except BaseException as problem:
            live.abort(problem if isinstance(problem, Exception) else ConnectionAbortedError())
            raise

    def _check_same(self, export: Export) -> None:
        before, lost = self.export, self.export.flags & ~export.flags
        became_read_only = export.flags & ~before.flags & nbd.FLAG_READ_ONLY
        if export.size != before.size or became_read_only or lost & nbd.FLAG_SEND_FLUSH:
            found = f"{export.size} bytes, flags {export.flags:#x}"
            expected = f"{before.size} bytes, flags {before.flags:#x}"
            raise PeerUnavailable("NBD", self.shown, f"its export was {expected} and is {found} now: open it again")
        self.export = export

    async def _connect(self) -> tuple[Transmission, Export]:
        """Raises OSError and what `negotiate` raises."""
        sock = await self._within(self._connected_socket())
        try:
            export = await self._within(negotiate(sock, self._name, self.shown))
            transmission = Transmission(export.structured, export.allocation_id, self._lost)
            self._gone[transmission] = asyncio.Event()
            loop = asyncio.get_running_loop()
            if sock.family == socket.AF_UNIX:
                await loop.create_unix_connection(lambda: transmission, sock=sock)
            else:
                await loop.create_connection(lambda: transmission, sock=sock)
        except BaseException:
            sock.close()
            raise
        return transmission, export

    async def _connected_socket(self) -> socket.socket:
        if isinstance(self._address, str):
            return await _connected(socket.AF_UNIX, self._address)
        loop = asyncio.get_running_loop()
        problem = OSError(errno.EHOSTUNREACH, "the name has no address")
        for family, _, _, _, address in await loop.getaddrinfo(*self._address, type=socket.SOCK_STREAM):
            try:
                return await _connected(family, address)
            except OSError as failure:
                problem = failure
        raise problem

    async def _within(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Raises TimeoutError."""
        doing = asyncio.ensure_future(work)
        clock = asyncio.ensure_future(self._clock.sleep(HANDSHAKE_SECONDS))
        try:
            await asyncio.wait((doing, clock), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise TimeoutError(f"no answer within {HANDSHAKE_SECONDS:g} s")
            return doing.result()
        finally:
            for each in (doing, clock):
                each.cancel()
            await asyncio.gather(doing, clock, return_exceptions=True)

    def _unavailable(self, problem: Exception) -> BlockError:
        if isinstance(problem, BlockError):
            return problem
        text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        return PeerUnavailable("NBD", self.shown, text or type(problem).__name__)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _failed(task: asyncio.Task[None]) -> bool:
    """Whether it did; asking keeps the loop from complaining that nobody did."""
    return task.cancelled() or task.exception() is not None


async def _connected(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
        await asyncio.get_running_loop().sock_connect(sock, address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock
