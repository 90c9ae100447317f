"""The state directory: made if it is not there, held by one process at a time.

The lock is flock(2)'s: it ends with the process, however that ends, so nothing stale is ever left to clean up.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from blockyard.base.errors import StateDirectoryBusy, StateDirectoryUnusable

LOCK: Final = "lock"


@contextmanager
def state_directory(path: str, lock: str = LOCK) -> Iterator[Path]:
    """The directory, ours alone while the body runs: of all who know the same lock.

    Services of different kinds may share a directory under locks of their own. Raises StateDirectoryUnusable or
    StateDirectoryBusy.
    """
    directory = Path(path).absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise StateDirectoryUnusable(str(directory), problem.strerror or str(problem)) from problem
    try:
        _lock(descriptor, directory)
        yield directory
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        raise StateDirectoryBusy(str(directory), f"process {holder}" if holder else "another process") from None
    except OSError as problem:
        raise StateDirectoryUnusable(str(directory), problem.strerror or str(problem)) from problem
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
