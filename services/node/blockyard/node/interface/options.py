"""From option values by name to a driver's frozen `Options`, so that every driver refuses the same mistakes alike.

A field may be a list (`tuple[X, ...]`) and hold dataclasses of further options, whose values come as maps: then
errors name the place as QEMU does, `inject_error.0.event`.

Must not know any driver or the wire. Dependencies between options are the driver's own to check.
"""

import functools
import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from blockyard.base.errors import InvalidArgument, MissingOption, UnknownOption

Options = TypeVar("Options")

MAX_ITEMS: Final = 1024
"""Of one list: far more than any driver has rules or children."""


def options_from(owner: str, kind: type[Options], values: Mapping[str, object]) -> Options:
    """An instance of the dataclass `kind`. Raises UnknownOption, MissingOption or InvalidArgument.

    `owner` is who is named in the errors: "driver qcow2", "job mirror".
    """
    return _built(owner, kind, values, "")


def _built(owner: str, kind: type[Options], values: Mapping[str, object], place: str) -> Options:
    """`place` is empty, or where the options stand in others: `inject_error.0.`."""
    known = _types(cast(Hashable, kind))
    unknown = next((name for name in values if name not in known), None)
    if unknown is not None:
        raise UnknownOption(owner, f"{place}{unknown}", ", ".join(known) or "none")
    # An empty string is how the wire says that nothing was given.
    missing = next((name for name in required_names(kind) if values.get(name) in (None, "")), None)
    if missing is not None:
        raise MissingOption(owner, f"{place}{missing}")
    return kind(**{name: _converted(owner, f"{place}{name}", known[name], value) for name, value in values.items()})


def required_names(kind: type[Any]) -> list[str]:
    """The options that have no default."""
    return [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]


@functools.cache
def _types(kind: Hashable) -> dict[str, Any]:
    assert isinstance(kind, type)
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}


def _converted(owner: str, name: str, wanted: Any, value: object) -> object:
    if get_origin(wanted) in (Union, types.UnionType):
        alternatives = get_args(wanted)
        if value is None and type(None) in alternatives:
            return None
        wanted = next(each for each in alternatives if each is not type(None))
    if get_origin(wanted) is tuple:
        return _list(owner, name, get_args(wanted)[0], value)
    if is_dataclass(wanted):
        return _nested(owner, name, cast(type[Any], wanted), value)
    if wanted is float and type(value) is int:
        return float(value)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        try:
            return wanted(value)
        except ValueError:
            allowed = ", ".join(str(member.value) for member in wanted)
            raise InvalidArgument(name, f"one of {allowed}", str(value)) from None
    # bool is an int to Python, but not to who wrote the option.
    if wanted in (int, float, str, bool, bytes) and type(value) is not wanted:
        raise InvalidArgument(name, wanted.__name__, f"{type(value).__name__} {value!r}")
    return value


def _list(owner: str, name: str, element: Any, value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
        found = f"{len(value)}" if isinstance(value, list | tuple) else f"{type(value).__name__} {value!r}"
        raise InvalidArgument(name, f"a list of at most {MAX_ITEMS}", found[:200])
    return tuple(_converted(owner, f"{name}.{at}", element, item) for at, item in enumerate(value))


def _nested(owner: str, name: str, kind: type[Any], value: object) -> object:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        known = ", ".join(_types(cast(Hashable, kind)))
        raise InvalidArgument(name, f"a map of {known}", f"{type(value).__name__} {value!r}"[:200])
    values = {str(key).replace("-", "_"): item for key, item in value.items()}
    return _built(owner, kind, values, f"{name}.")
