"""Long operations on the images of open nodes: `client.operations`.

Each call returns when the work is done, and tells how far it is through `progress`. To cancel the call (its task,
or by a timeout around it) ends the work; the image is then as it was or as it will be.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf.message import Message

from blockyard.base.errors import InternalError
from blockyard.client.calls import Service
from blockyard.client.definitions import Plain, option_value
from blockyard.client.words import to_number
from blockyard.v1 import node_pb2 as node
from blockyard.v1.types_pb2 import BlockDriverState

Response = TypeVar("Response", bound=Message)

OnProgress = Callable[[node.OperationProgress], None]


class Operations:
    """Amends, rebases, checks, compares, sums up, scrubs and compacts."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def amend(
        self,
        node_name: str,
        *,
        force: bool = False,
        validate_only: bool = False,
        progress: OnProgress | None = None,
        timeout: float | None = None,
        **options: Plain,
    ) -> BlockDriverState:
        """Change options that an image's file fixes, under QEMU's names: `compat`, `refcount_bits` ..."""
        request = node.AmendImageRequest(
            node_name=node_name,
            options={name: option_value(value) for name, value in options.items()},
            force=force,
            validate_only=validate_only,
        )
        return (await self._last("AmendImage", request, node.AmendImageResponse, progress, timeout)).node

    async def rebase(
        self,
        node_name: str,
        backing_node_name: str = "",
        *,
        backing_file: str = "",
        backing_format: str = "",
        unsafe: bool = False,
        progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> node.RebaseImageResponse:
        """Give an image another backing file (none by default) and its guests the same content.

        `unsafe` copies nothing: for a backing file that was only moved or renamed.
        """
        request = node.RebaseImageRequest(
            node_name=node_name,
            backing_node_name=backing_node_name,
            backing_file=backing_file,
            backing_format=backing_format,
            unsafe=unsafe,
        )
        return await self._last("RebaseImage", request, node.RebaseImageResponse, progress, timeout)

    async def check(
        self,
        node_name: str,
        *,
        repair: str = "",
        progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> node.CheckImageResponse:
        """Compare an open image's metadata with itself; `repair` is leaks or all. Guests wait meanwhile."""
        request = node.CheckNodeRequest(
            node_name=node_name, repair=to_number(node.CheckImageRequest.Repair, repair, "repair")
        )
        return (await self._last("CheckNode", request, node.CheckNodeResponse, progress, timeout)).report

    async def compare(
        self,
        first_node_name: str,
        second_node_name: str,
        *,
        strict: bool = False,
        offset: int = 0,
        length: int = 0,
        progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> node.CompareNodesResponse.Result:
        """Whether two nodes show the same; `strict` also compares sizes and allocation."""
        request = node.CompareNodesRequest(
            first_node_name=first_node_name,
            second_node_name=second_node_name,
            strict=strict,
            offset_bytes=offset,
            length_bytes=length,
        )
        return (await self._last("CompareNodes", request, node.CompareNodesResponse, progress, timeout)).result

    async def checksum(
        self,
        node_name: str,
        *,
        snapshot: str = "",
        chunk_bytes: int = 0,
        filename: str = "",
        overwrite: bool = False,
        progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> node.ChecksumImageResponse.Result:
        """What names the content of a disk or snapshot; `filename` keeps the hashes of its chunks for `scrub`."""
        request = node.ChecksumImageRequest(
            node_name=node_name,
            snapshot=snapshot,
            chunk_bytes=chunk_bytes,
            filename=filename,
            overwrite=overwrite,
        )
        return (await self._last("ChecksumImage", request, node.ChecksumImageResponse, progress, timeout)).result

    async def scrub(
        self,
        node_name: str,
        filename: str,
        *,
        snapshot: str = "",
        progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> node.ScrubImageResponse.Result:
        """Compare a disk or snapshot with the hashes in a file: which extents are damaged."""
        request = node.ScrubImageRequest(node_name=node_name, snapshot=snapshot, filename=filename)
        return (await self._last("ScrubImage", request, node.ScrubImageResponse, progress, timeout)).result

    async def compact(
        self,
        node_name: str,
        *,
        detect_zeroes: bool = False,
        progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> node.CompactImageResponse.Result:
        """Make an image's file as short as what is in it; `detect_zeroes` reads all data for that."""
        request = node.CompactImageRequest(node_name=node_name, detect_zeroes=detect_zeroes)
        return (await self._last("CompactImage", request, node.CompactImageResponse, progress, timeout)).result

    async def _last(
        self,
        method: str,
        request: Message,
        response: type[Response],
        progress: OnProgress | None,
        timeout: float | None,
    ) -> Response:
        """The answer that is no progress."""
        async with aclosing(self._answers(method, request, response, progress, timeout)) as answers:
            async for answer in answers:
                return answer
        raise InternalError(detail=f"{method} ended without a result")

    async def _answers(
        self,
        method: str,
        request: Message,
        response: type[Response],
        progress: OnProgress | None,
        timeout: float | None,
    ) -> AsyncGenerator[Response, None]:
        messages: Any = self._service.stream(method, request, response, timeout)
        async with aclosing(messages) as stream:
            async for message in stream:
                if message.WhichOneof("step") != "progress":
                    yield message
                elif progress is not None:
                    progress(message.progress)
