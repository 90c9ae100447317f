"""Jobs by id and by request: repeated calls, lists, limits, what is written down."""

import asyncio

import pytest

from blockyard.base.errors import (
    InvalidArgument,
    LimitReached,
    RequestIdReused,
    ResourceExists,
    ResourceNotFound,
    ShuttingDown,
)
from blockyard.jobs.lifecycle.table import JobState as S
from blockyard.jobs.node.port import SyncMode
from blockyard.jobs.store.memory import MemoryStore
from blockyard.jobs.store.port import JobRecord
from blockyard.jobs.store.records import kind_of
from tests.support.living_jobs import Scene, living, spec_of
from tests.support.small_node import open_gate

MIRROR = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}


def stage(scene: Scene) -> None:
    for name in ("a", "b", "c", "t", "u", "v"):
        scene.node.disk(name, fill=name.encode())


async def test_the_same_request_again_is_the_same_job():
    async with living() as scene:
        stage(scene)
        first = await scene.start("mirror", **MIRROR)
        again = await scene.start("mirror", **MIRROR)
        assert again.create_wall_ns == first.create_wall_ns
        assert scene.node.calls.count("create_session") == 1


async def test_two_calls_at_once_make_one_job():
    async with living() as scene:
        stage(scene)
        spec = spec_of("mirror", **MIRROR)
        views = await asyncio.gather(scene.manager.create(spec), scene.manager.create(spec))
        assert views[0].create_wall_ns == views[1].create_wall_ns
        assert scene.node.calls.count("create_session") == 1


async def test_another_request_under_the_same_id_is_refused():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **MIRROR)
        with pytest.raises(ResourceExists):
            await scene.start("mirror", **{**MIRROR, "sync": SyncMode.TOP})


async def test_a_changed_speed_does_not_make_it_another_request():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **MIRROR)
        await scene.manager.set_speed("job", 1 << 20)
        assert (await scene.start("mirror", **MIRROR)).spec.speed_bytes_per_second == 1 << 20


async def test_a_request_id_remembers_a_job_that_is_gone():
    async with living() as scene:
        stage(scene)
        spec = spec_of("stream", node_name="a", auto_dismiss=True)
        await scene.manager.create(spec, "one")
        await scene.pass_time(1)
        assert scene.manager.present() == {}
        assert (await scene.manager.create(spec, "one")).state is S.NULL
        assert scene.node.calls.count("create_session") == 1


async def test_a_request_id_is_for_one_request_only():
    async with living() as scene:
        stage(scene)
        await scene.manager.create(spec_of("stream", node_name="a"), "one")
        with pytest.raises(RequestIdReused):
            await scene.manager.create(spec_of("stream", "other", node_name="b"), "one")


async def test_a_refused_request_may_be_repeated():
    async with living() as scene:
        spec = spec_of("stream", node_name="a")
        with pytest.raises(Exception, match="no node"):
            await scene.manager.create(spec, "one")
        stage(scene)
        assert (await scene.manager.create(spec, "one")).job_id == "job"


async def test_a_client_that_gives_up_does_not_end_the_creation():
    async with living() as scene:
        stage(scene)
        scene.node.create_gate.clear()
        call = asyncio.create_task(scene.start("mirror", **MIRROR))
        await scene.pass_time()
        call.cancel()
        scene.node.create_gate.set()
        await scene.until(S.READY)


async def test_a_dry_run_checks_at_the_node_and_makes_nothing():
    async with living() as scene:
        stage(scene)
        view = await scene.manager.validate(spec_of("mirror", **MIRROR))
        assert view.spec.filter_node_name == "job-filter"
        assert (scene.manager.present(), scene.node.sessions) == ({}, {})
        with pytest.raises(Exception, match="no node"):
            await scene.manager.validate(spec_of("mirror", **{**MIRROR, "node_name": "missing"}))


async def test_lists_are_by_id_and_in_pages():
    async with living() as scene:
        stage(scene)
        for name, node in (("m2", "b"), ("m1", "a"), ("m3", "c")):
            await scene.start("stream", name, node_name=node)
        views, more = scene.manager.listed("", 2)
        assert ([view.job_id for view in views], more) == (["m1", "m2"], True)
        views, more = scene.manager.listed("m2", 2)
        assert ([view.job_id for view in views], more) == (["m3"], False)


