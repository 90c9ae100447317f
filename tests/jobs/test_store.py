"""Every store under one contract, and what is special about each: durability, damage, a database that goes away."""

import asyncio
import os
import signal
import sqlite3
from contextlib import asynccontextmanager

import pytest

from blockyard.base.clock import SystemClock
from blockyard.base.errors import (
    JobStoreDamaged,
    JobStoreTooNew,
    JobStoreUnavailable,
    OwnerMismatch,
    StateDirectoryBusy,
)
from blockyard.jobs.store.memory import MemoryStore
from blockyard.jobs.store.postgres import postgres_store, shown
from blockyard.jobs.store.sqlite import sqlite_store
from tests.support.postgres import Postgres, postgres
from tests.support.stores import StoreContract, record


class TestMemory(StoreContract):
    @asynccontextmanager
    async def opened(self):
        yield MemoryStore()


class TestSqlite(StoreContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.path = tmp_path / "state"

    def opened(self):
        return sqlite_store(str(self.path))

    async def test_everything_is_there_after_a_restart_and_nobody_lives(self):
        async with self.opened() as store:
            number = await store.begin("", 7)
            await store.create(record(token=number, request_id="one"), number)
        async with self.opened() as store:
            assert await store.load() == [record(token=number, request_id="one")]
            assert (await store.request("one")).job_id == "job"
            assert await store.incarnations() == []
            assert len(await store.orphans()) == 1
            assert await store.begin("", 0) == 8

    async def test_a_commit_waits_for_the_disk(self):
        async with self.opened() as store:
            connection = store._database._connection
            told = [
                await asyncio.wrap_future(
                    store._database._thread.submit(
                        lambda name=name: connection.execute(f"PRAGMA {name}").fetchone()
                    )
                )
                for name in ("journal_mode", "synchronous")
            ]
            assert told == [("wal",), (2,)]

    async def test_one_service_holds_the_directory_and_the_node_may_hold_it_too(self):
        async with self.opened():
            with pytest.raises(StateDirectoryBusy):
                async with self.opened():
                    pass
            from blockyard.keeping.directory import state_directory

            with state_directory(str(self.path)):
                pass

    async def test_a_strange_or_damaged_database_is_refused_and_left_alone(self):
        self.path.mkdir()
        with sqlite3.connect(self.path / "jobs.db") as stranger:
            stranger.execute("CREATE TABLE mine (x)")
        stranger.close()
        content = (self.path / "jobs.db").read_bytes()
        with pytest.raises(JobStoreDamaged, match="application id"):
            async with self.opened():
                pass
        assert (self.path / "jobs.db").read_bytes() == content
        (self.path / "jobs.db").write_bytes(b"")
        with pytest.raises(JobStoreDamaged, match="empty"):
            async with self.opened():
                pass

    async def test_a_database_of_a_later_version_is_refused(self):
        async with self.opened():
            pass
        with sqlite3.connect(self.path / "jobs.db") as later:
            later.execute("INSERT INTO migrations VALUES (99, 'later')")
        later.close()
        with pytest.raises(JobStoreTooNew):
            async with self.opened():
                pass

    async def test_what_cannot_be_written_is_unavailable_and_changes_nothing(self):
        async with self.opened() as store:
            number = await store.begin("", 0)
            await store.create(record(token=number), number)
            thread, connection = store._database._thread, store._database._connection
            thread.submit(lambda: connection.execute("PRAGMA query_only = ON")).result()
            with pytest.raises(JobStoreUnavailable, match=r"jobs\.db"):
                await store.put(record(token=number, state="RUNNING"))
            thread.submit(lambda: connection.execute("PRAGMA query_only = OFF")).result()
            assert (await store.find("job")).state == "CREATED"

    async def test_a_script_that_refuses_leaves_no_transaction_open(self):
        async with self.opened() as store:
            with pytest.raises(OwnerMismatch):
                await store.put(record())
            assert await store.begin("", 0) == 1


@pytest.fixture(scope="module")
def server():
    with postgres() as running:
        yield running


@pytest.mark.peer("postgres")
class TestPostgres(StoreContract):
    @pytest.fixture(autouse=True)
    def place(self, server: Postgres):
        self.server = server
        self.url = server.new_database()

    def opened(self):
        return postgres_store(self.url, SystemClock())

    async def test_everything_is_there_for_the_next_service_and_incarnations_live_on(self):
        async with self.opened() as store:
            number = await store.begin("here", 0)
            await store.create(record(token=number), number)
            async with self.opened() as other:
                assert await other.load() == [record(token=number)]
                assert await other.orphans() == []
        async with self.opened() as store:
            assert [item.number for item in await store.incarnations()] == [number]

    async def test_of_two_services_that_adopt_at_once_one_succeeds(self):
        async with self.opened() as one, self.opened() as two:
            old = await one.begin("", 0)
            await one.create(record(token=old), old)
            await one.end(old)
            for _ in range(20):
                (orphan,) = await one.load()
                taken = await asyncio.gather(
                    one.adopt("job", orphan.fencing_token, 1), two.adopt("job", orphan.fencing_token, 2)
                )
                assert [item is not None for item in taken].count(True) == 1

    async def test_two_services_that_start_at_once_make_the_tables_once(self):
        first, second = await asyncio.gather(_numbers(self.opened), _numbers(self.opened))
        assert {first, second} == {1, 2}

    async def test_a_database_that_went_away_is_unavailable_at_once_and_found_again(self):
        async with self.opened() as store:
            number = await store.begin("", 0)
            await store.create(record(token=number), number)
            self.server.stop()
            try:
                before = SystemClock().monotonic_ns()
                for _ in range(20):
                    with pytest.raises(JobStoreUnavailable) as refused:
                        await store.find("job")
                    assert refused.value.retryable
                assert SystemClock().monotonic_ns() - before < 2e9
            finally:
                self.server.start()
            store._database._away_until_ns = 0
            assert await store.find("job") == record(token=number)

    async def test_a_database_that_hangs_is_unavailable_within_seconds(self, monkeypatch):
        import blockyard.jobs.store.postgres as module

        monkeypatch.setattr(module, "SCRIPT_SECONDS", 0.2)
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
        async with self.opened() as store:
            pid = self._backend(store)
            os.kill(pid, signal.SIGSTOP)
            try:
                with pytest.raises(JobStoreUnavailable):
                    await store.load()
            finally:
                os.kill(pid, signal.SIGCONT)

    def _backend(self, store) -> int:
        return store._database._connection.info.backend_pid

    async def test_a_later_schema_is_refused(self):
        async with self.opened() as store:

            def script():
                yield "INSERT INTO migrations VALUES (99, now())", ()

            await store._database.run(script)
        with pytest.raises(JobStoreTooNew):
            async with self.opened():
                pass


async def _numbers(opened) -> int:
    async with opened() as store:
        return await store.begin("", 0)


def test_a_url_is_shown_without_its_password():
    assert shown("postgresql://me:secret@host:5/db") == "postgresql://me@host:5/db"
    assert shown("postgresql:///db?host=/run") == "postgresql:///db?host=/run"
