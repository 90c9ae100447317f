"""ExportService: nodes as guests reach them."""

from pathlib import Path
from typing import Any, Final

from blockyard.base.errors import InvalidArgument, ResourceNotFound
from blockyard.node.exports.exports import Exports, GuestExport
from blockyard.node.exports.nbd import Address, ExportConfig
from blockyard.node.rpc.convert import timestamp
from blockyard.node.rpc.memory import RequestMemory
from blockyard.rpc.address import Address as RpcAddress
from blockyard.v1 import export_pb2
from blockyard.v1.export_pb2_grpc import ExportServiceServicer

MAX_ADDRESSES: Final = 16
DEFAULT_CONNECTIONS: Final = 100


class ExportServicer(ExportServiceServicer):
    """NBD exports."""

    def __init__(self, exports: Exports, memory: RequestMemory) -> None:
        self._exports = exports
        self._memory = memory

    async def CreateExport(self, request: export_pb2.CreateExportRequest, context: Any) -> export_pb2.Export:  # noqa: N802
        async def work() -> export_pb2.Export:
            export = await self._exports.create(*wanted_export(request.export), validate_only=request.validate_only)
            return self._message(export)

        return await self._memory.once(request, work)

    async def GetExport(self, request: export_pb2.GetExportRequest, context: Any) -> export_pb2.Export:  # noqa: N802
        return self._message(self._exports.get(request.export_id))

    async def ListExports(  # noqa: N802
        self, request: export_pb2.ListExportsRequest, context: Any
    ) -> export_pb2.ListExportsResponse:
        return export_pb2.ListExportsResponse(exports=map(self._message, self._exports.all()))

    async def DeleteExport(  # noqa: N802
        self, request: export_pb2.DeleteExportRequest, context: Any
    ) -> export_pb2.DeleteExportResponse:
        try:
            await self._exports.delete(request.export_id, force=request.force)
        except ResourceNotFound:
            if not request.allow_missing:
                raise
        return export_pb2.DeleteExportResponse()

    def _message(self, export: GuestExport) -> export_pb2.Export:
        config, info = export.config, self._exports.info(export)
        uris = self._exports.uris(export)
        attachment = export.attachment
        return export_pb2.Export(
            export_id=export.export_id,
            node_name=export.user.node_name,
            writable=config.writable,
            writethrough=config.writethrough or (attachment is not None and not attachment.definition.write_cache),
            attachment=attachment.name if attachment else "",
            nbd=export_pb2.NbdExport(
                name=config.name,
                description=config.description,
                bitmaps=config.bitmaps,
                allocation_depth=config.allocation_depth,
                addresses=[_shown(address) for address in export.bound],
                max_connections=config.max_connections,
            ),
            uris=uris,
            clients=[
                export_pb2.ExportClient(
                    address=client.address,
                    connect_time=timestamp(client.connected_ns),
                    requests=client.requests,
                    in_flight=client.in_flight,
                )
                for client in (info.clients if info else ())
            ],
            create_time=timestamp(export.created_ns),
        )


def wanted_export(wanted: export_pb2.Export) -> tuple[str, str, ExportConfig, list[Address], str]:
    """What `Exports.create` takes. Raises InvalidArgument."""
    if wanted.WhichOneof("type") != "nbd":
        raise InvalidArgument("export.type", "nbd", "nothing")
    if bool(wanted.node_name) is bool(wanted.attachment):
        found = "both" if wanted.node_name else "neither"
        raise InvalidArgument("export.node_name", "one of node_name and attachment", found)
    if len(wanted.nbd.addresses) > MAX_ADDRESSES:
        raise InvalidArgument("addresses", f"at most {MAX_ADDRESSES}", str(len(wanted.nbd.addresses)))
    addresses = [nbd_address(text) for text in wanted.nbd.addresses]
    return wanted.export_id, wanted.node_name, _config(wanted), addresses, wanted.attachment


def _config(wanted: export_pb2.Export) -> ExportConfig:
    return ExportConfig(
        name=wanted.nbd.name,
        description=wanted.nbd.description,
        writable=wanted.writable,
        writethrough=wanted.writethrough,
        bitmaps=tuple(wanted.nbd.bitmaps),
        allocation_depth=wanted.nbd.allocation_depth,
        max_connections=wanted.nbd.max_connections or DEFAULT_CONNECTIONS,
    )


def nbd_address(text: str) -> Address:
    """`unix:/path` or `host:port` as the NBD server takes it. Raises InvalidArgument."""
    address = RpcAddress.parse(text)
    return Path(address.path) if address.is_unix else (address.host, address.port)


def _shown(address: Address) -> str:
    if isinstance(address, Path):
        return str(RpcAddress(path=str(address)))
    return str(RpcAddress(host=address[0], port=address[1]))
