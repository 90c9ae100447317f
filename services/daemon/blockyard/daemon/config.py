"""The daemon's options: those of all three services, each once, and the common ones for the public address.

What connects the services with each other (`WIRING`) is the daemon's own business and no option. A test proves
that no two services use one name for different things.
"""

from collections.abc import Iterator
from dataclasses import Field, field, fields, make_dataclass
from typing import Any, Final, TypeVar

from docstring_parser import parse_from_object

from blockyard.jobs.config import JobsConfig
from blockyard.node.config import NodeConfig
from blockyard.rpc.address import default_socket
from blockyard.rpc.config import ServiceConfig
from blockyard.stats.app import StatsConfig

SERVICES: Final[tuple[type[ServiceConfig], ...]] = (NodeConfig, JobsConfig, StatsConfig)
COMMON: Final = frozenset(item.name for item in fields(ServiceConfig))
SHARED: Final = frozenset({"state_directory"})
"""Options that several services have and that mean one thing to all of them."""
WIRING: Final = frozenset({"node", "advertise"})
"""Options of single services that say where the others are."""

LISTEN_HELP: Final = (
    "Addresses to serve on: unix:/path, host:port or [ipv6]:port. Port 0 takes a free one. Default: the socket "
    "blockyard/blockyard.sock in $XDG_RUNTIME_DIR, or in /run without one."
)

Part = TypeVar("Part", bound=ServiceConfig)


def own_fields(config_class: type[ServiceConfig]) -> list[Field[Any]]:
    """What a service adds to the common options, but for the wiring."""
    return [item for item in fields(config_class) if item.name not in COMMON | WIRING]


def part(config: ServiceConfig, config_class: type[Part], **wiring: Any) -> Part:
    """The options of one service, with the daemon's wiring."""
    names = [item.name for item in own_fields(config_class)] + sorted(COMMON - {"listen", "config", "ready_fd"})
    return config_class(**{name: getattr(config, name) for name in names}, **wiring)


def _described() -> Iterator[tuple[str, Any, Any]]:
    seen = set[str]()
    for config_class in SERVICES:
        manual = {each.arg_name: each.description or "" for each in parse_from_object(config_class).params}
        for item in own_fields(config_class):
            if item.name in seen:
                continue
            seen.add(item.name)
            described = field(
                default=item.default,
                default_factory=item.default_factory,
                metadata={"help": manual.get(item.name, "")},
            )
            yield item.name, item.type, described


def _listen() -> tuple[str, ...]:
    return (default_socket(),)


DaemonConfig: Final[type[ServiceConfig]] = make_dataclass(
    "DaemonConfig",
    [
        ("listen", tuple[str, ...], field(default_factory=_listen, metadata={"help": LISTEN_HELP})),
        *_described(),
    ],
    bases=(ServiceConfig,),
    namespace={"__doc__": "Node, jobs and stats in one process on one address.", "__module__": __name__},
    frozen=True,
    slots=True,
    kw_only=True,
)
