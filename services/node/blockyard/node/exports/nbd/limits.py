"""The bounds of the NBD server. docs/limits.md gives their reasons to people.

A hostile client reaches one of these and is slowed or dropped; the others do not notice.
"""

from dataclasses import dataclass
from typing import Final

from blockyard.base.units import KIB, MIB

INLINE_BYTES: Final = 1 * MIB
"""Longer reads and writes always take a task: copying more holds the loop for over 100 us."""
INBOX_BYTES: Final = 1 * MIB
"""Receive buffer of a connection; pages exist only once used. With 300 KB, 256 KiB writes were half as fast."""
ARENA_BYTES: Final = 1 * MIB
"""Replies that one turn gathers before they are sent in one call."""
GATHER_BYTES: Final = 64 * KIB
"""While fewer bytes of replies wait and a message is incomplete, receive again before sending: every send wakes
the client, and for large writes its replies are few bytes."""
GATHER_TURNS: Final = 8
"""Turns before the replies are sent all the same: 2 MiB of 256 KiB writes."""
TURN_REQUESTS: Final = 128
"""Requests served before others get the loop: about 1 ms of 4 KiB reads. fio at depth 32 never reaches it."""
SOCKET_BYTES: Final = 1 * MIB
"""Asked for as SO_SNDBUF and SO_RCVBUF of unix sockets; the kernel grants up to net.core.wmem_max.
With the default of 208 KiB, 256 KiB reads were 20 % slower."""
STATUS_EXTENTS: Final = 8192
"""Extents in one block status reply and context: 64 KiB on the wire, about 5 ms to build."""
BACKLOG: Final = 128
"""Connections that the kernel holds until they are accepted."""
ACCEPT_BATCH: Final = 16
"""Connections accepted before others get the loop."""


@dataclass(frozen=True, slots=True)
class NbdLimits:
    """What an operator may change."""

    handshake_seconds: float = 10.0
    """From connecting to the transmission phase; then the client is dropped (QEMU 9.1 chose the same)."""
    option_bytes: int = 64 * KIB
    """Data of one option. A name and a list of contexts take less; lengths up to 4 GiB were an attack on QEMU."""
    connections: int = 100
    """At once, of all exports together, handshakes included."""
    exports: int = 256
    requests_in_flight: int = 64
    """Per client, of requests that could not be served inline. Then its socket is not read."""
    client_bytes: int = 64 * MIB
    """Per client, payloads and replies that wait. Then its socket is not read."""
    stopped_bytes: int = 4 * MIB
    """Per client of a stopped attachment: then its socket is not read until the attachment goes on."""
    total_bytes: int = 256 * MIB
    """The same for all clients together."""
    stall_seconds: float = 30.0
    """A client that stops in the middle of a large write, or does not read large replies, is dropped after this if
    others wait for memory."""


def arena_size(reply_bytes: int) -> int:
    """Room for a full arena, one reply beyond it for each request of a turn, and the headers of a largest read."""
    return ARENA_BYTES + (TURN_REQUESTS + 1) * reply_bytes
