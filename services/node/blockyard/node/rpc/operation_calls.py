"""NodeService, fifth part: long operations on the images of open nodes, each a stream of progress and a result."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph.amending import amend
from blockyard.node.graph.checking import check_node
from blockyard.node.graph.checksumming import Checksum, Scrub, checksum, scrub
from blockyard.node.graph.compacting import compact
from blockyard.node.graph.contents import Comparison, compare
from blockyard.node.graph.rebasing import rebase
from blockyard.node.interface.operations import Progress
from blockyard.node.rpc.calls import Calls
from blockyard.node.rpc.convert import check_response, full_state
from blockyard.node.rpc.definitions import plain
from blockyard.node.rpc.telling import told
from blockyard.node.rpc.words import word_of
from blockyard.v1 import node_pb2

Response = TypeVar("Response")

_DIFFERENCES: Final = {
    "": node_pb2.CompareNodesResponse.Result.DIFFERENCE_UNSPECIFIED,
    "content": node_pb2.CompareNodesResponse.Result.DIFFERENCE_CONTENT,
    "allocation": node_pb2.CompareNodesResponse.Result.DIFFERENCE_ALLOCATION,
    "size": node_pb2.CompareNodesResponse.Result.DIFFERENCE_SIZE,
}

_DAMAGES: Final = {
    "changed": node_pb2.ScrubImageResponse.Extent.DAMAGE_CHANGED,
    "unreadable": node_pb2.ScrubImageResponse.Extent.DAMAGE_UNREADABLE,
}


class OperationCalls(Calls):
    """Amend, rebase, check, compare, sum up, scrub, compact."""

    async def AmendImage(  # noqa: N802
        self, request: node_pb2.AmendImageRequest, context: Any
    ) -> AsyncIterator[node_pb2.AmendImageResponse]:
        node = self._graph.get(request.node_name)
        options = {name.replace("-", "_"): plain(value) for name, value in request.options.items()}

        async def work(progress: Progress) -> node_pb2.AmendImageResponse:
            await amend(
                self._graph, node, options, progress, force=request.force, validate_only=request.validate_only
            )
            return node_pb2.AmendImageResponse(node=await full_state(node))

        async for response in self._streamed(work, node_pb2.AmendImageResponse):
            yield response

    async def RebaseImage(  # noqa: N802
        self, request: node_pb2.RebaseImageRequest, context: Any
    ) -> AsyncIterator[node_pb2.RebaseImageResponse]:
        node = self._graph.get(request.node_name)
        backing = self._graph.get(request.backing_node_name) if request.backing_node_name else None

        async def work(progress: Progress) -> node_pb2.RebaseImageResponse:
            copied = await rebase(
                self._graph,
                node,
                backing,
                progress,
                backing_file=request.backing_file,
                backing_format=request.backing_format,
                unsafe=request.unsafe,
            )
            return node_pb2.RebaseImageResponse(node=await full_state(node), copied_bytes=copied)

        async for response in self._streamed(work, node_pb2.RebaseImageResponse):
            yield response

    async def CheckNode(  # noqa: N802
        self, request: node_pb2.CheckNodeRequest, context: Any
    ) -> AsyncIterator[node_pb2.CheckNodeResponse]:
        node = self._graph.get(request.node_name)
        repair = word_of(node_pb2.CheckImageRequest.Repair, request.repair, "repair")

        async def work(progress: Progress) -> node_pb2.CheckNodeResponse:
            report = await check_node(
                self._graph, node, progress, fix_leaks=repair in ("leaks", "all"), fix_errors=repair == "all"
            )
            return node_pb2.CheckNodeResponse(report=check_response(report))

        async for response in self._streamed(work, node_pb2.CheckNodeResponse):
            yield response

    async def CompareNodes(  # noqa: N802
        self, request: node_pb2.CompareNodesRequest, context: Any
    ) -> AsyncIterator[node_pb2.CompareNodesResponse]:
        first, second = self._graph.get(request.first_node_name), self._graph.get(request.second_node_name)

        async def work(progress: Progress) -> node_pb2.CompareNodesResponse:
            found = await compare(
                first,
                second,
                progress,
                strict=request.strict,
                offset=request.offset_bytes,
                length=request.length_bytes,
            )
            return node_pb2.CompareNodesResponse(result=_comparison(found))

        async for response in self._streamed(work, node_pb2.CompareNodesResponse):
            yield response

    async def ChecksumImage(  # noqa: N802
        self, request: node_pb2.ChecksumImageRequest, context: Any
    ) -> AsyncIterator[node_pb2.ChecksumImageResponse]:
        node = self._graph.get(request.node_name)

        async def work(progress: Progress) -> node_pb2.ChecksumImageResponse:
            found = await checksum(
                self._graph,
                node,
                progress,
                snapshot=request.snapshot,
                chunk=request.chunk_bytes,
                filename=request.filename,
                overwrite=request.overwrite,
            )
            return node_pb2.ChecksumImageResponse(result=_checksum(found))

        async for response in self._streamed(work, node_pb2.ChecksumImageResponse):
            yield response

    async def ScrubImage(  # noqa: N802
        self, request: node_pb2.ScrubImageRequest, context: Any
    ) -> AsyncIterator[node_pb2.ScrubImageResponse]:
        node = self._graph.get(request.node_name)
        if not request.filename:
            raise InvalidArgument("filename", "the file that ChecksumImage wrote", "nothing")

        async def work(progress: Progress) -> node_pb2.ScrubImageResponse:
            found = await scrub(self._graph, node, request.filename, progress, snapshot=request.snapshot)
            return node_pb2.ScrubImageResponse(result=_scrub(found))

        async for response in self._streamed(work, node_pb2.ScrubImageResponse):
            yield response

    async def CompactImage(  # noqa: N802
        self, request: node_pb2.CompactImageRequest, context: Any
    ) -> AsyncIterator[node_pb2.CompactImageResponse]:
        node = self._graph.get(request.node_name)

        async def work(progress: Progress) -> node_pb2.CompactImageResponse:
            found = await compact(self._graph, node, progress, detect_zeroes=request.detect_zeroes)
            result = node_pb2.CompactImageResponse.Result(
                before_bytes=found.before,
                after_bytes=found.after,
                leaked_clusters=found.leaked,
                zeroed_bytes=found.zeroed,
                moved_bytes=found.moved,
            )
            return node_pb2.CompactImageResponse(result=result)

        async for response in self._streamed(work, node_pb2.CompactImageResponse):
            yield response

    async def _streamed(
        self, work: Callable[[Progress], Awaitable[Response]], kind: Callable[..., Response]
    ) -> AsyncIterator[Response]:
        async with aclosing(told(self._graph.environment.clock, work)) as steps:
            async for step in steps:
                yield kind(progress=step) if isinstance(step, node_pb2.OperationProgress) else step


def _checksum(found: Checksum) -> node_pb2.ChecksumImageResponse.Result:
    return node_pb2.ChecksumImageResponse.Result(
        checksum=found.root.hex(),
        size_bytes=found.shape.size,
        chunk_bytes=found.shape.chunk,
        zero_chunks=found.zero_chunks,
        hashed_bytes=found.hashed_bytes,
        file_bytes=found.file_bytes,
    )


def _scrub(found: Scrub) -> node_pb2.ScrubImageResponse.Result:
    return node_pb2.ScrubImageResponse.Result(
        intact=not found.damaged,
        extents=[
            node_pb2.ScrubImageResponse.Extent(
                offset_bytes=each.offset,
                length_bytes=each.length,
                damage=_DAMAGES[each.kind],
                node_name=each.layer,
                host_offset_bytes=each.host_offset,
                detail=each.why,
            )
            for each in found.damages
        ],
        damaged_bytes=found.damaged,
        checked_bytes=found.checked,
        expected_checksum=found.expected.hex(),
        checksum=found.found.hex(),
        truncated=found.truncated,
    )


def _comparison(found: Comparison) -> node_pb2.CompareNodesResponse.Result:
    return node_pb2.CompareNodesResponse.Result(
        identical=not found.difference,
        difference=_DIFFERENCES[found.difference],
        offset_bytes=found.offset,
        first_size_bytes=found.first_size,
        second_size_bytes=found.second_size,
        compared_bytes=found.compared,
    )
