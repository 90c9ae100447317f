"""What an attachment is by definition: names, block sizes, cache, policies, where its tray begins. Pure data.

And what a policy makes of an error, as a table. Requests are in `attachment_user`, the resources in `attachments`.
"""

import errno
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from blockyard.base.errors import BlockError, ImageError, InvalidArgument, IoError, NoSpace, StorageError
from blockyard.base.ranges import is_power_of_two
from blockyard.base.units import KIB, MIB
from blockyard.node.graph.definition import check_name
from blockyard.node.graph.tray import Tray, first_tray

MIN_BLOCK: Final = 512
MAX_LOGICAL_BLOCK: Final = 64 * KIB
"""The largest minimum that the NBD protocol lets a server ask for (section "Block size constraints")."""
MAX_PHYSICAL_BLOCK: Final = 2 * MIB
"""MAX_BLOCK_SIZE (include/hw/qdev-properties-system.h)."""


class OnError(StrEnum):
    """What a failing request does (BlockdevOnError)."""

    REPORT = "report"
    IGNORE = "ignore"
    ENOSPC = "enospc"
    STOP = "stop"
    AUTO = "auto"


class Outcome(StrEnum):
    """What is done about one error (BlockErrorAction)."""

    REPORT = "report"
    IGNORE = "ignore"
    STOP = "stop"


class IoStatus(StrEnum):
    """The latched state (BlockDeviceIoStatus)."""

    OK = "ok"
    FAILED = "failed"
    NOSPACE = "nospace"


_OUTCOMES: Final = {
    OnError.REPORT: (Outcome.REPORT, Outcome.REPORT),
    OnError.IGNORE: (Outcome.IGNORE, Outcome.IGNORE),
    OnError.ENOSPC: (Outcome.REPORT, Outcome.STOP),
    OnError.STOP: (Outcome.STOP, Outcome.STOP),
}
"""By policy: what any error does, and what a full disk does (blk_get_error_action)."""

DEFAULT_ON_READ: Final = OnError.REPORT
DEFAULT_ON_WRITE: Final = OnError.ENOSPC
"""QEMU's defaults (drive_new, blockdev.c); AUTO is these."""

_FULL_DISK: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class AttachmentDefinition:
    """An attachment to make. JSON can carry it: `AttachmentDefinition(**json.loads(json.dumps(asdict(it))))`."""

    name: str
    node_name: str = ""
    """The medium; empty is none."""
    logical_block_size: int = MIN_BLOCK
    physical_block_size: int = 0
    """0 is the logical one."""
    write_cache: bool = True
    on_read_error: str = DEFAULT_ON_READ
    on_write_error: str = DEFAULT_ON_WRITE
    writable: bool = False
    removable: bool = False
    trayless: bool = False
    tray_open: bool = False
    """Where the tray begins."""
    locked: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def filled(self) -> "AttachmentDefinition":
        """With what was left to defaults."""
        return replace(self, physical_block_size=self.physical_block_size or self.logical_block_size)

    def check(self) -> None:
        """Raises InvalidArgument for what no attachment may be."""
        check_name(self.name, "name")
        for name, value in (("on_read_error", self.on_read_error), ("on_write_error", self.on_write_error)):
            if value not in list(OnError):
                raise InvalidArgument(name, "one of " + ", ".join(OnError), repr(value))
        _check_block("logical_block_size_bytes", self.logical_block_size, MIN_BLOCK, MAX_LOGICAL_BLOCK)
        _check_block(
            "physical_block_size_bytes", self.physical_block_size, self.logical_block_size, MAX_PHYSICAL_BLOCK
        )
        if not self.removable and not self.node_name:
            raise InvalidArgument("node_name", "the name of an open node, or removable = true", "nothing")
        trays = {"trayless": self.trayless, "tray_open": self.tray_open, "locked": self.locked}
        for name, given in trays.items():
            if given and not self.removable:
                raise InvalidArgument(name, "false, for it is not removable", "true")
            if given and self.trayless and name != "trayless":
                raise InvalidArgument(name, "false, for it has no tray", "true")

    @property
    def tray(self) -> Tray:
        """Where tray and medium begin."""
        return first_tray(
            removable=self.removable,
            trayless=self.trayless,
            loaded=bool(self.node_name),
            is_open=self.tray_open,
            locked=self.locked,
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON carries it."""
        return {**asdict(self), "labels": dict(self.labels)}


def is_io_error(problem: BlockError) -> bool:
    """Whether the medium failed, so that a policy decides; a request that may not be done is only refused."""
    return isinstance(problem, StorageError | ImageError)


def is_full_disk(problem: BlockError) -> bool:
    """Whether room would help."""
    return isinstance(problem, NoSpace) or (isinstance(problem, IoError) and problem.errno in _FULL_DISK)


def outcome(policy: OnError, *, full_disk: bool) -> Outcome:
    """What a policy other than AUTO makes of an error."""
    return _OUTCOMES[policy][full_disk]


def effective(policy: str, default: OnError) -> OnError:
    """The policy with AUTO replaced."""
    return default if policy == OnError.AUTO else OnError(policy)


def may_stop(*policies: OnError) -> bool:
    """Whether an error may be latched at all (blk_iostatus_is_enabled)."""
    return any(Outcome.STOP in _OUTCOMES[policy] for policy in policies)


def _check_block(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most or not is_power_of_two(value):
        raise InvalidArgument(name, f"a power of two, {least} to {most}", str(value))
