"""Where requests wait until someone lets them go on. One event loop; must not know what emits the events.

Invariant: who waits goes on in the order of arrival, once, whatever ends the waiting: a resume, the breakpoint's
end, the node's end, a cancellation.
"""

import asyncio
from typing import Final

from blockyard.base.errors import LimitReached, ResourceExists, ResourceNotFound
from blockyard.node.interface.debugging import BreakpointState, Notify
from blockyard.node.interface.waiting import WaitReason, waiting

MAX_BREAKPOINTS: Final = 256
"""Of one node: each is looked at on every event while there are any."""


class Breakpoint:
    """One breakpoint."""

    __slots__ = ("_notify", "_waiting", "event", "tag")

    def __init__(self, tag: str, event: str, notify: Notify) -> None:
        self.tag = tag
        self.event = event
        self._notify = notify
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def state(self) -> BreakpointState:
        return BreakpointState(self.tag, self.event, len(self._waiting))

    async def hold(self) -> None:
        """Wait here."""
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(released)
        self._notify(self.state, False)
        try:
            with waiting(WaitReason.SUSPENDED):
                await released
        finally:
            if released in self._waiting:  # cancelled: nobody let it go
                self._waiting.remove(released)
                self._notify(self.state, False)

    def release(self, gone: bool = False) -> None:
        """Let everyone go on; `gone` if the breakpoint is no more."""
        waiting, self._waiting = self._waiting, []
        for released in waiting:
            if not released.done():
                released.set_result(None)
        if waiting or gone:
            self._notify(self.state, gone)


class Breakpoints:
    """Those of one node."""

    def __init__(self) -> None:
        self._by_tag: dict[str, Breakpoint] = {}
        self._passing = 0

    def __bool__(self) -> bool:
        return bool(self._by_tag)

    def all(self) -> list[Breakpoint]:
        return list(self._by_tag.values())

    def add(self, breakpoint_: Breakpoint) -> None:
        """Raises ResourceExists or LimitReached."""
        if breakpoint_.tag in self._by_tag:
            raise ResourceExists("breakpoint", breakpoint_.tag)
        if len(self._by_tag) >= MAX_BREAKPOINTS:
            raise LimitReached("breakpoints of a blkdebug node", MAX_BREAKPOINTS)
        self._by_tag[breakpoint_.tag] = breakpoint_

    def get(self, tag: str) -> Breakpoint:
        """Raises ResourceNotFound."""
        found = self._by_tag.get(tag)
        if found is None:
            raise ResourceNotFound("breakpoint", tag)
        return found

    def remove(self, tag: str) -> None:
        """Who waits goes on. Raises ResourceNotFound."""
        found = self.get(tag)
        del self._by_tag[tag]
        found.release(gone=True)

    def clear(self) -> None:
        """The node ends."""
        for tag in list(self._by_tag):
            self.remove(tag)

    async def reached(self, event: str) -> None:
        """Wait at every breakpoint on the event, one after another."""
        for breakpoint_ in self.all():
            if breakpoint_.event == event and not self._passing:
                await breakpoint_.hold()

    def let_pass(self, passing: bool) -> None:
        """Hold nobody until as many calls with False as with True came."""
        self._passing += 1 if passing else -1
        assert self._passing >= 0
        if passing:
            for breakpoint_ in self.all():
                breakpoint_.release()
