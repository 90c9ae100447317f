"""What a driver sees of a node below it. Graph edges implement it; tests use small fakes under the same contract.

Rules of the surface:
1. Offsets and lengths are bytes. Reading past the end gives zeroes; writing past the end grows a growable child.
2. `*_now` either does all of the work without blocking and returns True, or has had no effect and returns
   False: then await the method without `_now`. Errors are raised in both.
3. A buffer handed over belongs to the callee until the call ends; the caller must not change it.
4. A write has happened for every reader when it returns; it is durable after a later `flush`, or with FUA.
"""

from typing import Protocol

from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Mapping

Buffer = bytes | bytearray | memoryview


class Child(Protocol):
    """A named edge from a driver's node to another node."""

    @property
    def name(self) -> str:
        """The edge's name under the parent: `file`, `backing`, `target` ..."""
        ...

    @property
    def node_name(self) -> str: ...

    @property
    def size(self) -> int:
        """Bytes, as of now."""
        ...

    @property
    def read_only(self) -> bool: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def plain(self) -> bool:
        """Whether its bytes are those of the node it leads to. Else it is a view that changes them, as encryption
        does, and nobody may go past it to the storage."""
        ...

    @property
    def compresses(self) -> bool:
        """Whether the image below stores a write compressed that has the flag COMPRESSED."""
        ...

    @property
    def filename(self) -> str:
        """The path of the storage at the bottom, relative to its root; empty if there is none."""
        ...

    def read_now(self, offset: int, into: memoryview) -> bool: ...

    async def read(self, offset: int, into: memoryview) -> None: ...

    def populated_now(self, offset: int, length: int) -> bool:
        """Whether it is known now that a read of the range needs nothing from a backing chain."""
        ...

    async def populate(self, offset: int, length: int, bottom: str = "") -> int:
        """Copy on read: store in the layer below what only its backing chain gives of a range; bytes stored.

        `bottom` names the lowest layer that is copied from; empty is the whole chain.
        """
        ...

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool: ...

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None: ...

    async def zero(self, offset: int, length: int, flags: int = 0) -> None: ...

    async def discard(self, offset: int, length: int) -> None: ...

    async def flush(self) -> None: ...

    async def truncate(
        self, size: int, preallocation: Preallocation = Preallocation.OFF, exact: bool = False
    ) -> None:
        """Grow or shrink. New bytes read as zeroes. `exact = False` allows a larger result."""
        ...

    @property
    def listens(self) -> bool:
        """Whether the child's driver waits for debug events; else none need be emitted."""
        ...

    async def debug_event(self, event: str) -> None:
        """Tell the child's driver what is about to happen (BLKDBG_EVENT). It may let the caller wait."""
        ...

    async def map(self, offset: int, length: int) -> Mapping:
        """Block status of the child's own layer, as its driver answers."""
        ...

    async def reads_as_zeroes(self, offset: int, length: int) -> tuple[bool, int]:
        """Whether the begin of a range is known to read as zeroes, backing chain included; and how much of it."""
        ...

    @property
    def snapshot_size(self) -> int:
        """Bytes of the point in time that the child's driver offers (`OffersSnapshot`); -1 if it offers none."""
        ...

    async def read_snapshot(self, offset: int, into: memoryview) -> None: ...

    async def map_snapshot(self, offset: int, length: int) -> Mapping: ...

    async def discard_snapshot(self, offset: int, length: int) -> None: ...
