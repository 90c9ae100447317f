"""What watchers of jobs see: every change of state in order, and the latest progress.

What lives here: revisions, the bounded history, one cursor per watcher. What must not: streams, protobuf, jobs.

Theory. One counter numbers all changes. Changes of state stay in a history shared by all watchers; of progress
only the latest picture per job is kept, and a change of state takes its place. A watcher is nothing but a
cursor: its next event is the one with the smallest revision above it. So a slow watcher costs nothing, sees
every state and the newest progress, and one that comes back with its last revision sees what it missed. One
that has slept through the whole history is told so (`RevisionTooOld`) instead of being shown a gap.

Revisions begin at the wall clock in microseconds, so that those of an earlier incarnation are always older.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import InvalidArgument, RevisionTooOld
from blockyard.jobs.copying.bell import Bell
from blockyard.jobs.lifecycle.spec import JobView
from blockyard.jobs.lifecycle.table import JobState

HISTORY: Final = 4096
"""Changes of state that are kept; some kilobytes each."""

BOOKMARK_SECONDS: Final = 15.0
"""A watcher hears something at least so often, so that a dead connection is noticed."""


class Change(StrEnum):
    """ChangeType of types.proto."""

    INITIAL = "INITIAL"
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    REMOVED = "REMOVED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class Event:
    """One change. A bookmark has no view."""

    revision: int
    change: Change
    view: JobView | None = None


class Watches:
    """The history of all jobs and those who read it."""

    def __init__(self, clock: Clock, history: int = HISTORY) -> None:
        self._clock = clock
        self._revision = clock.wall_ns() // 1000
        self._forgotten = self._revision
        self._limit = history
        self._history: deque[Event] = deque()
        self._latest: dict[str, Event] = {}
        self._states: dict[str, JobState] = {}
        self._watchers: set[Bell] = set()
        self.closed = False

    @property
    def revision(self) -> int:
        """Of the latest change."""
        return self._revision

    @property
    def kept(self) -> tuple[Event, ...]:
        """The changes of state that a watcher can still be shown."""
        return tuple(self._history)

    def next_revision(self) -> int:
        self._revision += 1
        return self._revision

    def publish(self, view: JobView) -> None:
        """A job changed; `view.revision` came from `next_revision`."""
        known = self._states.get(view.job_id)
        if view.state is known:
            self._latest.pop(view.job_id, None)
            self._latest[view.job_id] = Event(view.revision, Change.MODIFIED, view)
        else:
            self._latest.pop(view.job_id, None)
            self._remember(Event(view.revision, self._change(view, known), view))
        for bell in self._watchers:
            bell.ring()

    def close(self) -> None:
        """The service stops: every watch ends after what it has not yet seen."""
        self.closed = True
        for bell in self._watchers:
            bell.ring()

    async def watch(
        self, present: Callable[[], Mapping[str, JobView]], job_id: str = "", start_revision: int = 0
    ) -> AsyncGenerator[Event, None]:
        """Events of one job (until it is gone) or of all: after `start_revision`, or from what is present on."""
        self._check(start_revision)
        bell = Bell(self._clock)
        self._watchers.add(bell)
        try:
            cursor = start_revision
            if not start_revision:
                cursor = self._revision
                for name, view in sorted(present().items()):
                    if job_id in ("", name):
                        yield Event(min(view.revision, cursor), Change.INITIAL, view)
                yield Event(cursor, Change.BOOKMARK)
            async for event in self._follow(bell, job_id, cursor):
                yield event
        finally:
            self._watchers.discard(bell)

    async def _follow(self, bell: Bell, job_id: str, cursor: int) -> AsyncGenerator[Event, None]:
        while True:
            bell.clear()
            event = self._after(cursor, job_id)
            if event:
                cursor = event.revision
                yield event
                if job_id and event.change is Change.REMOVED:
                    return
                continue
            if self.closed:
                return
            cursor = max(cursor, self._revision)
            before_ns = self._clock.monotonic_ns()
            await bell.wait(BOOKMARK_SECONDS)
            if self._clock.monotonic_ns() - before_ns >= BOOKMARK_SECONDS * 1e9 and not self._after(cursor, job_id):
                yield Event(cursor, Change.BOOKMARK)

    def seen(self, job_id: str) -> bool:
        """Whether the history holds a change of this job."""
        return any(event.view and event.view.job_id == job_id for event in self._history)

    def _check(self, start_revision: int) -> None:
        if start_revision < 0 or start_revision > self._revision:
            raise InvalidArgument("start_revision", f"0, or at most {self._revision}", str(start_revision))
        if 0 < start_revision < self._forgotten:
            raise RevisionTooOld(start_revision, self._forgotten)

    def _remember(self, event: Event) -> None:
        assert event.view is not None
        self._history.append(event)
        if event.view.state is JobState.NULL:
            self._states.pop(event.view.job_id, None)
        else:
            self._states[event.view.job_id] = event.view.state
        if len(self._history) > self._limit:
            self._forgotten = self._history.popleft().revision

    def _after(self, cursor: int, job_id: str) -> Event | None:
        """The event with the smallest revision above the cursor."""
        if cursor < self._forgotten:
            raise RevisionTooOld(cursor, self._forgotten)
        found: Event | None = None
        for events in (reversed(self._history), reversed(self._latest.values())):
            for event in events:
                if event.revision <= cursor:
                    break
                matches = not job_id or (event.view is not None and event.view.job_id == job_id)
                if matches and (found is None or event.revision < found.revision):
                    found = event
        return found

    @staticmethod
    def _change(view: JobView, known: JobState | None) -> Change:
        if view.state is JobState.NULL:
            return Change.REMOVED
        return Change.ADDED if known is None else Change.MODIFIED
