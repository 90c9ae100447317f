"""What the catalogue keeps of throttle groups: their limits, under QEMU's names."""

import json
from collections.abc import Iterable
from typing import Final

from blockyard.node.core.throttle import ThrottleLimits
from blockyard.node.graph.kept_form import parsed
from blockyard.node.graph.throttling import ThrottleGroups
from blockyard.node.interface.keeper import Key

THROTTLE_GROUP: Final = "throttle-group"


class ThrottleGroupKind:
    """Groups come back before the nodes that use them, without debts: their buckets are empty."""

    name = THROTTLE_GROUP

    def __init__(self, groups: ThrottleGroups) -> None:
        self._groups = groups

    def names(self) -> Iterable[str]:
        return self._groups.definitions()

    def definition(self, name: str) -> str | None:
        limits = self._groups.definitions().get(name)
        return None if limits is None else json.dumps(limits.as_dict())

    def needs(self, name: str, definition: str) -> list[Key]:
        return []

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        self._groups.create(name, ThrottleLimits.from_dict(parsed(definition)))

    def shown(self, definition: str) -> str:
        return f"json:{definition}"
