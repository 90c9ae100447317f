"""File names and `json:` specifications as definitions of the API. What a name means is `graph.filenames`'s."""

from typing import Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph import filenames
from blockyard.node.graph.drivers import takes_child
from blockyard.node.rpc.definitions import option_value
from blockyard.v1 import drivers_pb2, types_pb2

_FLAGS: Final = ("node-name", "read-only", "auto-read-only", "force-share", "executor", "ephemeral")
_ENUMS: Final = (
    ("discard", types_pb2.DiscardMode, "DISCARD_MODE_"),
    ("detect-zeroes", types_pb2.DetectZeroes, "DETECT_ZEROES_"),
)

_TYPED: Final = {"file": drivers_pb2.FileOptions, "nbd": drivers_pb2.NbdOptions}
"""What plain names stand for, in arms of their own; everything else goes to the generic one."""


def definition_of_filename(filename: str) -> drivers_pb2.NodeDefinition:
    """What a client could open instead of the name. Raises InvalidArgument or ProtocolUnsupported."""
    values = filenames.parsed(filename)
    if not filename.startswith("json:") and values["driver"] in _TYPED:
        driver = values.pop("driver")
        return drivers_pb2.NodeDefinition(**{driver: _TYPED[driver](**values)})
    try:
        return _definition(values)
    except (TypeError, ValueError) as problem:
        raise InvalidArgument("filename", "options of a node", str(problem)[:200]) from problem


def _definition(values: dict[str, Any]) -> drivers_pb2.NodeDefinition:
    """Common options in their fields, the rest in the generic arm, which takes every driver's names."""
    values = dict(values)
    driver = values.pop("driver", "file" if "filename" in values else "")
    if not isinstance(driver, str) or not driver:
        raise InvalidArgument("filename", "the name of a driver at each level", repr(driver)[:64])
    result = drivers_pb2.NodeDefinition()
    _take_common(result, values)
    result.generic.driver = driver
    for name, value in values.items():
        if isinstance(value, list) and takes_child(driver, f"{name}.0"):
            for at, item in enumerate(value):
                _take_child(result.generic, f"{name}.{at}", item)
        elif takes_child(driver, name) or value is None or _is_node(value):
            _take_child(result.generic, name, value)
        else:
            result.generic.options[name].CopyFrom(option_value(value))
    return result


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "driver" in value


def _take_child(result: drivers_pb2.GenericOptions, name: str, value: Any) -> None:
    child = result.children[name]
    if value is None:
        child.none = True
    elif isinstance(value, dict):
        child.definition.CopyFrom(_definition(value))
    elif isinstance(value, str) and value:
        child.node_name = value
    else:
        raise InvalidArgument("filename", f"{name}: options of a node, its name, or null", repr(value)[:64])


def _take_common(result: drivers_pb2.NodeDefinition, values: dict[str, Any]) -> None:
    for name in _FLAGS:
        if name in values:
            setattr(result, name.replace("-", "_"), values.pop(name))
    result.labels.update(values.pop("labels", {}))
    cache = values.pop("cache", {})
    if not isinstance(cache, dict) or cache.keys() - {"direct", "no-flush"}:
        raise InvalidArgument("filename", "cache: direct and no-flush", repr(cache)[:64])
    result.cache.direct, result.cache.no_flush = cache.get("direct", False), cache.get("no-flush", False)
    for name, enum, prefix in _ENUMS:
        if name in values:
            word = str(values.pop(name)).upper()
            if enum.DESCRIPTOR.values_by_name.get(prefix + word) is None or word == "UNSPECIFIED":
                raise InvalidArgument(name.replace("-", "_"), "one of its words", repr(word.lower())[:64])
            setattr(result, name.replace("-", "_"), enum.Value(prefix + word))
