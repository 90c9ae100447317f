"""The port through which whoever makes a request wait says why, so that people can see it (ListInFlight).

`present` holds the tracked request that runs in this task; only awaiting requests are tracked, so an inline request
pays nothing. A driver that holds requests back says so:

    with waiting(WaitReason.THROTTLED):
        await my_turn
"""

from contextlib import AbstractContextManager
from contextvars import ContextVar
from enum import Enum
from types import TracebackType
from typing import Protocol


class WaitReason(Enum):
    """Why a request does not run. The words are those of WaitReason in types.proto."""

    NONE = ""
    OVERLAP = "overlap"
    """Another request excludes it."""
    DRAINED = "drained"
    """Its node is drained."""
    THROTTLED = "throttled"
    """A throttle group says when."""
    LOCK = "lock"
    """A flush runs already, and it takes the next one."""
    STOPPED = "stopped"
    """An error stopped the attachment that it came by."""
    SUSPENDED = "suspended"
    """A breakpoint holds it."""


class Waits(Protocol):
    """A request that can say why it waits."""

    reason: WaitReason


present: ContextVar[Waits | None] = ContextVar("blockyard_present_request", default=None)


class waiting(AbstractContextManager[None]):  # noqa: N801
    """The present request waits for this while the body runs."""

    __slots__ = ("_before", "_reason", "_request")

    def __init__(self, reason: WaitReason) -> None:
        self._reason = reason

    def __enter__(self) -> None:
        self._request = request = present.get()
        if request is not None:
            self._before, request.reason = request.reason, self._reason

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._request is not None:
            self._request.reason = self._before
