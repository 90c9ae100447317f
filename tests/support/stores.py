"""The contract of a job store, for every store there is."""

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from blockyard.base.errors import OwnerMismatch, ResourceExists
from blockyard.jobs.store.memory import MemoryStore
from blockyard.jobs.store.port import MAX_REQUESTS, JobRecord, JobStore, Step


def record(job_id: str = "job", token: int = 1, **more: Any) -> JobRecord:
    """A mirror that has just been made."""
    return JobRecord(
        job_id=job_id,
        kind="mirror",
        options={"node_name": "a", "target_node_name": "t", "sync": "FULL", "unmap": None, "granularity_bytes": 0},
        speed_bytes_per_second=0,
        auto_finalize=True,
        auto_dismiss=False,
        filter_node_name="",
        labels={"wer": "ich, \u00fc\u2028\"'%?;"},
        state=more.pop("state", "CREATED"),
        fencing_token=token,
        **more,
    )


FULL = {
    "requested": {"speed_bytes_per_second": 5, "kind.copy_mode": "BACKGROUND"},
    "outcome": "FAILED",
    "phase": "aborting",
    "session_made": True,
    "finalizing": True,
    "cursor_bytes": 1 << 62,
    "copied_bytes": 3,
    "zero_bytes": 2,
    "skipped_bytes": 1,
    "remaining_bytes": 7,
    "passed_over_bytes": 9,
    "user_paused": True,
    "error_paused": True,
    "io_status": "NOSPACE",
    "cancel_requested": True,
    "force": True,
    "complete_action": "PIVOT",
    "finalize_requested": True,
    "fault": {"reason": "NO_SPACE", "message": "full", "field.offset": "7"},
    "first_fault": {"reason": "IO_ERROR"},
    "ignored_errors": 4,
    "create_wall_ns": 1_800_000_000_000_000_001,
    "start_wall_ns": 2,
    "end_wall_ns": 3,
    "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "last_trace": "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "history": (Step(1, "CREATED"), Step(2, "ABORTING", "NO_SPACE", "1af7651916cd43dd8448eb211c80319c")),
}


class StoreContract:
    """What every store does. `opened` gives the same store again and again, as it was left."""

    def opened(self) -> AbstractAsyncContextManager[JobStore]:
        raise NotImplementedError

    @pytest.fixture
    async def store(self):
        async with self.opened() as store:
            yield store

    async def test_what_is_put_is_found_and_loaded_as_it_was(self, store):
        number = await store.begin("", 0)
        full = record("b", number, **FULL)
        await store.create(record("b", number), number)
        await store.create(record("a", number), number)
        await store.put(full)
        assert await store.find("b") == full
        assert await store.load() == [record("a", number), full]
        assert await store.find("c") is None

    async def test_a_store_has_one_identity_and_no_other_store_has_it(self, store):
        assert await store.identity() == await store.identity()
        assert await store.identity() != await MemoryStore().identity()

    async def test_a_removed_job_is_gone_and_removing_it_again_is_no_error(self, store):
        number = await store.begin("", 0)
        await store.create(record(token=number), number)
        await store.remove("job", number)
        await store.remove("job", number)
        assert await store.load() == []

    async def test_an_id_is_taken_once_and_a_repeated_creation_is_the_same_one(self, store):
        number = await store.begin("", 0)
        await store.create(record(token=number), number)
        await store.create(record(token=number), number)
        with pytest.raises(ResourceExists):
            await store.create(record(token=number + 1), number)

    async def test_what_was_removed_does_not_come_back_by_a_late_write(self, store):
        number = await store.begin("", 0)
        await store.create(record(token=number), number)
        await store.remove("job", number)
        with pytest.raises(OwnerMismatch):
            await store.put(record(token=number))

    async def test_tokens_only_grow_and_begin_where_they_are_told(self, store):
        first = await store.begin("", 1000)
        second = await store.begin("", 500)
        assert (first, second) == (1000, 1001)
        await store.create(record(token=second), second)
        await store.end(second)
        adopted = await store.adopt("job", second, first)
        assert adopted.fencing_token == 1002
        assert await store.begin("", 0) == 1003

    async def test_a_job_is_adopted_once_and_its_old_owner_is_refused(self, store):
        old, new, third = [await store.begin("", 0) for _ in range(3)]
        await store.create(record(token=old), old)
        assert await store.orphans() == []
        await store.end(old)
        assert [item.job_id for item in await store.orphans()] == ["job"]
        adopted = await store.adopt("job", old, new)
        assert adopted is not None
        assert await store.adopt("job", old, third) is None
        assert await store.orphans() == []
        for late in (
            store.put(record(token=old, state="RUNNING")),
            store.remove("job", old),
        ):
            with pytest.raises(OwnerMismatch):
                await late
        assert await store.find("job") == adopted
        await store.put(replace(adopted, state="RUNNING"))
        assert (await store.find("job")).state == "RUNNING"

    async def test_an_adopted_record_is_the_latest(self, store):
        old, new = await store.begin("", 0), await store.begin("", 0)
        await store.create(record(token=old), old)
        await store.put(record(token=old, state="PAUSED", user_paused=True))
        adopted = await store.adopt("job", old, new)
        assert (adopted.state, adopted.user_paused) == ("PAUSED", True)

    async def test_an_incarnation_is_ended_only_if_it_has_not_moved(self, store):
        number = await store.begin("unix:/here", 0)
        (seen,) = await store.incarnations()
        assert (seen.number, seen.address) == (number, "unix:/here")
        await store.beat(number)
        assert not await store.end(number, seen.beat)
        (seen,) = await store.incarnations()
        assert await store.end(number, seen.beat)
        assert await store.incarnations() == []
        assert not await store.end(number)
        with pytest.raises(OwnerMismatch):
            await store.beat(number)

    async def test_the_owner_of_a_job_is_told_while_it_lives(self, store):
        number = await store.begin("host:1", 0)
        await store.create(record(token=number), number)
        assert (await store.owner_of("job")).address == "host:1"
        assert await store.owner_of("other") is None
        await store.end(number)
        assert await store.owner_of("job") is None

    async def test_a_request_is_remembered_when_its_job_is_gone(self, store):
        number = await store.begin("", 0)
        made = record(token=number, request_id="one")
        await store.create(made, number)
        await store.create(record("second", number, request_id="two"), number)
        await store.remove("job", number)
        assert await store.request("one") == made
        assert (await store.request("two")).job_id == "second"
        assert await store.request("three") is None

    async def test_a_refused_request_is_forgotten_with_its_job(self, store):
        number = await store.begin("", 0)
        await store.create(record(token=number, request_id="one"), number)
        await store.remove("job", number, "one")
        assert await store.request("one") is None

    async def test_the_oldest_request_is_forgotten_first(self, store, monkeypatch):
        import blockyard.jobs.store.memory as in_memory
        import blockyard.jobs.store.sql as in_sql

        assert in_sql.MAX_REQUESTS == MAX_REQUESTS
        for module in (in_memory, in_sql):
            monkeypatch.setattr(module, "MAX_REQUESTS", 2)
        number = await store.begin("", 0)
        for name in ("x", "y", "z"):
            await store.create(record(name, number, request_id=name), number)
        kept = [name for name in ("x", "y", "z") if await store.request(name)]
        assert kept == ["y", "z"]
