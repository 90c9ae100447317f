"""Telling whoever started a service that it serves: scripts, tests, supervisors.

One line on stderr; the same to a file descriptor if one was handed over; and systemd's notification if its socket
is in the environment (sd_notify(3): a datagram of `READY=1`).
"""

import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress

from blockyard.rpc.address import Address


def announce(name: str, addresses: Iterable[Address], descriptor: int = -1) -> None:
    """Say `NAME: ready ADDRESS...`. A reader that went away is no reason to stop serving."""
    line = f"ready {' '.join(map(str, addresses))}\n"
    sys.stderr.write(f"{name}: {line}")
    sys.stderr.flush()
    if descriptor >= 0:
        with suppress(OSError):
            os.write(descriptor, line.encode())
            os.close(descriptor)
    if path := os.environ.get("NOTIFY_SOCKET"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            # A leading @ stands for the abstract namespace.
            notify.connect("\0" + path[1:] if path.startswith("@") else path)
            notify.send(b"READY=1")
