"""A database of one process: how it is made, recognised, and brought from one version to the next.

Theory. A new database is made under another name and renamed when it is whole, so a file under its right name is
never empty: an empty one was cut off, and is an error rather than a new beginning. WAL with `synchronous=FULL`:
with NORMAL a power cut lost every committed row in our test; FULL costs one fsync a commit.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from blockyard.base.errors import BlockError, StateDirectoryUnusable

Result = TypeVar("Result")

BUSY_MS: Final = 5000
"""A person with `sqlite3` may look; a writer waits so long for them."""
_OF_THE_WORLD: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""Errors that say nothing of what is in the file."""


class Damaged(Protocol):
    """The class of an error that a path and a detail make."""

    def __call__(self, path: str, detail: str) -> BlockError: ...


class TooNew(Protocol):
    """The class of an error that a path and two versions make."""

    def __call__(self, path: str, found: int, known: int) -> BlockError: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """Whose database it is, and what is in it."""

    application_id: int
    """`file` and `sqlite3` tell whose database it is; a stranger's is refused."""
    migrations: tuple[Callable[[sqlite3.Connection], None], ...]
    """Version n is what the first n of these make. They are only ever appended to."""
    damaged: Damaged
    too_new: TooNew


def open_database(path: Path, shape: Shape) -> sqlite3.Connection:
    """Made, or brought up to date. Raises the shape's errors, or StateDirectoryUnusable."""
    try:
        if not path.exists():
            _create(path, shape)
        return _opened(path, shape)
    except OSError as problem:
        raise StateDirectoryUnusable(str(path), str(problem)) from problem
    except sqlite3.DatabaseError as problem:
        if is_of_the_world(problem):
            raise StateDirectoryUnusable(str(path), str(problem)) from problem
        raise shape.damaged(str(path), str(problem)) from problem


def is_of_the_world(problem: sqlite3.Error) -> bool:
    """Whether an error says nothing of what is in the file."""
    return getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF in _OF_THE_WORLD


def _opened(path: Path, shape: Shape) -> sqlite3.Connection:
    if not path.stat().st_size:
        raise shape.damaged(str(path), "the file is empty")
    database = _connect(path)
    try:
        database.execute("PRAGMA synchronous = FULL")
        _check(database, path, shape)
        _migrate(database, path, shape)
    except BaseException:
        database.close()
        raise
    return database


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)


def _create(path: Path, shape: Shape) -> None:
    """A whole and durable database under its name, or none."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise shape.damaged(str(path), f"it is gone, but its log {log.name} is there")
    new = path.with_name(f"{path.name}.new")
    for left in (new, new.with_name(f"{new.name}-journal")):
        left.unlink(missing_ok=True)
    database = _connect(new)
    try:
        database.execute(f"PRAGMA application_id = {shape.application_id}")
        database.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY, applied TEXT NOT NULL) STRICT")
        _migrate(database, new, shape)
    finally:
        database.close()
    new.chmod(0o600)
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check(database: sqlite3.Connection, path: Path, shape: Shape) -> None:
    """Looks only, until it is known to be ours and whole."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    if application != shape.application_id:
        raise shape.damaged(str(path), f"application id {application:#x}, expected {shape.application_id:#x}")
    findings = [row[0] for row in database.execute("PRAGMA integrity_check(5)")]
    if findings != ["ok"]:
        raise shape.damaged(str(path), "; ".join(findings)[:500])
    mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StateDirectoryUnusable(str(path), f"its journal mode cannot be WAL, it stays {mode!r}")


def _migrate(database: sqlite3.Connection, path: Path, shape: Shape) -> None:
    found = database.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()[0]
    if found > len(shape.migrations):
        raise shape.too_new(str(path), found, len(shape.migrations))
    for version in range(found + 1, len(shape.migrations) + 1):
        database.execute("BEGIN IMMEDIATE")
        shape.migrations[version - 1](database)
        database.execute("INSERT INTO migrations VALUES (?, datetime('now'))", (version,))
        database.execute("COMMIT")


async def on_thread(thread: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    """A commit waits for the disk, the event loop never does."""
    return await asyncio.get_running_loop().run_in_executor(thread, work)
