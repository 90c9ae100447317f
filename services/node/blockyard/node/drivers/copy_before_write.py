"""Driver `copy-before-write`: old data goes to the target before a guest overwrites it (QEMU's
block/copy-before-write.c).

Around a guest's changes it asks its interposer. A backup brings one of its own, which knows the job's map; the
filter of a client keeps a point in time by itself (`_preserving`), which snapshot-access shows.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from blockyard.base.errors import InvalidArgument, OperationUnsupported
from blockyard.base.ranges import is_power_of_two
from blockyard.node.core.dirty import MAX_GRANULARITY
from blockyard.node.drivers._interposing import InterposingFilter
from blockyard.node.drivers._preserving import KeepingPolicy, Preserver
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.driver import DriverContext, NodeInfo
from blockyard.node.interface.flags import WRITE_UNCHANGED, Preallocation, Role
from blockyard.node.interface.mapping import Mapping
from blockyard.node.interface.permissions import (
    ALL,
    CONSISTENT_READ,
    NONE,
    RESIZE,
    WRITE,
    Permissions,
)

TIMEOUT_MAX: Final = 2**32 - 1
"""Seconds: QEMU's option is a uint32."""


class OnCbwError(StrEnum):
    """Who suffers when a copy fails."""

    BREAK_GUEST_WRITE = "break-guest-write"
    BREAK_SNAPSHOT = "break-snapshot"


@dataclass(frozen=True, slots=True)
class CopyBeforeWriteOptions:
    """Options of driver `copy-before-write`."""

    bitmap_node: str = ""
    """The node that has the bitmap."""
    bitmap_name: str = ""
    """Only what this bitmap marks is preserved. Default: everything."""
    on_cbw_error: OnCbwError = OnCbwError.BREAK_GUEST_WRITE
    """When a copy fails, the guest's write fails (`break-guest-write`), or the snapshot is lost."""
    cbw_timeout: int = 0
    """A copy that takes longer counts as failed, in seconds; 0 is no limit."""
    min_cluster_size: int = 0
    """Bytes copied at least; power of two. The target's cluster size and 64 KiB are other lower bounds."""

    def policy(self) -> KeepingPolicy:
        """Raises InvalidArgument."""
        if bool(self.bitmap_node) != bool(self.bitmap_name):
            given, missing = ("bitmap_node", "bitmap_name")[:: 1 if self.bitmap_node else -1]
            raise InvalidArgument(missing, f"a name beside {given}: both or none", "nothing")
        if not 0 <= self.cbw_timeout <= TIMEOUT_MAX:
            raise InvalidArgument("cbw_timeout", f"0 to {TIMEOUT_MAX} seconds", str(self.cbw_timeout))
        least = self.min_cluster_size
        if least and not (is_power_of_two(least) and least <= MAX_GRANULARITY):
            raise InvalidArgument("min_cluster_size", f"0, or a power of two up to {MAX_GRANULARITY}", str(least))
        return KeepingPolicy(
            break_snapshot=self.on_cbw_error is OnCbwError.BREAK_SNAPSHOT,
            timeout=self.cbw_timeout,
            least_granularity=least,
            bitmap=(self.bitmap_node, self.bitmap_name) if self.bitmap_name else None,
        )


class CopyBeforeWriteDriver(InterposingFilter):
    """Keeps a point in time of the node below while guests write: for a backup, or for snapshot-access."""

    name = "copy-before-write"
    Options = CopyBeforeWriteOptions

    def __init__(self, file: Child, own: Preserver | None) -> None:
        super().__init__(file)
        self._own = own
        """None in a job's hands."""
        self.interposer = own

    @classmethod
    async def open(cls, options: CopyBeforeWriteOptions, context: DriverContext) -> Self:
        """Raises InvalidArgument, and for the bitmap NodeNotFound, ResourceNotFound, ResourceBusy or
        BitmapInconsistent."""
        file, target = context.children["file"], context.children["target"]
        policy = options.policy()
        if context.of_job:
            return cls(file, None)
        if target.node_name == file.node_name:
            raise InvalidArgument("target", "another node than file", target.node_name)
        return cls(file, Preserver(file, target, policy, context))

    async def close(self) -> None:
        if self._own is not None:
            await self._own.end()

    @classmethod
    def opening_permissions(cls, role: Role, options: Any, *, writable: bool) -> Permissions:
        if role is Role.TARGET:
            return _of_target(writable)
        return super().opening_permissions(role, options, writable=writable)

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """Nobody writes the disk past the filter, once the filter has users (cbw_child_perm)."""
        if self._own is None:
            return super().child_permissions(child, role, above, writable=writable)
        if role is Role.TARGET:
            return _of_target(writable)
        if not above.used:
            return above
        reads = CONSISTENT_READ if above.used & WRITE else NONE
        return Permissions(above.used | reads, above.shared & ~(WRITE | RESIZE))

    async def info(self) -> NodeInfo:
        own = self._own
        if own is None:
            return NodeInfo()
        past, lost = own.past, own.lost
        specific: dict[str, str | int | bool] = {
            "granularity": past.granularity,
            "left-to-copy": past.left.dirty_bytes,
            "readable": past.readable.dirty_bytes,
            "lost": lost is not None,
        }
        if lost is not None:
            specific["failure"] = str(lost)
        return NodeInfo(specific=specific)

    # --- requests that change nothing that is read, or sizes -----------------------------------------------

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        own = self._own
        if own is None:
            return super().write_now(offset, data, flags)
        free = flags & WRITE_UNCHANGED or own.past.free_now(offset, len(data))
        return bool(free) and self.file.write_now(offset, data, flags)

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        if flags & WRITE_UNCHANGED and self._own is not None:
            await self.file.write(offset, data, flags)
        else:
            await super().write(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        if flags & WRITE_UNCHANGED and self._own is not None:
            await self.file.zero(offset, length, flags)
            return True
        return await super().zero(offset, length, flags)

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """Raises OperationUnsupported for a disk that would lose some of the point in time."""
        own = self._own
        if own is None:
            await super().truncate(size, preallocation, exact)
            return
        if own.lost is None and size < min(own.past.size, self.file.size):
            raise OperationUnsupported(self.file.node_name, self.name, "shrink what it keeps a point in time of")
        await self.file.truncate(size, preallocation, exact)

    # --- the point in time (OffersSnapshot) ----------------------------------------------------------------

    @property
    def snapshot_size(self) -> int:
        return self.file.size if self._own is None else self._own.past.size

    def begin_snapshot(self) -> None:
        if self._own is not None:
            self._own.begin()

    async def read_snapshot(self, offset: int, into: memoryview) -> None:
        await self._keeping().read(offset, into)

    async def map_snapshot(self, offset: int, length: int) -> Mapping:
        return await self._keeping().map(offset, length)

    async def discard_snapshot(self, offset: int, length: int) -> None:
        await self._keeping().discard(offset, length)

    def _keeping(self) -> Preserver:
        if self._own is None:
            raise OperationUnsupported(self.file.node_name, self.name, "show the point in time of a job")
        return self._own


def _of_target(writable: bool) -> Permissions:
    """Written by us; by others too, for its backing chain may be the disk, whose guests must not be kept from
    writing by it. It was looked at how large it is, so that stays."""
    return Permissions(WRITE if writable else NONE, ALL & ~RESIZE)
