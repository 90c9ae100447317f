"""How requests go through an attachment: the root edge of whoever works in its name, with its policies.

Theory. A request that fails asks the policy (QEMU's blk_get_error_action and blk_error_action, and the retries of
its devices, hw/scsi/scsi-disk.c and hw/block/virtio-blk.c). REPORT: the error goes to who asked. IGNORE: a read
gives zeroes, everything else counts as done. STOP: the error is latched, and this request and all that come after
it wait in a line until `reset`; then they are tried again, in the order they came in. The line is outside of the
node: no drain waits for it. Without a medium, or with an open tray, requests fail with NoMedium.

The inline forms do nothing of this: they cost one test more than those of any user, and leave whatever is not plain
success to the awaiting ones, which meet the same error again.

Invariants
1. `closed` is true while a request must wait or fail before the node is asked.
2. A request is judged once for each time it failed, and waits outside the node.
3. What a request is checked against is the medium that it then goes to: nothing awaits between.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, TypeVar

from blockyard.base.errors import (
    AttachmentReadOnly,
    BlockError,
    ImageError,
    NoMedium,
    RangeMisaligned,
    StorageError,
)
from blockyard.node.core.accounting import WORDS
from blockyard.node.graph.attachment import IoStatus, OnError, Outcome, is_full_disk, outcome
from blockyard.node.graph.held import HeldRequests
from blockyard.node.graph.reading import fill_zeroes
from blockyard.node.graph.tracking import asker
from blockyard.node.graph.user import READER, WRITER, User
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.flags import FUA
from blockyard.node.interface.waiting import WaitReason

if TYPE_CHECKING:
    from blockyard.node.graph.attached import Attachment
    from blockyard.node.graph.node import Node

Result = TypeVar("Result")

READ: Final = "read"
WRITE: Final = "write"
WRITE_ZEROES: Final = "write-zeroes"
DISCARD: Final = "discard"
FLUSH: Final = "flush"

_read, _read_now, _write, _write_now = User.read, User.read_now, User.write, User.write_now
_populate, _zero, _discard, _flushed, _flush_to_os = (
    User.populate,
    User.zero,
    User.discard,
    User.flushed,
    User.flush_to_os,
)


class Failure(NamedTuple):
    """A request that failed, and what was done about it."""

    operation: str
    offset: int
    length: int
    problem: BlockError
    outcome: Outcome
    full_disk: bool
    latched: bool
    """This one stopped the attachment."""


class AttachmentUser(User):
    """The edge of one attachment; everyone who uses the attachment shares it."""

    __slots__ = (
        "_failed",
        "_held",
        "_present",
        "_restless",
        "_wants_to_write",
        "attachment",
        "block_mask",
        "closed",
        "closed_to_writes",
        "io_status",
        "on_read_error",
        "on_write_error",
        "physical_block_size",
        "write_flags",
    )

    may_hold: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        node: "Node",
        *,
        writable: bool,
        removable: bool,
        failed: Callable[[Failure], None],
    ) -> None:
        """`failed` is told of errors. Raises PermissionConflict, or NodeReadOnly for a medium that is fixed."""
        super().__init__("attachment", name, node, writable and not (removable and node.read_only))
        self._wants_to_write = writable
        self._restless = removable
        self._failed = failed
        self.attachment: Attachment | None = None
        """Whose edge it is."""
        self._held = HeldRequests()
        self.io_status = IoStatus.OK
        self.on_read_error = self.on_write_error = OnError.REPORT
        self.block_mask = 0
        """A logical block less one."""
        self.physical_block_size = 0
        self.write_flags = 0
        """What every write carries: FUA without write cache."""
        self._present = False
        self._settle()

    # --- state -------------------------------------------------------------------------------------------

    @property
    def present(self) -> bool:
        return self._present

    @property
    def stopped(self) -> bool:
        return self._held.stopped

    @property
    def waiting(self) -> int:
        """Requests that wait because it is stopped."""
        return len(self._held)

    @property
    def size(self) -> int:
        """In whole logical blocks; 0 without a medium."""
        return self.node.driver.size & ~self.block_mask if self._present else 0

    @property
    def block_sizes(self) -> tuple[int, int] | None:
        return self.block_mask + 1, self.physical_block_size

    def show(self, present: bool) -> None:
        """Give the guest its medium, or take it away."""
        self._present = present
        self._settle()

    def move(self, node: "Node") -> None:
        """Of a removable medium that is read-only it is a reader, whatever it would like to be."""
        super().move(node)
        if self._restless and self._wants_to_write:
            self.writable = not node.read_only
            self.permissions = WRITER if self.writable else READER
        self._settle()

    def reset(self) -> None:
        """Forget the latched error; what waits goes on."""
        self.io_status = IoStatus.OK
        self._held.go_on()
        self._settle()

    def _settle(self) -> None:
        self.closed = not self._present or self._held.stopped or len(self._held) > 0
        self.closed_to_writes = self.closed or not self.writable

    # --- what may be asked -------------------------------------------------------------------------------

    def check(self, offset: int, length: int, kind: int = 0) -> None:
        if not self._present:
            raise self._refused(kind, NoMedium(self.name))
        super().check(offset, length, kind)

    def check_blocks(self, offset: int, length: int) -> None:
        if (offset | length) & self.block_mask:
            raise RangeMisaligned(self.name, offset, length, self.block_mask + 1)

    def _check_write(self, offset: int, length: int, kind: int) -> None:
        self.check(offset, length, kind)
        if not self.writable:
            raise self._refused(kind, AttachmentReadOnly(self.name))

    # --- requests ----------------------------------------------------------------------------------------

    def read_now(self, offset: int, into: memoryview) -> bool:
        if self.closed:
            return False
        try:
            return _read_now(self, offset, into)
        except (StorageError, ImageError):
            return False

    async def read(self, offset: int, into: memoryview) -> None:
        try:
            await self._judged(READ, offset, len(into), lambda: _read(self, offset, into))
        except _Ignored:
            fill_zeroes(into)

    def write_now(self, offset: int, data: Buffer, flags: int = 0) -> bool:
        if self.closed_to_writes:
            return False
        try:
            return _write_now(self, offset, data, flags | self.write_flags)
        except (StorageError, ImageError):
            return False

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        await self._changed(WRITE, offset, len(data), lambda: _write(self, offset, data, flags | self.write_flags))

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        await self._changed(
            WRITE_ZEROES, offset, length, lambda: _zero(self, offset, length, flags | self.write_flags)
        )

    async def discard(self, offset: int, length: int) -> None:
        async def request() -> None:
            await _discard(self, offset, length)
            if self.write_flags & FUA:
                await _flushed(self)

        await self._changed(DISCARD, offset, length, request)

    async def flushed(self) -> bool:
        return bool(await self._changed(FLUSH, 0, 0, lambda: _flushed(self)))

    async def flush_to_os(self) -> None:
        await self._changed(FLUSH, 0, 0, lambda: _flush_to_os(self))

    async def populate(self, offset: int, length: int, bottom: str = "") -> int:
        """A copy on read that fails is a read that fails, as in QEMU; ignored, nothing was copied."""
        try:
            return await self._judged(READ, offset, length, lambda: _populate(self, offset, length, bottom))
        except _Ignored:
            return 0

    # --- errors ------------------------------------------------------------------------------------------

    async def _changed(
        self, operation: str, offset: int, length: int, request: Callable[[], Awaitable[Result]]
    ) -> Result | None:
        """The request's result; None if its error was ignored."""
        try:
            return await self._judged(operation, offset, length, request)
        except _Ignored:
            return None

    async def _judged(
        self, operation: str, offset: int, length: int, request: Callable[[], Awaitable[Result]]
    ) -> Result:
        """Do the request when it is its turn, again and again while its error stops the attachment."""
        ticket = self._held.ticket()
        while True:
            if self.closed or self.node.quiesced:
                await self._turn(ticket, operation, offset, length)
            try:
                return await request()
            except (StorageError, ImageError) as problem:
                decision = self._judge(operation, offset, length, problem)
                if decision is Outcome.REPORT:
                    raise
                if decision is Outcome.IGNORE:
                    raise _Ignored from problem

    async def _turn(self, ticket: int, operation: str, offset: int, length: int) -> None:
        """Until the node may be asked. Raises NoMedium or LimitReached."""
        kind = WORDS.index(operation)
        while True:
            if self._held.must_wait(ticket):
                try:
                    waiting = self._held.wait(ticket)
                    self.closed = self.closed_to_writes = True
                    asker.set(self.holder)
                    with self.node.tracker.hold(kind, offset, length, WaitReason.STOPPED):
                        await waiting
                finally:
                    self._settle()
            if not self._present:
                raise NoMedium(self.name)
            if not self.node.quiesced:
                return
            await self.entered(kind, offset, length)

    def _judge(self, operation: str, offset: int, length: int, problem: BlockError) -> Outcome:
        full_disk = is_full_disk(problem)
        policy = self.on_read_error if operation == READ else self.on_write_error
        decision = outcome(policy, full_disk=full_disk)
        latches = decision is Outcome.STOP and not self._held.stopped
        if latches:
            self.io_status = IoStatus.NOSPACE if full_disk else IoStatus.FAILED
            self._held.stop()
            self._settle()
        self._failed(Failure(operation, offset, length, problem, decision, full_disk, latches))
        return decision


class _Ignored(Exception):
    """The policy says to go on as if the request had been done."""
