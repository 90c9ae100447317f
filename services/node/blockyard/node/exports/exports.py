"""The exports there are: a user's edge of the graph for each, its bitmaps kept, its addresses listened on.

What an export serves and how is `nbd`'s. Must not know the wire of the API.

Invariants
1. An export holds its node from before its first client may come until after the last is gone.
2. An address is listened on while an export asks for it or the configuration does.
"""

import asyncio
from contextvars import Context
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from blockyard.base.errors import (
    AttachmentReadOnly,
    BlockError,
    InvalidArgument,
    NodeInUse,
    PathDenied,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.node.exports.nbd import Address, ExportConfig, ExportInfo, NbdServer
from blockyard.node.exports.nbd.export import check_config
from blockyard.node.graph import recording
from blockyard.node.graph.attached import Attachment
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.bitmaps import Bitmap
from blockyard.node.graph.chain import above_filters
from blockyard.node.graph.definition import check_name
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.modes import ready_to_write, settle

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.user import User

KIND: Final = "export"
"""Of its entries in the catalogue, and of its users."""


@dataclass(slots=True)
class GuestExport:
    """An export with what it holds."""

    export_id: str
    config: ExportConfig
    user: "User"
    """Its own edge, or the attachment's."""
    created_ns: int
    attachment: Attachment | None = None
    bitmaps: list[Bitmap] = field(default_factory=list)
    bitmap_node: "Node | None" = None
    """Where the bitmaps are: the user may move to another node."""
    asked: list[Address] = field(default_factory=list)
    """Addresses of its own, as asked for."""
    bound: list[Address] = field(default_factory=list)
    """The same as they became; empty means those of the configuration."""
    leaving: bool = False
    """It ends, and does not come back."""

    @property
    def holder(self) -> str:
        """Who uses the node or attachment, for people."""
        return f"export/{self.export_id}"


class Exports:
    """All exports of a node service."""

    def __init__(
        self,
        graph: Graph,
        server: NbdServer,
        attachments: Attachments,
        *,
        own_addresses: bool = True,
        listens_later: bool = False,
    ) -> None:
        """`listens_later`: there will be a default address, when the exports that were kept are there again."""
        self._graph = graph
        self._attachments = attachments
        self._server = server
        self._own_addresses = own_addresses
        self._listens_later = listens_later
        self._exports: dict[str, GuestExport] = {}
        self._numbers = count(1)
        self._default: list[Address] = []
        self._binding = asyncio.Lock()

    async def listen(self, address: Address) -> list[Address]:
        """Listen where the configuration says. Raises AddressUnavailable."""
        bound = await self._bind(address)
        self._default += bound
        return bound

    async def create(
        self,
        export_id: str,
        node_name: str,
        config: ExportConfig,
        addresses: list[Address],
        attachment: str = "",
        *,
        validate_only: bool,
        durable: bool = True,
    ) -> GuestExport:
        """Serve a node or an attachment. `durable = False` leaves it to the caller to keep it.

        Raises NodeNotFound, NodeReadOnly, AttachmentReadOnly, ResourceExists, AddressUnavailable ...
        """
        export_id = export_id or f"export-{next(self._numbers)}"
        check_name(export_id, "export_id")
        config = config if config.name else replace(config, name=export_id)
        if export_id in self._exports:
            raise ResourceExists("export", export_id)
        if addresses and not self._own_addresses:
            raise PathDenied(str(addresses[0]), "exports listen at the configured addresses only")
        if not addresses and not self._default and not self._listens_later:
            raise InvalidArgument("addresses", "at least one: the service has no NBD address", "none")
        export = await self._held(export_id, node_name, attachment, config, addresses)
        user = export.user
        try:
            check_config(config, user)
            if not validate_only:
                await self._start(export)
        except BaseException:
            await self._let_go(export)
            raise
        if validate_only:
            await self._let_go(export)
        elif durable:
            await self._keep(export_id)
        return export

    async def _keep(self, export_id: str) -> None:
        """It comes back after a restart. Raises CatalogueNotWritten; then it runs no more."""
        try:
            await self._graph.kept.catalogue.commit()
        except BaseException:
            await self.end(export_id, force=True)
            await self._graph.kept.overwrite()
            raise

    async def _held(
        self, export_id: str, node_name: str, attachment_name: str, config: ExportConfig, addresses: list[Address]
    ) -> GuestExport:
        """The export with the edge that it works through."""
        now_ns = self._graph.environment.clock.wall_ns()
        if not attachment_name:
            if config.writable:
                await ready_to_write(self._graph, above_filters(self._graph.get(node_name)))
            user = self._graph.use(node_name, "export", export_id, writable=config.writable)
            return GuestExport(export_id, config, user, now_ns, asked=addresses)
        attachment = self.check_attachment(attachment_name, config)
        export = GuestExport(export_id, config, attachment.user, now_ns, attachment, asked=addresses)
        self._attachments.claim(attachment_name, export.holder)
        return export

    async def _start(self, export: GuestExport) -> None:
        self._exports[export.export_id] = export
        self._graph.kept.catalogue.touch(KIND, export.export_id)
        try:
            node = export.user.node
            export.bitmaps = recording.claim(self._graph, node, export.config.bitmaps, export.holder)
            export.bitmap_node = node
            for address in export.asked:
                export.bound += await self._bind(address)
            await self._server.add_export(export.config, export.user)
        except BaseException:
            del self._exports[export.export_id]
            raise

    async def _bind(self, address: Address) -> list[Address]:
        """An address that is listened on already is shared: clients choose their export by name."""
        async with self._binding:  # two that come at once may ask for the same new one
            if address in self._server.addresses:
                return [address]
            return await self._open(address)

    async def _open(self, address: Address) -> list[Address]:
        # The event loop runs a listener's callbacks in the context it was made in. An empty one: what guests do is
        # no part of the call, and the trace, that asked for the export.
        return await asyncio.create_task(self._server.start(address), context=Context())

    def check_free(self, export_id: str, config: ExportConfig) -> None:
        """Raises ResourceExists or InvalidArgument for an export that could not be made under these names."""
        if export_id:
            check_name(export_id, "export_id")
        name = config.name or export_id
        if export_id in self._exports or (name and any(name == other.config.name for other in self.all())):
            raise ResourceExists("export", export_id or name)

    def check_attachment(self, name: str, config: ExportConfig) -> Attachment:
        """Raises ResourceNotFound, AttachmentReadOnly or InvalidArgument for what it cannot be served as."""
        attachment = self._attachments.get(name)
        definition = attachment.definition
        if config.writable and not definition.writable:
            raise AttachmentReadOnly(name)
        if config.bitmaps and definition.removable:
            raise InvalidArgument("bitmaps", "none, for a removable medium", ", ".join(config.bitmaps))
        return attachment

    def check_deletable(self, export_id: str, *, force: bool) -> None:
        """Raises ResourceNotFound, or NodeInUse while clients are connected, unless forced."""
        export, info = self.get(export_id), self.info(self.get(export_id))
        if info is not None and info.clients and not force:
            owners = f"{len(info.clients)} NBD client(s) of export {export_id!r}"
            raise NodeInUse(export.user.node_name, "stop exporting", owners)

    async def delete(self, export_id: str, *, force: bool = False) -> None:
        """Serve it no longer. Raises ResourceNotFound, or NodeInUse while clients are connected, unless forced.

        First it is no longer kept, then it ends: after a crash it is gone, or clients find it again.
        """
        self.check_deletable(export_id, force=force)
        self.leave(export_id)
        await self._graph.kept.commit(lambda: self.stay(export_id))
        try:
            await self.end(export_id, force=force)
        except BlockError:  # a client came meanwhile
            self.stay(export_id)
            await self._graph.kept.catalogue.commit()
            raise

    def leave(self, export_id: str) -> None:
        """It is not to come back; it ends next. Raises ResourceNotFound."""
        self.get(export_id).leaving = True
        self._graph.kept.catalogue.touch(KIND, export_id)

    def stay(self, export_id: str) -> None:
        """Undo `leave`."""
        self.get(export_id).leaving = False
        self._graph.kept.catalogue.touch(KIND, export_id)

    async def end(self, export_id: str, *, force: bool) -> None:
        """Serve it no longer; the catalogue is the caller's matter. Raises ResourceNotFound or NodeInUse."""
        export = self.get(export_id)
        await self._server.remove_export(export.config.name, hard=force)
        del self._exports[export_id]
        self._graph.kept.catalogue.touch(KIND, export_id)
        await self._let_go(export)

    async def _let_go(self, export: GuestExport) -> None:
        kept = {str(address) for other in self._exports.values() for address in other.bound}
        kept |= {str(address) for address in self._default}
        for address in export.bound:
            if str(address) not in kept:
                await self._server.end(address)
        if export.bitmap_node is not None:
            recording.unclaim(self._graph, export.bitmap_node, export.bitmaps)
        if export.attachment is not None:
            self._attachments.unclaim(export.attachment, export.holder)
            return
        node = export.user.node
        self._graph.release(export.user)
        await settle(self._graph, node)

    def get(self, export_id: str) -> GuestExport:
        """Raises ResourceNotFound."""
        export = self._exports.get(export_id)
        if export is None:
            raise ResourceNotFound("export", export_id)
        return export

    def all(self) -> list[GuestExport]:
        """By id."""
        return [self._exports[export_id] for export_id in sorted(self._exports)]

    def info(self, export: GuestExport) -> ExportInfo | None:
        """What the server knows of it; None for one that does not run."""
        return next((info for info in self._server.exports() if info.config.name == export.config.name), None)

    def uris(self, export: GuestExport) -> list[str]:
        """Where clients connect."""
        return [uri(address, export.config.name) for address in export.bound or self._default]

    async def stop(self) -> None:
        """Drop every client, close every address, let every node go."""
        await self._server.stop()
        for export in list(self._exports.values()):
            del self._exports[export.export_id]
            export.bound.clear()
            await self._let_go(export)


def uri(address: Address, name: str) -> str:
    """An address as NBD URI (https://github.com/NetworkBlockDevice/nbd, doc/uri.md)."""
    if isinstance(address, Path):
        return f"nbd+unix:///{quote(name, safe='')}?socket={quote(str(address), safe='/')}"
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    return f"nbd://{shown}:{port}/{quote(name, safe='')}"
