"""NodeService, a part: what comes back after a restart, and what did not."""

from typing import Any

from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.restoring import restore_again
from blockyard.node.interface.keeper import Entry, Key
from blockyard.node.rpc.calls import Calls
from blockyard.v1 import node_pb2


class CatalogueCalls(Calls):
    """The entries of the catalogue."""

    @property
    def _catalogue(self) -> Catalogue:
        return self._graph.kept.catalogue

    async def ListCatalogue(  # noqa: N802
        self, request: node_pb2.ListCatalogueRequest, context: Any
    ) -> node_pb2.ListCatalogueResponse:
        entries = sorted(self._catalogue.entries.values(), key=lambda entry: entry.position)
        return node_pb2.ListCatalogueResponse(
            entries=[
                self._message(entry)
                for entry in entries
                if not request.failed_only or entry.key in self._catalogue.failed
            ],
            location=self._catalogue.location,
        )

    async def RestoreCatalogueEntry(  # noqa: N802
        self, request: node_pb2.RestoreCatalogueEntryRequest, context: Any
    ) -> node_pb2.CatalogueEntry:
        return self._message(await restore_again(self._graph, Key(request.kind, request.name)))

    async def ForgetCatalogueEntry(  # noqa: N802
        self, request: node_pb2.ForgetCatalogueEntryRequest, context: Any
    ) -> node_pb2.ForgetCatalogueEntryResponse:
        await self._catalogue.forget(Key(request.kind, request.name))
        return node_pb2.ForgetCatalogueEntryResponse()

    def _message(self, entry: Entry) -> node_pb2.CatalogueEntry:
        problem = self._catalogue.failed.get(entry.key)
        return node_pb2.CatalogueEntry(
            kind=entry.key.kind,
            name=entry.key.name,
            definition=self._catalogue.shown(entry),
            failure=str(problem) if problem is not None else "",
            reason=problem.reason if problem is not None else "",
        )
