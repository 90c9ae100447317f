"""What watchers of a hub see."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from blockyard.base.errors import RevisionTooOld
from blockyard.node.graph import events
from blockyard.node.graph.events import Change, Hub

State = dict[str, int]


class Shop:
    """A few named numbers and the hub that tells of them."""

    def __init__(self) -> None:
        self.state: State = {}
        self.hub: Hub[int] = Hub(first_revision=100)

    def put(self, name: str, value: int) -> None:
        kind = "modified" if name in self.state else "added"
        self.state[name] = value
        self.hub.publish(kind, name, value)

    def drop(self, name: str) -> None:
        self.hub.publish("removed", name, self.state.pop(name))

    def watch(self, start: int = 0) -> AsyncIterator[Change[int]]:
        return self.hub.watch(start, lambda: list(self.state.items()))


async def take(watch: AsyncIterator[Change[int]], count: int) -> list[Change[int]]:
    return [await anext(watch) for _ in range(count)]


def said(changes: list[Change[int]]) -> list[tuple[str, str, int | None]]:
    return [(item.kind, item.name, item.resource) for item in changes]


async def begun(shop: Shop) -> AsyncIterator[Change[int]]:
    """A watch that has seen the present state."""
    watch = shop.watch()
    while (await anext(watch)).kind != "bookmark":
        pass
    return watch


async def drained_of(watch: AsyncIterator[Change[int]], shop: Shop) -> list[Change[int]]:
    """What waits for the reader now."""
    found = []
    shop.hub.publish("event", "end", None)
    while (change := await anext(watch)).name != "end":
        found.append(change)
    return found


async def test_a_new_watch_begins_with_the_present_state_and_a_bookmark():
    shop = Shop()
    shop.put("a", 1)
    shop.put("b", 2)
    watch = shop.watch()
    assert said(await take(watch, 3)) == [("initial", "a", 1), ("initial", "b", 2), ("bookmark", "", None)]
    shop.put("a", 3)
    assert said(await take(watch, 1)) == [("modified", "a", 3)]


async def test_a_watch_resumes_behind_the_revision_it_saw_last():
    shop = Shop()
    shop.put("a", 1)
    seen = (await take(shop.watch(), 2))[-1].revision
    shop.put("b", 2)
    shop.drop("a")
    assert said(await take(shop.watch(seen), 2)) == [("added", "b", 2), ("removed", "a", 1)]


async def test_a_watch_from_the_present_revision_waits_for_what_comes():
    shop = Shop()
    shop.put("a", 1)
    watch = shop.watch(shop.hub.revision)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    assert not waiting.done()
    shop.put("a", 2)
    assert (await waiting).resource == 2


@pytest.mark.parametrize("asked", [1, 10**9])
async def test_a_watch_from_a_revision_that_nobody_knows_is_refused(asked: int):
    shop = Shop()
    shop.put("a", 1)
    with pytest.raises(RevisionTooOld):
        await anext(shop.watch(asked))


async def test_what_is_older_than_the_history_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "HISTORY", 3)
    shop = Shop()
    start = shop.hub.revision
    for value in range(3):
        shop.put("a", value)
    assert len(await take(shop.watch(start), 1)) == 1
    shop.put("a", 9)
    with pytest.raises(RevisionTooOld) as refusal:
        await anext(shop.watch(start))
    assert refusal.value.oldest == start + 1


async def test_a_slow_reader_gets_one_change_per_resource_as_it_is_now():
    shop = Shop()
    shop.put("old", 0)
    watch = await begun(shop)
    shop.put("new", 0)
    for value in range(1, 100):
        shop.put("old", value)
        shop.put("new", value)
    changes = await drained_of(watch, shop)
    assert said(changes) == [("modified", "old", 99), ("added", "new", 99)]
    assert [item.revision for item in changes] == sorted(item.revision for item in changes)


async def test_a_removal_is_never_lost_and_nothing_of_the_resource_comes_before_it():
    shop = Shop()
    shop.put("a", 1)
    watch = await begun(shop)
    shop.put("a", 2)
    shop.drop("a")
    shop.put("b", 1)
    shop.drop("b")
    assert said(await drained_of(watch, shop)) == [("removed", "a", 2), ("removed", "b", 1)]


async def test_a_name_that_was_removed_and_taken_again_shows_both():
    shop = Shop()
    shop.put("a", 1)
    watch = await begun(shop)
    shop.drop("a")
    shop.put("a", 2)
    shop.put("a", 3)
    assert said(await drained_of(watch, shop)) == [("removed", "a", 1), ("added", "a", 3)]


async def test_events_are_all_kept_in_order():
    shop = Shop()
    watch = await begun(shop)
    for value in range(5):
        shop.hub.publish("event", "a", value)
    assert [item.resource for item in await drained_of(watch, shop)] == [0, 1, 2, 3, 4]


async def test_a_reader_that_never_reads_costs_no_more_than_the_bound_and_must_begin_again(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(events, "QUEUE", 50)
    shop = Shop()
    watch = await begun(shop)
    for value in range(1000):
        shop.put(f"node{value}", value)
        shop.drop(f"node{value}")
    (watcher,) = shop.hub._watchers
    assert len(watcher._queue) == 50 and len(watcher._latest) <= 50
    assert len(await take(watch, 50)) == 50
    with pytest.raises(RevisionTooOld):
        await anext(watch)


async def test_a_reader_of_one_busy_resource_never_falls_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "QUEUE", 10)
    shop = Shop()
    watch = await begun(shop)
    for value in range(10_000):
        shop.put("a", value)
    assert said(await drained_of(watch, shop)) == [("added", "a", 9999)]


async def test_a_bookmark_comes_only_to_those_who_are_up_to_date():
    shop = Shop()
    idle, busy = await begun(shop), await begun(shop)
    shop.put("a", 1)
    assert (await anext(idle)).name == "a"
    shop.hub.bookmark()
    assert (await anext(idle)).kind == "bookmark"
    assert said(await drained_of(busy, shop)) == [("added", "a", 1)]


async def test_a_watch_that_is_left_is_forgotten():
    shop = Shop()
    watch = await begun(shop)
    await watch.aclose()  # type: ignore[attr-defined]
    assert not shop.hub._watchers
