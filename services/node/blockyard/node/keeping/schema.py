"""The database's shape: how it is made, recognised, and brought from one version to the next.

Theory. A new database is made under another name and renamed when it is whole, so a file under its right name is
never empty: an empty one was cut off, and is an error rather than a new beginning. WAL with `synchronous=FULL`:
with NORMAL a power cut lost every committed row in our test; FULL costs one fsync a commit.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blockyard.base.errors import CatalogueDamaged, CatalogueTooNew, StateDirectoryUnusable

APPLICATION_ID: Final = 0x626C6B79
"""`blky`: `file` and `sqlite3` tell whose database it is; a stranger's is refused."""
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


def _first(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE entries ("
        " kind TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL, definition TEXT NOT NULL,"
        " PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID"
    )


MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (_first,)
"""Version n is what the first n of these make. They are only ever appended to."""


def open_database(path: Path) -> sqlite3.Connection:
    """Made, or brought up to date. Raises CatalogueDamaged, CatalogueTooNew or StateDirectoryUnusable."""
    try:
        if not path.exists():
            _create(path)
        return _opened(path)
    except OSError as problem:
        raise StateDirectoryUnusable(str(path), str(problem)) from problem
    except sqlite3.DatabaseError as problem:
        if problem.sqlite_errorcode & 0xFF in _OF_THE_WORLD:
            raise StateDirectoryUnusable(str(path), str(problem)) from problem
        raise CatalogueDamaged(str(path), str(problem)) from problem


def _opened(path: Path) -> sqlite3.Connection:
    if not path.stat().st_size:
        raise CatalogueDamaged(str(path), "the file is empty")
    database = _connect(path)
    try:
        database.execute("PRAGMA synchronous = FULL")
        _check(database, path)
        _migrate(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)


def _create(path: Path) -> None:
    """A whole and durable database under its name, or none."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise CatalogueDamaged(str(path), f"it is gone, but its log {log.name} is there")
    new = path.with_name(f"{path.name}.new")
    for left in (new, new.with_name(f"{new.name}-journal")):
        left.unlink(missing_ok=True)
    database = _connect(new)
    try:
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY, applied TEXT NOT NULL) STRICT")
        _migrate(database, new)
    finally:
        database.close()
    new.chmod(0o600)
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check(database: sqlite3.Connection, path: Path) -> None:
    """Looks only, until it is known to be ours and whole."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise CatalogueDamaged(str(path), f"application id {application:#x}, expected {APPLICATION_ID:#x}")
    findings = [row[0] for row in database.execute("PRAGMA integrity_check(5)")]
    if findings != ["ok"]:
        raise CatalogueDamaged(str(path), "; ".join(findings)[:500])
    mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StateDirectoryUnusable(str(path), f"its journal mode cannot be WAL, it stays {mode!r}")


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    found = database.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()[0]
    if found > len(MIGRATIONS):
        raise CatalogueTooNew(str(path), found, len(MIGRATIONS))
    for version in range(found + 1, len(MIGRATIONS) + 1):
        database.execute("BEGIN IMMEDIATE")
        MIGRATIONS[version - 1](database)
        database.execute("INSERT INTO migrations VALUES (?, datetime('now'))", (version,))
        database.execute("COMMIT")
