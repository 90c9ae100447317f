"""Snapshots inside an image, and the VM state beside them: what a format driver that has them can do.

Theory. The VM state is a stream of bytes that the format keeps out of the guest's sight. It is first saved beside
the present disk; a snapshot taken with `vm_state_bytes` takes it along. Reverting brings it back beside the disk.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

from blockyard.base.errors import InvalidArgument
from blockyard.node.interface.mapping import MapKind, Mapping

MAX_NAME_BYTES: Final = 255
"""QEMUSnapshotInfo.name holds 256 with its end."""


@dataclass(frozen=True, slots=True)
class SnapshotWish:
    """What a new snapshot is to be called and to remember."""

    name: str
    time_ns: int
    """Wall clock, since 1970."""
    vm_clock_ns: int = 0
    vm_state_bytes: int = 0
    """Bytes of the VM state saved before; 0: it takes none along."""
    icount: int = -1

    def check(self) -> None:
        """Raises InvalidArgument."""
        size = len(self.name.encode("utf-8", "surrogatepass"))
        if not 1 <= size <= MAX_NAME_BYTES or "\0" in self.name:
            raise InvalidArgument("name", f"1 to {MAX_NAME_BYTES} bytes without NUL", f"{size} bytes")
        bounds = {"create_time": (self.time_ns, 1 << 62), "vm_clock": (self.vm_clock_ns, 1 << 63)}
        bounds["vm_state_bytes"] = (self.vm_state_bytes, 1 << 63)
        for field, (value, limit) in bounds.items():
            if not 0 <= value < limit:
                raise InvalidArgument(field, f"0 to {limit - 1}", str(value))
        if self.time_ns // 10**9 >= 1 << 32:
            raise InvalidArgument("create_time", "a time before 2106 (32 bits of seconds)", str(self.time_ns))
        if not -1 <= self.icount < 1 << 63:
            raise InvalidArgument("icount", "0 or more, or -1 for unknown", str(self.icount))


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """A snapshot (QEMUSnapshotInfo)."""

    identifier: str
    name: str
    time_ns: int
    vm_clock_ns: int
    vm_state_bytes: int
    disk_size: int
    icount: int


class Stretch(NamedTuple):
    """What two states of an image have in the first `length` bytes of a range."""

    length: int
    is_same: bool
    """The very same bytes, or the same nothing (then the kinds say nothing)."""
    base: MapKind
    target: MapKind


class SnapshotView(Protocol):
    """A state of an image, to look where its bytes are."""

    @property
    def size(self) -> int:
        """Guest bytes."""
        ...

    async def map(self, offset: int, length: int) -> Mapping:
        """As a driver's."""
        ...

    async def against(self, base: "SnapshotView", offset: int, length: int) -> list[Stretch]:
        """Where this and another state of the same image differ: from the start of a range, which is inside both.

        What is called different may be equal, what is called the same is.
        """
        ...


@runtime_checkable
class HasSnapshots(Protocol):
    """A format that keeps snapshots inside the image. No request is in flight while it changes them."""

    shown_snapshot: str
    """Identifier of the snapshot that the driver shows instead of the disk; empty for the disk."""

    def snapshots(self) -> list[SnapshotFacts]:
        """In the order of the image's table, which is that of their age."""
        ...

    def find_snapshot(self, identifier: str, name: str) -> SnapshotFacts:
        """By what is given of both. Raises ResourceNotFound."""
        ...

    def snapshot_named(self, wanted: str) -> SnapshotFacts:
        """By identifier, else by name. Raises ResourceNotFound."""
        ...

    async def create_snapshot(self, wish: SnapshotWish) -> SnapshotFacts:
        """Durable when it returns. Raises ResourceExists, LimitReached, NoSpace ...; then there is none."""
        ...

    async def revert_to_snapshot(self, identifier: str) -> None:
        """The disk, its size and the VM state beside it are the snapshot's, durably."""
        ...

    async def delete_snapshot(self, identifier: str) -> None:
        """It is gone, durably, and what it alone held is free. Raises ResourceBusy while it is read."""
        ...

    async def confirm_shown(self) -> None:
        """Look whether what is shown is still there; raises ResourceNotFound."""
        ...

    async def save_vm_state(self, pieces: AsyncIterator[bytes | memoryview]) -> int:
        """Put these bytes, instead of what is there, beside the disk; their number. Durable when it returns."""
        ...

    def load_vm_state(self, identifier: str, length: int) -> AsyncIterator[bytes]:
        """The VM state of a snapshot or, for an empty identifier, of `length` bytes beside the present disk."""
        ...

    def view(self, identifier: str) -> AbstractAsyncContextManager[SnapshotView]:
        """A snapshot, which cannot be deleted meanwhile, or, for an empty identifier, what the driver shows."""
        ...
