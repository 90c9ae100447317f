"""A job's options as plain values, and back.

What lives here: the two directions and nothing else; a test holds them to be inverse for every kind.
"""

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, get_args, get_type_hints

from blockyard.jobs.kinds import catalogue
from blockyard.jobs.kinds.base import Kind
from blockyard.jobs.store.port import OptionValue


def plain_options(kind: Kind) -> dict[str, OptionValue]:
    """Enumerations become their names."""
    values = {item.name: getattr(kind.options, item.name) for item in fields(kind.Options)}
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in values.items()}


def kind_of(name: str, options: Mapping[str, OptionValue]) -> Kind:
    found = catalogue()[name]
    enums = {option: enum_of(hint) for option, hint in get_type_hints(found.Options).items()}
    given: dict[str, Any] = {}
    for option, value in options.items():
        enum = enums[option]
        given[option] = enum(str(value)) if enum and value is not None else value
    return found(found.Options(**given))


def enum_of(hint: Any) -> type[StrEnum] | None:
    """The enumeration in an annotation `E` or `E | None`."""
    for candidate in (hint, *get_args(hint)):
        if isinstance(candidate, type) and issubclass(candidate, StrEnum):
            return candidate
    return None
