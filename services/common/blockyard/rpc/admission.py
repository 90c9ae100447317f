"""How many calls may run at once, by class, so that one kind cannot starve another.

Each class has slots of its own: calls that move data can fill all of theirs and health checks and control calls
still get in. A full class refuses at once (RESOURCE_EXHAUSTED LIMIT_REACHED, retryable) and queues nothing:
a queue here would only hide the load from the client that makes it.

Also where a stop finds the watches: they never end by themselves, so a drain ends them first.
"""

import asyncio
from dataclasses import dataclass, fields
from enum import StrEnum
from types import TracebackType
from typing import Final

from blockyard.base.errors import LimitReached


class CallClass(StrEnum):
    """What a call is to admission control."""

    SYSTEM = "system"
    """Short calls of gRPC's own services; their streams count as watches, which could fill these slots."""
    CONTROL = "control"
    DATA = "data"
    """Moves bytes or extents, or streams orders to move them."""
    WATCH = "watch"
    """Lives until the client drops it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Calls at once in one server, by class."""

    system: int = 64
    control: int = 256
    data: int = 512
    """A slow reader of a stream holds 4 to 8 MiB of buffers."""
    watch: int = 256


_SYSTEM_PACKAGES: Final = ("grpc.health.", "grpc.reflection.", "grpc.channelz.")


def classify(method: str, streams: bool) -> CallClass:
    """The class of `/package.Service/Method`; `streams` if either side of it is a stream."""
    service, _, name = method.lstrip("/").partition("/")
    if is_system(method):
        return CallClass.WATCH if streams else CallClass.SYSTEM
    if streams and name.startswith("Watch"):
        return CallClass.WATCH
    if streams or service.endswith("DataService"):
        return CallClass.DATA
    return CallClass.CONTROL


def is_system(method: str) -> bool:
    """Whether it belongs to one of gRPC's own services: health, reflection, channelz."""
    return method.lstrip("/").startswith(_SYSTEM_PACKAGES)


class Slots:
    """The calls of one class."""

    __slots__ = ("limit", "refused", "running", "what")

    def __init__(self, call_class: CallClass, limit: int) -> None:
        self.what = f"{call_class} calls at once"
        self.limit = limit
        self.running: set[asyncio.Task[object]] = set()
        self.refused = 0

    def place(self) -> "Place":
        return Place(self)


class Place:
    """One call's slot: `with slots.place():`. Raises LimitReached when there is none."""

    __slots__ = ("_slots", "_task")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def __enter__(self) -> None:
        slots = self._slots
        if len(slots.running) >= slots.limit:
            slots.refused += 1
            raise LimitReached(slots.what, slots.limit)
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task
        slots.running.add(task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slots.running.discard(self._task)


class Admission:
    """The slots of one server."""

    def __init__(self, limits: Limits) -> None:
        self.slots = {CallClass(item.name): _slots(limits, item.name) for item in fields(limits)}
        self.stopping: set[asyncio.Task[object]] = set()
        """Tasks of calls that a drain has cancelled: they answer SHUTTING_DOWN."""
        self.writing: set[asyncio.Task[object]] = set()
        """Tasks with a reply on its way."""

    def end_watches(self) -> None:
        """Cancel every watch, so that a drain need not wait for its clients.

        One that is sending a reply ends right after it: gRPC cannot take the status of a call that has an operation
        under way. A client that does not read is cut off when the grace is over.
        """
        for task in tuple(self.slots[CallClass.WATCH].running):
            self.stopping.add(task)
            if task not in self.writing:
                task.cancel()

    def sending(self) -> "Sending":
        return Sending(self)


class Sending:
    """A reply on its way: `with admission.sending(): await write(reply)`. A stop meanwhile ends the call."""

    __slots__ = ("_admission", "_task")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task

    def __enter__(self) -> None:
        self._admission.writing.add(self._task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.writing.discard(self._task)
        if error is None and self._task in self._admission.stopping:
            self._task.cancel()


def _slots(limits: Limits, name: str) -> Slots:
    return Slots(CallClass(name), getattr(limits, name))
