"""NodeService, second part: changing nodes and what lies between them."""

from typing import Any

from blockyard.base.errors import InvalidArgument, OperationUnsupported
from blockyard.node.graph import actions, surgery
from blockyard.node.graph.chain import subtree
from blockyard.node.graph.children import add_child, remove_child
from blockyard.node.graph.emptying import make_empty
from blockyard.node.graph.ioctl import send_ioctl
from blockyard.node.graph.leases import DEFAULT_SECONDS
from blockyard.node.graph.modes import activate, inactivate, ready_to_write
from blockyard.node.graph.threshold import set_write_threshold
from blockyard.node.graph.transaction import run
from blockyard.node.interface.driver import BackingReference, Resizable
from blockyard.node.interface.flags import Preallocation
from blockyard.node.rpc.calls import Calls
from blockyard.node.rpc.convert import full_state
from blockyard.node.rpc.definitions import definition_of, reference_of
from blockyard.node.rpc.words import word_of
from blockyard.v1 import node_pb2, types_pb2


class SurgeryCalls(Calls):
    """Sizes, overlays, filters, backing files, drains."""

    async def ResizeNode(self, request: node_pb2.ResizeNodeRequest, context: Any) -> types_pb2.BlockDriverState:  # noqa: N802
        node, size = self._graph.get(request.node_name), request.size_bytes
        if size < 0:
            raise InvalidArgument("size_bytes", "0 or more", str(size))
        if size < node.driver.size and not request.allow_shrink:
            raise InvalidArgument("size_bytes", f"{node.driver.size} or more without allow_shrink", str(size))
        if node.read_only and not (node.waits_for_writer and node.active):
            raise node.write_refusal()
        if not isinstance(node.driver, Resizable):
            raise OperationUnsupported(node.name, node.driver.name, "change its size")
        word = word_of(types_pb2.Preallocation, request.preallocation, "preallocation")
        if not request.validate_only:
            await self._graph.resize(node.name, size, Preallocation(word or Preallocation.OFF))
        return await full_state(node)

    async def InsertOverlay(  # noqa: N802
        self, request: node_pb2.InsertOverlayRequest, context: Any
    ) -> types_pb2.BlockDriverState:
        node, overlay = self._graph.get(request.node_name), self._graph.get(request.overlay_node_name)
        await surgery.insert_overlay(self._graph, node, overlay)
        return await full_state(overlay)

    async def InsertFilter(  # noqa: N802
        self, request: node_pb2.InsertFilterRequest, context: Any
    ) -> types_pb2.BlockDriverState:
        action = actions.InsertFilter(request.node_name, definition_of(request.filter, "filter"))
        await run(self._graph, [action])
        return await full_state(action.node)

    async def RemoveFilter(  # noqa: N802
        self, request: node_pb2.RemoveFilterRequest, context: Any
    ) -> node_pb2.RemoveFilterResponse:
        below = actions.below_filter(self._graph.get(request.node_name))
        await run(self._graph, [actions.RemoveFilter(request.node_name)])
        return node_pb2.RemoveFilterResponse(node=await full_state(below))

    async def ReplaceNode(self, request: node_pb2.ReplaceNodeRequest, context: Any) -> types_pb2.BlockDriverState:  # noqa: N802
        node, target = self._graph.get(request.node_name), self._graph.get(request.replacement_node_name)
        await surgery.replace_node(self._graph, node, target)
        return await full_state(target)

    async def ChangeBackingFile(  # noqa: N802
        self, request: node_pb2.ChangeBackingFileRequest, context: Any
    ) -> types_pb2.BlockDriverState:
        node = self._graph.get(request.node_name)
        await ready_to_write(self._graph, node)
        if request.backing_file and not request.backing_format:
            raise InvalidArgument("backing_format", "the format of the backing file", "nothing")
        name = request.backing_file
        reference = BackingReference(name, request.backing_format) if name else None
        below = node.backing.node if node.backing is not None else None
        await surgery.set_backing(self._graph, node, below, reference, header=True)
        return await full_state(node)

    async def SetWriteThreshold(  # noqa: N802
        self, request: node_pb2.SetWriteThresholdRequest, context: Any
    ) -> types_pb2.BlockDriverState:
        node = self._graph.get(request.node_name)
        before = node.threshold
        set_write_threshold(self._graph, node, request.threshold_bytes)
        await self._graph.kept.keep(lambda: node.set_threshold(before), node)
        return await full_state(node)

    async def AddChild(self, request: node_pb2.AddChildRequest, context: Any) -> types_pb2.BlockDriverState:  # noqa: N802
        node = self._graph.get(request.node_name)
        await add_child(
            self._graph, node, reference_of(request.child, "child"), validate_only=request.validate_only
        )
        return await full_state(node)

    async def RemoveChild(  # noqa: N802
        self, request: node_pb2.RemoveChildRequest, context: Any
    ) -> types_pb2.BlockDriverState:
        node = self._graph.get(request.node_name)
        await remove_child(self._graph, node, request.child, validate_only=request.validate_only)
        return await full_state(node)

    async def MakeEmpty(self, request: node_pb2.MakeEmptyRequest, context: Any) -> node_pb2.MakeEmptyResponse:  # noqa: N802
        node = self._graph.get(request.node_name)
        await make_empty(self._graph, node)
        return node_pb2.MakeEmptyResponse(node=await full_state(node))

    async def DrainNode(self, request: node_pb2.DrainNodeRequest, context: Any) -> node_pb2.DrainNodeResponse:  # noqa: N802
        seconds = request.lease.ToNanoseconds() / 1e9 if request.HasField("lease") else DEFAULT_SECONDS
        drain_id = await self._backstage.leases.begin(request.node_name, seconds)
        return node_pb2.DrainNodeResponse(drain_id=drain_id)

    async def UndrainNode(  # noqa: N802
        self, request: node_pb2.UndrainNodeRequest, context: Any
    ) -> node_pb2.UndrainNodeResponse:
        return node_pb2.UndrainNodeResponse(expired=self._backstage.leases.end(request.drain_id))

    async def SetExecutor(self, request: node_pb2.SetExecutorRequest, context: Any) -> types_pb2.BlockDriverState:  # noqa: N802
        node = self._graph.get(request.node_name)
        if not request.executor:
            raise InvalidArgument("executor", "the name of an executor", "nothing")
        await self._graph.executors.move_for_good(node, request.executor)
        return await full_state(node)

    async def SetNodeActive(  # noqa: N802
        self, request: node_pb2.SetNodeActiveRequest, context: Any
    ) -> types_pb2.BlockDriverState:
        node = self._graph.get(request.node_name)
        await (activate if request.active else inactivate)(self._graph, node)
        # Not taken back if it cannot be written: another process may hold the image by now, or count on our lock.
        await self._graph.kept.keep(lambda: None, *subtree(node))
        return await full_state(node)

    async def SendIoctl(  # noqa: N802
        self, request: node_pb2.SendIoctlRequest, context: Any
    ) -> node_pb2.SendIoctlResponse:
        node = self._graph.get(request.node_name)
        result, argument = await send_ioctl(self._graph, node, request.request, request.argument)
        return node_pb2.SendIoctlResponse(result=result, argument=argument)
