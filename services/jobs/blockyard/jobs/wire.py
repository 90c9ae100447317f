"""Enumerations of the contract and of this service, told apart by nothing but a prefix.

What lives here: the two directions, by name. What must not: messages. A test holds every pair together.

`COPY_MODE_WRITE_BLOCKING` on the wire is `CopyMode.WRITE_BLOCKING` here; `_UNSPECIFIED` is None.
"""

import functools
import re
from enum import StrEnum
from typing import Any, TypeVar

from blockyard.base.errors import InvalidArgument

Word = TypeVar("Word", bound=StrEnum)


def to_wire(enum: Any, word: StrEnum | None) -> Any:
    """The number of a word; 0 for None."""
    return _numbers(enum.DESCRIPTOR)[str(word)] if word is not None else 0


def from_wire(enum: Any, words: type[Word], number: int, field: str) -> Word | None:
    """The word of a number; None for 0. Raises InvalidArgument for a number that this version does not know."""
    descriptor = getattr(enum, "DESCRIPTOR", enum)
    name = _names(descriptor).get(number)
    if number == 0:
        return None
    if name is None or name not in words.__members__:
        raise InvalidArgument(field, f"one of {', '.join(words)}", str(number))
    return words[name]


@functools.cache
def _names(descriptor: Any) -> dict[int, str]:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", descriptor.name).upper() + "_"
    return {value.number: value.name.removeprefix(prefix) for value in descriptor.values}


@functools.cache
def _numbers(descriptor: Any) -> dict[str, int]:
    return {name: number for number, name in _names(descriptor).items()}
