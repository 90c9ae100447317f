"""Watching jobs: present state, changes in order, dropped and taken up again, slow readers."""

import asyncio
from contextlib import aclosing

import pytest

from blockyard.base.errors import InvalidArgument, ResourceNotFound, RevisionTooOld
from blockyard.jobs.lifecycle.manager import Manager
from blockyard.jobs.lifecycle.table import JobState as S
from blockyard.jobs.lifecycle.watch import Change, Event, Watches
from blockyard.jobs.node.port import FinishAction, SyncMode
from tests.support.living_jobs import Scene, living
from tests.support.small_node import GRANULE

MIRROR = {"node_name": "a", "target_node_name": "t", "sync": SyncMode.FULL}


def stage(scene: Scene) -> None:
    for name in ("a", "b", "t", "u"):
        scene.node.disk(name, fill=name.encode())


class Reader:
    """Collects events in a task until told to stop."""

    def __init__(self, manager: Manager, job_id: str = "", start_revision: int = 0) -> None:
        self.events: list[Event] = []
        self.ended = False
        self._task = asyncio.create_task(self._read(manager, job_id, start_revision))

    async def _read(self, manager: Manager, job_id: str, start_revision: int) -> None:
        async with aclosing(manager.watch(job_id, start_revision)) as events:
            async for event in events:
                self.events.append(event)
        self.ended = True

    async def stop(self) -> int:
        """The last revision it saw."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.events[-1].revision

    @property
    def states(self) -> list[S]:
        return changes(self.events)


def changes(events: list[Event]) -> list[S]:
    """States told, without those that only repeat the one before."""
    found = [event.view.state for event in events if event.view]
    return [state for index, state in enumerate(found) if index == 0 or found[index - 1] is not state]


async def test_a_watch_begins_with_what_is_there_and_a_bookmark():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        reader = Reader(scene.manager)
        await scene.pass_time()
        assert [event.change for event in reader.events] == [Change.INITIAL, Change.BOOKMARK]
        assert reader.events[0].view.state is S.READY
        await reader.stop()


async def test_a_watch_sees_every_state_in_order_with_growing_revisions():
    async with living() as scene:
        stage(scene)
        reader = Reader(scene.manager)
        await scene.pass_time()
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        await scene.manager.complete("job", FinishAction.PIVOT)
        await scene.until(S.CONCLUDED)
        await scene.manager.dismiss("job")
        await scene.pass_time()
        expected = [S.CREATED, S.RUNNING, S.READY, S.WAITING, S.PENDING, S.CONCLUDED, S.NULL]
        assert reader.states == expected
        revisions = [event.revision for event in reader.events[1:]]
        assert revisions == sorted(set(revisions))
        assert reader.events[1].change is Change.ADDED
        assert reader.events[-1].change is Change.REMOVED
        await reader.stop()


async def test_a_watch_that_was_dropped_anywhere_sees_what_it_missed():
    async with living() as scene:
        stage(scene)
        reader = Reader(scene.manager)
        await scene.pass_time()
        await scene.start("mirror", **MIRROR)
        await scene.until(S.CONCLUDED, S.READY)
        await scene.manager.complete("job", FinishAction.PIVOT)
        await scene.until(S.CONCLUDED)
        await scene.manager.dismiss("job")
        await scene.pass_time()
        await reader.stop()
        everything = [event for event in reader.events if event.view]
        for index, event in enumerate(everything[:-1]):
            again = Reader(scene.manager, start_revision=event.revision)
            await scene.pass_time()
            assert changes(everything[index:]) == changes([event, *again.events])
            assert again.events[-1].view.state is S.NULL
            await again.stop()


async def test_a_watch_of_one_job_ends_when_it_is_gone():
    async with living() as scene:
        stage(scene)
        await scene.start("mirror", **MIRROR)
        await scene.start("stream", "other", node_name="b")
        reader = Reader(scene.manager, "job")
        await scene.until(S.READY)
        await scene.manager.cancel("job")
        await scene.until(S.CONCLUDED)
        await scene.manager.dismiss("job")
        await scene.pass_time()
        assert reader.ended
        assert {event.view.job_id for event in reader.events if event.view} == {"job"}


async def test_a_watch_of_a_job_that_is_gone_can_be_taken_up_again_but_not_begun():
    async with living() as scene:
        stage(scene)
        await scene.start("stream", node_name="a", auto_dismiss=True)
        await scene.pass_time(1)
        with pytest.raises(ResourceNotFound):
            scene.manager.watch("job")
        first = scene.manager.watches.kept[0].revision
        reader = Reader(scene.manager, "job", first)
        await scene.pass_time()
        assert reader.states[-1] is S.NULL
        assert reader.ended


async def test_progress_is_told_while_a_job_works_and_coalesced_for_a_slow_reader():
    async with living() as scene:
        stage(scene)
        scene.node.bytes_per_second = 8 * GRANULE
        slow = scene.manager.watch()
        assert (await anext(slow)).change is Change.BOOKMARK
        reader = Reader(scene.manager)
        await scene.pass_time()
        await scene.start("backup", **MIRROR, max_chunk_bytes=GRANULE)
        await scene.pass_time(6)
        told = [event for event in reader.events if event.view and event.view.state is S.RUNNING]
        assert 15 < len(told) < 40
        seen = [await anext(slow) for _ in range(3)]
        assert [event.view.state for event in seen] == [S.CREATED, S.RUNNING, S.RUNNING]
        assert seen[2].view.progress.done_bytes == told[-1].view.progress.done_bytes
        await reader.stop()
        await slow.aclose()


async def test_a_reader_that_slept_through_the_history_is_told_so():
    async with living() as scene:
        stage(scene)
        scene.manager.watches = Watches(scene.clock, history=4)
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        early = scene.manager.watches.kept[0].revision
        asleep = scene.manager.watch("", early)
        assert (await anext(asleep)).view.state is S.RUNNING
        for _ in range(4):
            await scene.manager.pause("job")
            await scene.until(S.STANDBY)
            await scene.manager.resume("job")
            await scene.until(S.READY)
        with pytest.raises(RevisionTooOld):
            await anext(asleep)
        with pytest.raises(RevisionTooOld):
            await anext(scene.manager.watch("", early))


async def test_a_revision_of_another_incarnation_is_too_old_and_one_of_the_future_is_wrong():
    async with living() as scene:
        now = scene.manager.watches.revision
        with pytest.raises(RevisionTooOld):
            await anext(scene.manager.watch("", now - 1))
        with pytest.raises(InvalidArgument):
            await anext(scene.manager.watch("", now + 1))
        with pytest.raises(InvalidArgument):
            await anext(scene.manager.watch("", -1))


async def test_a_quiet_watch_gets_bookmarks():
    async with living() as scene:
        reader = Reader(scene.manager)
        await scene.pass_time(31)
        assert [event.change for event in reader.events] == [Change.BOOKMARK] * 3
        await reader.stop()


async def test_watches_end_when_the_service_stops_after_telling_how_each_job_ended():
    async with living() as scene:
        stage(scene)
        reader = Reader(scene.manager)
        await scene.pass_time()
        await scene.start("mirror", **MIRROR)
        await scene.until(S.READY)
        await scene.stop()
        await scene.pass_time()
        assert reader.ended
        assert reader.states[-3:] == [S.ABORTING, S.CONCLUDED, S.NULL]


async def test_leaving_a_watch_leaves_the_job_alone():
    async with living() as scene:
        stage(scene)
        reader = Reader(scene.manager)
        await scene.start("mirror", **MIRROR)
        await scene.pass_time()
        await reader.stop()
        await scene.until(S.READY)
        assert not scene.manager.watches._watchers
