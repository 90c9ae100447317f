"""Places where a test stops the process, to see what a crash there leaves.

A place is named beside a durable step: `reach("jobs.READY.before")`. Nothing happens unless the environment names
that very place in BLOCKYARD_FAILPOINT when the process starts; then the process says so on the descriptor in
BLOCKYARD_FAILPOINT_TELL and stops (SIGSTOP), once. Whoever watches kills it, kills others, cuts what connects
them, or lets it go on (SIGCONT). Not for production: an environment that is not set costs one comparison, 50 ns.
"""

import os
import signal
from typing import Final

VARIABLE: Final = "BLOCKYARD_FAILPOINT"
TELL_VARIABLE: Final = "BLOCKYARD_FAILPOINT_TELL"

_armed = os.environ.get(VARIABLE, "")


def reach(place: str) -> None:
    """We are there."""
    if _armed and place == _armed:
        _stop(place)


def _stop(place: str) -> None:
    global _armed
    _armed = ""
    os.write(int(os.environ[TELL_VARIABLE]), f"{place}\n".encode())
    os.kill(os.getpid(), signal.SIGSTOP)
