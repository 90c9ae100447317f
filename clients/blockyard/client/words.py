"""Enums of the API as the words people write: `write-blocking` for `COPY_MODE_WRITE_BLOCKING`.

What lives here: the mapping between a generated enum and its words, both ways. What must not: lists of words;
the protos are the only source, so a value that is added there is known here.
"""

import re
from typing import Any

from blockyard.base.errors import InvalidArgument

UNSPECIFIED = "unspecified"


def prefix(enum: Any) -> str:
    """`SyncMode` has values that begin with `SYNC_MODE_`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(enum.DESCRIPTOR.name)).upper() + "_"


def words(enum: Any) -> tuple[str, ...]:
    """All words of an enum, without the one that means "not set"."""
    start = len(prefix(enum))
    named = (str(name)[start:].lower().replace("_", "-") for name in enum.keys())  # noqa: SIM118 - no dict
    return tuple(word for word in named if word != UNSPECIFIED)


def to_word(enum: Any, number: int) -> str:
    """The word of a number; `unspecified` for 0, the number itself if this version does not know it."""
    known = enum.DESCRIPTOR.values_by_number.get(number)
    if known is None:
        return str(number)
    return str(known.name)[len(prefix(enum)) :].lower().replace("_", "-")


def to_number(enum: Any, word: str, name: str) -> Any:
    """The number of a word (as the enum's own type), any case, `-` or `_`; empty is 0. `name` is the field."""
    if not word:
        return 0
    value = enum.DESCRIPTOR.values_by_name.get(prefix(enum) + word.upper().replace("-", "_"))
    if value is None or value.number == 0:
        raise InvalidArgument(name=name, expected=" | ".join(words(enum)), found=repr(word))
    return value.number
