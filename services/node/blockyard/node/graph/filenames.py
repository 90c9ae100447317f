"""File names and `json:` specifications as options (bdrv_parse_filename, parse_json_protocol). Pure.

What comes out is the nested form under QEMU's names: a mapping with `driver`, options, and children as mappings,
names of nodes, or None. What a driver makes of it is looked at when it is opened; the wire form is
`rpc.definitions`.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from blockyard.base.errors import InvalidArgument, ProtocolUnsupported
from blockyard.node.core.filenames import DRIVERS_OF, protocol_of
from blockyard.node.core.nbd_uri import address_and_export

MAX_JSON_CHARACTERS: Final = 64 * 1024
"""A chain of 200 files nested takes some 30,000."""
MAX_NESTING: Final = 64
MAX_ENTRIES: Final = 4096
"""Keys and list items of a specification, nested ones included."""

Options = dict[str, Any]


def parsed(filename: str, depth: int = 0) -> Options:
    """What the name stands for. Raises InvalidArgument or ProtocolUnsupported."""
    if depth > MAX_NESTING:
        raise InvalidArgument("filename", f"at most {MAX_NESTING} names inside each other", "more")
    if filename.startswith("json:"):
        return _specification(filename.removeprefix("json:"))
    protocol = protocol_of(filename)
    if protocol in _PARSERS:
        return _PARSERS[protocol](filename.removeprefix(f"{protocol}:"), depth)
    if protocol in DRIVERS_OF:
        raise ProtocolUnsupported(f"{protocol}:", DRIVERS_OF[protocol])
    if protocol:
        known = "a path (./ before one with a colon), file:NAME or json:{...}"
        raise InvalidArgument("filename", known, f"protocol {protocol[:64]!r}")
    return _file(filename, depth)


def _file(rest: str, depth: int) -> Options:
    if not rest:
        raise InvalidArgument("filename", "a name", "nothing")
    return {"driver": "file", "filename": rest}


def _null(rest: str, depth: int) -> Options:
    if rest != "//":
        raise InvalidArgument("filename", "null-co:// and no more: options go into json:{...}", repr(rest[:64]))
    return {"driver": "null"}


def _blkdebug(rest: str, depth: int) -> Options:
    """`blkdebug:CONFIG:IMAGE` (blkdebug_parse_filename). CONFIG is a file there; rules are given as text here."""
    config, colon, image = rest.partition(":")
    if config or not colon:
        raise InvalidArgument(
            "filename", "blkdebug::IMAGE; rules go into the option config, as text", repr(f"blkdebug:{rest}"[:64])
        )
    return {"driver": "blkdebug", "image": parsed(image, depth + 1)}


def _blkverify(rest: str, depth: int) -> Options:
    """`blkverify:RAW:TEST` (blkverify_parse_filename). QEMU guesses the format of TEST; here json: can name it."""
    raw, colon, test = rest.partition(":")
    if not colon:
        raise InvalidArgument("filename", "blkverify:RAW:TEST", repr(f"blkverify:{rest}"[:64]))
    return {"driver": "blkverify", "raw": parsed(raw, depth + 1), "test": parsed(test, depth + 1)}


def _nbd(scheme: str, rest: str, depth: int) -> Options:
    address, export = address_and_export(f"{scheme}:{rest}")
    return {"driver": "nbd", "address": address, "export": export}


_PARSERS: Final[dict[str, Callable[[str, int], Options]]] = {
    "file": _file,
    "null-co": _null,
    "null-aio": _null,
    "blkdebug": _blkdebug,
    "blkverify": _blkverify,
    **{scheme: partial(_nbd, scheme) for scheme, driver in DRIVERS_OF.items() if driver == "nbd"},
}
"""What stands behind the protocols of drivers that are here."""


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
