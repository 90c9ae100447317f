"""The drivers as clients see them: what each says of itself, which children it takes, or why it is disabled here.

Pure reading.
"""

from dataclasses import dataclass
from typing import Any

from blockyard.base.errors import MissingOption, UnknownOption
from blockyard.node.drivers.catalogue import all_drivers
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.interface.describe import OptionFacts, abilities_of, kind_of, options_of, summary_of
from blockyard.node.interface.driver import ChildSlot, Driver


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """A driver."""

    name: str
    disabled_reason: str = ""
    """Empty if it works; all else is empty if it does not."""
    kind: str = ""
    description: str = ""
    options: tuple[OptionFacts, ...] = ()
    create_options: tuple[OptionFacts, ...] = ()
    children: tuple[str, ...] = ()
    abilities: tuple[str, ...] = ()


def drivers() -> list[DriverFacts]:
    """All of them, by name."""
    return [_facts(name, found) for name, found in all_drivers()]


def takes_child(driver: str, child: str) -> bool:
    """Whether there is such a driver here, and it has a child of that name."""
    found = next((class_ for name, class_ in all_drivers() if name == driver), "")
    return not isinstance(found, str) and any(slot.takes(child) for slot in found.children)


def _facts(name: str, found: type[Driver] | str) -> DriverFacts:
    if isinstance(found, str):
        return DriverFacts(name, disabled_reason=found)
    create: Any = getattr(found, "CreateOptions", None)
    own: Any = found.Options
    return DriverFacts(
        name,
        kind=kind_of(found),
        description=summary_of(found),
        options=options_of(own),
        create_options=options_of(create) if create is not None else (),
        children=tuple(slot.name for slot in found.children),
        abilities=tuple(abilities_of(found)),
    )


def given_children(class_: type[Driver], definition: NodeDefinition) -> list[tuple[str, ChildSlot]]:
    """The children that a definition gives a driver, in the order of its slots; those that are none left out.

    Raises UnknownOption or MissingOption.
    """
    unknown = next(
        (child for child in definition.children if not any(slot.takes(child) for slot in class_.children)), ""
    )
    if unknown:
        slots = (f"{slot.name}.N" if slot.many else slot.name for slot in class_.children)
        raise UnknownOption(class_.name, unknown, ", ".join(slots) or "no children")
    found: list[tuple[str, ChildSlot]] = []
    for slot in class_.children:
        given = [
            child for child, reference in definition.children.items() if reference is not None and slot.takes(child)
        ]
        if slot.required and not given:
            raise MissingOption(class_.name, slot.name)
        # The wire's maps have no order.
        found += [(child, slot) for child in sorted(given, key=lambda name: (len(name), name))]
    return found
