"""The door to what outlives the process: small entries under a kind and a name, changed all or nothing.

The graph knows this shape only. The implementation is `blockyard.node.keeping.SqliteKeeper`, built by `app` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Key(NamedTuple):
    """What an entry is found by."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that comes back after a restart."""

    key: Key
    definition: str
    """JSON that only its kind can read."""
    position: int
    """Grows with every new entry: the order of their making."""


@dataclass(frozen=True, slots=True)
class Put:
    """The entry is so from now on."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Drop:
    """There is no such entry from now on."""

    key: Key


class Keeper(Protocol):
    """Keeps entries durably."""

    @property
    def location(self) -> str:
        """Where, for people."""
        ...

    async def entries(self) -> list[Entry]:
        """All of them, by position. Raises CatalogueDamaged."""
        ...

    async def keep(self, changes: Sequence[Put | Drop]) -> None:
        """Durable when it returns, all together or none. Raises CatalogueNotWritten.

        Of a call that is cancelled nobody knows whether it happened, so `graph.catalogue` cancels none.
        """
        ...
