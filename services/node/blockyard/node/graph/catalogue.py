"""What comes back after a restart: the entries of the graph and of what stands on it, and those that did not come.

Theory. Nobody writes entries. Whoever changes something touches its key and calls `commit`; the kind of the key
then tells what the thing is *now*, and what differs from what is kept becomes one transaction. So an entry can
never say anything but the state of the graph, whatever operation led there, and a new kind is one object (`Kind`).

Order. A change is durable before it is acknowledged, and before a guest's write may depend on it: edges that guests
write through are committed while the nodes are drained (`surgery`). So after a crash the catalogue says what was
acknowledged last, or that and what was being done. What is closed is dropped first: after a crash it is gone, or it
is open again, never half.

Invariants
1. `entries` is what is durable, as far as known; a key whose writing failed is written again by the next commit.
2. A failed entry is never changed by `commit`; it leaves by `settle` or `forget` only.
3. `commit` returns or raises only when the transaction has ended, also if the caller is cancelled.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, Protocol

from blockyard.base.errors import BlockError, ResourceBusy, ResourceNotFound
from blockyard.node.interface.keeper import Drop, Entry, Keeper, Key, Put

ORDER: Final = (
    "executor",
    "secret",
    "throttle-group",
    "node",
    "write-threshold",
    "bitmap",
    "copy-session",
    "checkpoint",
    "attachment",
    "export",
)
"""The kinds there are, in the order in which they are restored."""


class Kind(Protocol):
    """One sort of entries."""

    @property
    def name(self) -> str:
        """As in Key.kind."""
        ...

    def names(self) -> Iterable[str]:
        """Everything that should be kept now."""
        ...

    def definition(self, name: str) -> str | None:
        """JSON that restores it as it is now; None if it is not there, or is not to be kept."""
        ...

    def needs(self, name: str, definition: str) -> list[Key]:
        """What must be there before it can be restored. Raises BlockError for a definition that is none."""
        ...

    def provides(self, name: str, definition: str) -> list[str]:
        """The names of this kind that come with it, its own among them. Raises BlockError."""
        ...

    async def restore(self, name: str, definition: str) -> None:
        """Make it again. Raises BlockError."""
        ...

    def shown(self, definition: str) -> str:
        """The definition for people: a `json:` specification."""
        ...


class Catalogue:
    """The entries of one node service. Without a keeper nothing is kept, and every method is quick."""

    def __init__(self, keeper: Keeper | None = None) -> None:
        self._keeper = keeper
        self.enabled = keeper is not None
        self.kinds: dict[str, Kind] = {}
        self.entries: dict[Key, Entry] = {}
        self.pending: set[Key] = set()
        """Entries that have not been tried yet."""
        self.failed: dict[Key, BlockError] = {}
        """Entries that could not be restored, and why."""
        self.reserved: dict[str, Key] = {}
        """Names of nodes that failed entries keep."""
        self._touched: dict[Key, None] = {}
        self._unsure: set[Key] = set()
        """Keys whose writing failed: what is durable of them is unknown."""
        self._positions = 0
        self._committing = asyncio.Lock()
        self._held = False

    @property
    def location(self) -> str:
        """Where the entries are; empty if they are nowhere."""
        return self._keeper.location if self._keeper is not None else ""

    def add(self, kind: Kind) -> None:
        """Keep this sort of things as well."""
        assert kind.name in ORDER, kind.name
        self.kinds[kind.name] = kind

    # --- keeping -----------------------------------------------------------------------------------------

    def touch(self, kind: str, name: str) -> None:
        """It came, went or changed; the next commit looks at it."""
        if self.enabled and kind in self.kinds:
            self._touched[Key(kind, name)] = None

    async def commit(self, *only: Key) -> None:
        """What was touched, or of that these keys, is durable as it is now. Raises CatalogueNotWritten."""
        if self._keeper is not None and not self._held:
            await _to_its_end(self._commit(self._keeper, frozenset(only)))

    async def _commit(self, keeper: Keeper, only: frozenset[Key]) -> None:
        async with self._committing:
            touched = {key: None for key in self._touched if not only or key in only}
            self._touched = {key: None for key in self._touched if key not in touched}
            changes = [change for key in touched if (change := self._change(key)) is not None]
            if not changes:
                return
            try:
                await keeper.keep(changes)
            except BaseException:
                self._touched = {**touched, **self._touched}
                self._unsure.update(touched)
                raise
            self._unsure.difference_update(touched)
            for change in changes:
                if isinstance(change, Put):
                    self.entries[change.entry.key] = change.entry
                else:
                    self.entries.pop(change.key, None)

    def _change(self, key: Key) -> Put | Drop | None:
        if key in self.failed or key in self.pending:
            return None
        definition, kept = self.kinds[key.kind].definition(key.name), self.entries.get(key)
        unsure = key in self._unsure
        if definition is None:
            return Drop(key) if kept is not None or unsure else None
        if kept is not None and kept.definition == definition and not unsure:
            return None
        return Put(Entry(key, definition, kept.position if kept is not None else self._next_position()))

    def _next_position(self) -> int:
        self._positions += 1
        return self._positions

    def hold(self) -> None:
        """Write nothing from now on: the service stops, and what it closes on its way is to come back."""
        self._held = True

    def differences(self) -> list[Key]:
        """Keys of what is not kept as it is now. For tests: looks at everything, touched or not."""
        there = {Key(kind.name, name) for kind in self.kinds.values() for name in kind.names()}
        return [key for key in sorted({*there, *self.entries}) if self._change(key) is not None]

    # --- coming back -------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the entries; all are pending then. Raises CatalogueDamaged."""
        if self._keeper is not None:
            self.entries = {entry.key: entry for entry in await self._keeper.entries()}
            self.pending = set(self.entries)
            self._positions = max((entry.position for entry in self.entries.values()), default=0)

    def settle(self, key: Key) -> None:
        """It is there: no pending and no failed entry any more."""
        self.pending.discard(key)
        self.failed.pop(key, None)
        self._free(key)

    def fail(self, key: Key, problem: BlockError, names: Iterable[str]) -> None:
        """It could not be restored; the names of nodes stay its own."""
        self.pending.discard(key)
        self.failed[key] = problem
        self.reserved.update(dict.fromkeys(names, key))

    def shown(self, entry: Entry) -> str:
        """Its definition for people; as it is if it cannot be read."""
        kind = self.kinds.get(entry.key.kind)
        try:
            return kind.shown(entry.definition) if kind is not None else entry.definition
        except BlockError:
            return entry.definition

    def require_failed(self, key: Key) -> None:
        """Raises ResourceNotFound without such an entry, or ResourceBusy for one that is there."""
        if key not in self.entries:
            raise ResourceNotFound(f"{key.kind} in the catalogue", key.name)
        if key not in self.failed:
            raise ResourceBusy(*key, "it is there and works; close or delete it instead")

    async def forget(self, key: Key) -> None:
        """Drop a failed entry, and those that mean nothing without it.

        Raises ResourceNotFound, ResourceBusy or CatalogueNotWritten.
        """
        self.require_failed(key)
        assert self._keeper is not None
        await _to_its_end(self._forget(self._keeper, key))

    async def _forget(self, keeper: Keeper, key: Key) -> None:
        async with self._committing:
            self.require_failed(key)
            parts = [each for each in self.failed if key.kind == "node" and each.name.startswith(f"{key.name}/")]
            gone = [key, *parts]
            await keeper.keep([Drop(each) for each in gone])
            for each in gone:
                del self.entries[each]
                self.settle(each)

    def _free(self, key: Key) -> None:
        self.reserved = {name: owner for name, owner in self.reserved.items() if owner != key}


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Run it as if the caller could not be cancelled; a cancellation arrives at the caller's next await.

    Who undrains nodes after a commit must know how it ended.
    """
    task, cancelled = asyncio.ensure_future(work), 0
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled += 1
    caller = asyncio.current_task()
    assert caller is not None
    for _ in range(cancelled):
        caller.uncancel()
        caller.cancel()
    task.result()
