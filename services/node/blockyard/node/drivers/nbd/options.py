"""What can be said of an export, and where its server is. Pure: connects to nothing.

A socket is opened only to the address of these options, which clients give. No image header leads here.
"""

from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import InvalidArgument, MissingOption
from blockyard.node.formats.nbd import MAX_STRING

MAX_SECONDS: Final = 24 * 3600
"""Bound of both delays: whoever waits longer for a server wants a person to look."""
DEFAULT_PORT: Final = 10809
"""IANA's for NBD."""

Address = str | tuple[str, int]
"""The path of a unix socket, or host and port."""


@dataclass(frozen=True, slots=True)
class NbdOptions:
    """Options of driver `nbd`."""

    address: str = ""
    """`unix:PATH`, `HOST:PORT`, `[V6]:PORT` or `HOST` (port 10809). Required."""
    export: str = ""
    """Its name; empty is the server's default. At most 4096 bytes of UTF-8."""
    reconnect_delay_seconds: int = 0
    """How long requests wait for a connection that was lost, 0 to 86400; then they fail until there is one again
    (QEMU's reconnect-delay)."""
    open_timeout_seconds: int = 0
    """How long opening tries again while the server does not answer, 0 (once) to 86400 (QEMU's open-timeout)."""


def checked(options: NbdOptions) -> Address:
    """Where to connect. Raises MissingOption or InvalidArgument."""
    if not options.address:
        raise MissingOption("driver nbd", "address")
    if len(options.export.encode()) > MAX_STRING:
        raise InvalidArgument("export", f"at most {MAX_STRING} bytes", str(len(options.export.encode())))
    for name in ("reconnect_delay_seconds", "open_timeout_seconds"):
        value = getattr(options, name)
        if not 0 <= value <= MAX_SECONDS:
            raise InvalidArgument(name, f"0 to {MAX_SECONDS}", str(value))
    return parsed(options.address)


def parsed(address: str) -> Address:
    """Raises InvalidArgument."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise InvalidArgument("address", "unix: and an absolute path", address[:128])
        return path
    host, port = _split(address)
    if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidArgument("address", "unix:PATH, HOST:PORT or [V6]:PORT", address[:128])
    return host, int(port)


def _split(address: str) -> tuple[str, str]:
    if address.startswith("["):
        host, closed, rest = address[1:].partition("]")
        if closed and not rest:
            return host, str(DEFAULT_PORT)
        return host, rest[1:] if rest.startswith(":") else ""
    host, separator, port = address.partition(":")
    return host, port if separator else str(DEFAULT_PORT)
