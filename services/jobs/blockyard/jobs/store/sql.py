"""The job store in SQL, once for every database.

What lives here: each operation as a *script*, a generator that yields statements and is given their rows. What must
not: a connection. A `Database` runs a script as one transaction, and runs it again from its beginning if the
database asks for that; so a script reads and writes nothing but the database.

Statements have `?` for their parameters.
"""

import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from blockyard.base.errors import OwnerMismatch, ResourceExists
from blockyard.jobs.store.port import MAX_REQUESTS, Incarnation, JobRecord
from blockyard.jobs.store.records import read_record, record_text

Rows = Sequence[Sequence[Any]]
Result = TypeVar("Result")
Script = Generator[tuple[str, tuple[Any, ...]], Rows, Result]

_NEXT_TOKEN: Final = (
    "UPDATE fences SET value = CASE WHEN value < ? THEN ? ELSE value + 1 END WHERE name = 'token' RETURNING value"
)
_CREATE: Final = (
    "INSERT INTO jobs (job_id, state, fencing_token, incarnation, record) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (job_id) DO NOTHING RETURNING job_id"
)
_REMEMBER: Final = (
    "INSERT INTO requests (request_id, number, record)"
    " SELECT ?, coalesce(max(number), 0) + 1, ? FROM requests WHERE true ON CONFLICT (request_id) DO NOTHING"
)
_FORGET: Final = "DELETE FROM requests WHERE number <= (SELECT max(number) FROM requests) - ?"
_PUT: Final = "UPDATE jobs SET state = ?, record = ? WHERE job_id = ? AND fencing_token = ? RETURNING job_id"
_REMOVE: Final = "DELETE FROM jobs WHERE job_id = ? AND fencing_token = ? RETURNING job_id"
_TOKEN: Final = "SELECT fencing_token FROM jobs WHERE job_id = ?"
_FIND: Final = "SELECT record, fencing_token FROM jobs WHERE job_id = ?"
_LOAD: Final = "SELECT record, fencing_token FROM jobs"
_ORPHANS: Final = f"{_LOAD} WHERE incarnation NOT IN (SELECT number FROM incarnations)"
_ADOPT: Final = (
    "UPDATE jobs SET fencing_token = ?, incarnation = ? WHERE job_id = ? AND fencing_token = ?"
    " RETURNING record, fencing_token"
)
_OWNER: Final = (
    "SELECT number, address, beat FROM incarnations WHERE number = (SELECT incarnation FROM jobs WHERE job_id = ?)"
)


class Database(Protocol):
    """Runs scripts."""

    async def run(self, script: Callable[[], Script[Result]]) -> Result:
        """As one durable transaction. Raises JobStoreUnavailable or JobStoreDamaged, and what the script raises."""
        ...


