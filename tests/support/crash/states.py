"""Which crash states are tried: systematic ones first, then random ones, reproducible by seed.

Of each point of the log: everything arrived (what kill -9 leaves, too) and nothing volatile arrived. Of each point
before a flush: each change alone, and all but each one. Then random points with random selections, some applied in
another order, some with one write torn at a sector.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.crash.log import DIRECTORY, Log, Op
from tests.support.crash.timeline import Timeline

TEAR: Final = 512
"""A sector is written whole or not at all."""
SINGLES: Final = 64
"""Changes of one point that are tried alone and left out; more are sampled."""
PREFIX_SHARE: Final = 0.4
SINGLE_SHARE: Final = 0.3
DENSITIES: Final = (0.1, 0.5, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Tear:
    """Of one write only the bytes `[start, end)` of the file arrived."""

    index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class State:
    """A crash before entry `cut`: what is durable then, and `applied` of the volatile changes, in that order."""

    cut: int
    applied: tuple[int, ...]
    torn: Tear | None = None
    kind: str = "prefix"

    def __str__(self) -> str:
        torn = f", torn {self.torn.index} to [{self.torn.start}, {self.torn.end})" if self.torn else ""
        return f"{self.kind} at {self.cut}, applied {list(self.applied)}{torn}"


def states(log: Log, budget: int, seed: int = 0) -> list[State]:
    """At most `budget` different states, ordered by cut."""
    timeline, numbers = Timeline(log), random.Random(seed)
    cuts = timeline.cuts()
    found: dict[State, None] = {}
    _take(found, _prefixes(timeline, cuts), round(budget * PREFIX_SHARE), numbers)
    _take(found, _singles(timeline, cuts, numbers), round(budget * SINGLE_SHARE), numbers)
    rich = [cut for cut in cuts if timeline.volatile(cut)]
    for _ in range(4 * budget if rich else 0):
        if len(found) >= budget:
            break
        found[_random_state(timeline, numbers.choice(rich), numbers)] = None
    return sorted(found, key=lambda state: state.cut)


def _take(found: dict[State, None], offered: list[State], limit: int, numbers: random.Random) -> None:
    chosen = offered if len(offered) <= limit else numbers.sample(offered, limit)
    found.update(dict.fromkeys(chosen))


def _prefixes(timeline: Timeline, cuts: list[int]) -> list[State]:
    found = []
    for cut in cuts:
        volatile = tuple(timeline.volatile(cut))
        found.append(State(cut, volatile, kind="prefix"))
        if volatile:
            found.append(State(cut, (), kind="lost"))
    return found


def _singles(timeline: Timeline, cuts: list[int], numbers: random.Random) -> list[State]:
    entries = timeline.log.entries
    found = []
    for cut in cuts:
        if cut < len(entries) and entries[cut].op is not Op.FLUSH:
            continue
        volatile = timeline.volatile(cut)
        for index in volatile if len(volatile) <= SINGLES else numbers.sample(volatile, SINGLES):
            found.append(_state(timeline, cut, [index], "only"))
            found.append(_state(timeline, cut, [other for other in volatile if other != index], "without"))
    return found


def _random_state(timeline: Timeline, cut: int, numbers: random.Random) -> State:
    volatile, density = timeline.volatile(cut), numbers.choice(DENSITIES)
    chosen = [index for index in volatile if numbers.random() < density]
    style = numbers.random()
    if style < 0.3:
        tear = _tear(timeline, numbers.choice(volatile), numbers)
        if tear is not None:
            return _state(timeline, cut, sorted({*chosen, tear.index}), "torn", tear)
    if style > 0.8:
        return _state(timeline, cut, _shuffled(timeline.log, chosen, numbers), "shuffled")
    return _state(timeline, cut, chosen, "subset")


def _state(timeline: Timeline, cut: int, chosen: Sequence[int], kind: str, torn: Tear | None = None) -> State:
    """Changes of the directory persist in their order: the last chosen one brings the earlier ones."""
    entries = timeline.log.entries
    directory = [index for index in timeline.volatile(cut) if entries[index].file == DIRECTORY]
    last = max((index for index in chosen if entries[index].file == DIRECTORY), default=-1)
    names = [index for index in directory if index <= last]
    others = [index for index in chosen if entries[index].file != DIRECTORY]
    return State(cut, (*names, *others), torn, kind)


def _tear(timeline: Timeline, index: int, numbers: random.Random) -> Tear | None:
    entry = timeline.log.entries[index]
    first = entry.offset // TEAR * TEAR + TEAR
    boundaries = list(range(first, entry.end, TEAR))
    if entry.op not in (Op.WRITE, Op.ZERO) or not boundaries:
        return None
    boundary = numbers.choice(boundaries)
    if numbers.random() < 0.5:
        return Tear(index, entry.offset, boundary)
    return Tear(index, boundary, entry.end)


def _shuffled(log: Log, chosen: list[int], numbers: random.Random) -> list[int]:
    """Another order of the same changes; a change of size stays between those that it stood between."""
    result: list[int] = []
    run: list[int] = []
    for index in chosen:
        if log.entries[index].op is Op.TRUNCATE:
            numbers.shuffle(run)
            result += [*run, index]
            run = []
        else:
            run.append(index)
    numbers.shuffle(run)
    return result + run
