"""What watchers see: changes of resources in order, with revisions, and a bounded memory of them.

A hub keeps the latest change per resource for slow readers: they get coalesced state, never a lost removal.
Generic over the resource; nodes use it here, and it knows nothing of them.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Generic, Literal, TypeVar

from blockyard.base.errors import RevisionTooOld

Resource = TypeVar("Resource")
Kind = Literal["initial", "added", "modified", "removed", "event", "bookmark"]

HISTORY: Final = 4096
"""Changes that a watcher may resume from; about a minute of a busy graph."""
QUEUE: Final = 32_768
"""Changes that wait for one slow reader: three times the present state of the largest graph (max_nodes)."""
_REPLACEABLE: Final = ("added", "modified")
_REPLACES: Final = ("modified", "removed")


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
    """A reader's queue, in order of revisions. A later change of a resource takes the place of what waits:

    | waits | comes | stays |
    |---|---|---|
    | modified | modified, removed | what comes |
    | added | modified | added, as it is now |
    | added | removed | removed |
    | removed | added | both |
    """

    def __init__(self) -> None:
        self._queue: OrderedDict[int, Change[Resource]] = OrderedDict()
        """By order of arrival."""
        self._arrivals = 0
        self._latest: dict[str, int] = {}
        """Of each resource the change that waits and may be replaced."""
        self._arrived = asyncio.Event()
        self._lost: Change[Resource] | None = None
        """The first change that the full queue could not take: the reader must begin again there."""

    def push_if_idle(self, change: Change[Resource]) -> None:
        if not self._queue and self._lost is None:
            self._append(change)

    def push(self, change: Change[Resource]) -> None:
        if self._lost is not None:
            return
        if change.kind in _REPLACES:
            change = self._coalesced(change)
        if len(self._queue) >= QUEUE:
            self._lost = change
            self._arrived.set()
            return
        if change.kind in _REPLACEABLE:
            self._latest[change.name] = self._arrivals
        self._append(change)

    def _coalesced(self, change: Change[Resource]) -> Change[Resource]:
        """What is to be said of the resource now; what it makes needless leaves the queue."""
        key = self._latest.pop(change.name, None)
        if key is None:
            return change
        waiting = self._queue.pop(key)
        if waiting.kind == "added" and change.kind == "modified":
            return replace(change, kind="added")
        return change

    def _append(self, change: Change[Resource]) -> None:
        self._queue[self._arrivals] = change
        self._arrivals += 1
        self._arrived.set()

    async def pop(self) -> Change[Resource]:
        while not self._queue:
            if self._lost is not None:
                raise RevisionTooOld(self._lost.revision - 1, self._lost.revision)
            self._arrived.clear()
            await self._arrived.wait()
        key, change = self._queue.popitem(last=False)
        if self._latest.get(change.name) == key:
            del self._latest[change.name]
        return change
