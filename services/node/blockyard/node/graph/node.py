"""A node of the graph: the seed's struct BlockDriverState. Data and invariants, no logic of requests.

Invariants
1. `children[name].node` and `parents` mirror each other: an edge is in exactly one node's `parents`.
2. `driver` is usable from the first instant the node can be found until its last edge is gone.
3. `quiesced > 0` means no request enters; requests already inside run to their end.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, cast

from blockyard.base.clock import Clock
from blockyard.base.errors import BlockError, NodeInactive, NodeReadOnly
from blockyard.node.core.accounting import Account
from blockyard.node.graph import inline
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.threshold import WriteThreshold
from blockyard.node.graph.tracking import Tracker
from blockyard.node.interface.child import Buffer
from blockyard.node.interface.driver import Driver, DriverContext, FilterDriver, FormatDriver, ProtocolDriver
from blockyard.node.interface.flags import MAY_UNMAP, WRITE_UNCHANGED, DetectZeroes, DiscardMode
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Mapping
from blockyard.node.interface.throttling import Throttled

if TYPE_CHECKING:
    from blockyard.node.graph.claims import Claim
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.guarding import Guard
    from blockyard.node.graph.throttling import Member

_ZERO_FLAGS: Final = {DetectZeroes.OFF: None, DetectZeroes.ON: 0, DetectZeroes.UNMAP: MAY_UNMAP}

ReadNow = Callable[["Node", int, memoryview], bool]
WriteNow = Callable[["Node", int, Buffer, int], bool]


def _ignore(node: "Node") -> None:
    """Nobody wants to know."""


@dataclass(slots=True, eq=False)
class Node:
    """One node. `read_now` and `write_now` are chosen once by the kind of driver, to spare a test per request."""

    name: str
    definition: NodeDefinition
    driver: Driver
    clock: Clock
    context: DriverContext
    """How the driver is open now; the definition says what the client allowed (see `graph.modes`)."""
    read_only: bool
    """Writes are refused now."""
    implicit: bool = False
    """Made by the service itself, closed with its last parent."""
    of_job: bool = False
    """A job's filter: it goes with the job and does not come back without it."""
    leaving: bool = False
    """It is being closed."""
    lent_for_writing: bool = False
    """Read-only, but a job writes to it for a while."""
    follows_header: bool = False
    """Its definition left the backing file to the image's header."""
    header_link: "tuple[Edge, Node] | None" = None
    """Where the header led when the node was opened."""
    discard: DiscardMode = DiscardMode.UNMAP
    no_flush: bool = False
    executor: str = "main"
    """Where its work that blocks is done (see `graph.executors`)."""
    path: str = ""
    """The file at the bottom as it was named; resolves what headers name. Not shown to clients."""
    filename: str = ""
    """The file at the bottom, relative to its root."""
    backing_filename: str = ""
    backing_format: str = ""
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_ns: int = 0
    children: dict[str, "Edge"] = field(default_factory=dict)
    parents: list["Edge"] = field(default_factory=list)
    bitmaps: dict[str, Bitmap] = field(default_factory=dict)
    recorders: tuple[Bitmap, ...] = ()
    """The bitmaps that record writes now."""
    threshold: WriteThreshold | None = None
    guard: "Guard | None" = None
    """Of its bitmaps that survive a crash: asked before each write."""
    holding: "tuple[Edge, ...]" = ()
    """Links below that it froze (see `graph.freezing`)."""
    populating: int = 0
    """Copies on read in flight that were asked for by a flag or a filter."""
    resumes_read_only: bool = False
    """What `read_only` was before the node was handed over."""
    given: NodeDefinition | None = None
    """What the client asked for, where the node is something else (an ephemeral overlay)."""
    quiesced: int = 0
    undrained: asyncio.Future[None] | None = None
    write_generation: int = 0
    flushed_generation: int = 0
    write_highest: int = 0
    revision: int = 0
    watched: bool = False
    """Somebody wants to know of each write: recorders, or the threshold."""
    account: Account = field(init=False)
    tracker: Tracker = field(init=False)
    is_format: bool = field(init=False)
    is_filter: bool = field(init=False)
    hands_on: bool = field(init=False)
    """A filter with its child's limits: ranges of any shape are the child's to cut."""
    limits: Limits | None = field(init=False, default=None)
    """The driver's, as they were when they were looked at last."""
    alignment: int = field(init=False)
    memory_alignment: int = field(init=False)
    throttle: "Member | None" = field(init=False)
    """The driver's place in a throttle group, if it has one."""
    passes_reads: bool = field(init=False)
    """A filter whose reads are its child's, which is called `file`."""
    copies_on_read: bool = field(init=False)
    """A filter that stores what is read through it."""
    inline_max: int = field(init=False)
    """Longest request that may be tried inline at a protocol or filter driver."""
    now_ns: Callable[[], int] = field(init=False)
    lookup: Callable[[int, int], Mapping | None] = field(init=False)
    """Of a format driver."""
    straight: "tuple[Edge, int] | None" = field(init=False)
    """Of a format driver that is its child's bytes at a constant distance."""
    simple: bool = field(init=False)
    """A protocol driver that takes any alignment, and nothing looks at what is written."""
    zero_flags: int | None = field(init=False)
    """Of the write-zeroes request that a write of zeroes becomes; None if they are written as they come."""
    driver_read_now: Callable[[int, memoryview], bool] = field(init=False)
    """Of a protocol or filter driver."""
    driver_write_now: Callable[[int, Buffer, int], bool] = field(init=False)
    read_now: ReadNow = field(init=False)
    write_now: WriteNow = field(init=False)
    on_limits: Callable[["Node"], None] = _ignore
    """Told before the limits change, be it for a moment: what changed them may be taken back."""
    on_mode: "Callable[[Node], Awaitable[None]] | None" = None
    """Called, while it is drained, when its driver was opened in another mode."""
    on_blockers: Callable[["Node"], None] = _ignore
    """Called when a parent lets others do more or less with the node than before."""
    flush_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    claim: "Claim | None" = None
    """Who changes its mode or options (see `graph.claims`)."""

    def __post_init__(self) -> None:
        self.now_ns = self.clock.monotonic_ns
        self.account = Account(self.clock)
        self.tracker = Tracker(self.clock)
        self.created_ns = self.clock.wall_ns()
        self.adopt_driver()

    def adopt_driver(self) -> None:
        """Choose the forms of the request path for the present driver; again after a reopen."""
        driver = self.driver
        self.is_format = isinstance(driver, FormatDriver)
        self.is_filter = isinstance(driver, FilterDriver)
        self.hands_on = isinstance(driver, FilterDriver) and not driver.own_limits
        # Groups are the graph's, so members are; drivers only know their shape.
        self.throttle = cast("Member", driver.member) if isinstance(driver, Throttled) else None
        self.copies_on_read = driver.copies_on_read
        own_read = getattr(type(driver), "read_now", None) is not FilterDriver.read_now
        self.passes_reads = self.hands_on and not own_read and driver.primary == "file"
        if self.throttle is not None:
            self.throttle.on_wait = self.account.waited
        self.straight = None
        self.zero_flags = _ZERO_FLAGS[self.definition.detect_zeroes]
        if isinstance(driver, FormatDriver):
            self.lookup = driver.lookup
            # Children are edges here; drivers only know them as Child.
            self.straight = cast("tuple[Edge, int] | None", driver.straight())
        elif isinstance(driver, ProtocolDriver | FilterDriver):
            self.driver_read_now, self.driver_write_now = driver.read_now, driver.write_now
        self.read_now, self.write_now = inline.forms(self)
        self.refresh_limits()

    def refresh_limits(self) -> None:
        """Take up the driver's limits, which may have changed with a child, and then the parents do, as in QEMU.

        Everything that is derived from them for the hot path is set here and nowhere else.
        """
        limits = self.driver.limits
        self.simple = (
            isinstance(self.driver, ProtocolDriver)
            and limits.request_alignment == 1
            and self.zero_flags is None
            and self.guard is None
        )
        self.alignment = limits.request_alignment
        self.memory_alignment = limits.min_mem_alignment
        longest = min(inline.INLINE_MAX, limits.max_transfer or inline.INLINE_MAX)
        self.inline_max = longest if limits.min_mem_alignment == 1 else -1
        if limits == self.limits:
            return
        if self.limits is not None:
            self.on_limits(self)
        self.limits = replace(limits)
        for edge in self.parents:
            if edge.parent is not None:
                edge.parent.refresh_limits()

    def wrote(self, offset: int, length: int, flags: int) -> None:
        """A range was changed, or may have been: flushes, watermarks and recording bitmaps take note."""
        self.write_generation += 1
        if offset + length > self.write_highest:
            self.write_highest = offset + length
        if self.watched:
            self._tell(offset, length, flags)

    def _tell(self, offset: int, length: int, flags: int) -> None:
        if not flags & WRITE_UNCHANGED:
            for bitmap in self.recorders:
                bitmap.mark(offset, length)
        if self.threshold is not None:
            self.threshold.wrote(offset + length)

    def discarded(self, offset: int, length: int) -> None:
        """As `wrote`, for a range that was dropped: no byte of it was written."""
        self.write_generation += 1
        for bitmap in self.recorders:
            bitmap.mark(offset, length)

    def holders(self) -> list[str]:
        """Who keeps the node alive."""
        return [edge.holder for edge in self.parents]

    @property
    def active(self) -> bool:
        """Its files are held for use; False after a hand-over."""
        return not self.context.inactive

    @property
    def waits_for_writer(self) -> bool:
        """It may become writable when a writer comes, and need not be before."""
        return self.definition.auto_read_only and not self.definition.read_only

    @property
    def rests_read_only(self) -> bool:
        """Whether it is read-only when no job has lent it for writing, and nobody has it in hand instead of us."""
        if self.waits_for_writer:
            return False
        return self.lent_for_writing or (self.read_only if self.active else self.resumes_read_only)

    def write_refusal(self) -> BlockError:
        """Why writes are refused, of a node that is read-only now."""
        return NodeReadOnly(self.name) if self.active else NodeInactive(self.name)

    def record_bitmaps(self) -> None:
        """Bring `recorders` up to date after a bitmap came, went or changed."""
        self.recorders = tuple(item for item in self.bitmaps.values() if item.recording)
        self.watched = bool(self.recorders or self.threshold)
        if self.guard is not None:
            self.guard.refresh()

    def set_threshold(self, threshold: WriteThreshold | None) -> None:
        """Look at writes for this threshold from now on; None for none."""
        self.threshold = threshold
        self.record_bitmaps()

    @property
    def backing(self) -> "Edge | None":
        return self.children.get("backing")

    @property
    def primary(self) -> "Edge | None":
        """The child that a filter passes to, or that holds a format's image (bdrv_primary_child)."""
        return self.children.get(self.driver.primary)

    @property
    def filtered(self) -> "Node | None":
        """The child whose data a filter passes on; None if this is no filter."""
        return self.children[self.driver.primary].node if self.is_filter else None
