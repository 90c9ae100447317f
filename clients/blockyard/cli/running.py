"""From words on the command line to an exit code: the one place where commands are run.

What lives here: parsing, the event loop, the deadline, and what is said when something goes wrong. What must
not: any command.
"""

import gc
import inspect
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from blockyard.cli.exits import Exit, exit_of
from blockyard.cli.options import Globals

if TYPE_CHECKING:
    from blockyard.cli.output import Output
    from blockyard.client.client import Client


class CommandFailed(Exception):
    """A command did its work and the answer is no: the exit code, and what to say (or nothing)."""

    def __init__(self, exit_code: Exit, message: str = "", advice: str = "") -> None:
        super().__init__(message)
        self.exit_code, self.advice = exit_code, advice


class Parting:
    """What to say when the command is interrupted: what goes on without it."""

    text = ""


def run(app: App, tokens: Sequence[str]) -> int:
    """Parse, run, and return the exit code. Nothing is raised for what a user can cause."""
    Parting.text = ""
    try:
        result, timeout = begin(app, tokens)
        if inspect.iscoroutine(result):
            _loop(result, timeout)
        sys.stdout.flush()
        return Exit.OK
    except KeyboardInterrupt:
        return complain(Exit.INTERRUPTED, "interrupted", Parting.text)
    except BrokenPipeError:
        # Whoever read our output has had enough. Keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:
        return explained(error)


def begin(app: App, tokens: Sequence[str]) -> tuple[Any, float | None]:
    """Parse and call the command: its coroutine, if it is one, and how long it may take."""
    command, bound, _ = app.parse_args(leading_last(tokens), print_error=False, exit_on_error=False)
    options = next((value for value in bound.arguments.values() if isinstance(value, Globals)), None)
    return command(*bound.args, **bound.kwargs), options.timeout if options else None


def explained(error: Exception) -> Exit:
    """Say what an error means and what to do. What is a bug of ours is raised again, with its trace."""
    from blockyard.base.errors import BlockError, PeerUnavailable

    match error:
        case CycloptsError():
            words = " ".join(("blockyard", *(error.command_chain or ())))
            return complain(Exit.USAGE, str(error), f"`{words} --help` explains it.")
        case CommandFailed():
            return complain(error.exit_code, str(error), error.advice)
        case PeerUnavailable() if error.service.startswith("blockyard"):
            # gRPC names the address three times before it comes to the point.
            why = error.detail.rpartition(" error: ")[2]
            advice = "Start `blockyardd`, or say where it is with --address or BLOCKYARD_ADDRESS."
            return complain(Exit.UNAVAILABLE, f"no service answers at {error.address}: {why}", advice)
        case BlockError():
            return complain(exit_of(error), str(error).rstrip("."), error.hint, error.trace_id)
        case TimeoutError():
            return complain(Exit.TIMEOUT, "no answer within --timeout", "What was asked may still happen.")
        case OSError():
            return complain(Exit.FAILED, str(error), "Look at the file or stream that is named.")
    raise error


def _loop(work: Any, timeout: float | None) -> None:
    import asyncio  # here, so that --help does not pay for it

    from blockyard.rpc import trace_context

    async def within() -> None:
        if parent := trace_context.parse(os.environ.get("TRACEPARENT", ""), os.environ.get("TRACESTATE", "")):
            trace_context.running.set(parent)
        async with asyncio.timeout(timeout):
            await work

    gc.freeze()
    gc.enable()
    asyncio.run(within())


@asynccontextmanager
async def connected(options: Globals) -> AsyncIterator[tuple["Client", "Output"]]:
    """A client and a printer as the global options ask for."""
    from blockyard.cli.output import Output
    from blockyard.client.client import Client

    async with Client.connect(options.address) as client:
        yield client, Output(options.output)


def remark(options: Globals, text: str) -> None:
    """Something worth knowing that is no result."""
    if not options.quiet:
        print(text, file=sys.stderr, flush=True)


def complain(exit_code: Exit, message: str, advice: str = "", trace_id: str = "") -> Exit:
    """Say what went wrong and what to do; the exit code."""
    sys.stdout.flush()
    if message:
        print(f"blockyard: {message}", file=sys.stderr)
    if advice:
        print(f"  {advice}", file=sys.stderr)
    if trace_id:
        print(f"  trace {trace_id}", file=sys.stderr)
    return exit_code


def leading_last(tokens: Sequence[str]) -> list[str]:
    """Options before the first command move behind the last word, where the command's own parser finds them."""
    leading: list[str] = []
    rest = list(tokens)
    while rest and rest[0].startswith("-") and rest[0] not in ("-h", "--help", "--version", "--", "-"):
        option = rest.pop(0)
        leading.append(option)
        if option not in ("-q", "--quiet") and "=" not in option and rest:
            leading.append(rest.pop(0))
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *leading, *rest[end:]]
