"""The job store in SQLite: one service, a directory of its own, one thread for the database.

Invariants
1. A script is one transaction; when it has returned, its rows survive a power cut (see `blockyard.keeping.sqlite`).
2. Only the one thread touches the connection, so scripts run in the order in which they were asked for.
3. The directory's lock is ours, so whoever wrote there before us lives no more.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from blockyard.base.errors import JobStoreDamaged, JobStoreTooNew, JobStoreUnavailable
from blockyard.jobs.store.schema import MIGRATIONS
from blockyard.jobs.store.sql import Result, Script, SqlStore
from blockyard.keeping.directory import state_directory
from blockyard.keeping.sqlite import Shape, is_of_the_world, on_thread, open_database

NAME: Final = "jobs.db"
LOCK: Final = "jobs.lock"
APPLICATION_ID: Final = 0x626C6B6A
"""`blkj`."""


def _migration(statements: tuple[str, ...]) -> Callable[[sqlite3.Connection], None]:
    def apply(database: sqlite3.Connection) -> None:
        for statement in statements:
            database.execute(statement)

    return apply


SHAPE: Final = Shape(APPLICATION_ID, tuple(map(_migration, MIGRATIONS)), JobStoreDamaged, JobStoreTooNew)


@asynccontextmanager
async def sqlite_store(path: str) -> AsyncIterator[SqlStore]:
    """The store in a state directory, which may also be the node's.

    Raises StateDirectoryUnusable, StateDirectoryBusy, JobStoreDamaged or JobStoreTooNew.
    """
    with state_directory(path, LOCK) as directory:
        thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        try:
            connection = await on_thread(thread, lambda: open_database(directory / NAME, SHAPE))
            try:
                store = SqlStore(SqliteDatabase(directory / NAME, thread, connection), shared=False)
                for gone in await store.incarnations():
                    await store.end(gone.number)
                yield store
            finally:
                await on_thread(thread, connection.close)
        finally:
            thread.shutdown()


class SqliteDatabase:
    """A `sql.Database`."""

    def __init__(self, path: Path, thread: ThreadPoolExecutor, connection: sqlite3.Connection) -> None:
        self._path = path
        self._thread = thread
        self._connection = connection

    async def run(self, script: Callable[[], Script[Result]]) -> Result:
        try:
            return await on_thread(self._thread, lambda: self._transaction(script))
        except sqlite3.Error as problem:
            if isinstance(problem, sqlite3.DatabaseError) and not is_of_the_world(problem):
                raise JobStoreDamaged(str(self._path), str(problem)) from problem
            raise JobStoreUnavailable(str(self._path), str(problem)) from problem

    def _transaction(self, script: Callable[[], Script[Result]]) -> Result:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = self._drive(script())
            connection.execute("COMMIT")
        except BaseException:
            # After some errors SQLite has rolled back by itself.
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return result

    def _drive(self, script: Script[Result]) -> Result:
        rows: Any = None
        while True:
            try:
                statement, values = script.send(rows)
            except StopIteration as end:
                result: Result = end.value
                return result
            rows = self._connection.execute(statement, values).fetchall()
