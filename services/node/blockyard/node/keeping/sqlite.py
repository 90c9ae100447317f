"""Entries in SQLite, on one thread of their own: a commit waits for the disk, the event loop never does.

Invariants
1. `keep` is one transaction; when it has returned, the rows survive a power cut (see `schema`).
2. Only the one thread touches the connection.
"""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Self

from blockyard.base.errors import CatalogueDamaged, CatalogueNotWritten
from blockyard.keeping.sqlite import on_thread
from blockyard.node.interface.keeper import Drop, Entry, Key, Put
from blockyard.node.keeping.schema import open_database

NAME: Final = "catalogue.db"
_PUT: Final = (
    "INSERT INTO entries (kind, name, position, definition) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (kind, name) DO UPDATE SET position = excluded.position, definition = excluded.definition"
)
_DROP: Final = "DELETE FROM entries WHERE kind = ? AND name = ?"


class SqliteKeeper:
    """An `interface.keeper.Keeper`."""

    def __init__(self, path: Path, thread: ThreadPoolExecutor, database: sqlite3.Connection) -> None:
        self._path = path
        self._thread = thread
        self._database = database

    @classmethod
    @asynccontextmanager
    async def opened(cls, directory: Path) -> AsyncIterator[Self]:
        """The database of a state directory. Raises CatalogueDamaged, CatalogueTooNew or StateDirectoryUnusable."""
        path = directory / NAME
        thread = ThreadPoolExecutor(1, thread_name_prefix="catalogue")
        try:
            database = await on_thread(thread, lambda: open_database(path))
            try:
                yield cls(path, thread, database)
            finally:
                await on_thread(thread, database.close)
        finally:
            thread.shutdown()

    @property
    def location(self) -> str:
        return str(self._path)

    async def entries(self) -> list[Entry]:
        try:
            return await on_thread(self._thread, self._read)
        except sqlite3.DatabaseError as problem:
            raise CatalogueDamaged(self.location, str(problem)) from problem

    async def keep(self, changes: Sequence[Put | Drop]) -> None:
        try:
            await on_thread(self._thread, lambda: self._write(changes))
        except sqlite3.Error as problem:
            raise CatalogueNotWritten(self.location, str(problem)) from problem

    def _read(self) -> list[Entry]:
        rows = self._database.execute(
            "SELECT kind, name, position, definition FROM entries ORDER BY position, name"
        )
        return [Entry(Key(kind, name), definition, position) for kind, name, position, definition in rows]

    def _write(self, changes: Sequence[Put | Drop]) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                if isinstance(change, Put):
                    entry = change.entry
                    database.execute(_PUT, (*entry.key, entry.position, entry.definition))
                else:
                    database.execute(_DROP, change.key)
            database.execute("COMMIT")
        except BaseException:
            # After some errors SQLite has rolled back by itself.
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise
