"""How the bitmap of a checkpoint is called: by whom it was taken, its number, its time, its name."""

import re
from typing import Final, NamedTuple

from blockyard.base.errors import InvalidArgument

CHECKPOINT: Final = "checkpoint"
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_BITMAP: Final = re.compile(r"checkpoint:(\d{1,12}):(\d{1,20}):([A-Za-z0-9._-]{1,63})/([A-Za-z0-9._-]{1,63})")
_PREFIX: Final = "checkpoint:"


class Named(NamedTuple):
    """What the name says."""

    sequence: int
    created_ns: int
    consumer: str
    name: str


def bitmap_name(named: Named) -> str:
    return f"{_PREFIX}{named.sequence}:{named.created_ns}:{named.consumer}/{named.name}"


def parsed_name(bitmap: str) -> Named | None:
    """None for a bitmap that is no checkpoint's."""
    match = _BITMAP.fullmatch(bitmap)
    return Named(int(match[1]), int(match[2]), match[3], match[4]) if match is not None else None


def checkpoint_of(bitmap: str) -> str | None:
    """CONSUMER/NAME, or None for a bitmap that is no checkpoint's."""
    named = parsed_name(bitmap)
    return f"{named.consumer}/{named.name}" if named is not None else None


def refuse_checkpoint(bitmap: str) -> None:
    """Raises InvalidArgument: bitmaps of checkpoints are changed by calls of their own."""
    if bitmap.startswith(_PREFIX):
        raise InvalidArgument(
            "name", f"a name that does not begin with {_PREFIX!r}, which checkpoints have", bitmap
        )
