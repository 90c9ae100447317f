"""Enums of the wire as words, and back: `DISCARD_MODE_UNMAP` is "unmap". The enum's own name is the prefix."""

import functools
from typing import Any

from blockyard.base.errors import InvalidArgument


@functools.cache
def _words(descriptor: Any) -> tuple[dict[int, str], dict[str, int]]:
    prefix = _upper_snake(descriptor.name) + "_"
    by_number = {
        value.number: value.name.removeprefix(prefix).lower().replace("_", "-")
        for value in descriptor.values
        if not value.name.endswith("_UNSPECIFIED")
    }
    return by_number, {word: number for number, word in by_number.items()}


def _upper_snake(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() and at else letter for at, letter in enumerate(name)).upper()


def word_of(enum: Any, number: int, field: str) -> str:
    """The word of a value; empty if it is not set. Raises InvalidArgument for a number that is none."""
    descriptor = getattr(enum, "DESCRIPTOR", enum)
    by_number, _ = _words(descriptor)
    if number and number not in by_number:
        raise InvalidArgument(field, "one of " + ", ".join(by_number.values()), str(number))
    return by_number.get(number, "")


def printable(text: str) -> str:
    """Names in images and of files are bytes: what is no UTF-8 (surrogate escapes) cannot go over the wire."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def number_of(enum: Any, word: str) -> int:
    """The value of a word of ours; 0 for an empty one."""
    return _words(getattr(enum, "DESCRIPTOR", enum))[1][word] if word else 0
