"""What the catalogue keeps of exports: the node, what clients are told, and where they connect.

An export comes back at the very addresses that it had, so that a client that lost its server finds it again.
Bitmaps whose bits were lost are left out: a client must not be told that nothing is dirty.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.exports.exports import KIND, Exports, GuestExport
from blockyard.node.exports.nbd import Address, ExportConfig
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.kept_attachments import KIND as ATTACHMENT
from blockyard.node.graph.kept_form import parsed
from blockyard.node.graph.kept_kinds import NODE
from blockyard.node.graph.present import beneath_jobs
from blockyard.node.interface.keeper import Key

_UNIX: Final = "unix:"


class ExportKind:
    """Exports, as entries of the catalogue."""

    name = KIND

    def __init__(self, graph: Graph, exports: Exports, attachments: Attachments) -> None:
        self._graph = graph
        self._attachments = attachments
        self._exports = exports

    def names(self) -> Iterable[str]:
        return [export.export_id for export in self._exports.all()]

    def definition(self, name: str) -> str | None:
        export = next((each for each in self._exports.all() if each.export_id == name), None)
        if export is None or export.leaving:
            return None
        served = {"node": beneath_jobs(export.user.node).name}
        if export.attachment is not None:
            served = {ATTACHMENT: export.attachment.name}
        return json.dumps(
            {
                **served,
                "config": asdict(export.config),
                "addresses": [_shown(address) for address in _addresses(export)],
            }
        )

    def needs(self, name: str, definition: str) -> list[Key]:
        values = parsed(definition)
        if ATTACHMENT in values:
            return [Key(ATTACHMENT, str(values[ATTACHMENT]))]
        return [Key(NODE, str(values.get("node")))]

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        values = parsed(definition)
        attachment = str(values.get(ATTACHMENT, ""))
        if attachment:
            node = self._attachments.get(attachment).user.node
        else:
            node = self._graph.get(str(values.get("node")))
        config = _config(values.get("config"))
        told = tuple(
            each for each in config.bitmaps if each in node.bitmaps and not node.bitmaps[each].inconsistent
        )
        addresses = [_address(text) for text in values.get("addresses", ())]
        node_name, kept = "" if attachment else node.name, replace(config, bitmaps=told)
        await self._exports.create(name, node_name, kept, addresses, attachment, validate_only=False, durable=False)

    def shown(self, definition: str) -> str:
        return f"json:{definition}"


def _config(values: Any) -> ExportConfig:
    try:
        return ExportConfig(**{**values, "bitmaps": tuple(values["bitmaps"])})
    except (KeyError, TypeError) as problem:
        raise InvalidArgument("definition", "an export of this version", str(problem)) from problem


def _addresses(export: GuestExport) -> list[Address]:
    """As asked for; where the kernel chose a port, the port."""
    chosen = any(not isinstance(address, Path) and not address[1] for address in export.asked)
    return export.bound if chosen else export.asked


def _shown(address: Address) -> str | list[str | int]:
    return f"{_UNIX}{address}" if isinstance(address, Path) else list(address)


def _address(shown: Any) -> Address:
    if isinstance(shown, str) and shown.startswith(_UNIX):
        return Path(shown.removeprefix(_UNIX))
    if isinstance(shown, list) and len(shown) == 2:
        return str(shown[0]), int(shown[1])
    raise InvalidArgument("definition", "addresses of an export", repr(shown)[:64])
