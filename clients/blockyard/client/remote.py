"""Errors that arrive as words inside a message (an I/O result, a job) rather than as a gRPC status.

Such an error has its stable reason but not always the fields its class formats its text from. `worded` makes an
instance of the right class that says what the service said.
"""

from collections.abc import Mapping
from typing import Final

from blockyard.base.errors import BlockError

_KINDS: Final[dict[type[BlockError], type[BlockError]]] = {}


def _told(kind: type[BlockError]) -> type[BlockError]:
    if kind in _KINDS:
        return _KINDS[kind]

    def told(self: BlockError) -> str:
        return str(vars(self)["told"])

    def advised(self: BlockError) -> str:
        return str(vars(self)["advised"])

    # A subclass without a `reason` of its own enters no catalogue; `except kind` catches it.
    _KINDS[kind] = type(
        kind.__name__, (kind,), {"__str__": told, "hint": property(advised), "__doc__": kind.__doc__}
    )
    return _KINDS[kind]


def worded(
    kind: type[BlockError], message: str, advice: str = "", metadata: Mapping[str, str] | None = None
) -> BlockError:
    """An error of class `kind` whose text and advice are the service's own."""
    error = _told(kind).from_metadata(dict(metadata or {}))
    # Without metadata an advice that names fields would be formatted with nothing in their place.
    own_advice = "" if "{" in kind.advice and not metadata else kind.advice.format(**error.values())
    vars(error).update(told=message or kind.template, advised=advice or own_advice)
    return error
