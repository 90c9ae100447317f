"""What a copy session is asked to be, and what it reports. Pure data under the names of copy.proto."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from blockyard.base.errors import BlockError
from blockyard.base.ranges import ByteRange

KIND: Final = "copy-session"
"""Of the catalogue's entries."""


class CopyKind(IntEnum):
    """Numbers as in the proto."""

    MIRROR = 1
    BACKUP = 2
    STREAM = 3
    COMMIT = 4


class SyncMode(IntEnum):
    """What is copied at first."""

    FULL = 1
    TOP = 2
    NONE = 3
    BITMAP = 4


class CopyMode(IntEnum):
    """How a mirror follows the guest."""

    BACKGROUND = 1
    WRITE_BLOCKING = 2


class BitmapMode(IntEnum):
    """What happens to the bitmap of a backup."""

    ON_SUCCESS = 1
    NEVER = 2
    ALWAYS = 3


class FinishAction(IntEnum):
    """How a session ends."""

    ABORT = 1
    COMPLETE = 2
    PIVOT = 3
    DETACH = 4


class Side(IntEnum):
    """Which side failed."""

    SOURCE = 1
    TARGET = 2


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """Everything that makes a session what it is; equal specs make a repeated create harmless."""

    session_id: str
    owner: str
    kind: CopyKind
    source: str
    target: str = ""
    base: str = ""
    sync: SyncMode = SyncMode.FULL
    bitmap: str = ""
    bitmap_mode: BitmapMode = BitmapMode.ON_SUCCESS
    copy_mode: CopyMode = CopyMode.BACKGROUND
    granularity: int = 0
    """Bytes per bit of the work map; 0 lets the session choose."""
    target_is_zero: bool = False
    unmap: bool = True
    compress: bool = False
    break_snapshot: bool = False
    """backup: a failed copy before a write loses the snapshot, not the guest's write."""
    filter_name: str = ""
    backing_file: str = ""
    replaces: str = ""
    domain: str = field(default="", compare=False)
    """Which job store knows the owner; the same request from another store is the same request."""


@dataclass(frozen=True, slots=True)
class Order:
    """Copy what is left from the cursor on."""

    order_id: int
    max_bytes: int
    range: ByteRange | None = None
    wait_ns: int = 0


@dataclass(slots=True)
class Tally:
    """Bytes of one order, or of a whole session."""

    copied: int = 0
    zero: int = 0
    skipped: int = 0

    def add(self, other: "Tally") -> None:
        self.copied += other.copied
        self.zero += other.zero
        self.skipped += other.skipped


@dataclass(slots=True)
class Failure:
    """Where and on which side a copy failed. The range is back in the work map."""

    side: Side
    range: ByteRange
    error: BlockError


class SideFailed(Exception):
    """Carries a failure up to the order it belongs to."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure
