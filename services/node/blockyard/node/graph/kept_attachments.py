"""What the catalogue keeps of attachments: their definition as it is now, medium and tray among it.

An error that was latched is not kept: requests that waited are gone with their guests' connections.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph.attachment import AttachmentDefinition
from blockyard.node.graph.kept_form import parsed
from blockyard.node.graph.kept_kinds import NODE
from blockyard.node.interface.keeper import Key

if TYPE_CHECKING:
    from blockyard.node.graph.attachments import Attachments

KIND: Final = "attachment"


class AttachmentKind:
    """Attachments, as entries of the catalogue."""

    name = KIND

    def __init__(self, attachments: "Attachments") -> None:
        self._attachments = attachments

    def names(self) -> Iterable[str]:
        return [attachment.name for attachment in self._attachments.all()]

    def definition(self, name: str) -> str | None:
        found = self._attachments.lasting(name)
        return json.dumps(found.definition.as_dict()) if found is not None else None

    def needs(self, name: str, definition: str) -> list[Key]:
        node_name = _read(definition).node_name
        return [Key(NODE, node_name)] if node_name else []

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        await self._attachments.create(_read(definition), durable=False)

    def shown(self, definition: str) -> str:
        return f"json:{definition}"


def _read(definition: str) -> AttachmentDefinition:
    try:
        return AttachmentDefinition(**parsed(definition))
    except TypeError as problem:
        raise InvalidArgument("definition", "an attachment of this version", str(problem)) from problem
