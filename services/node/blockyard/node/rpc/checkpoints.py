"""The calls of BitmapService about checkpoints."""

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from blockyard.base.errors import InvalidArgument, MissingOption
from blockyard.base.ranges import ByteRange
from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.graph.checkpoints import Checkpoint, Promise
from blockyard.node.graph.graph import Graph
from blockyard.node.rpc.convert import timestamp
from blockyard.node.rpc.memory import RequestMemory
from blockyard.node.rpc.snapshots import extents_wanted
from blockyard.v1 import bitmap_pb2, control_pb2

Requested = bitmap_pb2.CheckpointReference


class CheckpointCalls:
    """Mixed into BitmapServicer."""

    _graph: Graph
    _memory: RequestMemory

    async def CreateCheckpoint(  # noqa: N802
        self, request: bitmap_pb2.CreateCheckpointRequest, context: Any
    ) -> bitmap_pb2.Checkpoint:
        async def work() -> bitmap_pb2.Checkpoint:
            wanted = request.checkpoint
            if wanted.HasField("create_time") or wanted.sequence:
                raise InvalidArgument("checkpoint", "no create_time and no sequence: they are given", "one of them")
            promise = Promise(_expiry(wanted), list(wanted.holders))
            made = await self._graph.checkpoints.create(
                self._graph.get(wanted.node_name), wanted.consumer, wanted.name, wanted.granularity_bytes, promise
            )
            return _message(made)

        return await self._memory.once(request, work)

    async def GetCheckpoint(  # noqa: N802
        self, request: bitmap_pb2.GetCheckpointRequest, context: Any
    ) -> bitmap_pb2.Checkpoint:
        return _message(self._found(request.checkpoint))

    async def ListCheckpoints(  # noqa: N802
        self, request: bitmap_pb2.ListCheckpointsRequest, context: Any
    ) -> bitmap_pb2.ListCheckpointsResponse:
        names = [request.node_name] if request.node_name else sorted(self._graph.nodes)
        found = [each for name in names for each in self._graph.checkpoints.of(self._graph.get(name))]
        wanted = [_message(each) for each in found if request.consumer in ("", each.consumer)]
        return bitmap_pb2.ListCheckpointsResponse(checkpoints=wanted)

    async def DeleteCheckpoint(  # noqa: N802
        self, request: bitmap_pb2.DeleteCheckpointRequest, context: Any
    ) -> bitmap_pb2.DeleteCheckpointResponse:
        wanted = request.checkpoint
        node = self._graph.get(wanted.node_name)
        names = {(each.consumer, each.name) for each in self._graph.checkpoints.of(node)}
        if (wanted.consumer, wanted.name) in names or not request.allow_missing:
            await self._graph.checkpoints.delete(node, wanted.consumer, wanted.name)
        return bitmap_pb2.DeleteCheckpointResponse()

    async def HoldCheckpoint(  # noqa: N802
        self, request: bitmap_pb2.HoldCheckpointRequest, context: Any
    ) -> bitmap_pb2.Checkpoint:
        wanted = request.checkpoint
        node = self._graph.get(wanted.node_name)
        held = await self._graph.checkpoints.hold(
            node, wanted.consumer, wanted.name, request.holder, release=request.release
        )
        return _message(held)

    async def SetCheckpointExpiry(  # noqa: N802
        self, request: bitmap_pb2.SetCheckpointExpiryRequest, context: Any
    ) -> bitmap_pb2.Checkpoint:
        wanted = request.checkpoint
        node = self._graph.get(wanted.node_name)
        return _message(
            await self._graph.checkpoints.set_expiry(node, wanted.consumer, wanted.name, _expiry(request))
        )

    async def StreamCheckpointDelta(  # noqa: N802
        self, request: bitmap_pb2.StreamCheckpointDeltaRequest, context: Any
    ) -> AsyncIterator[control_pb2.StreamChangedExtentsResponse]:
        wanted, count = extents_wanted(request)
        base, target = self._found(request.base), None
        if request.HasField("target"):
            if request.target.node_name != request.base.node_name:
                raise InvalidArgument("target", f"a checkpoint of {base.node_name}", request.target.node_name)
            target = self._found(request.target)
        changed = self._graph.checkpoints.delta(self._graph.get(base.node_name), base, target)
        for reply in _replies(changed, wanted, count):
            yield reply

    def _found(self, reference: Requested) -> Checkpoint:
        if not reference.node_name:
            raise MissingOption("a checkpoint", "node_name")
        node = self._graph.get(reference.node_name)
        return self._graph.checkpoints.find(node, reference.consumer, reference.name)


def _replies(
    changed: DirtyBitmap, wanted: ByteRange, count: int
) -> "list[control_pb2.StreamChangedExtentsResponse] | Any":
    """At least one; each tells how far it goes."""
    size = changed.size
    if wanted.offset > size:
        raise InvalidArgument("offset_bytes", f"0 to {size}", str(wanted.offset))
    end = min(size, wanted.offset + wanted.length) if wanted.length else size
    reply = control_pb2.StreamChangedExtentsResponse(size_bytes=size)
    for extent in changed.extents(wanted.offset, end):
        reply.extents.add(offset_bytes=extent.offset, length_bytes=extent.length)
        if len(reply.extents) == count:
            reply.next_offset_bytes = extent.end
            yield reply
            reply = control_pb2.StreamChangedExtentsResponse(size_bytes=size)
    reply.next_offset_bytes = end
    yield reply


def _expiry(message: bitmap_pb2.Checkpoint | bitmap_pb2.SetCheckpointExpiryRequest) -> int:
    if not message.HasField("expire_time"):
        return 0
    time: Timestamp = message.expire_time
    if not 0 < time.seconds < 1 << 33 or not 0 <= time.nanos < 10**9:
        raise InvalidArgument("expire_time", "a time after 1970", f"{time.seconds} s")
    return time.ToNanoseconds()


def _message(found: Checkpoint) -> bitmap_pb2.Checkpoint:
    bitmap = found.bitmap
    message = bitmap_pb2.Checkpoint(
        node_name=found.node_name,
        consumer=found.consumer,
        name=found.name,
        create_time=timestamp(found.created_ns),
        holders=found.promise.holders,
        persistent=bitmap.persistent,
        inconsistent=bitmap.inconsistent,
        sequence=found.sequence,
        granularity_bytes=bitmap.bits.granularity,
        changed_bytes=bitmap.bits.dirty_bytes,
    )
    if found.promise.expires_ns:
        message.expire_time.FromNanoseconds(found.promise.expires_ns)
    return message
