"""Making again what the catalogue keeps: what something needs comes before it, and a failure keeps nobody else.

Nothing is written meanwhile but what the entries say already; when all have been tried, what came back otherwise
than it was kept (a bitmap without its bits) is committed.
"""

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import BlockError, DependencyNotRestored, InternalError
from blockyard.node.graph.catalogue import ORDER, Catalogue
from blockyard.node.interface.keeper import Entry, Key

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph

_log: Final = logging.getLogger(__name__)
AT_ONCE: Final = 32
"""Entries that are restored at the same time: as many openings as the pool has threads, twice."""
_NUMBERED: Final = re.compile(r"#(\d+)")


async def restore_all(graph: "Graph") -> None:
    """Everything that is kept; what fails is only noted. Raises CatalogueDamaged or CatalogueNotWritten."""
    catalogue = graph.kept.catalogue
    await catalogue.load()
    restoration = _Restoration(catalogue)
    graph.number_from(restoration.highest_number())
    await restoration.run(catalogue.entries)
    await catalogue.commit()
    await graph.guards.end_of_restoring()


async def restore_again(graph: "Graph", key: Key) -> Entry:
    """Try a failed entry again: what it needs first, then it, then what needs it. Raises what keeps it out."""
    catalogue = graph.kept.catalogue
    catalogue.require_failed(key)
    restoration = _Restoration(catalogue)
    await restoration.run(restoration.around(key))
    await catalogue.commit()
    await graph.guards.protect_restored()
    if (problem := catalogue.failed.get(key)) is not None:
        raise problem
    return catalogue.entries[key]


class _Restoration:
    """One run over entries, and who needs whom."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._names: dict[Key, list[str]] = {}
        """Of each entry the names that come with it."""
        self.owners: dict[Key, Key] = {}
        """Which entry brings a thing: a node may be a part of another's definition."""
        self._needs: dict[Key, list[Key]] = {}
        for key, entry in catalogue.entries.items():
            self._names[key], self._needs[key] = self._read(entry)
            self.owners.update((Key(key.kind, name), key) for name in self._names[key])

    def _read(self, entry: Entry) -> tuple[list[str], list[Key]]:
        key, kind = entry.key, self._catalogue.kinds.get(entry.key.kind)
        try:
            if kind is not None:
                return kind.provides(key.name, entry.definition), kind.needs(key.name, entry.definition)
        except BlockError:
            pass  # restoring it will tell
        return [key.name], []

    def highest_number(self) -> int:
        """Of the names that the service chose for nodes: new ones begin above."""
        names = (key.name for key in self.owners if key.kind in ("node", "copy-session"))
        return max((int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))), default=0)

    async def run(self, keys: Iterable[Key]) -> None:
        """Try these, `AT_ONCE` at a time."""
        turns = asyncio.Semaphore(AT_ONCE)
        for wave in self._waves(list(keys)):
            async with asyncio.TaskGroup() as group:
                for key in wave:
                    await turns.acquire()
                    task = group.create_task(self._one(key))
                    task.add_done_callback(lambda _: turns.release())

    def around(self, key: Key) -> list[Key]:
        """A failed entry with the failed ones that it needs, and those that need any of them."""
        failed, wanted = self._catalogue.failed, {key}
        while below := {need for each in wanted for need in self._entries_needed(each) if need in failed} - wanted:
            wanted |= below
        while above := {each for each in failed if wanted & set(self._entries_needed(each))} - wanted:
            wanted |= above
        return [each for each in self._catalogue.entries if each in wanted]

    def _entries_needed(self, key: Key) -> list[Key]:
        return [self.owners[need] for need in self._needs[key] if need in self.owners]

    def _waves(self, keys: list[Key]) -> list[list[Key]]:
        """Kinds in their order, and of a kind what is needed before what needs it; a wave's entries need nothing of
        each other."""
        ranks = {name: rank for rank, name in enumerate(ORDER)}
        depths: dict[Key, int] = {}
        waves: dict[tuple[int, int], list[Key]] = {}
        for key in self._ordered(keys):
            needed = [
                depths[each] for each in self._entries_needed(key) if each in depths and each.kind == key.kind
            ]
            depths[key] = max(needed, default=-1) + 1
            waves.setdefault((ranks.get(key.kind, len(ranks)), depths[key]), []).append(key)
        return [waves[each] for each in sorted(waves)]

    def _ordered(self, keys: list[Key]) -> list[Key]:
        """What is needed comes before what needs it."""
        wanted, ordered = set(keys), dict[Key, None]()
        for first in keys:
            path = {first: None}  # a circle, which only a damaged catalogue can hold, ends where it began
            while path:
                last = next(reversed(path))
                needed = (each for each in self._entries_needed(last) if each in wanted)
                missing = next((each for each in needed if each not in ordered and each not in path), None)
                if missing is not None:
                    path[missing] = None
                else:
                    ordered[last] = path.pop(last)
        return list(ordered)

    async def _one(self, key: Key) -> None:
        entry = self._catalogue.entries.get(key)
        if entry is None:
            return  # it was forgotten meanwhile
        try:
            self._require_needs(key)
            await self._catalogue.kinds[key.kind].restore(key.name, entry.definition)
        except BlockError as problem:
            self._note(key, problem)
        except Exception as problem:  # a bug of ours in one driver must not keep all other nodes away
            _log.exception("an entry of the catalogue could not be restored", extra={"entry": str(key)})
            self._note(key, InternalError(f"{type(problem).__name__}: {problem}"))
        else:
            self._catalogue.settle(key)

    def _require_needs(self, key: Key) -> None:
        if key.kind not in self._catalogue.kinds:
            raise InternalError(f"entries of kind {key.kind!r} are unknown to this version")
        for need in self._needs[key]:
            if (problem := self._catalogue.failed.get(self.owners.get(need, need))) is not None:
                raise DependencyNotRestored(*key, *need, str(problem))

    def _note(self, key: Key, problem: BlockError) -> None:
        _log.error("not restored", extra={"entry": str(key), "reason": problem.reason, "problem": str(problem)})
        self._catalogue.fail(key, problem, self._names[key] if key.kind == "node" else ())
