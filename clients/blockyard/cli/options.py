"""Options that many commands share, and the types of their values.

What lives here: `Globals` (every command takes them), sizes and times as parameter types. What must not:
anything that talks to a service; this module is imported by every `--help`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cyclopts import Group, Parameter, Token

from blockyard.cli import units

GLOBAL_GROUP: Final = Group("Global options", sort_key=100)


def _converter(parse: Callable[[str], Any]) -> Any:
    def convert(type_: Any, tokens: Sequence[Token]) -> Any:
        return parse(tokens[0].value)

    return convert


Size = Annotated[int, Parameter(converter=_converter(units.parse_size), metavar="SIZE")]
"""Bytes, or with K, M, G, T, P, E: 64K, 1.5G."""

Seconds = Annotated[float, Parameter(converter=_converter(units.parse_time), metavar="TIME")]
"""Seconds, or with ms, s, m, h: 200ms, 5m."""


@Parameter(name="*", group=GLOBAL_GROUP)
@dataclass(frozen=True, slots=True)
class Globals:
    """What every command takes, before or after the command's name."""

    address: Annotated[str, Parameter(name="--address", env_var="BLOCKYARD_ADDRESS")] = ""
    """Where the service is: unix:/path, host:port or [ipv6]:port. Default: unix:$XDG_RUNTIME_DIR/blockyard/blockyard.sock, or unix:/run/blockyard/blockyard.sock without a runtime directory."""  # noqa: E501 - one paragraph of help

    output: Annotated[Literal["table", "json", "jsonl"], Parameter(name=["--output", "-o"])] = "table"
    """table for people; json (one document) or jsonl (one object per line) for programs. JSON has the names of the API, 64-bit numbers are strings, sizes are bytes."""  # noqa: E501

    timeout: Seconds | None = None
    """Give up after so long."""

    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"])] = False
    """No progress and no remarks; results and errors only."""


DEFAULTS: Final = Globals()
