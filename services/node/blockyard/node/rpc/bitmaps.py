"""BitmapService: dirty bitmaps of the graph's nodes."""

from collections.abc import AsyncIterator
from typing import Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph import recording
from blockyard.node.graph.checkpoint_names import refuse_checkpoint
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.temporary import borrowed
from blockyard.node.rpc.checkpoints import CheckpointCalls
from blockyard.node.rpc.convert import dirty_bitmap
from blockyard.node.rpc.memory import RequestMemory
from blockyard.v1 import bitmap_pb2, types_pb2
from blockyard.v1.bitmap_pb2_grpc import BitmapServiceServicer

DEFAULT_EXTENTS: Final = 1000
MAX_EXTENTS: Final = 10_000


class BitmapServicer(CheckpointCalls, BitmapServiceServicer):
    """Named bitmaps."""

    def __init__(self, graph: Graph, memory: RequestMemory) -> None:
        self._graph = graph
        self._memory = memory

    async def CreateBitmap(self, request: bitmap_pb2.CreateBitmapRequest, context: Any) -> types_pb2.DirtyBitmap:  # noqa: N802
        async def work() -> types_pb2.DirtyBitmap:
            refuse_checkpoint(request.name)
            node = self._graph.get(request.node_name)
            bitmap = await recording.create_durably(
                self._graph,
                node,
                request.name,
                request.granularity_bytes,
                recording=not request.disabled,
                persistent=request.persistent,
            )
            return dirty_bitmap(node, bitmap)

        return await self._memory.once(request, work)

    async def GetBitmap(self, request: bitmap_pb2.GetBitmapRequest, context: Any) -> types_pb2.DirtyBitmap:  # noqa: N802
        node = self._graph.get(request.node_name)
        return dirty_bitmap(node, recording.find(node, request.name))

    async def ListBitmaps(  # noqa: N802
        self, request: bitmap_pb2.ListBitmapsRequest, context: Any
    ) -> bitmap_pb2.ListBitmapsResponse:
        names = [request.node_name] if request.node_name else sorted(self._graph.nodes)
        nodes = [self._graph.get(name) for name in names]
        return bitmap_pb2.ListBitmapsResponse(
            bitmaps=[
                dirty_bitmap(node, node.bitmaps[name]) for node in nodes for name in sorted(node.bitmaps) if name
            ]
        )

    async def DeleteBitmap(  # noqa: N802
        self, request: bitmap_pb2.DeleteBitmapRequest, context: Any
    ) -> bitmap_pb2.DeleteBitmapResponse:
        refuse_checkpoint(request.name)
        node = self._graph.get(request.node_name)
        if request.name in node.bitmaps or not request.allow_missing:
            await recording.delete_durably(self._graph, node, request.name)
        return bitmap_pb2.DeleteBitmapResponse()

    async def ClearBitmap(self, request: bitmap_pb2.ClearBitmapRequest, context: Any) -> types_pb2.DirtyBitmap:  # noqa: N802
        refuse_checkpoint(request.name)
        node = self._graph.get(request.node_name)
        async with recording.changing(self._graph, node, request.name):
            bitmap = recording.clear(self._graph, node, request.name)
        return dirty_bitmap(node, bitmap)

    async def SetBitmapRecording(  # noqa: N802
        self, request: bitmap_pb2.SetBitmapRecordingRequest, context: Any
    ) -> types_pb2.DirtyBitmap:
        refuse_checkpoint(request.name)
        node = self._graph.get(request.node_name)
        async with recording.changing(self._graph, node, request.name):
            before = recording.find(node, request.name).recording
            bitmap = recording.set_recording(self._graph, node, request.name, request.recording)

            def undo() -> None:
                recording.set_recording(self._graph, node, request.name, before)

            await self._graph.kept.commit(undo)
        return dirty_bitmap(node, bitmap)

    async def MergeBitmaps(self, request: bitmap_pb2.MergeBitmapsRequest, context: Any) -> types_pb2.DirtyBitmap:  # noqa: N802
        refuse_checkpoint(request.target.name)
        node = self._graph.get(request.target.node_name)
        async with recording.changing(self._graph, node, request.target.name):
            sources = [recording.find(self._graph.get(item.node_name), item.name) for item in request.sources]
            bitmap = recording.merge(self._graph, node, request.target.name, sources)
        return dirty_bitmap(node, bitmap)

    async def StreamDirtyExtents(  # noqa: N802
        self, request: bitmap_pb2.StreamDirtyExtentsRequest, context: Any
    ) -> AsyncIterator[bitmap_pb2.StreamDirtyExtentsResponse]:
        count = request.max_results or DEFAULT_EXTENTS
        if not 1 <= count <= MAX_EXTENTS:
            raise InvalidArgument("max_results", f"1 to {MAX_EXTENTS}", str(count))
        with borrowed(self._graph, request.node_name, "StreamDirtyExtents", writable=False) as user:
            bitmap = recording.find(user.node, request.name)
            bitmap.require_consistent()
            offset, size = request.offset_bytes, user.size
            length = request.length_bytes or max(0, size - offset)
            user.check(offset, length)
            found: list[types_pb2.ByteRange] = []
            sent = False
            for extent in bitmap.bits.extents(offset, offset + length):
                found.append(types_pb2.ByteRange(offset_bytes=extent.offset, length_bytes=extent.length))
                if len(found) == count:
                    yield bitmap_pb2.StreamDirtyExtentsResponse(extents=found, size_bytes=size)
                    found, sent = [], True
            if found or not sent:
                yield bitmap_pb2.StreamDirtyExtentsResponse(extents=found, size_bytes=size)

    async def HashBitmap(  # noqa: N802
        self, request: bitmap_pb2.HashBitmapRequest, context: Any
    ) -> bitmap_pb2.HashBitmapResponse:
        bitmap = recording.find(self._graph.get(request.node_name), request.name)
        bitmap.require_consistent()
        return bitmap_pb2.HashBitmapResponse(sha256=bitmap.bits.sha256())
