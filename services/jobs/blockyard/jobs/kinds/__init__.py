"""The kinds of jobs, one module each. A module that defines a `Kind` is all it takes to add one.

What lives here: the catalogue that finds them. What must not: a list of them.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from blockyard.jobs.kinds.base import Kind


@cache
def catalogue() -> Mapping[str, type[Kind]]:
    """Every kind by its name."""
    found: dict[str, type[Kind]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Kind) and value.__module__ == module.__name__:
                if "name" not in value.__dict__:
                    continue
                assert value.name not in found, f"two kinds are named {value.name!r}"
                found[value.name] = value
    return MappingProxyType(found)