async def test_the_number_of_jobs_is_bounded():
    async with living(max_jobs=1) as scene:
        stage(scene)
        await scene.start("stream", "one", node_name="a")
        with pytest.raises(LimitReached, match="limit of 1 jobs"):
            await scene.start("stream", "two", node_name="b")


async def test_request_ids_are_forgotten_oldest_first():
    async with living(max_requests=2) as scene:
        stage(scene)
        for name in ("a", "b", "c"):
            await scene.manager.create(spec_of("stream", name, node_name=name), f"request-{name}")
        assert list(scene.manager._requests) == ["request-b", "request-c"]


async def test_a_stopping_service_takes_no_jobs():
    async with living() as scene:
        stage(scene)
        await scene.stop()
        with pytest.raises(ShuttingDown):
            await scene.start("stream", node_name="a")


@pytest.mark.parametrize("job_id", ["", "1a", "a b", "-a", "a" * 129, "ä", "a/b", "a\n"])
async def test_names_that_no_job_may_have(job_id):
    async with living() as scene:
        with pytest.raises(InvalidArgument, match="job_id"):
            await scene.start("stream", job_id, node_name="a")


@pytest.mark.parametrize(
    "options",
    [
        {"speed_bytes_per_second": -1},
        {"speed_bytes_per_second": 1 << 63},
        {"labels": {str(number): "" for number in range(65)}},
        {"labels": {"a": "x" * 257}},
    ],
)
async def test_settings_that_no_job_may_have(options):
    async with living() as scene:
        with pytest.raises(InvalidArgument):
            await scene.start("stream", node_name="a", **options)


async def test_a_negative_speed_is_refused_while_a_job_runs():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **MIRROR)
        with pytest.raises(InvalidArgument):
            await scene.manager.set_speed("job", -1)


async def test_verbs_on_a_job_that_does_not_exist():
    async with living() as scene:
        for call in (scene.manager.pause, scene.manager.cancel, scene.manager.dismiss):
            with pytest.raises(ResourceNotFound):
                await call("nobody")


class RememberingStore(MemoryStore):
    """Every record that was ever put, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[JobRecord] = []

    async def create(self, record: JobRecord, incarnation: int) -> None:
        self.history.append(record)
        await super().create(record, incarnation)

    async def put(self, record: JobRecord) -> None:
        self.history.append(record)
        await super().put(record)


async def test_every_state_is_written_down_before_it_is_shown():
    async with living() as scene:
        scene.store = RememberingStore()
        scene.manager = scene.another_manager(7)
        stage(scene)
        shown: list[tuple[str, str]] = []
        publish = scene.manager.watches.publish

        def watched(view):
            shown.append((str(view.state), scene.store.history[-1].state))
            publish(view)

        scene.manager.watches.publish = watched
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        assert shown
        assert all(state == stored for state, stored in shown)


async def test_a_record_is_enough_to_make_the_same_job_again():
    async with living() as scene:
        scene.store = RememberingStore()
        scene.manager = scene.another_manager(7)
        stage(scene)
        spec = spec_of("mirror", **MIRROR, speed_bytes_per_second=5 << 20, labels={"a": "b"})
        await scene.manager.create(spec)
        await scene.until(S.READY)
        await scene.manager.pause("job")
        record = scene.store.history[-1]
        assert kind_of(record.kind, record.options) == spec.kind
        assert (record.speed_bytes_per_second, record.labels) == (5 << 20, {"a": "b"})
        assert (record.fencing_token, record.user_paused, record.state) == (7, True, "READY")
        assert record.done_bytes == 64 * 4096


class SlowStore(MemoryStore):
    """Takes its time to write."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = open_gate()

    async def create(self, record: JobRecord, incarnation: int) -> None:
        await self.gate.wait()
        await super().create(record, incarnation)


async def test_a_job_is_not_shown_before_it_was_written_down():
    async with living() as scene:
        scene.store = SlowStore()
        scene.manager = scene.another_manager(1)
        stage(scene)
        scene.store.gate.clear()
        call = asyncio.create_task(scene.start("stream", node_name="a"))
        await scene.pass_time()
        assert scene.manager.present() == {}
        assert scene.manager.listed("", 10) == ([], False)
        with pytest.raises(ResourceNotFound):
            scene.manager.get("job")
        scene.store.gate.set()
        await call
        assert list(scene.manager.present()) == ["job"]
