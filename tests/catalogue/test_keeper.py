"""The keeper: what SQLite is told, what is durable, and a state directory that is damaged, strange or taken."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.base.errors import (
    CatalogueDamaged,
    CatalogueNotWritten,
    StateDirectoryBusy,
    StateDirectoryUnusable,
)
from blockyard.node.interface.keeper import Drop, Entry, Keeper, Key, Put
from blockyard.node.keeping import SqliteKeeper, state_directory
from blockyard.node.keeping.schema import APPLICATION_ID, open_database
from tests.support.kept_graph import MemoryKeeper


def entry(name: str, position: int = 1, definition: str = "{}") -> Entry:
    return Entry(Key("node", name), definition, position)


async def contract(keeper: Keeper) -> None:
    """What every keeper does."""
    await keeper.keep([Put(entry("b", 2)), Put(entry("a", 1))])
    assert await keeper.entries() == [entry("a", 1), entry("b", 2)]
    await keeper.keep([Put(entry("a", 1, '{"x": 1}')), Drop(Key("node", "b")), Drop(Key("node", "nobody"))])
    assert await keeper.entries() == [entry("a", 1, '{"x": 1}')]
    await keeper.keep([Put(entry("c", 3, '"\u00fc\u0000"'))])
    assert (await keeper.entries())[-1].definition == '"\u00fc\u0000"'


async def test_a_keeper_keeps_what_it_is_given(tmp_path: Path):
    await contract(MemoryKeeper())
    async with SqliteKeeper.opened(tmp_path) as keeper:
        await contract(keeper)
        before = await keeper.entries()
    async with SqliteKeeper.opened(tmp_path) as keeper:
        assert await keeper.entries() == before


async def test_a_commit_survives_a_power_cut_as_far_as_sqlite_can_be_told(tmp_path: Path):
    database = open_database(tmp_path / "catalogue.db")
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    database.close()


async def test_a_commit_is_in_the_log_when_it_is_over(tmp_path: Path):
    async with SqliteKeeper.opened(tmp_path) as keeper:
        before = (tmp_path / "catalogue.db-wal").stat().st_size
        await keeper.keep([Put(entry("a"))])
        assert (tmp_path / "catalogue.db-wal").stat().st_size > before
        with sqlite3.connect(f"file:{tmp_path}/catalogue.db?mode=ro", uri=True) as other:
            assert other.execute("SELECT name FROM entries").fetchall() == [("a",)]
        other.close()


async def test_what_cannot_be_written_is_an_error_and_changes_nothing(tmp_path: Path):
    async with SqliteKeeper.opened(tmp_path) as keeper:
        await keeper.keep([Put(entry("a"))])
        keeper._database.execute("PRAGMA query_only = ON")
        with pytest.raises(CatalogueNotWritten) as caught:
            await keeper.keep([Drop(Key("node", "a")), Put(entry("b"))])
        assert str(tmp_path / "catalogue.db") in str(caught.value)
        keeper._database.execute("PRAGMA query_only = OFF")
        assert await keeper.entries() == [entry("a")]
        await keeper.keep([Put(entry("b", 2))])


async def test_a_reader_beside_it_does_not_disturb(tmp_path: Path):
    async with SqliteKeeper.opened(tmp_path) as keeper:
        await keeper.keep([Put(entry("a"))])
        other = sqlite3.connect(tmp_path / "catalogue.db")
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        await keeper.keep([Put(entry("b", 2))])
        other.close()


async def test_a_database_that_is_not_ours_is_refused(tmp_path: Path):
    with sqlite3.connect(tmp_path / "catalogue.db") as database:
        database.execute("CREATE TABLE stranger (x)")
    database.close()
    content = (tmp_path / "catalogue.db").read_bytes()
    with pytest.raises(CatalogueDamaged) as caught:
        open_database(tmp_path / "catalogue.db")
    assert f"{APPLICATION_ID:#x}" in str(caught.value)
    assert (tmp_path / "catalogue.db").read_bytes() == content


async def test_a_database_that_is_gone_while_its_log_is_there_is_no_new_beginning(tmp_path: Path):
    async with SqliteKeeper.opened(tmp_path) as keeper:
        await keeper.keep([Put(entry("a"))])
        (tmp_path / "saved").write_bytes((tmp_path / "catalogue.db-wal").read_bytes())
    (tmp_path / "catalogue.db").unlink()
    (tmp_path / "saved").rename(tmp_path / "catalogue.db-wal")
    with pytest.raises(CatalogueDamaged):
        open_database(tmp_path / "catalogue.db")


async def test_a_crash_while_the_database_is_made_leaves_none(tmp_path: Path):
    (tmp_path / "catalogue.db.new").write_bytes(b"half")
    (tmp_path / "catalogue.db.new-journal").write_bytes(b"half")
    async with SqliteKeeper.opened(tmp_path) as keeper:
        assert await keeper.entries() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalogue.db"]


async def test_only_its_owner_can_read_the_state_directory(tmp_path: Path):
    with state_directory(str(tmp_path / "deep" / "state")) as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        async with SqliteKeeper.opened(directory):
            assert (directory / "catalogue.db").stat().st_mode & 0o777 == 0o600


def test_a_state_directory_that_cannot_be_made_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateDirectoryUnusable), state_directory(str(tmp_path / "file" / "state")):
        pass


def test_a_state_directory_is_free_again_when_its_process_was_killed(tmp_path: Path):
    code = (
        "import sys, time\n"
        "from blockyard.node.keeping import state_directory\n"
        "with state_directory(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StateDirectoryBusy) as caught, state_directory(str(tmp_path)):
            pass
        assert f"process {other.pid}" in str(caught.value)
        os.kill(other.pid, 9)
        other.wait()
        with state_directory(str(tmp_path)):
            pass
