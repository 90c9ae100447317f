"""NodeService, third part: image files that are not open."""

from typing import Any

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph import images
from blockyard.node.rpc.calls import Calls
from blockyard.node.rpc.convert import check_response
from blockyard.node.rpc.definitions import image_order, option_value
from blockyard.node.rpc.words import printable, word_of
from blockyard.v1 import node_pb2


class ImageCalls(Calls):
    """Create, look at, guess, check, measure."""

    async def CreateImage(  # noqa: N802
        self, request: node_pb2.CreateImageRequest, context: Any
    ) -> node_pb2.CreateImageResponse:
        async def work() -> node_pb2.CreateImageResponse:
            order = image_order(request)
            await images.create(self._graph, order, validate_only=request.validate_only)
            if request.validate_only:
                return node_pb2.CreateImageResponse()
            return node_pb2.CreateImageResponse(
                image=_info(await images.image_facts(self._graph, order.filename, order.driver))
            )

        return await self._memory.once(request, work)

    async def GetImageInfo(  # noqa: N802
        self, request: node_pb2.GetImageInfoRequest, context: Any
    ) -> node_pb2.GetImageInfoResponse:
        if request.backing_chain:
            found = await images.chain_facts(self._graph, request.filename, request.format)
        else:
            found = [await images.image_facts(self._graph, request.filename, request.format)]
        return node_pb2.GetImageInfoResponse(images=map(_info, found))

    async def ProbeImage(  # noqa: N802
        self, request: node_pb2.ProbeImageRequest, context: Any
    ) -> node_pb2.ProbeImageResponse:
        found = await images.probe(self._graph, request.filename)
        return node_pb2.ProbeImageResponse(
            guesses=map(_guess, found.formats), protocol_guesses=map(_guess, found.protocols), kind=found.kind
        )

    async def CheckImage(  # noqa: N802
        self, request: node_pb2.CheckImageRequest, context: Any
    ) -> node_pb2.CheckImageResponse:
        if not request.format:
            raise InvalidArgument("format", "the image's format", "nothing")
        repair = word_of(node_pb2.CheckImageRequest.Repair, request.repair, "repair")
        report = await images.check(
            self._graph,
            request.filename,
            request.format,
            fix_leaks=repair in ("leaks", "all"),
            fix_errors=repair == "all",
        )
        return check_response(report)

    async def MeasureImage(  # noqa: N802
        self, request: node_pb2.MeasureImageRequest, context: Any
    ) -> node_pb2.MeasureImageResponse:
        kind = request.WhichOneof("source")
        if kind is None:
            raise InvalidArgument("source", "a node or a size", "nothing")
        source = self._graph.get(request.node_name) if kind == "node_name" else None
        target = node_pb2.CreateImageRequest()
        target.CopyFrom(request.target)
        target.size_bytes = request.size_bytes
        required, whole = await images.measure(self._graph, image_order(target), source)
        return node_pb2.MeasureImageResponse(required_bytes=required, fully_allocated_bytes=whole)


def _guess(found: images.Guess) -> node_pb2.ProbeImageResponse.Guess:
    return node_pb2.ProbeImageResponse.Guess(driver=found.driver, score=found.score)


def _info(facts: images.ImageFacts) -> node_pb2.ImageInfo:
    info, backing = facts.info, facts.backing
    return node_pb2.ImageInfo(
        filename=facts.filename,
        format=facts.driver,
        size_bytes=facts.size,
        allocated_bytes=info.allocated_bytes,
        cluster_size_bytes=info.cluster_size,
        backing_file=printable(backing.filename) if backing else "",
        backing_format=backing.format if backing else "",
        dirty=info.is_dirty,
        corrupt=info.is_corrupt,
        encrypted=info.encrypted,
        format_specific={name: option_value(value) for name, value in info.specific.items()},
    )
