"""Long operations on an image: how they tell how far they are, and what a format that can be amended offers.

Theory. An operation runs in the caller's task: it reports by calling a `Progress`, and is cancelled as any task is.
Whatever instant that hits, the image is as it was or as it will be, at worst with room that is lost until a check.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable


class Progress(Protocol):
    """Told how far something is. Cheap, and never waits; totals may grow, phases follow each other."""

    def __call__(self, phase: str, done: int, total: int) -> None:
        """`done` of `total` in the phase's own unit (clusters, bytes, tables)."""
        ...


def untold(phase: str, done: int, total: int) -> None:
    """For who does not want to know."""


@dataclass(frozen=True, slots=True)
class AmendStep:
    """One change of an image's options, which leaves an image that is whole."""

    name: str
    run: Callable[[Progress], Awaitable[None]] | None = None
    """Called while no request is in flight; None for a change of the size, which is the graph's to make."""
    size: int = -1
    online: bool = False
    """Guests go on meanwhile: it touches nothing that they do."""


@runtime_checkable
class Amendable(Protocol):
    """Can change options of an image that are fixed in its file (bdrv_amend_options).

    `AmendOptions` is a frozen dataclass under QEMU's names; None is "as it is".
    """

    AmendOptions: ClassVar[type[Any]]

    def amendment(self, options: Any, force: bool) -> list[AmendStep]:
        """What has to be done, in order. Changes nothing; raises InvalidArgument or OperationUnsupported for
        options that cannot be. `force`: also what may lose data."""
        ...


@dataclass(frozen=True, slots=True)
class CompactStep:
    """One step of a compaction."""

    end: int
    """Bytes of the file up to its last part in use, before the step."""
    used: int
    """Bytes in use: it cannot become shorter than that."""
    moved: int
    """Bytes that were moved."""
    done: bool
    """Another step would gain nothing."""


@runtime_checkable
class Compactable(Protocol):
    """Can move what it stores to the begin of its file, and give back the rest. No request is in flight."""

    async def reclaim(self) -> int:
        """Give up room that is kept for zeroes; bytes."""
        ...

    async def compact(self) -> CompactStep:
        """Move some of what lies at the file's end, and cut off what is free there. Content stays as it is."""
        ...


@runtime_checkable
class AwaitsBacking(Protocol):
    """A format that can be told that a backing file is about to come.

    What is zeroed meanwhile must stay zero when it is there: so it is said in the image, not left unallocated.
    """

    def await_backing(self, awaited: bool) -> None:
        """Take note, or forget it."""
        ...
