"""Image files that are not open: `client.images`."""

from collections.abc import Sequence
from typing import Any, Final

from blockyard.base.errors import UnknownOption
from blockyard.client.calls import Service
from blockyard.client.definitions import Plain, option_value
from blockyard.client.words import to_number
from blockyard.v1 import drivers_pb2 as drivers
from blockyard.v1 import node_pb2 as node
from blockyard.v1 import types_pb2 as types
from blockyard.v1.drivers_pb2 import NodeDefinition

_CREATE_MESSAGES: Final = {
    "raw": drivers.RawCreateOptions,
    "qcow2": drivers.Qcow2CreateOptions,
    "luks": drivers.LuksCreateOptions,
}


class Images:
    """Creates, inspects and checks image files beneath the storage roots."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(
        self,
        filename: str,
        size_bytes: int = 0,
        *,
        format: str = "raw",
        overwrite: bool = False,
        request_id: str = "",
        validate_only: bool = False,
        timeout: float | None = None,
        **options: Plain,
    ) -> node.ImageInfo:
        """Create an image. `options` are the fields of the format's create options (`cluster_size_bytes`,
        `backing_file`, `preallocation` as a word ...); of a driver without a message, its own options."""
        request = create_request(filename, size_bytes, format, options)
        request.overwrite = overwrite
        request.request_id = request_id
        request.validate_only = validate_only
        return (await self._service.unary("CreateImage", request, node.CreateImageResponse, timeout)).image

    async def info(
        self, filename: str, *, format: str = "", backing_chain: bool = False
    ) -> Sequence[node.ImageInfo]:
        """Header facts of an image, then of its backing images if asked. Without a format it is probed."""
        request = node.GetImageInfoRequest(filename=filename, format=format, backing_chain=backing_chain)
        response = await self._service.unary("GetImageInfo", request, node.GetImageInfoResponse)
        return tuple(response.images)

    async def probe(self, filename: str) -> Sequence[node.ProbeImageResponse.Guess]:
        """What the first bytes look like, best guess first."""
        return tuple((await self.probe_all(filename)).guesses)

    async def probe_all(self, filename: str) -> node.ProbeImageResponse:
        """What the first bytes and the kind of file look like: formats, and the drivers for the file itself."""
        request = node.ProbeImageRequest(filename=filename)
        return await self._service.unary("ProbeImage", request, node.ProbeImageResponse)

    async def parse(self, filename: str) -> NodeDefinition:
        """The definition that a file name or json: specification stands for. Nothing is looked at."""
        request = node.ParseFilenameRequest(filename=filename)
        return (await self._service.unary("ParseFilename", request, node.ParseFilenameResponse)).definition

    async def check(
        self, filename: str, format: str, *, repair: str = "", timeout: float | None = None
    ) -> node.CheckImageResponse:
        """Compare an image's metadata with itself; `repair` is leaks or all."""
        request = node.CheckImageRequest(
            filename=filename,
            format=format,
            repair=to_number(node.CheckImageRequest.Repair, repair, "repair"),
        )
        return await self._service.unary("CheckImage", request, node.CheckImageResponse, timeout)

    async def measure(
        self,
        format: str = "qcow2",
        *,
        size_bytes: int = 0,
        node_name: str = "",
        timeout: float | None = None,
        **options: Plain,
    ) -> node.MeasureImageResponse:
        """How large an image would become: for an empty disk of a size, or for a node's content."""
        request = node.MeasureImageRequest(target=create_request("", 0, format, options))
        if node_name:
            request.node_name = node_name
        else:
            request.size_bytes = size_bytes
        return await self._service.unary("MeasureImage", request, node.MeasureImageResponse, timeout)


def create_request(filename: str, size_bytes: int, format: str, options: dict[str, Any]) -> node.CreateImageRequest:
    """The request that creates an image, with unknown options left to the service to refuse where it can."""
    request = node.CreateImageRequest(filename=filename, size_bytes=size_bytes)
    if isinstance(options.get("preallocation"), str):
        number = to_number(types.Preallocation, options["preallocation"], "preallocation")
        options = {**options, "preallocation": number}
    if format in _CREATE_MESSAGES:
        getattr(request, format).CopyFrom(_message(_CREATE_MESSAGES[format], format, options))
    else:
        values = {name: option_value(value) for name, value in options.items()}
        request.generic.CopyFrom(drivers.GenericOptions(driver=format, options=values))
    return request


def _message(kind: Any, owner: str, options: dict[str, Any]) -> Any:
    known = kind.DESCRIPTOR.fields_by_name
    for name in options:
        if name not in known:
            raise UnknownOption(owner=owner, option=name, known=", ".join(sorted(known)))
    return kind(**options)
