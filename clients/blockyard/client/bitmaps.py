"""Dirty bitmaps: `client.bitmaps`."""

from collections.abc import AsyncIterator, Sequence

from blockyard.base.ranges import ByteRange
from blockyard.client.calls import Service
from blockyard.v1 import bitmap_pb2 as bitmap
from blockyard.v1.types_pb2 import DirtyBitmap


class Bitmaps:
    """Names, merges and reads what was written since a point in time."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def add(
        self,
        node_name: str,
        name: str,
        *,
        granularity_bytes: int = 0,
        persistent: bool = False,
        disabled: bool = False,
        request_id: str = "",
    ) -> DirtyBitmap:
        """Begin to record the writes of a node."""
        request = bitmap.CreateBitmapRequest(
            node_name=node_name,
            name=name,
            granularity_bytes=granularity_bytes,
            persistent=persistent,
            disabled=disabled,
            request_id=request_id,
        )
        return await self._service.unary("CreateBitmap", request, DirtyBitmap)

    async def get(self, node_name: str, name: str) -> DirtyBitmap:
        """One bitmap, without its bits."""
        request = bitmap.GetBitmapRequest(node_name=node_name, name=name)
        return await self._service.unary("GetBitmap", request, DirtyBitmap)

    async def list(self, node_name: str = "") -> Sequence[DirtyBitmap]:
        """Bitmaps of a node, or of all nodes."""
        request = bitmap.ListBitmapsRequest(node_name=node_name)
        return tuple((await self._service.unary("ListBitmaps", request, bitmap.ListBitmapsResponse)).bitmaps)

    async def remove(self, node_name: str, name: str, *, allow_missing: bool = False) -> None:
        """Forget a bitmap."""
        request = bitmap.DeleteBitmapRequest(node_name=node_name, name=name, allow_missing=allow_missing)
        await self._service.unary("DeleteBitmap", request, bitmap.DeleteBitmapResponse)

    async def clear(self, node_name: str, name: str) -> DirtyBitmap:
        """Mark nothing dirty."""
        request = bitmap.ClearBitmapRequest(node_name=node_name, name=name)
        return await self._service.unary("ClearBitmap", request, DirtyBitmap)

    async def record(self, node_name: str, name: str, recording: bool) -> DirtyBitmap:
        """Record, or stop recording, new writes."""
        request = bitmap.SetBitmapRecordingRequest(node_name=node_name, name=name, recording=recording)
        return await self._service.unary("SetBitmapRecording", request, DirtyBitmap)

    async def merge(self, target: tuple[str, str], sources: Sequence[tuple[str, str]]) -> DirtyBitmap:
        """Mark dirty in one bitmap what is dirty in others; each is (node name, bitmap name)."""
        request = bitmap.MergeBitmapsRequest(
            target=bitmap.BitmapReference(node_name=target[0], name=target[1]),
            sources=[bitmap.BitmapReference(node_name=source[0], name=source[1]) for source in sources],
        )
        return await self._service.unary("MergeBitmaps", request, DirtyBitmap)

    async def sha256(self, node_name: str, name: str) -> str:
        """A checksum in hex of what the bitmap says, the same as QEMU's."""
        request = bitmap.HashBitmapRequest(node_name=node_name, name=name)
        return (await self._service.unary("HashBitmap", request, bitmap.HashBitmapResponse)).sha256

    async def extents(
        self, node_name: str, name: str, offset: int = 0, length: int = 0
    ) -> AsyncIterator[ByteRange]:
        """The dirty extents in order; a length of 0 is to the end."""
        request = bitmap.StreamDirtyExtentsRequest(
            node_name=node_name, name=name, offset_bytes=offset, length_bytes=length
        )
        async for response in self._service.stream(
            "StreamDirtyExtents", request, bitmap.StreamDirtyExtentsResponse
        ):
            for extent in response.extents:
                yield ByteRange(extent.offset_bytes, extent.length_bytes)
