"""Exit codes of `blockyard`: what a script may rely on. Printed into docs/cli.md."""

from enum import IntEnum
from typing import Final

from blockyard.base.errors import BlockError, Code


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

BY_CODE: Final[dict[Code, Exit]] = {
    Code.INVALID_ARGUMENT: Exit.USAGE,
    Code.OUT_OF_RANGE: Exit.USAGE,
    Code.NOT_FOUND: Exit.NOT_FOUND,
    Code.ALREADY_EXISTS: Exit.EXISTS,
    Code.PERMISSION_DENIED: Exit.DENIED,
    Code.UNAUTHENTICATED: Exit.DENIED,
    Code.RESOURCE_EXHAUSTED: Exit.EXHAUSTED,
    Code.FAILED_PRECONDITION: Exit.PRECONDITION,
    Code.ABORTED: Exit.PRECONDITION,
    Code.UNIMPLEMENTED: Exit.UNSUPPORTED,
    Code.INTERNAL: Exit.INTERNAL,
    Code.UNAVAILABLE: Exit.UNAVAILABLE,
    Code.DATA_LOSS: Exit.DATA_LOSS,
    Code.CANCELLED: Exit.FAILED,
    Code.DEADLINE_EXCEEDED: Exit.TIMEOUT,
}


def exit_of(error: BlockError) -> Exit:
    """The exit code that an error of the catalogue stands for."""
    return BY_CODE[error.canonical()]
