"""The live graph: `client.nodes`."""

from collections.abc import AsyncIterator, Mapping, Sequence

from blockyard.client.calls import Service
from blockyard.client.definitions import reference
from blockyard.client.watching import Persistence, watch
from blockyard.client.words import to_number
from blockyard.v1 import node_pb2 as node
from blockyard.v1 import types_pb2 as types
from blockyard.v1.drivers_pb2 import NodeDefinition
from blockyard.v1.types_pb2 import BlockDriverState

PAGE_SIZE = 500


class Nodes:
    """Opens, closes, shows and rearranges nodes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def open(
        self,
        definition: NodeDefinition,
        *,
        request_id: str = "",
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> BlockDriverState:
        """Open a node and what its definition nests; see `blockyard.client.definitions`."""
        request = node.OpenNodeRequest(definition=definition, request_id=request_id, validate_only=validate_only)
        return await self._service.unary("OpenNode", request, BlockDriverState, timeout)

    async def get(self, node_name: str, *, full: bool = True) -> BlockDriverState:
        """One node. `full` adds requests in flight, the account, and facts that need a system call."""
        request = node.GetNodeRequest(node_name=node_name, view=_view(full))
        return await self._service.unary("GetNode", request, BlockDriverState)

    async def close(
        self,
        node_name: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        request_id: str = "",
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> Sequence[str]:
        """Close a node and the children opened with it; the names of all that were closed, parents first."""
        request = node.CloseNodeRequest(
            node_name=node_name,
            etag=etag,
            allow_missing=allow_missing,
            request_id=request_id,
            validate_only=validate_only,
        )
        response = await self._service.unary("CloseNode", request, node.CloseNodeResponse, timeout)
        return tuple(response.closed)

    async def graph(self, root: str = "") -> node.GetGraphResponse:
        """Nodes and edges at one instant; only what is at or below `root` if it is given."""
        request = node.GetGraphRequest(root=root)
        return await self._service.unary("GetGraph", request, node.GetGraphResponse)

    def watch(
        self,
        node_names: Sequence[str] = (),
        *,
        start_revision: int = 0,
        persistence: Persistence | None = None,
    ) -> AsyncIterator[node.WatchNodesResponse]:
        """Nodes as they change, for ever; a dropped stream is taken up again."""

        def start(revision: int) -> AsyncIterator[node.WatchNodesResponse]:
            request = node.WatchNodesRequest(start_revision=revision, node_names=node_names)
            return self._service.stream("WatchNodes", request, node.WatchNodesResponse)

        return watch(start, lambda event: False, start_revision=start_revision, persistence=persistence)

    async def resize(
        self,
        node_name: str,
        size_bytes: int,
        *,
        preallocation: str = "",
        allow_shrink: bool = False,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> BlockDriverState:
        """Change a node's size. Shrinking loses what lies beyond and must be allowed."""
        request = node.ResizeNodeRequest(
            node_name=node_name,
            size_bytes=size_bytes,
            preallocation=to_number(types.Preallocation, preallocation, "preallocation"),
            allow_shrink=allow_shrink,
            validate_only=validate_only,
        )
        return await self._service.unary("ResizeNode", request, BlockDriverState, timeout)

    async def set_write_threshold(self, node_name: str, threshold_bytes: int) -> BlockDriverState:
        """Have the event `write-threshold` raised once a write goes past an offset; 0 switches it off."""
        request = node.SetWriteThresholdRequest(node_name=node_name, threshold_bytes=threshold_bytes)
        return await self._service.unary("SetWriteThreshold", request, BlockDriverState)

    async def reopen(
        self, definitions: Sequence[NodeDefinition], *, validate_only: bool = False
    ) -> Sequence[BlockDriverState]:
        """Change options of nodes as one transaction; an option left out returns to its default."""
        request = node.ReopenNodesRequest(definitions=definitions, validate_only=validate_only)
        response = await self._service.unary("ReopenNodes", request, node.ReopenNodesResponse)
        return tuple(response.nodes)

    async def activate(self, node_name: str, *, timeout: float | None = None) -> BlockDriverState:
        """Take a node back that was handed over, and what is below it; everything is read anew."""
        request = node.SetNodeActiveRequest(node_name=node_name, active=True)
        return await self._service.unary("SetNodeActive", request, BlockDriverState, timeout)

    async def deactivate(self, node_name: str, *, timeout: float | None = None) -> BlockDriverState:
        """Hand a node's files over to another process: flushed, without locks, and only read from here."""
        request = node.SetNodeActiveRequest(node_name=node_name, active=False)
        return await self._service.unary("SetNodeActive", request, BlockDriverState, timeout)

    async def ioctl(self, node_name: str, number: int, argument: bytes = b"") -> node.SendIoctlResponse:
        """Send an ioctl(2) to what the node stands on; its result and the argument afterwards."""
        request = node.SendIoctlRequest(node_name=node_name, request=number, argument=argument)
        return await self._service.unary("SendIoctl", request, node.SendIoctlResponse)

    async def insert_overlay(self, node_name: str, overlay_node_name: str) -> BlockDriverState:
        """Move the users of a node to an overlay above it (an external snapshot)."""
        request = node.InsertOverlayRequest(node_name=node_name, overlay_node_name=overlay_node_name)
        return await self._service.unary("InsertOverlay", request, BlockDriverState)

    async def insert_filter(self, node_name: str, filter: NodeDefinition) -> BlockDriverState:
        """Put a filter between a node and its users."""
        request = node.InsertFilterRequest(node_name=node_name, filter=filter)
        return await self._service.unary("InsertFilter", request, BlockDriverState)

    async def remove_filter(self, node_name: str) -> BlockDriverState:
        """Take a filter out; the node that took its place."""
        request = node.RemoveFilterRequest(node_name=node_name)
        return (await self._service.unary("RemoveFilter", request, node.RemoveFilterResponse)).node

    async def replace(self, node_name: str, replacement_node_name: str) -> BlockDriverState:
        """Give all users of one node another one."""
        request = node.ReplaceNodeRequest(node_name=node_name, replacement_node_name=replacement_node_name)
        return await self._service.unary("ReplaceNode", request, BlockDriverState)

    async def change_backing_file(
        self, node_name: str, backing_file: str, backing_format: str = ""
    ) -> BlockDriverState:
        """Rewrite the backing reference in the image's header; no data moves."""
        request = node.ChangeBackingFileRequest(
            node_name=node_name, backing_file=backing_file, backing_format=backing_format
        )
        return await self._service.unary("ChangeBackingFile", request, BlockDriverState)

    async def drain(self, node_name: str, *, lease: float | None = None) -> str:
        """Hold all requests of a node until `undrain`, or until the lease ends, in seconds; its id."""
        request = node.DrainNodeRequest(node_name=node_name)
        if lease is not None:
            request.lease.FromNanoseconds(round(lease * 1e9))
        return (await self._service.unary("DrainNode", request, node.DrainNodeResponse)).drain_id

    async def undrain(self, drain_id: str) -> bool:
        """Let requests go on; False if the lease had ended before, so that requests may have run meanwhile."""
        request = node.UndrainNodeRequest(drain_id=drain_id)
        return not (await self._service.unary("UndrainNode", request, node.UndrainNodeResponse)).expired

    async def set_executor(self, node_name: str, executor: str) -> BlockDriverState:
        """Move a node and what is below it to another executor; they are drained meanwhile."""
        request = node.SetExecutorRequest(node_name=node_name, executor=executor)
        return await self._service.unary("SetExecutor", request, BlockDriverState)

    async def add_child(
        self,
        node_name: str,
        child: NodeDefinition | str,
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> BlockDriverState:
        """Give a node of a driver that takes any number of children one more: a node that is open, or one to open.
        Its content should be the same already."""
        request = node.AddChildRequest(node_name=node_name, child=reference(child), validate_only=validate_only)
        return await self._service.unary("AddChild", request, BlockDriverState, timeout)

    async def remove_child(
        self, node_name: str, child: str, *, validate_only: bool = False, timeout: float | None = None
    ) -> BlockDriverState:
        """Take a child out by the name of its edge, `children.1`; it is closed if it was opened with its parent."""
        request = node.RemoveChildRequest(node_name=node_name, child=child, validate_only=validate_only)
        return await self._service.unary("RemoveChild", request, BlockDriverState, timeout)

    async def in_flight(self, node_name: str = "") -> Sequence[types.TrackedRequest]:
        """Requests in flight, oldest first, of one node or of all."""
        request = node.ListInFlightRequest(node_name=node_name)
        response = await self._service.unary("ListInFlight", request, node.ListInFlightResponse)
        return tuple(response.requests)

    async def transaction(
        self, actions: Sequence[node.TransactionAction], *, validate_only: bool = False
    ) -> node.RunTransactionResponse:
        """Several graph changes, all or nothing."""
        request = node.RunTransactionRequest(actions=actions, validate_only=validate_only)
        return await self._service.unary("RunTransaction", request, node.RunTransactionResponse)

    async def list(
        self, *, explicit_only: bool = False, full: bool = False, labels: Mapping[str, str] | None = None
    ) -> Sequence[BlockDriverState]:
        """All nodes by name, or those with all of the labels; every page is fetched."""
        found: Sequence[BlockDriverState] = ()
        page_token = ""
        while True:
            request = node.ListNodesRequest(
                page_size=PAGE_SIZE,
                page_token=page_token,
                view=_view(full),
                explicit_only=explicit_only,
                labels=labels,
            )
            response = await self._service.unary("ListNodes", request, node.ListNodesResponse)
            found = (*found, *response.nodes)
            page_token = response.next_page_token
            if not page_token:
                return found


class Server:
    """What the node service is: `client.server`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def info(self) -> node.GetServerInfoResponse:
        """Version, drivers and limits."""
        return await self._service.unary("GetServerInfo", node.GetServerInfoRequest(), node.GetServerInfoResponse)

    async def drivers(self) -> Sequence[node.DriverInfo]:
        """The drivers with their options, and why one is disabled."""
        response = await self._service.unary("ListDrivers", node.ListDriversRequest(), node.ListDriversResponse)
        return tuple(response.drivers)

    async def limits(self) -> Mapping[str, int]:
        """Bounds by name, as in docs/limits.md."""
        return dict((await self.info()).limits)


def _view(full: bool) -> node.NodeView:
    return node.NODE_VIEW_FULL if full else node.NODE_VIEW_BASIC
