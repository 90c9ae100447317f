"""Definitions as the catalogue stores them: JSON that loses nothing, unlike the `json:` form that people read.

Every field of NodeDefinition that is not its default is written under its name, so that a new field needs nothing
here. An unknown one is refused: a later version wrote it.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.interface.flags import DiscardMode

_BYTES: Final = "$bytes"
_FIELDS: Final = {item.name: item for item in fields(NodeDefinition)}


def encoded(definition: NodeDefinition) -> str:
    """As text. Children keep their order, which some drivers number them by."""
    return json.dumps(to_plain(definition), default=_foreign)


def decoded(text: str) -> NodeDefinition:
    """The definition. Raises InvalidArgument."""
    return from_plain(parsed(text))


def parsed(text: str) -> dict[str, Any]:
    """A JSON object. Raises InvalidArgument."""
    try:
        found = json.loads(text, object_hook=_own)
    except (ValueError, RecursionError) as problem:
        raise InvalidArgument("definition", "JSON as the catalogue writes it", str(problem)) from problem
    if not isinstance(found, dict):
        raise InvalidArgument("definition", "a JSON object", type(found).__name__)
    return found


def to_plain(definition: NodeDefinition) -> dict[str, Any]:
    """What JSON can hold of it."""
    result: dict[str, Any] = {}
    for name, item in _FIELDS.items():
        value = getattr(definition, name)
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        if value != default:
            result[name] = _plain(value)
    return result


def from_plain(values: Mapping[str, Any]) -> NodeDefinition:
    """The opposite of `to_plain`. Raises InvalidArgument."""
    unknown = [name for name in values if name not in _FIELDS]
    if unknown or not isinstance(values.get("driver"), str):
        raise InvalidArgument("definition", "fields of this version with a driver", ", ".join(map(str, values)))
    known = dict(values)
    try:
        if "discard" in known:
            known["discard"] = DiscardMode(known["discard"])
        if "children" in known:
            known["children"] = {name: _reference(child) for name, child in known["children"].items()}
        for name in ("followed", "overlays"):
            if known.get(name) is not None:
                known[name] = from_plain(known[name])
    except (AttributeError, TypeError, ValueError) as problem:
        raise InvalidArgument("definition", "a node's definition", str(problem)) from problem
    return NodeDefinition(**known)


def _reference(child: Any) -> NodeDefinition | str | None:
    return from_plain(child) if isinstance(child, dict) else child


def _plain(value: Any) -> Any:
    if isinstance(value, NodeDefinition):
        return to_plain(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _foreign(value: Any) -> Any:
    if isinstance(value, bytes):
        return {_BYTES: value.hex()}
    raise TypeError(f"{type(value).__name__} in a definition")  # a bug of ours: options are plain values


def _own(found: dict[str, Any]) -> Any:
    if list(found) == [_BYTES] and isinstance(found[_BYTES], str):
        return bytes.fromhex(found[_BYTES])
    return found
