"""A real `blockyardd` as a process of its own: a private socket, a private storage root, stopped by SIGTERM.

It is ready when it says so on a pipe (`--ready-fd`), not when a socket file appears.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 20
STOP_SECONDS = 20


@dataclass(frozen=True)
class Daemon:
    """A daemon that serves."""

    address: str
    root: Path
    """Its storage root: relative file names begin here."""
    nbd_socket: Path
    log: Path
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid


@asynccontextmanager
async def daemon(
    directory: Path,
    *,
    roots: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    module: str = "blockyard.daemon",
) -> AsyncIterator[Daemon]:
    """Run a daemon beneath `directory` (short: a socket's path has 107 bytes) until the block is left."""
    root, run = directory / "images", directory / "run"
    root.mkdir(parents=True, exist_ok=True)
    run.mkdir(mode=0o700, exist_ok=True)
    address, nbd, log = f"unix:{run}/b.sock", run / "nbd.sock", directory / "daemon.log"
    ready, told = os.pipe()
    command = [sys.executable, "-m", module, "--listen", address, "--nbd", f"unix:{nbd}", "--ready-fd", str(told)]
    for each in (root, *roots):
        command += ["--storage-roots", str(each)]
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *command,
            *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            pass_fds=(told,),
            env={**os.environ, **(environment or {})},
        )
    os.close(told)
    try:
        await _until_ready(ready, process, log)
        yield Daemon(address, root, nbd, log, process)
    finally:
        os.close(ready)
        await _stop(process)


async def _until_ready(descriptor: int, process: asyncio.subprocess.Process, log: Path) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: readable.done() or readable.set_result(None))
    try:
        async with asyncio.timeout(READY_SECONDS):
            await readable
    finally:
        loop.remove_reader(descriptor)
    if not os.read(descriptor, 4096).startswith(b"ready "):
        await process.wait()
        raise RuntimeError(f"blockyardd ended with {process.returncode}:\n{log.read_text()[-4000:]}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise RuntimeError("blockyardd did not end on SIGTERM") from None
