"""The tables of a job store, in words that SQLite and PostgreSQL share, and how they grew.

`record` is JSON that `records` reads and writes; what is looked for by the database stands in columns beside it.
"""

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE fences (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
        "INSERT INTO fences (name, value) VALUES ('token', 0)",
        "CREATE TABLE incarnations (number BIGINT PRIMARY KEY, address TEXT NOT NULL, beat BIGINT NOT NULL)",
        "CREATE TABLE jobs (job_id TEXT PRIMARY KEY, state TEXT NOT NULL, fencing_token BIGINT NOT NULL,"
        " incarnation BIGINT NOT NULL, record TEXT NOT NULL)",
        "CREATE TABLE requests (request_id TEXT PRIMARY KEY, number BIGINT NOT NULL, record TEXT NOT NULL)",
        "CREATE INDEX requests_by_number ON requests (number)",
    ),
    ("CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL)",),
)
"""Version n is what the first n of these make. They are only ever appended to."""
