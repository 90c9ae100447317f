"""`docs/options.md`: what every program can be told."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Final

from docstring_parser import parse_from_object

from blockyard.jobs.config import JobsConfig
from blockyard.node.config import NodeConfig
from blockyard.rpc.config import ENVIRONMENT_PREFIX, ServiceConfig
from blockyard.stats.app import StatsConfig

INTRODUCTION: Final = f"""\
# Options

Printed from the services' configuration classes by `make docs`; do not edit.

Every option is a flag (`--storage-roots`), a variable (`{ENVIRONMENT_PREFIX}STORAGE_ROOTS`, several values
separated by blanks) and a key of the TOML file of `--config` (`storage_roots`). A flag wins over a variable, that
over the file. `blockyardd` takes the options of all three services but those that say where the others are.
"""

PROGRAMS: Final[dict[str, type[ServiceConfig]]] = {
    "All services": ServiceConfig,
    "blockyard-node": NodeConfig,
    "blockyard-jobs": JobsConfig,
    "blockyard-stats": StatsConfig,
}


def page() -> str:
    """The whole page."""
    sections = ["\n".join(_section(name, config_class)) for name, config_class in PROGRAMS.items()]
    return "\n\n".join([INTRODUCTION.rstrip(), *sections]) + "\n"


def _section(name: str, config_class: type[ServiceConfig]) -> Iterator[str]:
    common = {item.name for item in fields(ServiceConfig)} if config_class is not ServiceConfig else set()
    manual = {
        each.arg_name: " ".join((each.description or "").split()) for each in parse_from_object(config_class).params
    }
    yield f"## {name}"
    yield ""
    yield "| option | default | meaning |"
    yield "|---|---|---|"
    for item in fields(config_class):
        if item.name not in common:
            default = _shown(item.default) if item.default is not MISSING else ""
            yield f"| `--{item.name.replace('_', '-')}` | {default} | {manual.get(item.name, '')} |"


def _shown(value: object) -> str:
    if value in ((), "", None, -1):
        return ""
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
    return f"`{text}`"
