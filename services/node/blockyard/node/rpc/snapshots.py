"""SnapshotService: snapshots inside images, and the VM state beside them."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from blockyard.base.errors import InvalidArgument
from blockyard.base.ranges import ByteRange
from blockyard.node.graph import comparing
from blockyard.node.graph import internal_snapshots as snapshots
from blockyard.node.graph.comparing import Batch, Point
from blockyard.node.graph.graph import Graph
from blockyard.node.graph.overlays import CreateOverlay
from blockyard.node.graph.transaction import run
from blockyard.node.interface.internal_snapshots import SnapshotFacts, SnapshotWish
from blockyard.node.rpc.convert import duration, full_state, timestamp
from blockyard.node.rpc.memory import RequestMemory
from blockyard.node.rpc.overlays import overlay_wish
from blockyard.node.rpc.words import printable
from blockyard.v1 import bitmap_pb2, control_pb2, types_pb2
from blockyard.v1.control_pb2_grpc import SnapshotServiceServicer

STATE_PIECE: Final = 1 << 20
"""Bytes of VM state in one message, at most."""

DEFAULT_EXTENTS: Final = 1000
MAX_EXTENTS: Final = 10_000
"""Of one message."""


class SnapshotServicer(SnapshotServiceServicer):
    """See control.proto."""

    def __init__(self, graph: Graph, memory: RequestMemory) -> None:
        self._graph = graph
        self._memory = memory

    async def CreateSnapshot(  # noqa: N802
        self, request: control_pb2.CreateSnapshotRequest, context: Any
    ) -> control_pb2.Snapshot:
        async def work() -> control_pb2.Snapshot:
            node = self._graph.get(request.snapshot.node_name)
            wish = snapshot_wish(request, self._graph.environment.clock.wall_ns())
            return _message(node.name, await snapshots.create(self._graph, node, wish))

        return await self._memory.once(request, work)

    async def RevertToSnapshot(  # noqa: N802
        self, request: control_pb2.RevertToSnapshotRequest, context: Any
    ) -> control_pb2.RevertToSnapshotResponse:
        await snapshots.revert(self._graph, self._graph.get(request.node_name), request.snapshot)
        return control_pb2.RevertToSnapshotResponse()

    async def DeleteSnapshot(  # noqa: N802
        self, request: control_pb2.DeleteSnapshotRequest, context: Any
    ) -> control_pb2.Snapshot:
        node = self._graph.get(request.node_name)
        return _message(node.name, await snapshots.delete(self._graph, node, request.id, request.name))

    async def ListSnapshots(  # noqa: N802
        self, request: control_pb2.ListSnapshotsRequest, context: Any
    ) -> control_pb2.ListSnapshotsResponse:
        node = self._graph.get(request.node_name)
        found = snapshots.image_of(node).snapshots()
        return control_pb2.ListSnapshotsResponse(snapshots=[_message(node.name, each) for each in found])

    async def OpenSnapshot(  # noqa: N802
        self, request: control_pb2.OpenSnapshotRequest, context: Any
    ) -> types_pb2.BlockDriverState:
        node = self._graph.get(request.node_name)
        return await full_state(
            await snapshots.open_node(self._graph, node, request.snapshot, request.new_node_name)
        )

    async def SaveVmState(  # noqa: N802
        self, requests: AsyncIterator[control_pb2.SaveVmStateRequest], context: Any
    ) -> control_pb2.SaveVmStateResponse:
        async for first in requests:
            node = self._graph.get(first.node_name)
            written = await snapshots.save_state(self._graph, node, _pieces(first, requests))
            return control_pb2.SaveVmStateResponse(written_bytes=written)
        raise InvalidArgument("node_name", "a first message that names the node", "no message")

    async def LoadVmState(  # noqa: N802
        self, request: control_pb2.LoadVmStateRequest, context: Any
    ) -> AsyncIterator[control_pb2.LoadVmStateResponse]:
        node = self._graph.get(request.node_name)
        async for piece in snapshots.load_state(node, request.snapshot, request.length_bytes):
            for at in range(0, len(piece), STATE_PIECE):
                yield control_pb2.LoadVmStateResponse(data=piece[at : at + STATE_PIECE])

    async def CreateOverlays(  # noqa: N802
        self, request: control_pb2.CreateOverlaysRequest, context: Any
    ) -> control_pb2.CreateOverlaysResponse:
        async def work() -> control_pb2.CreateOverlaysResponse:
            if not request.overlays:
                raise InvalidArgument("overlays", "at least one", "none")
            made = [CreateOverlay(overlay_wish(each)) for each in request.overlays]
            outcome = await run(self._graph, made)
            return control_pb2.CreateOverlaysResponse(
                nodes=[await full_state(each.node) for each in made],
                pause=duration(outcome.pause_ns),
                skew=duration(outcome.skew_ns),
            )

        return await self._memory.once(request, work)

    async def StreamAllocatedExtents(  # noqa: N802
        self, request: control_pb2.StreamAllocatedExtentsRequest, context: Any
    ) -> AsyncIterator[control_pb2.StreamAllocatedExtentsResponse]:
        found = comparing.allocated(self._graph, _point(request.point), *extents_wanted(request))
        async with aclosing(found) as batches:
            async for batch in batches:
                yield control_pb2.StreamAllocatedExtentsResponse(**_batch(batch))

    async def StreamChangedExtents(  # noqa: N802
        self, request: control_pb2.StreamChangedExtentsRequest, context: Any
    ) -> AsyncIterator[control_pb2.StreamChangedExtentsResponse]:
        points = (_point(request.base), _point(request.target))
        async with aclosing(comparing.changed(self._graph, *points, *extents_wanted(request))) as batches:
            async for batch in batches:
                yield control_pb2.StreamChangedExtentsResponse(**_batch(batch))


def _point(point: control_pb2.PointInTime) -> Point:
    return Point(point.node_name, point.snapshot)


def extents_wanted(
    request: control_pb2.StreamAllocatedExtentsRequest
    | control_pb2.StreamChangedExtentsRequest
    | bitmap_pb2.StreamCheckpointDeltaRequest,
) -> tuple[ByteRange, int]:
    """The range that a stream of extents is about, 0 being the end; and how many extents a message has."""
    count = request.max_results or DEFAULT_EXTENTS
    if not 1 <= count <= MAX_EXTENTS:
        raise InvalidArgument("max_results", f"1 to {MAX_EXTENTS}", str(count))
    for field in ("offset_bytes", "length_bytes"):
        if getattr(request, field) < 0:
            raise InvalidArgument(field, "0 or more", str(getattr(request, field)))
    return ByteRange(request.offset_bytes, request.length_bytes), count


def _batch(batch: Batch) -> dict[str, Any]:
    extents = [
        control_pb2.SnapshotExtent(offset_bytes=each.offset, length_bytes=each.length, zero=each.zero)
        for each in batch.extents
    ]
    return {"extents": extents, "next_offset_bytes": batch.next_offset, "size_bytes": batch.size}


async def _pieces(
    first: control_pb2.SaveVmStateRequest, requests: AsyncIterator[control_pb2.SaveVmStateRequest]
) -> AsyncIterator[bytes]:
    yield first.data
    async for request in requests:
        if request.node_name not in ("", first.node_name):
            raise InvalidArgument("node_name", f"{first.node_name!r} or nothing", repr(request.node_name))
        yield request.data


def snapshot_wish(request: control_pb2.CreateSnapshotRequest, now_ns: int) -> SnapshotWish:
    """What a client wants. Raises InvalidArgument for what the image decides."""
    given = request.snapshot
    if given.id or given.HasField("size_bytes"):
        raise InvalidArgument("snapshot", "no id and no size_bytes: the image gives them", "one of them")
    return SnapshotWish(
        given.name,
        # ToNanoseconds raises for what is no time; a number is judged where all of them are.
        _ns(given.create_time) if given.HasField("create_time") else now_ns,
        _ns(given.vm_clock),
        given.vm_state_bytes,
        given.icount if given.HasField("icount") else -1,
    )


def _ns(time: Timestamp | Duration) -> int:
    return time.seconds * 10**9 + time.nanos


def _message(node_name: str, facts: SnapshotFacts) -> control_pb2.Snapshot:
    return control_pb2.Snapshot(
        id=printable(facts.identifier),
        name=printable(facts.name),
        node_name=node_name,
        vm_state_bytes=min(facts.vm_state_bytes, (1 << 63) - 1),
        create_time=timestamp(facts.time_ns),
        vm_clock=duration(facts.vm_clock_ns),
        icount=facts.icount if facts.icount >= 0 else None,
        size_bytes=min(facts.disk_size, (1 << 63) - 1),
    )
