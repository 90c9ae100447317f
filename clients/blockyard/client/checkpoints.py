"""Checkpoints: `client.checkpoints`. Named points in time of a node, each consumer's own, and what changed since.

await client.checkpoints.create("disk", "nightly", "monday")
async for extent in client.checkpoints.delta("disk", "nightly/monday", "nightly/tuesday"): ...
"""

from collections.abc import AsyncIterator, Sequence

from blockyard.client.calls import Service
from blockyard.v1 import bitmap_pb2 as bitmap
from blockyard.v1.bitmap_pb2 import Checkpoint, CheckpointReference
from blockyard.v1.control_pb2 import SnapshotExtent, StreamChangedExtentsResponse


class Checkpoints:
    """Takes, lists, holds and deletes them, and tells what changed between two."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(
        self,
        node_name: str,
        consumer: str,
        name: str,
        *,
        granularity_bytes: int = 0,
        expires_ns: int = 0,
        holders: Sequence[str] = (),
        request_id: str = "",
    ) -> Checkpoint:
        """Remember this instant of a node. `expires_ns`: wall clock; 0 is never."""
        wanted = Checkpoint(
            node_name=node_name,
            consumer=consumer,
            name=name,
            granularity_bytes=granularity_bytes,
            holders=holders,
        )
        if expires_ns:
            wanted.expire_time.FromNanoseconds(expires_ns)
        request = bitmap.CreateCheckpointRequest(checkpoint=wanted, request_id=request_id)
        return await self._service.unary("CreateCheckpoint", request, Checkpoint)

    async def get(self, node_name: str, consumer: str, name: str) -> Checkpoint:
        """One checkpoint."""
        request = bitmap.GetCheckpointRequest(checkpoint=_reference(node_name, consumer, name))
        return await self._service.unary("GetCheckpoint", request, Checkpoint)

    async def list(self, node_name: str = "", consumer: str = "") -> Sequence[Checkpoint]:
        """By node, oldest first."""
        request = bitmap.ListCheckpointsRequest(node_name=node_name, consumer=consumer)
        reply = await self._service.unary("ListCheckpoints", request, bitmap.ListCheckpointsResponse)
        return tuple(reply.checkpoints)

    async def delete(self, node_name: str, consumer: str, name: str, *, allow_missing: bool = False) -> None:
        """Forget one; deltas from older ones stay right."""
        reference = _reference(node_name, consumer, name)
        request = bitmap.DeleteCheckpointRequest(checkpoint=reference, allow_missing=allow_missing)
        await self._service.unary("DeleteCheckpoint", request, bitmap.DeleteCheckpointResponse)

    async def hold(self, node_name: str, consumer: str, name: str, holder: str) -> Checkpoint:
        """Keep it from being deleted and from expiring."""
        reference = _reference(node_name, consumer, name)
        request = bitmap.HoldCheckpointRequest(checkpoint=reference, holder=holder)
        return await self._service.unary("HoldCheckpoint", request, Checkpoint)

    async def release(self, node_name: str, consumer: str, name: str, holder: str) -> Checkpoint:
        """Let it go."""
        reference = _reference(node_name, consumer, name)
        request = bitmap.HoldCheckpointRequest(checkpoint=reference, holder=holder, release=True)
        return await self._service.unary("HoldCheckpoint", request, Checkpoint)

    async def set_expiry(self, node_name: str, consumer: str, name: str, expires_ns: int) -> Checkpoint:
        """When it goes by itself; 0: never."""
        request = bitmap.SetCheckpointExpiryRequest(checkpoint=_reference(node_name, consumer, name))
        if expires_ns:
            request.expire_time.FromNanoseconds(expires_ns)
        return await self._service.unary("SetCheckpointExpiry", request, Checkpoint)

    async def delta(
        self, node_name: str, base: str, target: str = "", *, offset: int = 0, length: int = 0
    ) -> AsyncIterator[SnapshotExtent]:
        """What changed from one checkpoint to another, each CONSUMER/NAME; or until now."""
        request = bitmap.StreamCheckpointDeltaRequest(
            base=_reference(node_name, *base.split("/", 1)), offset_bytes=offset, length_bytes=length
        )
        if target:
            request.target.CopyFrom(_reference(node_name, *target.split("/", 1)))
        stream = self._service.stream("StreamCheckpointDelta", request, StreamChangedExtentsResponse)
        async for reply in stream:
            for extent in reply.extents:
                yield extent


def _reference(node_name: str, consumer: str, name: str = "") -> CheckpointReference:
    return CheckpointReference(node_name=node_name, consumer=consumer, name=name)
