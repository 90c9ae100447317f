"""Snapshots inside images, and the VM state beside them: `client.snapshots`.

    await client.snapshots.create("disk", "before-upgrade")
    await client.snapshots.revert("disk", "before-upgrade")
    async for extent in client.snapshots.changed("disk@before-upgrade", "disk"): ...

`node_name` is always the node of the image itself, not a filter above it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Final

from blockyard.client.calls import Service
from blockyard.v1 import control_pb2 as control
from blockyard.v1.control_pb2 import Overlay, PointInTime, Snapshot, SnapshotExtent
from blockyard.v1.types_pb2 import BlockDriverState

_PIECE: Final = 256 * 1024


class Snapshots:
    """Takes, applies, deletes, lists and opens them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(
        self,
        node_name: str,
        name: str,
        *,
        vm_state_bytes: int = 0,
        vm_clock_ns: int = 0,
        icount: int | None = None,
        time_ns: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Snapshot:
        """Take one; with `vm_state_bytes` it takes along what `save_state` stored. `time_ns` 0 is now."""
        wanted = Snapshot(node_name=node_name, name=name, vm_state_bytes=vm_state_bytes, icount=icount)
        if vm_clock_ns:
            wanted.vm_clock.FromNanoseconds(vm_clock_ns)
        if time_ns:
            wanted.create_time.FromNanoseconds(time_ns)
        request = control.CreateSnapshotRequest(snapshot=wanted, request_id=request_id)
        return await self._service.unary("CreateSnapshot", request, Snapshot, timeout)

    async def revert(self, node_name: str, snapshot: str, *, timeout: float | None = None) -> None:
        """Make the disk, its size and the VM state beside it what they were. `snapshot` is an id or a name."""
        request = control.RevertToSnapshotRequest(node_name=node_name, snapshot=snapshot)
        await self._service.unary("RevertToSnapshot", request, control.RevertToSnapshotResponse, timeout)

    async def delete(
        self, node_name: str, name: str = "", *, id: str = "", timeout: float | None = None
    ) -> Snapshot:
        """Forget the one with this name, this id, or both; what it was."""
        request = control.DeleteSnapshotRequest(node_name=node_name, id=id, name=name)
        return await self._service.unary("DeleteSnapshot", request, Snapshot, timeout)

    async def list(self, node_name: str) -> Sequence[Snapshot]:
        """All of an image, oldest first."""
        request = control.ListSnapshotsRequest(node_name=node_name)
        return tuple((await self._service.unary("ListSnapshots", request, control.ListSnapshotsResponse)).snapshots)

    async def open(self, node_name: str, snapshot: str, new_node_name: str = "") -> BlockDriverState:
        """Open one as a read-only node."""
        request = control.OpenSnapshotRequest(node_name=node_name, snapshot=snapshot, new_node_name=new_node_name)
        return await self._service.unary("OpenSnapshot", request, BlockDriverState)

    async def overlay(
        self,
        node_name: str,
        filename: str,
        overlay_node_name: str = "",
        *,
        existing: bool = False,
        absolute: bool = False,
        backing_file: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> control.CreateOverlaysResponse:
        """An overlay snapshot of one node; `overlays` takes them of several at one instant."""
        wanted = Overlay(
            node_name=node_name,
            filename=filename,
            overlay_node_name=overlay_node_name,
            existing=existing,
            backing_file=backing_file,
        )
        if absolute:
            wanted.backing_naming = Overlay.BACKING_NAMING_ABSOLUTE
        return await self.overlays([wanted], request_id=request_id, timeout=timeout)

    async def overlays(
        self, wanted: Iterable[Overlay], *, request_id: str = "", timeout: float | None = None
    ) -> control.CreateOverlaysResponse:
        """Overlay snapshots, all of them or none; the reply tells how long guests were held."""
        request = control.CreateOverlaysRequest(overlays=wanted, request_id=request_id)
        return await self._service.unary("CreateOverlays", request, control.CreateOverlaysResponse, timeout)

    async def save_state(
        self,
        node_name: str,
        content: bytes | bytearray | memoryview | Path,
        *,
        timeout: float | None = None,
    ) -> int:
        """Store a buffer or a file as VM state beside the disk; its bytes."""
        requests = _requests(node_name, content)
        reply = await self._service.upload("SaveVmState", requests, control.SaveVmStateResponse, timeout)
        return reply.written_bytes

    async def load_state(
        self, node_name: str, snapshot: str = "", *, length: int = 0, timeout: float | None = None
    ) -> AsyncIterator[bytes]:
        """The VM state of a snapshot in pieces or, without one, `length` bytes of what is beside the disk."""
        request = control.LoadVmStateRequest(node_name=node_name, snapshot=snapshot, length_bytes=length)
        async for reply in self._service.stream("LoadVmState", request, control.LoadVmStateResponse, timeout):
            yield reply.data

    async def allocated(
        self,
        node_name: str,
        snapshot: str = "",
        *,
        offset: int = 0,
        length: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[SnapshotExtent]:
        """Where a snapshot, or a node without one, holds data; all else reads as zeroes. Length 0: to the end."""
        point = PointInTime(node_name=node_name, snapshot=snapshot)
        request = control.StreamAllocatedExtentsRequest(point=point, offset_bytes=offset, length_bytes=length)
        replies = control.StreamAllocatedExtentsResponse
        async for reply in self._service.stream("StreamAllocatedExtents", request, replies, timeout):
            for extent in reply.extents:
                yield extent

    async def changed(
        self,
        base: PointInTime | str,
        target: PointInTime | str,
        *,
        offset: int = 0,
        length: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[SnapshotExtent]:
        """Where `target` differs from `base`. A string names a node as it is now, or node@snapshot."""
        request = control.StreamChangedExtentsRequest(
            base=point_in_time(base), target=point_in_time(target), offset_bytes=offset, length_bytes=length
        )
        replies = control.StreamChangedExtentsResponse
        async for reply in self._service.stream("StreamChangedExtents", request, replies, timeout):
            for extent in reply.extents:
                yield extent


def point_in_time(point: PointInTime | str) -> PointInTime:
    """Of a string: no name of a node has an @ in it."""
    if isinstance(point, PointInTime):
        return point
    node_name, _, snapshot = point.partition("@")
    return PointInTime(node_name=node_name, snapshot=snapshot)


async def _requests(
    node_name: str, content: bytes | bytearray | memoryview | Path
) -> AsyncGenerator[control.SaveVmStateRequest, None]:
    yield control.SaveVmStateRequest(node_name=node_name)
    if isinstance(content, Path):
        with content.open("rb") as file:
            while piece := file.read(_PIECE):
                yield control.SaveVmStateRequest(data=piece)
        return
    view = memoryview(content)
    for at in range(0, len(view), _PIECE):
        yield control.SaveVmStateRequest(data=bytes(view[at : at + _PIECE]))
