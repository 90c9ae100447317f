"""A bounded cache of metadata tables with second-chance eviction; dirty and pinned items stay.

The dictionary of items is read directly by the hot path; everything that waits goes through `get`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    used: bool
    pins: int


Cached = TypeVar("Cached", bound=Item)


class Cache(Generic[Cached]):
    """Items by key. `limit` may be exceeded while everything is dirty or pinned; writers bound that."""

    def __init__(self, limit: int, load: Callable[[int], Awaitable[Cached]], held: Callable[[int], bool]) -> None:
        self.items: dict[int, Cached] = {}
        self.limit = limit
        self.loads = 0
        self.evictions = 0
        """Given up for others."""
        self.cleaned = 0
        """Given up because nobody used them. (Hits are not counted: that would be a third of a look-up.)"""
        self._load = load
        self._held = held
        self._loading: dict[int, tuple[asyncio.Lock, list[int]]] = {}

    async def get(self, key: int) -> Cached:
        """The item, loaded once however many ask."""
        item = self.items.get(key)
        if item is not None:
            item.used = True
            return item
        lock, users = self._loading.setdefault(key, (asyncio.Lock(), [0]))
        users[0] += 1
        try:
            async with lock:
                item = self.items.get(key)
                if item is None:
                    item = await self._load(key)
                    self.loads += 1
                    self.put(key, item)
                return item
        finally:
            users[0] -= 1
            if not users[0]:
                self._loading.pop(key, None)

    def put(self, key: int, item: Cached) -> None:
        item.used = True
        self.items[key] = item
        if len(self.items) > self.limit:
            self._trim(key)

    def _trim(self, wanted: int) -> None:
        """Whoever asked for the item `wanted` is about to pin or change it: that one stays."""
        items = self.items
        for _ in range(2 * len(items)):
            if len(items) <= self.limit:
                return
            key = next(iter(items))
            item = items.pop(key)
            if item.used or item.pins or key == wanted or self._held(key):
                item.used = False
                items[key] = item
            else:
                self.evictions += 1

    def clean(self) -> None:
        """Give up what was not used since the last time (qcow2_cache_clean_unused)."""
        for key, item in list(self.items.items()):
            if not (item.used or item.pins or self._held(key)):
                del self.items[key]
                self.cleaned += 1
            item.used = False
