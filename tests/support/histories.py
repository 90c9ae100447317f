"""Histories of concurrent requests, and whether they are linearisable (Wing and Gong 1993, with Lowe's memory).

Theory. A disk promises nothing about requests that span several blocks, but each block is an atomic register: every
request takes effect on it at one instant between its call and its return. So the history is cut into one history
for each unit of UNIT bytes, and each must have an order that keeps to real time and explains what reads saw.

A state of the search is the set of requests already ordered and the unit's value; a state that was seen once needs
no second look. A read that fits the present value can be ordered at once, for it changes nothing.

Values: every write has its own, so a wrong read names its origin. Zeroes are 0; past the end nothing is there,
GONE, which reads as zeroes and takes no write. A discard leaves a unit, zeroes it, or shows what is below, as it
likes, but for good. A request that was refused did nothing; one that was cancelled may take effect at any time, or
never.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

UNIT: Final = 256
FOREVER: Final = 1 << 62
GONE: Final = -1
TORN: Final = -2
"""What a read shows of a unit that holds parts of two values: no order explains it."""


@dataclass(slots=True)
class Operation:
    """One request on the units from `first` to `end`."""

    kind: str
    first: int
    end: int
    called: int
    returned: int = FOREVER
    value: int = 0
    """What is written; of a truncate the size in units."""
    seen: list[int] = field(default_factory=list)
    maybe: bool = False
    """Cancelled: it need not have happened."""

    def __str__(self) -> str:
        until = "never" if self.returned == FOREVER else str(self.returned)
        what = f" {self.seen}" if self.kind == "read" else f" {self.value:#x}"
        return f"{self.kind}{what} of {self.first}..{self.end}, {self.called} to {until}"


class History:
    """Records operations as they are called and return."""

    def __init__(self, ground: Sequence[int], below: Sequence[int] = ()) -> None:
        self.ground = list(ground)
        self.below = [*below, *[0] * (len(self.ground) - len(below))]
        self.operations: list[Operation] = []
        self._time = 0

    def call(self, kind: str, first: int, end: int, value: int = 0) -> Operation:
        operation = Operation(kind, first, end, self._tick(), value=value)
        self.operations.append(operation)
        return operation

    def done(self, operation: Operation) -> None:
        operation.returned = self._tick()

    def refused(self, operation: Operation) -> None:
        """It must have done nothing."""
        self.operations.remove(operation)

    def cancelled(self, operation: Operation) -> None:
        operation.maybe = True
        if operation.kind == "read":
            self.operations.remove(operation)

    def violations(self) -> list[str]:
        """Of each unit whose history nobody can explain, that history."""
        found = []
        for unit in range(len(self.ground)):
            here = [item for item in self.operations if item.first <= unit < item.end]
            if not linearisable(here, unit, self.ground[unit], self.below[unit]):
                found.append("\n  ".join([f"unit {unit}, at first {self.ground[unit]:#x}:", *map(str, here)]))
        return found

    def _tick(self) -> int:
        self._time += 1
        return self._time


def linearisable(operations: Iterable[Operation], unit: int, value: int, below: int = 0) -> bool:
    """Whether some order of the operations explains what the reads saw of the unit, which was `value` at first."""
    items = sorted(operations, key=lambda item: item.called)
    wanted = sum(1 << index for index, item in enumerate(items) if not item.maybe)
    pending, known = [(0, value)], set()
    while pending:
        ordered, now = pending.pop()
        if ordered & wanted == wanted:
            return True
        if (ordered, now) in known:
            continue
        known.add((ordered, now))
        ready = _ready(items, ordered)
        fits = next(
            (index for index in ready if items[index].kind == "read" and _fits(items[index], unit, now)), None
        )
        if fits is not None:
            pending.append((ordered | 1 << fits, now))
            continue
        for index in ready:
            pending.extend((ordered | 1 << index, after) for after in _effects(items[index], unit, now, below))
    return False


def _ready(items: list[Operation], ordered: int) -> list[int]:
    """Those that no operation left over must come before."""
    left = [index for index in range(len(items)) if not ordered >> index & 1]
    first_return = min(items[index].returned for index in left)
    return [index for index in left if items[index].called < first_return]


def _fits(item: Operation, unit: int, now: int) -> bool:
    return item.seen[unit - item.first] == (0 if now == GONE else now)


def _effects(item: Operation, unit: int, now: int, below: int) -> list[int]:
    """What the unit may be after a change; nothing for one that cannot happen now."""
    if item.kind == "truncate":
        return [GONE if unit >= item.value else 0 if now == GONE else now]
    if item.kind == "discard":
        return [now] if now == GONE else list({now, 0, below})
    if item.kind == "read" or now == GONE:
        return []
    return [item.value]


def content_of(value: int, units: int = 1) -> bytes:
    """A unit of a value's bytes: 16 bits, over and over."""
    return value.to_bytes(2, "little") * (UNIT // 2 * units)


def values_of(content: bytes) -> list[int]:
    """The value of each unit, or TORN."""
    parts = [content[at : at + UNIT] for at in range(0, len(content), UNIT)]
    return [
        value if part == content_of(value)[: len(part)] else TORN
        for part in parts
        for value in (int.from_bytes(part[:2], "little"),)
    ]
