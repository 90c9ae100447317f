"""What an export needs of a node: a `Child`, block status through the whole chain, and its dirty bitmaps.

The graph's root edge implements it. Must not name the graph or any protocol.
"""

from collections.abc import Sequence
from typing import Protocol

from blockyard.node.interface.child import Child


class StatusExtent(Protocol):
    """What is known about the next `length` bytes."""

    @property
    def length(self) -> int:
        """Bytes, above 0."""
        ...

    @property
    def allocated(self) -> bool:
        """A layer of the chain holds it."""
        ...

    @property
    def data(self) -> bool:
        """Storage is used for it."""
        ...

    @property
    def zero(self) -> bool:
        """It reads as zeroes."""
        ...

    @property
    def depth(self) -> int:
        """The layer that holds it: 0 is the exported node itself, 1 its backing node ..."""
        ...


class ExportSource(Child, Protocol):
    """A node as guests see it."""

    @property
    def may_hold(self) -> bool:
        """Its requests may wait for an operator, without end."""
        ...

    @property
    def present(self) -> bool:
        """There is a medium; without one `size` is 0 and every request fails."""
        ...

    @property
    def stopped(self) -> bool:
        """Requests wait until an operator lets them go on."""
        ...

    @property
    def block_sizes(self) -> tuple[int, int] | None:
        """Logical and physical block size that guests are told; None leaves it to `limits`."""
        ...

    async def block_status(self, offset: int, length: int, max_extents: int) -> Sequence[StatusExtent]:
        """At least one extent and at most `max_extents` from the start of a non-empty range inside the node."""
        ...

    def bitmaps(self) -> list[str]:
        """Names of the node's dirty bitmaps."""
        ...

    def bitmap_extents(self, name: str, offset: int, length: int, max_extents: int) -> list[tuple[int, bool]]:
        """Runs (length, dirty) from the start of the range. Raises ResourceNotFound."""
        ...
