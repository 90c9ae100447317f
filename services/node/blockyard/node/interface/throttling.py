"""What a driver sees of a throttle group: a membership that says whether a request may pass, and waits if not.

The groups live in the graph (`graph.throttling`), for nodes of any drivers share them; drivers know this shape.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from blockyard.base.errors import ResourceNotFound

KIND = "throttle group"
"""As errors name it."""


class ThrottleMember(Protocol):
    """One node's place in a group. `side` is READ_SIDE or WRITE_SIDE of `core.throttle`."""

    on_wait: Callable[[int, int], None] | None
    """Told the type of a request (`core.accounting`) that had to wait, and for how many nanoseconds."""

    @property
    def group_name(self) -> str: ...

    @property
    def queued(self) -> tuple[int, int]:
        """Requests that wait now, by side."""
        ...

    @property
    def throttled_operations(self) -> int:
        """Requests that had to wait since the member joined its first group."""
        ...

    @property
    def waited_ns(self) -> int:
        """Sum of the times that they waited."""
        ...

    def charge_now(self, side: int, length: int, now_ns: int) -> bool:
        """Count a request that may pass now (monotonic time); False if it must wait, and nothing is counted."""
        ...

    def refund(self, side: int, length: int) -> None:
        """A request that was counted is not made after all."""
        ...

    async def wait(self, operation: int, length: int) -> None:
        """Return when the request may pass, in order of arrival; it is counted. Raises LimitReached.

        `operation` is its type (`core.accounting`). Cancelled, it leaves nothing.
        """
        ...

    def move(self, group_name: str) -> None:
        """Become a member of another group; who waits goes on waiting there. Raises ResourceNotFound."""
        ...

    def leave(self) -> None:
        """End the membership; who waits passes."""
        ...

    def begin_passing(self) -> None:
        """Let everything pass, also what waits already: the node must come to rest. Nests."""
        ...

    def end_passing(self) -> None:
        """Undo one `begin_passing`."""
        ...


class Throttling(Protocol):
    """The groups there are."""

    def join(self, group_name: str, node_name: str) -> ThrottleMember:
        """Raises ResourceNotFound."""
        ...


class NoThrottling:
    """Where no groups are kept."""

    def join(self, group_name: str, node_name: str) -> ThrottleMember:
        raise ResourceNotFound(KIND, group_name)


@runtime_checkable
class Throttled(Protocol):
    """A driver that is a member of a group."""

    member: ThrottleMember
