"""The drivers there are: every module or package of this folder is one. Presence is registration.

What must not live here: the name of any driver. A driver's module is called as the driver, `-` written as `_`.
It is imported when it is first asked for, so that a missing optional library disables that driver alone. A driver
that lives elsewhere is added by whoever builds the process.
"""

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blockyard.base.errors import DriverUnavailable, DriverUnknown
from blockyard.node.interface.driver import Driver

_PACKAGE: Final = __name__.rpartition(".")[0]
_OWN_NAME: Final = __name__.rpartition(".")[2]
_added: Final[dict[str, type[Driver]]] = {}


def add_driver(driver: type[Driver]) -> None:
    """Make a driver known that is not in this folder."""
    assert driver.name not in driver_names(), driver.name
    _added[driver.name] = driver


def remove_driver(name: str) -> None:
    """Forget a driver that was added."""
    del _added[name]


def driver_names() -> tuple[str, ...]:
    """All names, sorted, whether or not the driver can be used here."""
    return tuple(sorted((*_present(), *_added)))


@functools.cache
def _present() -> tuple[str, ...]:
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(
        module.name.replace("_", "-")
        for module in modules
        if module.name != _OWN_NAME and not module.name.startswith("_")
    )


def driver_class(name: str) -> type[Driver]:
    """Raises DriverUnknown, or DriverUnavailable with what is missing."""
    if name in _added:
        return _added[name]
    if name not in _present():
        raise DriverUnknown(name, ", ".join(driver_names()))
    return _load(name)


def all_drivers() -> Iterator[tuple[str, type[Driver] | str]]:
    """Each name with its class, or with the reason why it is disabled here."""
    for name in driver_names():
        try:
            yield name, driver_class(name)
        except DriverUnavailable as refusal:
            yield name, refusal.why


@functools.cache
def _load(name: str) -> type[Driver]:
    module_name = f"{_PACKAGE}.{name.replace('-', '_')}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        missing = problem.name or str(problem)
        if missing.startswith("blockyard"):
            raise  # a bug of ours, not an optional library
        raise DriverUnavailable(name, f"the Python module {missing!r} is not installed") from problem
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Driver) and value.__dict__.get("name") == name
    ]
    assert len(found) == 1, f"{module_name} must show exactly one driver class named {name!r}"
    driver: type[Driver] = found[0]
    if driver.needs and importlib.util.find_spec(driver.needs) is None:
        raise DriverUnavailable(name, f"the Python module {driver.needs!r} is not installed")
    return driver
