"""What comes back after a restart of the node service: `client.catalogue`."""

from blockyard.client.calls import Service
from blockyard.v1 import node_pb2 as node
from blockyard.v1.node_pb2 import CatalogueEntry


class Catalogue:
    """Shows what is kept, and deals with what could not be opened again."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def list(self, *, failed_only: bool = False) -> node.ListCatalogueResponse:
        """The entries in the order of their making, and where they are kept."""
        request = node.ListCatalogueRequest(failed_only=failed_only)
        return await self._service.unary("ListCatalogue", request, node.ListCatalogueResponse)

    async def restore(self, kind: str, name: str) -> CatalogueEntry:
        """Try a failed entry again, with what it needs and what needs it. Raises what keeps it out."""
        request = node.RestoreCatalogueEntryRequest(kind=kind, name=name)
        return await self._service.unary("RestoreCatalogueEntry", request, CatalogueEntry)

    async def forget(self, kind: str, name: str) -> None:
        """Drop a failed entry; its name is free then."""
        request = node.ForgetCatalogueEntryRequest(kind=kind, name=name)
        await self._service.unary("ForgetCatalogueEntry", request, node.ForgetCatalogueEntryResponse)