class SqlStore:
    """A `JobStore` in a database."""

    durable = True

    def __init__(self, database: Database, *, shared: bool) -> None:
        self._database = database
        self.shared = shared

    async def identity(self) -> str:
        mine = uuid.uuid4().hex

        def script() -> Script[str]:
            yield "INSERT INTO identity (name, value) VALUES ('store', ?) ON CONFLICT (name) DO NOTHING", (mine,)
            return str((yield "SELECT value FROM identity", ())[0][0])

        return await self._database.run(script)

    # --- jobs ---

    async def create(self, record: JobRecord, incarnation: int) -> None:
        def script() -> Script[None]:
            text = record_text(record)
            values = (record.job_id, record.state, record.fencing_token, incarnation, text)
            if not (yield _CREATE, values):
                # It may be our own, of a call whose answer was lost.
                rows = yield _TOKEN, (record.job_id,)
                if [tuple(row) for row in rows] != [(record.fencing_token,)]:
                    raise ResourceExists("job", record.job_id)
            if record.request_id:
                yield _REMEMBER, (record.request_id, text)
                yield _FORGET, (MAX_REQUESTS,)

        await self._database.run(script)

    async def put(self, record: JobRecord) -> None:
        def script() -> Script[None]:
            values = (record.state, record_text(record), record.job_id, record.fencing_token)
            if not (yield _PUT, values):
                yield from _refuse(record.job_id, record.fencing_token)

        await self._database.run(script)

    async def remove(self, job_id: str, fencing_token: int, refused_request: str = "") -> None:
        def script() -> Script[None]:
            if refused_request:
                yield "DELETE FROM requests WHERE request_id = ?", (refused_request,)
            if not (yield _REMOVE, (job_id, fencing_token)) and (yield _TOKEN, (job_id,)):
                yield from _refuse(job_id, fencing_token)

        await self._database.run(script)

    async def load(self) -> Sequence[JobRecord]:
        return await self._database.run(lambda: _records(_LOAD))

    async def find(self, job_id: str) -> JobRecord | None:
        found = await self._database.run(lambda: _records(_FIND, job_id))
        return found[0] if found else None

    async def request(self, request_id: str) -> JobRecord | None:
        def script() -> Script[JobRecord | None]:
            rows = yield "SELECT record FROM requests WHERE request_id = ?", (request_id,)
            return read_record(rows[0][0]) if rows else None

        return await self._database.run(script)

    # --- owners ---

    async def begin(self, address: str, least_token: int) -> int:
        def script() -> Script[int]:
            number = (yield _NEXT_TOKEN, (least_token, least_token))[0][0]
            yield "INSERT INTO incarnations (number, address, beat) VALUES (?, ?, 0)", (number, address)
            return int(number)

        return await self._database.run(script)

    async def beat(self, incarnation: int) -> None:
        def script() -> Script[None]:
            statement = "UPDATE incarnations SET beat = beat + 1 WHERE number = ? RETURNING beat"
            if not (yield statement, (incarnation,)):
                raise OwnerMismatch("jobs service", f"#{incarnation}", "nobody", f"#{incarnation}")

        await self._database.run(script)

    async def end(self, incarnation: int, beat: int | None = None) -> bool:
        def script() -> Script[bool]:
            statement = "DELETE FROM incarnations WHERE number = ? AND beat = coalesce(?, beat) RETURNING number"
            return bool((yield statement, (incarnation, beat)))

        return await self._database.run(script)

    async def incarnations(self) -> Sequence[Incarnation]:
        def script() -> Script[list[Incarnation]]:
            rows = yield "SELECT number, address, beat FROM incarnations ORDER BY number", ()
            return [Incarnation(*row) for row in rows]

        return await self._database.run(script)

    async def orphans(self) -> Sequence[JobRecord]:
        return await self._database.run(lambda: _records(_ORPHANS))

    async def adopt(self, job_id: str, seen_token: int, incarnation: int) -> JobRecord | None:
        def script() -> Script[JobRecord | None]:
            token = (yield _NEXT_TOKEN, (0, 0))[0][0]
            rows = yield _ADOPT, (token, incarnation, job_id, seen_token)
            return _read(rows[0]) if rows else None

        return await self._database.run(script)

    async def owner_of(self, job_id: str) -> Incarnation | None:
        def script() -> Script[Incarnation | None]:
            rows = yield _OWNER, (job_id,)
            return Incarnation(*rows[0]) if rows else None

        return await self._database.run(script)


def _records(statement: str, *values: Any) -> Script[list[JobRecord]]:
    rows = yield statement, values
    return sorted(map(_read, rows), key=lambda record: record.job_id)


def _read(row: Sequence[Any]) -> JobRecord:
    text, token = row
    return replace(read_record(text), fencing_token=int(token))


def _refuse(job_id: str, token: int) -> Script[None]:
    rows = yield _TOKEN, (job_id,)
    owner = f"#{rows[0][0]}" if rows else "nobody"
    raise OwnerMismatch("job", job_id, owner, f"#{token}")
