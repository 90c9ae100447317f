"""The shape of the catalogue's database (`blockyard.keeping.sqlite` makes and opens it)."""

import sqlite3
from pathlib import Path
from typing import Final

from blockyard.base.errors import CatalogueDamaged, CatalogueTooNew
from blockyard.keeping import sqlite

APPLICATION_ID: Final = 0x626C6B79
"""`blky`."""


def _first(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE entries ("
        " kind TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL, definition TEXT NOT NULL,"
        " PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID"
    )


SHAPE: Final = sqlite.Shape(APPLICATION_ID, (_first,), CatalogueDamaged, CatalogueTooNew)


def open_database(path: Path) -> sqlite3.Connection:
    """Made, or brought up to date. Raises CatalogueDamaged, CatalogueTooNew or StateDirectoryUnusable."""
    return sqlite.open_database(path, SHAPE)
