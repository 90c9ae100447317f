"""All entries."""

from tests.corpus.entry import Entry
from tests.corpus.images import contents, encrypted, foreign, headers, references, stores, tables

ENTRIES: tuple[Entry, ...] = (
    *headers.ENTRIES,
    *tables.ENTRIES,
    *stores.ENTRIES,
    *references.ENTRIES,
    *contents.ENTRIES,
    *encrypted.ENTRIES,
    *foreign.ENTRIES,
)
BY_NAME = {entry.name: entry for entry in ENTRIES}
assert len(BY_NAME) == len(ENTRIES), "two entries have one name"
