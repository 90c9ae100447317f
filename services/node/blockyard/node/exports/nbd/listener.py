"""Where clients arrive: unix sockets with mode 0600 and TCP ports. Accepted sockets are handed on.

Must not know what is spoken over them.
"""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import AddressUnavailable
from blockyard.node.exports.nbd.limits import ACCEPT_BATCH, BACKLOG, SOCKET_BYTES

Address = Path | tuple[str, int]
"""A unix socket's path, or host and port (0: any free one)."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS: Final = 1.0
"""Without descriptors accept fails at once, again and again: leave the clients in the backlog for a while."""


class Listener:
    """One listening socket."""

    def __init__(
        self, sock: socket.socket, address: Address, clock: Clock, arrived: Callable[[socket.socket, str], None]
    ) -> None:
        self.address = address
        """The real one: with the port that the kernel chose."""
        self._sock = sock
        self._clock = clock
        self._arrived = arrived
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.Task[None] | None = None
        self._inode = address.lstat().st_ino if isinstance(address, Path) else 0
        self._loop.add_reader(sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as problem:
                if problem.errno in _EXHAUSTED and self._pause is None:
                    self._loop.remove_reader(self._sock.fileno())
                    self._pause = self._loop.create_task(self._pause_accepting())
                return
            sock.setblocking(False)
            _tune(sock)
            self._arrived(sock, f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "")

    async def _pause_accepting(self) -> None:
        await self._clock.sleep(_PAUSE_SECONDS)
        self._pause = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    async def close(self) -> None:
        """Stop listening; a unix socket's file goes, if it still is ours."""
        if self._pause is not None:
            self._pause.cancel()
            await asyncio.wait([self._pause])
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        if isinstance(self.address, Path):
            with contextlib.suppress(FileNotFoundError):
                if self.address.lstat().st_ino == self._inode:
                    self.address.unlink()


async def listen(address: Address, clock: Clock, arrived: Callable[[socket.socket, str], None]) -> list[Listener]:
    """Listen; a host name may stand for several addresses. Raises AddressUnavailable, and then none is open."""
    if isinstance(address, Path):
        return [Listener(_bind_unix(address), address, clock, arrived)]
    listeners: list[Listener] = []
    host, port = address
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, resolved in found:
            # Port 0: the further addresses of the name get the port that the first was given.
            sock = _bind_tcp(family, kind, protocol, (resolved[0], port, *resolved[2:]))
            port = sock.getsockname()[1]
            listeners.append(Listener(sock, (str(resolved[0]), port), clock, arrived))
    except OSError as problem:
        for listener in listeners:
            await listener.close()
        raise AddressUnavailable(f"{host}:{port}", problem.strerror or str(problem)) from problem
    return listeners


def _bind_tcp(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: Path) -> socket.socket:
    _remove_dead(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Linux gives the file the mode of the socket's own inode, so it is never open to others, not even briefly.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as problem:
        sock.close()
        raise AddressUnavailable(f"unix:{path}", problem.strerror or str(problem)) from problem
    return sock


def _remove_dead(path: Path) -> None:
    """Remove the socket file of a server that is no more. Anything else is left alone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as problem:
        raise AddressUnavailable(f"unix:{path}", problem.strerror or str(problem)) from problem
    if not stat.S_ISSOCK(mode):
        raise AddressUnavailable(f"unix:{path}", "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as problem:
            raise AddressUnavailable(f"unix:{path}", problem.strerror or str(problem)) from problem
    raise AddressUnavailable(f"unix:{path}", "another server listens there")


def _tune(sock: socket.socket) -> None:
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        return
    # The protocol's document asks for it; keep-alive finds clients whose host died.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
