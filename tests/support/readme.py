"""The README's shell blocks as scenarios: what a reader types in terminal 1 (servers) and terminal 2 (commands).

A block takes part when a comment stands above it, which no rendered page shows:

    <!-- terminal 1: NAME -->                  servers; they are ready when each has said so
    <!-- terminal 2: NAME, needs PROGRAM -->   commands, in order, in one shell; left out without the program
    <!-- python: NAME -->                      a program that runs after them
    <!-- shown by: NAME -->                    lines that the commands must have printed
"""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SECONDS: Final = 90
_BLOCK: Final = re.compile(
    r"^<!-- (?P<kind>terminal 1|terminal 2|python|shown by): (?P<name>\w+)(?:, needs (?P<needs>[\w-]+))? -->\n"
    r"```\w*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SERVER: Final = re.compile(r"^blockyard(?:d|-\w+) ", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A marked block."""

    kind: str
    name: str
    needs: str
    text: str


def blocks(page: str) -> list[Block]:
    """The marked blocks of a page, in order."""
    return [Block(item["kind"], item["name"], item["needs"] or "", item["text"]) for item in _BLOCK.finditer(page)]


def script(found: list[Block], name: str) -> str:
    """Everything that is typed in terminal 2."""
    typed = [block for block in found if (block.kind, block.name) == ("terminal 2", name)]
    return "\n".join(block.text for block in typed if not block.needs or shutil.which(block.needs))


def environment() -> dict[str, str]:
    """With this interpreter's programs first, and nothing of ours set."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("BLOCKYARD_", "OTEL_"))}
    return {**own, "PATH": f"{Path(sys.executable).parent}:{own.get('PATH', '')}"}


@asynccontextmanager
async def servers(text: str, directory: Path) -> AsyncIterator[None]:
    """Run the block of terminal 1 until the body is left; then SIGTERM, and each must end by itself."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euc", text),
        cwd=directory,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            await _until_ready(process.stderr, len(_SERVER.findall(text)))
        draining = asyncio.ensure_future(process.stderr.read())
        yield
        os.killpg(process.pid, signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            await draining
            await process.wait()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _until_ready(stream: asyncio.StreamReader, servers_started: int) -> None:
    said: list[str] = []
    while sum(": ready " in line for line in said) < servers_started:
        line = (await stream.readline()).decode()
        assert line, "a server ended:\n" + "".join(said)
        said.append(line)


async def typed(*command: str, directory: Path, **variables: str) -> str:
    """What a command printed on standard output. Fails with all that it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env={**environment(), **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{process.returncode}\n{out.decode()}\n{err.decode()}"
    return out.decode()
