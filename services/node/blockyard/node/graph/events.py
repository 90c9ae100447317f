"""What watchers see: changes of resources in order, with revisions, and a bounded memory of them.

A hub keeps the latest change per resource for slow readers: they get coalesced state, never a lost removal.
Generic over the resource; nodes use it here, and it knows nothing of them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from blockyard.base.errors import RevisionTooOld

Resource = TypeVar("Resource")
Kind = Literal["initial", "added", "modified", "removed", "event", "bookmark"]

HISTORY: Final = 4096
"""Changes that a watcher may resume from; about a minute of a busy graph."""
QUEUE: Final = 32_768
"""Changes that wait for one slow reader: three times the present state of the largest graph (max_nodes)."""


@dataclass(frozen=True, slots=True)
class Change(Generic[Resource]):
    """One change of one resource."""

    kind: Kind
    name: str
    resource: Resource | None
    revision: int


class Hub(Generic[Resource]):
    """Publishes changes to any number of watchers."""

    def __init__(self, first_revision: int = 1) -> None:
        self.revision = first_revision
        self._history: deque[Change[Resource]] = deque(maxlen=HISTORY)
        self._watchers: set[_Watcher[Resource]] = set()

    def publish(self, kind: Kind, name: str, resource: Resource | None) -> int:
        """Tell everyone; the revision of the change."""
        self.revision += 1
        change = Change(kind, name, resource, self.revision)
        self._history.append(change)
        for watcher in self._watchers:
            watcher.push(change)
        return self.revision

    def bookmark(self) -> None:
        """Tell every watcher who is up to date that it is: a sign of life, and a revision to resume from."""
        change: Change[Resource] = Change("bookmark", "", None, self.revision)
        for watcher in self._watchers:
            watcher.push_if_idle(change)

    async def watch(
        self, start_revision: int, present: Callable[[], Iterable[tuple[str, Resource]]]
    ) -> AsyncIterator[Change[Resource]]:
        """Changes after `start_revision`; with 0 the present state first, then a bookmark.

        Raises RevisionTooOld if changes after it are forgotten, or when the reader falls too far behind.
        """
        watcher: _Watcher[Resource] = _Watcher()
        if start_revision:
            for change in self._since(start_revision):
                watcher.push(change)
        else:
            for name, resource in present():
                watcher.push(Change("initial", name, resource, self.revision))
            watcher.push(Change("bookmark", "", None, self.revision))
        self._watchers.add(watcher)
        try:
            while True:
                yield await watcher.pop()
        finally:
            self._watchers.discard(watcher)

    def _since(self, revision: int) -> list[Change[Resource]]:
        oldest = self._history[0].revision - 1 if self._history else self.revision
        if revision < oldest or revision > self.revision:
            raise RevisionTooOld(revision, oldest)
        return [change for change in self._history if change.revision > revision]


class _Watcher(Generic[Resource]):
    """A reader's queue: at most one waiting modification per resource; all else is kept."""

    def __init__(self) -> None:
        self._queue: deque[Change[Resource]] = deque()
        self._arrived = asyncio.Event()
        self._lost: Change[Resource] | None = None
        """The first change that the full queue could not take: the reader must begin again there."""

    def push_if_idle(self, change: Change[Resource]) -> None:
        if not self._queue and self._lost is None:
            self._queue.append(change)
            self._arrived.set()

    def push(self, change: Change[Resource]) -> None:
        if change.kind == "modified":
            for waiting in self._queue:
                if waiting.name == change.name and waiting.kind == "modified":
                    self._queue.remove(waiting)
                    break
        if self._lost is not None:
            return
        if len(self._queue) >= QUEUE:
            self._lost = change
        else:
            self._queue.append(change)
        self._arrived.set()

    async def pop(self) -> Change[Resource]:
        while not self._queue:
            if self._lost is not None:
                raise RevisionTooOld(self._lost.revision - 1, self._lost.revision)
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()
