"""File names and `json:` specifications as options (bdrv_parse_filename, parse_json_protocol). Pure.

What comes out is the nested form under QEMU's names: a mapping with `driver`, options, and children as mappings,
names of nodes, or None. What a driver makes of it is looked at when it is opened; the wire form is
`rpc.definitions`.
"""

import json
from typing import Any, Final

from blockyard.base.errors import InvalidArgument, ProtocolUnsupported
from blockyard.node.core.filenames import DRIVERS_OF, protocol_of

MAX_JSON_CHARACTERS: Final = 64 * 1024
"""A chain of 200 files nested takes some 30,000."""
MAX_NESTING: Final = 64
MAX_ENTRIES: Final = 4096
"""Keys and list items of a specification, nested ones included."""

Options = dict[str, Any]


def parsed(filename: str) -> Options:
    """What the name stands for. Raises InvalidArgument or ProtocolUnsupported."""
    if filename.startswith("json:"):
        return _specification(filename.removeprefix("json:"))
    protocol = protocol_of(filename)
    if protocol and protocol != "file":
        return _of_protocol(protocol, filename)
    name = filename.removeprefix("file:") if protocol else filename
    if not name:
        raise InvalidArgument("filename", "a name", "nothing")
    return {"driver": "file", "filename": name}


def _of_protocol(protocol: str, filename: str) -> Options:
    if protocol in ("null-co", "null-aio") and filename == f"{protocol}://":
        return {"driver": "null"}
    if protocol in DRIVERS_OF:
        raise ProtocolUnsupported(f"{protocol}:", DRIVERS_OF[protocol])
    raise InvalidArgument(
        "filename", "a path (./ before one with a colon), file:NAME or json:{...}", f"protocol {protocol[:64]!r}"
    )


def _specification(text: str) -> Options:
    if len(text) > MAX_JSON_CHARACTERS:
        raise InvalidArgument("filename", f"at most {MAX_JSON_CHARACTERS} characters of json", str(len(text)))
    try:
        found = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as problem:
        raise InvalidArgument("filename", "json", str(problem)[:200] or "nested too deep") from problem
    if not isinstance(found, dict):
        raise InvalidArgument("filename", "a json object", type(found).__name__)
    _check_bounds(found)
    return _nested(found)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no json")


def _object(pairs: list[tuple[str, Any]]) -> Options:
    found: Options = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = value
    return found


def _check_bounds(value: Any) -> None:
    pending: list[tuple[Any, int]] = [(value, 0)]
    entries = 0
    while pending:
        value, depth = pending.pop()
        below = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        entries += len(below)
        if depth > MAX_NESTING or entries > MAX_ENTRIES:
            raise InvalidArgument(
                "filename", f"at most {MAX_NESTING} levels and {MAX_ENTRIES} entries", "a larger specification"
            )
        pending += [(item, depth + 1) for item in below]


def _nested(values: Options) -> Options:
    """Dotted keys (`file.filename`, `children.0.driver`) as the objects and lists that they stand for."""
    tree: Options = {}
    for name, value in values.items():
        parts = name.split(".")
        if not all(parts) or len(parts) > MAX_NESTING:
            raise InvalidArgument("filename", "names with dots between words", repr(name[:64]))
        # Names of labels have dots of their own.
        _put(tree, parts, value if name == "labels" else _plain(value), name)
    return {name: value if name == "labels" else _as_list(value) for name, value in tree.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _nested(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _put(tree: Options, parts: list[str], value: Any, name: str) -> None:
    *above, last = parts
    for part in above:
        below = tree.setdefault(part, {})
        if isinstance(below, list):
            tree[part] = below = {str(at): item for at, item in enumerate(below)}
        if not isinstance(below, dict):
            raise InvalidArgument("filename", f"either {part!r} or what is in it", repr(name[:64]))
        tree = below
    present = tree.get(last)
    if isinstance(present, dict) and isinstance(value, dict) and not present.keys() & value.keys():
        present.update(value)
    elif last in tree:
        raise InvalidArgument("filename", "each option once", repr(name[:64]))
    else:
        tree[last] = value


def _as_list(value: Any) -> Any:
    """Objects whose keys are 0, 1, 2 ... are lists (qdict_crumple)."""
    if not isinstance(value, dict):
        return value
    found = {name: _as_list(item) for name, item in value.items()}
    if found and set(found) == {str(at) for at in range(len(found))}:
        return [found[str(at)] for at in range(len(found))]
    return found
