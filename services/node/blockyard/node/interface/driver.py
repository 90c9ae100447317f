"""The three bases of all drivers, and the abilities a driver may add.

Theory. Layers answer, they do not forward: a format driver says *where* bytes are (`lookup`, `map`) and makes
room for new ones (`allocate`, `commit`); the request path of the graph moves them. So block status, copy on
read, streaming and zero detection come with a mapping. A protocol driver moves bytes; a filter passes requests
on and overrides what it changes.

A driver never sees the graph, another driver or a request's client. It gets its children, its options and a
`DriverContext`, and it raises errors of the catalogue only.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from blockyard.base.clock import Clock
from blockyard.node.interface.bitmaps import Bitmaps, NoBitmaps
from blockyard.node.interface.child import Buffer, Child
from blockyard.node.interface.flags import DiscardMode, Preallocation, Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Allocation, MapKind, Mapping
from blockyard.node.interface.operations import Progress, untold
from blockyard.node.interface.permissions import NOTHING, Permissions, by_role
from blockyard.node.interface.secrets import NoSecrets, Secrets
from blockyard.node.interface.storage import Storage
from blockyard.node.interface.throttling import NoThrottling, Throttling

Result = TypeVar("Result")


class Pool(Protocol):
    """A bounded executor for system calls that block and for CPU work that releases the GIL.

    A driver's stays the same object for its life: when the node moves, the graph makes it work elsewhere.
    """

    def run(self, work: Callable[..., Result], *args: Any) -> Awaitable[Result]: ...


@dataclass(frozen=True, slots=True)
class ChildSlot:
    """A child that a driver's options may or must name."""

    name: str
    role: Role
    required: bool = True
    many: bool = False
    """Any number of children: `NAME.0`, `NAME.1` ..."""
    stays: bool = False
    """The driver means this very node, whatever is put above it or in its place."""

    def takes(self, child: str) -> bool:
        """Whether a child of this name belongs here."""
        if not self.many:
            return child == self.name
        name, _, number = child.rpartition(".")
        return name == self.name and number.isascii() and number.isdigit() and str(int(number)) == number


@dataclass(slots=True)
class DriverContext:
    """What the graph hands to a driver when it opens it."""

    node_name: str
    read_only: bool
    """May change under a driver that is neither a format nor `Reconfigurable`: look at it here when it matters."""
    children: Dict[str, Child]
    pool: Pool
    storage: Storage
    clock: Clock
    throttling: Throttling = field(default_factory=NoThrottling)
    """The throttle groups that a filter may join."""
    bitmaps: Bitmaps = field(default_factory=NoBitmaps)
    """The named bitmaps of the graph's nodes."""
    secrets: Secrets = field(default_factory=NoSecrets)
    """Passphrases and keys by name."""
    memory: dict[str, Any] = field(default_factory=dict, repr=False)
    """What a driver leaves for the next one of the same node, which opens the image in another mode: keys, say."""
    of_job: bool = False
    """A job opens it for itself, and steers it."""
    restored: bool = False
    """It was open when the service ended: what it had in memory is lost."""
    begins_later: bool = False
    """Its point in time begins with `begin_snapshot`, which comes before any request; see `interface.snapshots`."""
    discard: DiscardMode = DiscardMode.UNMAP
    direct: bool = False
    """Bypass the host's page cache (cache.direct)."""
    no_flush: bool = False
    """Flushes do nothing (cache.no_flush)."""
    force_share: bool = False
    """Exclude no other process; read-only nodes only."""
    inactive: bool = False
    """Handed over: read-only, and nothing is held against other processes."""
    report: Callable[[str, Dict[str, str]], None] = field(default=lambda kind, detail: None)
    """Emit an event of this node (`corrupted`, `dirty-repaired` ...) with details for people."""
    repermit: Callable[[], None] = field(default=lambda: None)
    """What the driver needs of its children has changed by itself: have it looked at again."""


@dataclass(frozen=True, slots=True)
class BackingReference:
    """A backing file as an image's header names it: a string, not a node."""

    filename: str
    format: str
    """Empty if the header does not say."""


