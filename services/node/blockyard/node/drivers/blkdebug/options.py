"""What a client says to a blkdebug node, checked: rules, limits, permissions (QEMU's BlockdevOptionsBlkdebug)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from blockyard.base.errors import InvalidArgument
from blockyard.base.ranges import is_aligned, is_power_of_two
from blockyard.base.units import KIB
from blockyard.node.core.injection import Injection, StateChange, make_effect, make_injection, make_state_change
from blockyard.node.formats import blkdebug
from blockyard.node.interface import permissions
from blockyard.node.interface.limits import Limits

MAX_ALIGN: Final = 64 * KIB
"""The largest request alignment that a node may have."""
MAX_LIMIT: Final = 2**31
"""Limits are below QEMU's INT_MAX."""


class ChildPermission(StrEnum):
    """A permission by name."""

    CONSISTENT_READ = "consistent-read"
    WRITE = "write"
    WRITE_UNCHANGED = "write-unchanged"
    RESIZE = "resize"


BITS: Final = {name: bit for bit, name in permissions.NAMES.items()}


def bits(named: tuple[ChildPermission, ...]) -> int:
    """A set of permissions as `interface.permissions` has it."""
    return sum(BITS[name] for name in set(named))


@dataclass(frozen=True, slots=True)
class InjectError:
    """When and how requests fail."""

    event: str
    """The event that makes the rule active: `read_aio`, `l2_update`, `cow_write` ...; `none` is at once."""
    state: int = 0
    """Only in this state of the node; 0 is any."""
    iotype: str = ""
    """Only requests of this type: read, write, write-zeroes, discard, flush, block-status. Empty is all but
    block-status."""
    errno: int | None = None
    """The error number to fail with; 0 goes on. Default 5, EIO; 0 with `corrupt`."""
    offset: int | None = None
    """Only requests that touch this byte. Default -1: any."""
    once: bool = False
    """Only once."""
    immediately: bool = False
    """Fail without letting other requests run first."""
    rate: float | None = None
    """Chance in 0 to 1 that a request is struck. Default 1."""
    delay_ns: int = 0
    """Wait so long before going on or failing."""
    corrupt: bool = False
    """Go on, and flip one bit of what is read or written."""

    def rule(self, where: Callable[[str], str]) -> Injection:
        """Raises InvalidArgument."""
        effect = make_effect(
            where,
            errno=self.errno,
            delay_ns=self.delay_ns,
            corrupt=self.corrupt,
            immediately=self.immediately,
        )
        return make_injection(
            where,
            event=self.event,
            effect=effect,
            state=self.state,
            iotype=self.iotype,
            offset=self.offset,
            once=self.once,
            rate=self.rate,
        )


@dataclass(frozen=True, slots=True)
class SetState:
    """How the state of the node changes."""

    event: str
    """The event."""
    state: int = 0
    """Only in this state; 0 is any. A node begins in state 1."""
    new_state: int = 0
    """The state afterwards."""

    def rule(self, where: Callable[[str], str]) -> StateChange:
        """Raises InvalidArgument."""
        return make_state_change(where, event=self.event, state=self.state, new_state=self.new_state)


@dataclass(frozen=True, slots=True)
class BlkdebugOptions:
    """Options of driver `blkdebug`."""

    config: str = ""
    """Rules in the language of QEMU's blkdebug files: the text itself, not a name."""
    align: int = 0
    """Request alignment that is demanded, power of two up to 64 KiB. Default 0: the image's."""
    max_transfer: int = 0
    """Largest transfer, a multiple of the alignment. Default 0: the image's."""
    opt_write_zero: int = 0
    """Alignment of zeroing; less is written. Default 0: the image's."""
    max_write_zero: int = 0
    """Largest zeroing. Default 0: the image's."""
    opt_discard: int = 0
    """Alignment of discards; less is ignored. Default 0: the image's."""
    max_discard: int = 0
    """Largest discard. Default 0: the image's."""
    inject_error: tuple[InjectError, ...] = ()
    """Rules that make requests fail."""
    set_state: tuple[SetState, ...] = ()
    """Rules that change the state."""
    take_child_perms: tuple[ChildPermission, ...] = ()
    """Permissions that it takes on the image beyond what it needs."""
    unshare_child_perms: tuple[ChildPermission, ...] = ()
    """Permissions on the image that it does not let others have."""
    seed: int = 0
    """Begin of the numbers that decide where a rate is below 1: the same seed, the same strikes."""

    def rules(self) -> list[Injection | StateChange]:
        """Those of the text first, as in QEMU. Raises InvalidArgument."""
        found = blkdebug.parse(self.config)
        for number, injection in enumerate(self.inject_error):
            found.append(injection.rule(lambda name, at=number: f"inject_error.{at}.{name}"))  # type: ignore[misc]
        for number, change in enumerate(self.set_state):
            found.append(change.rule(lambda name, at=number: f"set_state.{at}.{name}"))  # type: ignore[misc]
        return found

    @property
    def has_limits(self) -> bool:
        return any(getattr(self, name) for name in LIMITS)

    def check_limits(self, image: Limits) -> None:
        """As QEMU's blkdebug_open. Raises InvalidArgument."""
        if self.align and not (is_power_of_two(self.align) and self.align <= MAX_ALIGN):
            raise InvalidArgument("align", f"a power of two up to {MAX_ALIGN}", str(self.align))
        align = max(self.align, image.request_alignment)
        units = {
            "max_transfer": align,
            "opt_write_zero": align,
            "max_write_zero": max(align, self.opt_write_zero),
            "opt_discard": align,
            "max_discard": max(align, self.opt_discard),
        }
        for name, unit in units.items():
            value = getattr(self, name)
            if not 0 <= value < MAX_LIMIT or not is_aligned(value, unit):
                raise InvalidArgument(name, f"a multiple of {unit} below {MAX_LIMIT}", str(value))

    def limits(self, image: Limits) -> Limits:
        """The image's limits with ours in their place (blkdebug_refresh_limits)."""
        align = max(self.align, image.request_alignment)
        return replace(
            image,
            request_alignment=align,
            max_transfer=self.max_transfer or image.max_transfer,
            zero_alignment=max(align, self.opt_write_zero or image.zero_alignment),
            max_zeroes=self.max_write_zero or image.max_zeroes,
            discard_alignment=max(align, self.opt_discard or image.discard_alignment),
            max_discard=self.max_discard or image.max_discard,
        )


LIMITS: Final = ("align", "max_transfer", "opt_write_zero", "max_write_zero", "opt_discard", "max_discard")
