"""`docs/drivers.md`: the drivers that are present, from their classes."""

from collections.abc import Iterator
from typing import Final

from blockyard.node.drivers.catalogue import all_drivers
from blockyard.node.interface.describe import abilities_of, kind_of, options_of, summary_of
from blockyard.node.interface.driver import Driver

INTRODUCTION: Final = """\
# Drivers

Printed from the classes in `services/node/blockyard/node/drivers` by `make docs`; do not edit. `ListDrivers` and
`blockyard driver list` tell the same of a running service, and why a driver is disabled there.
"""


def page() -> str:
    """The whole page."""
    sections = ["\n".join(_section(name, found)) for name, found in all_drivers() if not isinstance(found, str)]
    return "\n\n".join([INTRODUCTION.rstrip(), *sections]) + "\n"


def _section(name: str, driver: type[Driver]) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield summary_of(driver)
    yield ""
    yield f"- Kind: {kind_of(driver)}"
    if driver.children:
        slots = (f"`{slot.name}`{'' if slot.required else ' (optional)'}" for slot in driver.children)
        yield f"- Children: {', '.join(slots)}"
    if abilities := abilities_of(driver):
        yield f"- Abilities: {', '.join(abilities)}"
    yield from _options("Options", driver.Options)
    yield from _options("Options for creating", getattr(driver, "CreateOptions", None))


def _options(title: str, options: type[object] | None) -> Iterator[str]:
    facts = options_of(options) if options is not None else ()
    if facts:
        yield from ("", f"{title}:", "", "| option | type | default | meaning |", "|---|---|---|---|")
    for each in facts:
        default = "required" if each.required else each.default
        yield f"| `{each.name}` | {each.type.replace('|', ' or ')} | {default} | {each.description} |"
