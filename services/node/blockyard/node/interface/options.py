"""From option values by name to a driver's frozen `Options`, so that every driver refuses the same mistakes alike.

Must not know any driver or the wire. Dependencies between options are the driver's own to check.
"""

import functools
import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from blockyard.base.errors import InvalidArgument, MissingOption, UnknownOption

Options = TypeVar("Options")


def options_from(owner: str, kind: type[Options], values: Mapping[str, object]) -> Options:
    """An instance of the dataclass `kind`. Raises UnknownOption, MissingOption or InvalidArgument.

    `owner` is who is named in the errors: "driver qcow2", "job mirror".
    """
    known = _types(cast(Hashable, kind))
    unknown = next((name for name in values if name not in known), None)
    if unknown is not None:
        raise UnknownOption(owner, unknown, ", ".join(known) or "none")
    # An empty string is how the wire says that nothing was given.
    missing = next((name for name in required_names(kind) if values.get(name) in (None, "")), None)
    if missing is not None:
        raise MissingOption(owner, missing)
    return kind(**{name: _converted(name, known[name], value) for name, value in values.items()})


def required_names(kind: type[Any]) -> list[str]:
    """The options that have no default."""
    return [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]


@functools.cache
def _types(kind: Hashable) -> dict[str, Any]:
    assert isinstance(kind, type)
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}


def _converted(name: str, wanted: Any, value: object) -> object:
    if get_origin(wanted) in (Union, types.UnionType):
        alternatives = get_args(wanted)
        if value is None and type(None) in alternatives:
            return None
        wanted = next(each for each in alternatives if each is not type(None))
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        try:
            return wanted(value)
        except ValueError:
            allowed = ", ".join(str(member.value) for member in wanted)
            raise InvalidArgument(name, f"one of {allowed}", str(value)) from None
    # bool is an int to Python, but not to who wrote the option.
    if wanted in (int, str, bool, bytes) and type(value) is not wanted:
        raise InvalidArgument(name, wanted.__name__, f"{type(value).__name__} {value!r}")
    return value
