"""NodeService, first part: opening, showing, closing and watching nodes."""

from collections.abc import AsyncIterator
from typing import Any, Final

from blockyard.base.errors import EtagMismatch, NodeInUse
from blockyard.node.graph.attached import Attachment
from blockyard.node.graph.chain import descends
from blockyard.node.graph.events import Change
from blockyard.node.graph.graph import NodeReport
from blockyard.node.graph.node import Node
from blockyard.node.graph.refreshing import refresh_size
from blockyard.node.graph.user import User
from blockyard.node.rpc.attachment_words import attachment_message
from blockyard.node.rpc.calls import Calls
from blockyard.node.rpc.convert import basic_state, child, etag, full_state, holder, timestamp, tracked_requests
from blockyard.node.rpc.definitions import definition_of
from blockyard.v1 import node_pb2, types_pb2

PAGE: Final = 100
MAX_PAGE: Final = 1000

_CHANGES: Final = {
    "initial": types_pb2.CHANGE_TYPE_INITIAL,
    "added": types_pb2.CHANGE_TYPE_ADDED,
    "modified": types_pb2.CHANGE_TYPE_MODIFIED,
    "removed": types_pb2.CHANGE_TYPE_REMOVED,
    "bookmark": types_pb2.CHANGE_TYPE_BOOKMARK,
}


class GraphCalls(Calls):
    """Nodes as a client opens and sees them."""

    async def OpenNode(self, request: node_pb2.OpenNodeRequest, context: Any) -> types_pb2.BlockDriverState:  # noqa: N802
        async def work() -> types_pb2.BlockDriverState:
            definition = definition_of(request.definition)
            if request.validate_only:
                return basic_state(await self._graph.open(definition, validate_only=True))
            return await full_state(await self._graph.open(definition))

        return await self._memory.once(request, work)

    async def GetNode(self, request: node_pb2.GetNodeRequest, context: Any) -> types_pb2.BlockDriverState:  # noqa: N802
        node = self._graph.get(request.node_name)
        if request.view == node_pb2.NODE_VIEW_BASIC:
            return basic_state(node)
        await refresh_size(self._graph, node)
        return await full_state(node)

    async def ListNodes(self, request: node_pb2.ListNodesRequest, context: Any) -> node_pb2.ListNodesResponse:  # noqa: N802
        size = min(MAX_PAGE, request.page_size if request.page_size > 0 else PAGE)
        names = sorted(
            name
            for name, node in self._graph.nodes.items()
            if name > request.page_token
            and not (request.explicit_only and node.implicit)
            and request.labels.items() <= node.definition.labels.items()
        )
        nodes = [self._graph.nodes[name] for name in names[:size]]
        if request.view == node_pb2.NODE_VIEW_FULL:
            states = [await full_state(node) for node in nodes]
        else:
            states = [basic_state(node) for node in nodes]
        return node_pb2.ListNodesResponse(
            nodes=states, next_page_token=names[size - 1] if len(names) > size else ""
        )

    async def CloseNode(self, request: node_pb2.CloseNodeRequest, context: Any) -> node_pb2.CloseNodeResponse:  # noqa: N802
        async def work() -> node_pb2.CloseNodeResponse:
            node = self._graph.nodes.get(request.node_name)
            if node is None and request.allow_missing:
                return node_pb2.CloseNodeResponse()
            if node is not None and request.etag and request.etag != etag(node):
                raise EtagMismatch("node", node.name, request.etag, etag(node))
            if node is not None and node.implicit and node.is_filter:
                raise NodeInUse(node.name, "close", "the job that inserted it")
            closed = await self._graph.close(request.node_name, validate_only=request.validate_only)
            return node_pb2.CloseNodeResponse(closed=closed)

        return await self._memory.once(request, work)

    async def GetGraph(self, request: node_pb2.GetGraphRequest, context: Any) -> node_pb2.GetGraphResponse:  # noqa: N802
        root = self._graph.get(request.root) if request.root else None
        nodes = [node for node in self._graph.nodes.values() if root is None or descends(root, node)]
        return node_pb2.GetGraphResponse(
            nodes=[basic_state(node) for node in nodes],
            edges=[edge for node in nodes for edge in _edges(node)],
            revision=self._graph.hub.revision,
        )

    async def ListInFlight(  # noqa: N802
        self, request: node_pb2.ListInFlightRequest, context: Any
    ) -> node_pb2.ListInFlightResponse:
        nodes = [self._graph.get(request.node_name)] if request.node_name else self._graph.nodes.values()
        found = {tracked.request_id: tracked for node in nodes for tracked in tracked_requests(node)}
        return node_pb2.ListInFlightResponse(requests=[found[number] for number in sorted(found)])

    async def WatchNodes(  # noqa: N802
        self, request: node_pb2.WatchNodesRequest, context: Any
    ) -> AsyncIterator[node_pb2.WatchNodesResponse]:
        graph, attachments = self._graph, self._attachments
        changes = graph.hub.watch(request.start_revision, lambda: [*graph.nodes.items(), *attachments.present()])
        choice = _Choice(frozenset(request.node_names), request.start_revision > 0)
        try:
            async for change in changes:
                if choice.takes(change):
                    yield _watched(change)
        finally:
            await changes.aclose()  # type: ignore[attr-defined]


def _edges(node: Node) -> list[node_pb2.GetGraphResponse.Edge]:
    return [
        node_pb2.GetGraphResponse.Edge(child=child(edge), holder=holder(edge))
        if isinstance(edge, User) or edge.parent is None
        else node_pb2.GetGraphResponse.Edge(parent=edge.parent.name, child=child(edge))
        for edge in node.parents
    ]


class _Choice:
    """What a watch wants of all changes: nodes by name, and attachments while they use one of them, and once more
    when they do so no longer. One that resumes does not know what its client saw, and rather tells once more."""

    def __init__(self, wanted: frozenset[str], resumed: bool) -> None:
        self._wanted = wanted
        self._elsewhere: set[str] = set()
        """Attachments that the client knows not to use its nodes; before a resumed watch told of one, it may."""
        self._known: set[str] = set()
        self._resumed = resumed

    def takes(self, change: Change[Node | NodeReport | Attachment]) -> bool:
        if not self._wanted or not change.name or change.name in self._wanted:
            return True
        what = change.resource
        if not isinstance(what, Attachment):
            return False
        here = what.node_name in self._wanted
        told = change.name in self._known or (self._resumed and change.name not in self._elsewhere)
        (self._known.add if here else self._known.discard)(change.name)
        (self._elsewhere.discard if here else self._elsewhere.add)(change.name)
        return here or told


def _watched(change: Change[Node | NodeReport | Attachment]) -> node_pb2.WatchNodesResponse:
    response = node_pb2.WatchNodesResponse(revision=change.revision)
    what = change.resource
    if isinstance(what, NodeReport):
        response.event.CopyFrom(
            node_pb2.NodeEvent(
                kind=what.kind,
                node_name=what.node_name,
                event_time=timestamp(what.time_ns),
                details=dict(what.details),
            )
        )
        return response
    response.change = _CHANGES[change.kind]
    if isinstance(what, Attachment):
        response.attachment.CopyFrom(attachment_message(what))
    elif what is not None:
        response.node.CopyFrom(basic_state(what))
    return response