@dataclass(slots=True)
class NodeInfo:
    """What a driver tells of itself beyond size and limits."""

    cluster_size: int = 0
    subcluster_size: int = 0
    allocated_bytes: int = -1
    """Bytes used in the file system; -1 unknown."""
    is_dirty: bool = False
    is_corrupt: bool = False
    encrypted: bool = False
    vm_state_offset: int = -1
    variable_length: bool = False
    """The size may change without us: a device, or a file that others write."""
    scsi_generic: bool = False
    """A SCSI generic device: commands go through ioctls, and there are no bytes to read."""
    has_zero_init: bool = False
    """A new image of this driver reads as zeroes, so zeroes need not be written to it."""
    filename: str = ""
    backing_filename: str = ""
    backing_format: str = ""
    specific: Dict[str, str | int | bool] = field(default_factory=dict)
    """Per-format facts under QEMU's names (ImageInfoSpecific)."""


class Driver(ABC):
    """Common to all. Construction is `await open(...)`; a driver object that exists is usable.

    Class attributes: `name` is QEMU's; `Options` a frozen dataclass whose fields are the driver's own options
    (children are `children`, not fields); `primary` the child that a filter passes to, or that holds a format's
    image; `needs` names the module of an optional library.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Any]]
    children: ClassVar[tuple[ChildSlot, ...]] = ()
    primary: ClassVar[str] = "file"
    forgets: ClassVar[bool] = False
    """What is in it ends with the process."""
    compresses: ClassVar[bool] = False
    """A format that can store whole allocation units compressed."""
    copies_on_read: ClassVar[bool] = False
    """A filter that stores in the layer below what is read through it."""
    bottom: str = ""
    """Name of the lowest node of the chain below that a filter reads for itself: the links down to it are frozen
    while it is open."""
    needs: ClassVar[str] = ""
    reopens: ClassVar[bool] = True
    """To close it and open it again with other options loses nothing."""
    fixed_options: ClassVar[frozenset[str]] = frozenset()
    """Options that say what it is open on; an open node cannot change them."""
    changes_exclude: ClassVar[bool] = False
    """While a range is being changed no other request for it reaches the driver: it keeps copies that must never be
    seen to differ. (Of formats what allocates excludes others anyway.)"""

    size: int
    """Bytes visible to the parent. A plain attribute: it is read on every request."""
    limits: Limits
    listens: bool = False
    """Someone waits for debug events here (blkdebug), so whoever is above must emit them and not pass it by."""

    @classmethod
    @abstractmethod
    async def open(cls, options: Any, context: DriverContext) -> Self:
        """Raises catalogue errors; leaves nothing open behind if it does."""

    async def close(self) -> None:
        """Write back what is cached and release everything. Called once; never raises for a clean driver."""

    @abstractmethod
    async def flush(self) -> None:
        """Everything that was written is on stable storage, metadata included (flush to OS, then to disk)."""

    async def flush_to_os(self) -> None:
        """Cached metadata goes to the child, without asking it to flush (the seed's flush_to_os)."""

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        """Make a range read as zeroes without writing buffers; False if that is not possible here.

        The range is aligned to `limits.zero_alignment`, but for an end at `size`.
        """
        return False

    async def discard(self, offset: int, length: int) -> None:
        """Drop a range, aligned to `limits.discard_alignment` but for an end at `size`; best effort.

        What it reads as afterwards is the driver's choice, and stable.
        """
        return

    async def detach_executor(self) -> None:
        """Let go of everything that is bound to the present executor: the node is drained and about to move
        (bdrv_detach_aio_context). Parents are asked before their children. For drivers with threads, timers or
        descriptors of their own; `context.pool` follows by itself, and still runs work here.
        """
        return

    def attach_executor(self) -> None:
        """The node has its executor, a new one or, if the move failed, the old one (bdrv_attach_aio_context).

        Children are asked before their parents. Never fails.
        """
        return

    async def info(self) -> NodeInfo:
        return NodeInfo()

    @classmethod
    def opening_permissions(cls, role: Role, options: Any, *, writable: bool) -> Permissions:
        """What opening the driver needs of a child of a role, before the driver can say itself."""
        return by_role(role, NOTHING, writable=writable) if role is Role.FILE else NOTHING

    async def debug_event(self, event: str) -> None:
        """Something named in QEMU's BlkdebugEvent is about to happen above; asked only if it `listens`."""
        return

    def child_permissions(self, child: str, role: Role, above: Permissions, *, writable: bool) -> Permissions:
        """What the driver uses of a child and shares, when its parents together have `above` (bdrv_child_perm).

        `writable`: the node was opened for writing. Pure: it is also asked about what would be.
        """
        return by_role(role, above, writable=writable)


class ProtocolDriver(Driver):
    """Bytes at offsets. `*_now` as in `Child`: True when done without blocking, False with no effect."""

    def read_now(self, offset: int, into: memoryview) -> bool:
        return False

    @abstractmethod
    async def read(self, offset: int, into: memoryview) -> None:
        """Fill `into`; the range lies inside `size`."""

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        return False

    @abstractmethod
    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        """May reach past `size`: then the driver grows, or raises NoSpace if it cannot."""

    async def map(self, offset: int, length: int) -> Mapping:
        """DATA or ZERO runs (holes); the default knows no holes."""
        return Mapping(MapKind.DATA, length, None, offset, True)


class FormatDriver(Driver):
    """How guest ranges map onto children. See the module docstring for the division of work."""

    transparent: ClassVar[bool] = False
    """Its DATA may be holes of the child below (raw): block status asks there too."""

    def straight(self) -> tuple[Child, int] | None:
        """A child and a distance, if every byte at `x` is, always and writably, that child's at `x + distance`.

        The request path then asks no look-up; a driver whose window has an end of its own answers None.
        """
        return None

    @abstractmethod
    def lookup(self, offset: int, length: int) -> Mapping | None:
        """The mapping if the metadata is in memory, else None. Never blocks. `offset` lies inside `size`."""

    @abstractmethod
    async def map(self, offset: int, length: int) -> Mapping:
        """As `lookup`, loading metadata as needed."""

    @abstractmethod
    async def allocate(self, offset: int, length: int, flags: int) -> Allocation:
        """Reserve room for (a prefix of) the range, starting in the unit that holds `offset`.

        The request path holds a serialising request over the units, so no two allocations of one unit meet.
        Also used when the present place may not be overwritten. Invisible until `commit`.
        """

    @abstractmethod
    async def commit(self, allocation: Allocation) -> None:
        """The data is in place: readers see it from now on."""

    @abstractmethod
    async def abandon(self, allocation: Allocation) -> None:
        """Give the room back; nothing changed for readers."""

    async def read_encoded(self, offset: int, into: memoryview) -> None:
        """Read inside one ENCODED mapping."""
        raise AssertionError(f"driver {self.name} gave an ENCODED mapping it cannot read")

    async def write_compressed(self, offset: int, data: Buffer) -> bool:
        """Store whole allocation units compressed; False if it does not pay or cannot be done: write plainly."""
        return False

    def backing(self) -> BackingReference | None:
        """What the header names as backing file, if anything."""
        return None


class FilterDriver(Driver):
    """Passes everything to its one FILTERED child; override what the filter changes.

    The slot is called `file`, unless the class says otherwise in `children` and `primary`; the attribute that holds
    the child is `file` in any case.
    """

    children: ClassVar[tuple[ChildSlot, ...]] = (ChildSlot("file", Role.FILTERED),)
    file: Child
    own_limits: bool = False
    """`limits` are not the child's: the request path aligns, splits and falls back for this node."""

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.file.size

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        return self.file.limits

    def read_now(self, offset: int, into: memoryview) -> bool:
        return self.file.read_now(offset, into)

    async def read(self, offset: int, into: memoryview) -> None:
        await self.file.read(offset, into)

    def write_now(self, offset: int, data: Buffer, flags: int) -> bool:
        return self.file.write_now(offset, data, flags)

    async def write(self, offset: int, data: Buffer, flags: int) -> None:
        await self.file.write(offset, data, flags)

    async def zero(self, offset: int, length: int, flags: int) -> bool:
        await self.file.zero(offset, length, flags)
        return True

    async def discard(self, offset: int, length: int) -> None:
        await self.file.discard(offset, length)

    async def flush(self) -> None:
        await self.file.flush()

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """See `Resizable.truncate`."""
        await self.file.truncate(size, preallocation, exact)

    async def map(self, offset: int, length: int) -> Mapping:
        """Zeroes as far as the child knows them; all else is data, wherever the child has it."""
        below = await self.file.map(offset, length)
        if below.kind is MapKind.ZERO:
            return Mapping(MapKind.ZERO, below.length)
        return Mapping(MapKind.DATA, below.length, self.file, offset, True)


# --- abilities: asked by isinstance, reported over RPC --------------------------------------------------


@runtime_checkable
class ManyChildren(Protocol):
    """Can get and lose children while it is open (QEMU's bdrv_add_child and bdrv_del_child).

    The graph decides in its own time which children there would be, and gives them to the driver while the node is
    drained.
    """

    def next_child(self, children: Dict[str, Child]) -> str:
        """Name for one more child beside these."""
        ...

    def check_children(self, children: Dict[str, Child]) -> None:
        """Raises a catalogue error if these cannot be all its children. Changes nothing."""
        ...

    def adopt_children(self, children: Dict[str, Child]) -> Callable[[], None]:
        """From now on these, which were checked, are all its children. No request is in flight. Takes it back."""
        ...


@runtime_checkable
class Creatable(Protocol):
    """Can make a new image. `CreateOptions` is a frozen dataclass with `size` in bytes."""

    CreateOptions: ClassVar[type[Any]]

    @classmethod
    async def create(cls, options: Any, context: DriverContext) -> None:
        """Format `context.children["file"]` (format drivers) or make the file (protocol drivers)."""
        ...


@runtime_checkable
class Resizable(Protocol):
    """Can change its size."""

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None: ...


@runtime_checkable
class BackingChangeable(Protocol):
    """Can rewrite the backing reference in its header, ordered after everything that depends on it."""

    async def change_backing(self, reference: BackingReference | None) -> None:
        """Mapping metadata is flushed first, then the header, then a flush (design, section 4)."""
        ...


@dataclass(slots=True)
class CheckReport:
    """QEMU's ImageCheck: counts after a check, and what a repair fixed."""

    corruptions: int = 0
    leaks: int = 0
    check_errors: int = 0
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    image_end_offset: int = 0
    total_clusters: int = 0
    allocated_clusters: int = 0
    fragmented_clusters: int = 0
    compressed_clusters: int = 0
    findings: list[str] = field(default_factory=list)
    """The first of them in words; bounded by the driver."""


@runtime_checkable
class Checkable(Protocol):
    """Can compare its metadata with itself."""

    async def check(self, fix_leaks: bool, fix_errors: bool, progress: Progress = untold) -> CheckReport:
        """No request is in flight. To break it off leaves the image as it was, or repaired in part."""
        ...


@runtime_checkable
class Emptyable(Protocol):
    """Can drop all local allocations (the seed's bdrv_make_empty)."""

    async def make_empty(self) -> None: ...


@runtime_checkable
class Copies(Protocol):
    """A protocol driver whose bytes live in a file descriptor, so that the kernel can copy them."""

    def descriptor(self) -> int:
        """For copy_file_range between two drivers that have it; -1 if it must not be used (O_DIRECT)."""
        ...

    def grown(self, end: int) -> None:
        """Bytes up to `end` were written behind the driver's back by the kernel."""
        ...


@runtime_checkable
class Probes(Protocol):
    """Can tell from a file's first bytes whether it may be an image of this driver."""

    @classmethod
    def probe(cls, head: bytes) -> int:
        """0 (no) to 100 (certain). `head` may be shorter than any header; it is hostile."""
        ...


@runtime_checkable
class Measurable(Protocol):
    """Can tell how large a new image would become."""

    @classmethod
    def measure(cls, options: Any, data_bytes: int) -> tuple[int, int]:
        """Bytes of a file made with `CreateOptions`: with `data_bytes` of it written, in whole allocation units;
        and with all of it written."""
        ...

    @classmethod
    def measure_unit(cls, options: Any) -> int:
        """The allocation unit of such an image; 1 if it has none."""
        ...
