"""Abilities of drivers that stand on files of the host: asked by isinstance, reported over RPC.

The others are in `interface.driver`, beside what they speak of.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from blockyard.node.interface.driver import DriverContext


@runtime_checkable
class Reconfigurable(Protocol):
    """A protocol driver that can take up another mode while it is open (bdrv_reopen)."""

    async def reconfigure(self, context: DriverContext) -> None:
        """As if opened with `context`, without a moment in which others could open what we hold.

        All or nothing: raises what opening raises, and then it is as it was. No request is in flight.
        """
        ...


@runtime_checkable
class Refreshable(Protocol):
    """Can look whether its size changed without us."""

    async def refresh_size(self) -> int:
        """The size as it is now, which `size` is afterwards."""
        ...


@runtime_checkable
class PassesIoctl(Protocol):
    """Stands on a file descriptor that takes ioctl(2)."""

    async def ioctl(self, request: int, argument: bytearray) -> int:
        """What the call returned, 0 or more; `argument` holds what it left there. Raises IoError, NodeReadOnly
        ..."""
        ...


@runtime_checkable
class ProbesDevices(Protocol):
    """A protocol driver that can tell how well it suits a file of the host (the seed's bdrv_probe_device)."""

    @classmethod
    def probe_device(cls, mode: int) -> int:
        """0 (not at all) to 100. `mode` is st_mode."""
        ...


@dataclass(frozen=True, slots=True)
class KeySlotChange:
    """Keys of an encrypted image to add or to erase (QEMU's QCryptoBlockAmendOptionsLUKS)."""

    active: bool
    """Make a slot open with `new_secret`; else erase slots."""
    new_secret: str = ""
    """Name of the secret that the slot is to open with."""
    old_secret: str = ""
    """Adding: one that opens the image already, by default what it is open with. Erasing: all slots that open with
    it are meant, or of them `keyslot`."""
    keyslot: int | None = None
    """By default the first that is free."""
    iter_time: int | None = None
    """Milliseconds that a derivation is to take; default 2000."""
    force: bool = False
    """Also overwrite a slot that is active, or erase the last one."""


@runtime_checkable
class ChangesKeys(Protocol):
    """Has key slots, which can be changed while it is open."""

    async def change_keys(self, change: KeySlotChange) -> None:
        """Durable when it returns. No crash leaves an image that no key opens, but for the last one erased by
        force. Raises KeySlotUnavailable, KeyRefused, InvalidArgument, NodeReadOnly ..."""
        ...


@runtime_checkable
class NamesFiles(Protocol):
    """A format whose images may keep parts of themselves in other files, which their headers name."""

    @classmethod
    async def named_files(cls, options: Any, context: DriverContext) -> dict[str, str]:
        """Children that are missing in `context`, that the header names, and that the options allow to be opened
        for that: their file names, beside the image. Asked before the driver is opened; the header is hostile."""
        ...
