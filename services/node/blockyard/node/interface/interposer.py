"""What stands between a guest's write and the node while a job runs: the hook of the job's filter drivers.

The filter driver forwards; whoever is behind the hook decides what happens before, after or beside the write.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from blockyard.node.interface.child import Child

Apply = Callable[[Child], Awaitable[None]]
"""Does the guest's request on a child: a write, zeroes or a discard."""


class Interposer(Protocol):
    """Behind the filter. Ranges are what the guest changes."""

    def free_now(self, offset: int, length: int) -> bool:
        """Whether a write of the range needs nothing but the write itself, now."""
        ...

    async def guest_write(self, offset: int, length: int, apply: Apply, *, exact: bool = True) -> None:
        """Do the write, with what must happen around it. `apply(child)` may be called on several children.

        Not `exact`: what a node makes of it is its own affair (a discard), so two of them may differ afterwards.
        """
        ...


@runtime_checkable
class Interposable(Protocol):
    """A filter driver that takes an interposer."""

    interposer: Interposer | None
