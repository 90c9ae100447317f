"""A driver at which requests can be stopped and struck on purpose (QEMU's bdrv_debug_* callbacks).

Drivers above it emit events through `Child.debug_event`; who asks for breakpoints and faults is `graph.debugging`.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from blockyard.node.core.injection import Fault


class BreakpointState(NamedTuple):
    """A breakpoint as it is now."""

    tag: str
    event: str
    suspended: int
    """Requests that wait there (the seed's bdrv_debug_is_suspended)."""


Notify = Callable[[BreakpointState, bool], None]
"""Told of every change of a breakpoint; True if it is gone."""


@runtime_checkable
class Debuggable(Protocol):
    """Has breakpoints and faults."""

    def set_breakpoint(self, tag: str, event: str, notify: Notify) -> BreakpointState:
        """From now on every request that emits the event waits there (bdrv_debug_breakpoint)."""
        ...

    def remove_breakpoint(self, tag: str) -> None:
        """Who waits goes on (bdrv_debug_remove_breakpoint). Raises ResourceNotFound."""
        ...

    def resume(self, tag: str) -> BreakpointState:
        """Who waits goes on, the first one first; the breakpoint stays. Raises ResourceNotFound."""
        ...

    def breakpoints(self) -> list[BreakpointState]: ...

    def let_pass(self, passing: bool) -> None:
        """True: breakpoints hold nobody, and who waits goes on, until as many calls with False came."""
        ...

    def inject(self, fault: Fault) -> None:
        """Raises ResourceExists or LimitReached."""
        ...

    def withdraw(self, fault_id: str) -> None:
        """Raises ResourceNotFound."""
        ...

    def faults(self) -> list[Fault]: ...
