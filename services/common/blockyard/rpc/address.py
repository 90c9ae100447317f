"""Addresses that services listen on and clients dial, and nothing else.

Two kinds: `unix:/absolute/path` and `host:port` (`[::1]:port` for IPv6 literals). Port 0 asks the kernel for one
and is meant for listening only.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Self

from blockyard.base.errors import InvalidArgument

MAX_UNIX_PATH: Final = 107
"""Bytes of a socket's path without its terminator (unix(7): sun_path holds 108)."""

_EXPECTED: Final = "unix:/path, host:port or [ipv6]:port"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service is. Exactly one of `path` and `host` is set."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidArgument for anything that is no address."""
        if text.startswith("unix:"):
            return cls(path=_unix_path(text))
        host, colon, port = text.rpartition(":")
        literal = host.startswith("[") and host.endswith("]")
        if not colon or not host or host == "[]" or (":" in host and not literal) or "/" in host:
            raise InvalidArgument("address", _EXPECTED, repr(text))
        if not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise InvalidArgument("address", "a port of 0 to 65535", repr(text))
        return cls(host=host[1:-1] if literal else host, port=int(port))

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @property
    def target(self) -> str:
        """As a gRPC channel takes it."""
        return str(self)

    @property
    def bind(self) -> str:
        """As a gRPC server takes it."""
        return str(self)

    def with_port(self, port: int) -> "Address":
        """The same host with the port that the kernel chose."""
        return self if self.is_unix else Address(host=self.host, port=port)

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def default_socket(environment: Mapping[str, str] = os.environ) -> str:
    """Where the daemon listens, and clients dial, when nobody says otherwise: in the user's runtime directory."""
    return f"unix:{environment.get('XDG_RUNTIME_DIR') or '/run'}/blockyard/blockyard.sock"


def _unix_path(text: str) -> str:
    # gRPC spells the same socket unix:/path and unix:///path.
    path = text.removeprefix("unix:")
    path = path.removeprefix("//") if path.startswith("///") else path
    if not PurePosixPath(path).is_absolute() or path.startswith("//") or "\0" in path:
        raise InvalidArgument("address", "an absolute path after unix:", repr(text))
    if len(path.encode()) > MAX_UNIX_PATH:
        raise InvalidArgument("address", f"a socket path of at most {MAX_UNIX_PATH} bytes", repr(text))
    return path
