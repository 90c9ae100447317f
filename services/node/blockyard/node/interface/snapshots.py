"""A filter that shows its disk as it was at a point in time (the seed's bdrv_co_preadv_snapshot and its siblings).

Who stands above it reaches this through its child: see `Child.snapshot_size` and what follows there.
"""

from typing import Protocol, runtime_checkable

from blockyard.node.interface.mapping import Mapping


@runtime_checkable
class OffersSnapshot(Protocol):
    """All of it may raise PointInTimeLost, but `begin_snapshot` and `snapshot_size`."""

    @property
    def snapshot_size(self) -> int:
        """Bytes of the point in time."""
        ...

    def begin_snapshot(self) -> None:
        """The point in time is now: nothing is in flight in the disk. What was kept before is given up.

        Raises what finding its bitmap raises.
        """
        ...

    async def read_snapshot(self, offset: int, into: memoryview) -> None:
        """Old bytes of a range inside the point in time. Raises RangeNotKept."""
        ...

    async def map_snapshot(self, offset: int, length: int) -> Mapping:
        """Whether (a prefix of) a range was zero or data. Raises RangeNotKept for one that begins so."""
        ...

    async def discard_snapshot(self, offset: int, length: int) -> None:
        """Nobody will read the range again: whole granules of it are neither kept nor copied any more."""
        ...
