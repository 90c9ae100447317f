"""What a driver says of itself, out of its class: the one source of ListDrivers, the CLI's help and the docs.

The meaning of an option is the docstring below its field, as everywhere in this code; Python drops those, so they
are read from the source. Pure reading.
"""

import ast
import functools
import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

from blockyard.node.interface import abilities, operations
from blockyard.node.interface import driver as interface
from blockyard.node.interface.debugging import Debuggable
from blockyard.node.interface.driver import Driver, FilterDriver, ProtocolDriver
from blockyard.node.interface.internal_snapshots import HasSnapshots
from blockyard.node.interface.snapshots import OffersSnapshot

ABILITIES: Final[dict[str, type[Any]]] = {
    "creatable": interface.Creatable,
    "resizable": interface.Resizable,
    "amendable": operations.Amendable,
    "compactable": operations.Compactable,
    "backing-changeable": interface.BackingChangeable,
    "checkable": interface.Checkable,
    "emptyable": interface.Emptyable,
    "kernel-copy": interface.Copies,
    "many-children": interface.ManyChildren,
    "probes": interface.Probes,
    "measurable": interface.Measurable,
    "reconfigurable": abilities.Reconfigurable,
    "refreshable": abilities.Refreshable,
    "changes-keys": abilities.ChangesKeys,
    "ioctl": abilities.PassesIoctl,
    "probes-devices": abilities.ProbesDevices,
    "debuggable": Debuggable,
    "offers-snapshot": OffersSnapshot,
    "snapshots": HasSnapshots,
}


@dataclass(frozen=True, slots=True)
class OptionFacts:
    """An option of a driver."""

    name: str
    type: str
    default: str
    """In words; empty if required or none."""
    required: bool
    description: str


def kind_of(class_: type[Driver]) -> str:
    """protocol, format or filter."""
    if issubclass(class_, ProtocolDriver):
        return "protocol"
    return "filter" if issubclass(class_, FilterDriver) else "format"


def abilities_of(class_: type[Driver]) -> list[str]:
    """Names of the optional protocols that a driver fulfils."""
    found = [name for name, ability in ABILITIES.items() if isinstance(class_, ability)]
    return [*found, "compresses"] if class_.compresses else found


def summary_of(class_: type[Any]) -> str:
    """The first sentence of its docstring."""
    return inspect.cleandoc(class_.__doc__ or "").split("\n\n")[0].replace("\n", " ")


@functools.cache
def options_of(options: type[Any]) -> tuple[OptionFacts, ...]:
    """The fields of an options dataclass."""
    return tuple(_described(options, ""))


def _described(options: type[Any], place: str) -> Iterator[OptionFacts]:
    """The fields, each followed by those of the maps it is a list of: `inject_error`, `inject_error.N.event` ..."""
    hints, meanings = get_type_hints(options), _meanings(options)
    for item in fields(options):
        hint = hints[item.name]
        yield _facts(item, hint, f"{place}{item.name}", meanings.get(item.name, ""))
        element = get_args(hint)[0] if get_origin(hint) is tuple else None
        if is_dataclass(element):
            yield from _described(cast(type[Any], element), f"{place}{item.name}.N.")


def _facts(item: "Field[Any]", hint: Any, name: str, meaning: str) -> OptionFacts:
    required = item.default is MISSING and item.default_factory is MISSING
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    nothing = required or default is None or default == ()
    shown = "" if nothing else str(default.value if isinstance(default, Enum) else default)
    return OptionFacts(name, _type_name(hint), shown, required, meaning)


def _type_name(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return _type_name(next(part for part in get_args(hint) if part is not type(None)))
    if get_origin(hint) is tuple:
        return f"list of {_type_name(get_args(hint)[0])}"
    if is_dataclass(hint):
        return "map"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "|".join(str(member.value) for member in hint)
    return getattr(hint, "__name__", str(hint))


def _meanings(options: type[Any]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(options))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for item, below in zip(body.body, body.body[1:], strict=False):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[item.target.id] = " ".join(str(below.value.value).split())
    return found
