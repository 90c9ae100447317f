"""Exit codes of `blockyard`: what a script may rely on. Printed into docs/cli.md."""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from blockyard.base.errors import BlockError


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    PRECONDITION = 4
    UNAVAILABLE = 5
    EXISTS = 6
    DENIED = 7
    EXHAUSTED = 8
    TIMEOUT = 9
    DATA_LOSS = 10
    UNSUPPORTED = 11
    INTERNAL = 12
    INTERRUPTED = 130


MEANINGS: Final[dict[Exit, str]] = {
    Exit.OK: "Everything went well.",
    Exit.FAILED: "A job failed or was cancelled, or a check found errors.",
    Exit.USAGE: "The command line or an argument is wrong.",
    Exit.NOT_FOUND: "No such node, file, job, bitmap or export.",
    Exit.PRECONDITION: "Not in the present state; the message names what stands in the way.",
    Exit.UNAVAILABLE: "The service does not answer.",
    Exit.EXISTS: "The name is taken.",
    Exit.DENIED: "Not allowed: outside the storage roots, or no permission.",
    Exit.EXHAUSTED: "A disk or a limit is full.",
    Exit.TIMEOUT: "No answer within --timeout.",
    Exit.DATA_LOSS: "The image is damaged.",
    Exit.UNSUPPORTED: "This driver or this version cannot do that.",
    Exit.INTERNAL: "A system call failed in the service, or a bug of ours.",
    Exit.INTERRUPTED: "Interrupted by Ctrl-C.",
}

BY_CODE: Final[dict[str, Exit]] = {
    "INVALID_ARGUMENT": Exit.USAGE,
    "OUT_OF_RANGE": Exit.USAGE,
    "NOT_FOUND": Exit.NOT_FOUND,
    "ALREADY_EXISTS": Exit.EXISTS,
    "PERMISSION_DENIED": Exit.DENIED,
    "UNAUTHENTICATED": Exit.DENIED,
    "RESOURCE_EXHAUSTED": Exit.EXHAUSTED,
    "FAILED_PRECONDITION": Exit.PRECONDITION,
    "ABORTED": Exit.PRECONDITION,
    "UNIMPLEMENTED": Exit.UNSUPPORTED,
    "INTERNAL": Exit.INTERNAL,
    "UNAVAILABLE": Exit.UNAVAILABLE,
    "DATA_LOSS": Exit.DATA_LOSS,
    "CANCELLED": Exit.FAILED,
    "DEADLINE_EXCEEDED": Exit.TIMEOUT,
}
"""By canonical code; a test holds it and the catalogue together."""


def exit_of(error: "BlockError") -> Exit:
    """The exit code that an error of the catalogue stands for."""
    return BY_CODE[error.canonical()]
