"""The job store in PostgreSQL: several services share the work.

Theory. One connection, one script at a time: a store has a few transactions a second. Each is one statement that
decides (an insert, or an update that names the token it expects), so READ COMMITTED is enough. A connection that
failed is given up; for `AWAY_SECONDS` calls fail at once, so that nobody waits for a database that is known to be
away, and then the next one tries again.

psycopg is imported here only, when a URL asks for it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

from blockyard.base.clock import Clock
from blockyard.base.errors import JobStoreDamaged, JobStoreTooNew, JobStoreUnavailable
from blockyard.jobs.store.schema import MIGRATIONS
from blockyard.jobs.store.sql import Result, Script, SqlStore

SCHEMA: Final = "blockyard_jobs"
"""Of its own, so that the database may be shared with others."""
CONNECT_SECONDS: Final = 3
SCRIPT_SECONDS: Final = 5.0
"""A script that takes longer has failed: the network is cut, or a lock is held."""
AWAY_SECONDS: Final = 0.5

_SETTINGS: Final = (
    f"SET search_path TO {SCHEMA}",
    "SET synchronous_commit TO on",
    f"SET statement_timeout TO {round(SCRIPT_SECONDS * 1000)}",
    f"SET lock_timeout TO {round(SCRIPT_SECONDS * 1000)}",
    f"SET idle_in_transaction_session_timeout TO {round(SCRIPT_SECONDS * 2000)}",
)
_DAMAGED: Final = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.DataCorrupted)


@asynccontextmanager
async def postgres_store(url: str, clock: Clock) -> AsyncIterator[SqlStore]:
    """The store behind a URL, its tables made or brought up to date.

    Raises JobStoreUnavailable, JobStoreTooNew or JobStoreDamaged.
    """
    database = PostgresDatabase(url, clock)
    try:
        await database.migrate()
        yield SqlStore(database, shared=True)
    finally:
        await database.close()


class PostgresDatabase:
    """A `sql.Database`."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._turn = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._away_until_ns = 0
        self._away: str = ""
        self.location = shown(url)

    async def run(self, script: Callable[[], Script[Result]]) -> Result:
        if self._clock.monotonic_ns() < self._away_until_ns:
            raise JobStoreUnavailable(self.location, self._away)
        async with self._turn:
            try:
                async with asyncio.timeout(CONNECT_SECONDS + SCRIPT_SECONDS):
                    connection = self._connection or await self._connected()
                    async with connection.transaction():
                        return await _drive(connection, script())
            except _DAMAGED as problem:
                raise JobStoreDamaged(self.location, _said(problem)) from problem
            except (psycopg.Error, TimeoutError, OSError) as problem:
                await self._give_up(_said(problem))
                raise JobStoreUnavailable(self.location, self._away) from problem
            except asyncio.CancelledError:
                # Nobody knows what the server still does for us.
                await self.close()
                raise

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name="blockyard-jobs",
            tcp_user_timeout=round(SCRIPT_SECONDS * 1000),
        )
        for setting in _SETTINGS:
            await connection.execute(setting)
        self._connection = connection
        return connection

    async def _give_up(self, why: str) -> None:
        self._away = why
        self._away_until_ns = self._clock.monotonic_ns() + round(AWAY_SECONDS * 1e9)
        await self.close()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error, OSError):
                await connection.close()

    async def migrate(self) -> None:
        """The tables as this version wants them, made by one service at a time."""

        def script() -> Script[int]:
            # Held to the end of the transaction; the number is ours alone in this database.
            yield "SELECT pg_advisory_xact_lock(hashtext(?))", (SCHEMA,)
            yield f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}", ()
            yield "CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY, applied TIMESTAMPTZ)", ()
            found = int((yield "SELECT coalesce(max(version), 0) FROM migrations", ())[0][0])
            for version in range(found + 1, len(MIGRATIONS) + 1):
                for statement in MIGRATIONS[version - 1]:
                    yield statement, ()
                yield "INSERT INTO migrations VALUES (?, now())", (version,)
            return found

        found = await self.run(script)
        if found > len(MIGRATIONS):
            raise JobStoreTooNew(self.location, found, len(MIGRATIONS))


async def _drive(connection: psycopg.AsyncConnection[Any], script: Script[Result]) -> Result:
    rows: Any = None
    while True:
        try:
            statement, values = script.send(rows)
        except StopIteration as end:
            result: Result = end.value
            return result
        # No text of ours holds a percent sign or a question mark that is no parameter.
        cursor = await connection.execute(statement.replace("?", "%s"), values or None)
        rows = await cursor.fetchall() if cursor.description is not None else []


def shown(url: str) -> str:
    """The URL for people: without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=f"{parts.username}@{parts.netloc.rpartition('@')[2]}").geturl()


def _said(problem: BaseException) -> str:
    """One line of it, without what libpq repeats of the connection string."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
