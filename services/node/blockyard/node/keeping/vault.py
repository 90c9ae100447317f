"""Files of the state directory that are written through shared memory.

A store into a shared mapping is in the kernel's page cache at once: it survives the process, however that ends.
Durable it is after fdatasync, which also writes the pages that were changed through the mapping. Room is allocated
before it is mapped: a store into a hole of a full file system would kill the process (SIGBUS).
"""

import asyncio
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self, TypeVar

from blockyard.base.errors import VaultUnusable

Result = TypeVar("Result")

DIRECTORY: Final = "bitmaps"
THREADS: Final = 4
"""Syncs at once; they wait for the disk and do nothing else."""
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


class MappedFile:
    """An `interface.vault.VaultFile`. The mapping is its only descriptor: there may be many of these."""

    def __init__(self, path: Path, threads: ThreadPoolExecutor) -> None:
        self._path = path
        self._threads = threads

    @property
    def name(self) -> str:
        return self._path.name

    def room(self, length: int) -> memoryview:
        try:
            with _opened(self._path) as descriptor:
                os.ftruncate(descriptor, length)
                if not length:
                    return memoryview(bytearray())
                os.posix_fallocate(descriptor, 0, length)
                return memoryview(mmap.mmap(descriptor, length))
        except (OSError, ValueError) as problem:
            raise VaultUnusable(str(self._path), str(problem)) from problem

    async def sync(self) -> None:
        await _on(self._threads, self._path, self._sync)

    def _sync(self) -> None:
        # Linux tells a descriptor of every error of writing that nobody was told of, also of one from before.
        with _opened(self._path) as descriptor:
            os.fdatasync(descriptor)

    def close(self) -> None:
        """The mapping goes with the last view of it."""


class DirectoryVault:
    """An `interface.vault.Vault` in a directory of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="vault")
        self._number = 0
        self.boot = _boot()

    @classmethod
    def opened(cls, state_directory: Path) -> Self:
        """Raises VaultUnusable."""
        path = state_directory / DIRECTORY
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(state_directory)
        except OSError as problem:
            raise VaultUnusable(str(path), str(problem)) from problem
        return cls(path)

    def close(self) -> None:
        self._threads.shutdown()

    async def create(self, length: int) -> MappedFile:
        while (path := self._path / f"{self._number:08x}").exists():
            self._number += 1
        self._number += 1
        return await _on(self._threads, path, lambda: self._created(path, length))

    def _created(self, path: Path, length: int) -> MappedFile:
        with _opened(path, os.O_CREAT | os.O_EXCL) as descriptor:
            try:
                if length:
                    os.posix_fallocate(descriptor, 0, length)
                os.fsync(descriptor)
                _sync_directory(self._path)
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise
        return MappedFile(path, self._threads)

    async def open(self, name: str) -> MappedFile:
        path = self._path / name
        if not _is_ours(name):
            raise VaultUnusable(str(path), "no name of a file here")
        if not path.is_file():
            raise VaultUnusable(str(path), "no such file")
        return MappedFile(path, self._threads)

    def remove(self, name: str) -> None:
        if _is_ours(name):
            with suppress(OSError):
                (self._path / name).unlink()

    def sweep(self, kept: set[str]) -> None:
        with suppress(OSError):
            for path in list(self._path.iterdir()):
                if path.name not in kept:
                    self.remove(path.name)


@contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_ours(name: str) -> bool:
    return len(name) == 8 and all(letter in "0123456789abcdef" for letter in name)


def _boot() -> bytes:
    try:
        return bytes.fromhex(Path(_BOOT_ID).read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return os.urandom(16)  # as if the machine had been started anew: more is taken as dirty than need be


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _on(threads: ThreadPoolExecutor, path: Path, work: Callable[[], Result]) -> Result:
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    except OSError as problem:
        raise VaultUnusable(str(path), problem.strerror or str(problem)) from problem
