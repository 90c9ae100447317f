"""Ways in for guests: `client.exports`."""

from collections.abc import Sequence

from blockyard.client.calls import Service
from blockyard.v1 import export_pb2 as export
from blockyard.v1.export_pb2 import Export


class Exports:
    """Starts, shows and ends exports."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def add_nbd(
        self,
        node_name: str,
        export_id: str,
        *,
        name: str = "",
        description: str = "",
        writable: bool = False,
        writethrough: bool = False,
        bitmaps: Sequence[str] = (),
        allocation_depth: bool = False,
        addresses: Sequence[str] = (),
        max_connections: int = 0,
        attachment: str = "",
        request_id: str = "",
        validate_only: bool = False,
    ) -> Export:
        """Export a node over NBD, or with an empty node name an attachment; `uris` tell where clients connect."""
        nbd = export.NbdExport(
            name=name,
            description=description,
            bitmaps=bitmaps,
            allocation_depth=allocation_depth,
            addresses=addresses,
            max_connections=max_connections,
        )
        wanted = Export(
            export_id=export_id,
            node_name=node_name,
            attachment=attachment,
            writable=writable,
            writethrough=writethrough,
            nbd=nbd,
        )
        request = export.CreateExportRequest(export=wanted, request_id=request_id, validate_only=validate_only)
        return await self._service.unary("CreateExport", request, Export)

    async def get(self, export_id: str) -> Export:
        """One export."""
        return await self._service.unary("GetExport", export.GetExportRequest(export_id=export_id), Export)

    async def list(self) -> Sequence[Export]:
        """All exports by id."""
        response = await self._service.unary("ListExports", export.ListExportsRequest(), export.ListExportsResponse)
        return tuple(response.exports)

    async def remove(self, export_id: str, *, force: bool = False, allow_missing: bool = False) -> None:
        """End an export; `force` disconnects its clients."""
        request = export.DeleteExportRequest(export_id=export_id, force=force, allow_missing=allow_missing)
        await self._service.unary("DeleteExport", request, export.DeleteExportResponse)
