"""Which RPCs answer UNIMPLEMENTED, told from the code. `tests/node_rpc` proves the same over the wire."""

from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from blockyard.node.rpc.nodes import NodeServicer
from blockyard.v1 import (
    bitmap_pb2,
    control_pb2,
    copy_pb2,
    data_pb2,
    debug_pb2,
    export_pb2,
    job_pb2,
    node_pb2,
    stats_pb2,
)

FILES: Final = (
    *(bitmap_pb2, control_pb2, copy_pb2, data_pb2, debug_pb2),
    *(export_pb2, job_pb2, node_pb2, stats_pb2),
)
SERVICES: Final[dict[str, ServiceDescriptor]] = {
    name: found for file in FILES for name, found in file.DESCRIPTOR.services_by_name.items()
}
LATER: Final[tuple[str, ...]] = ()
"""Services none of whose methods does anything."""


def missing_in_node_service() -> list[str]:
    """Methods of NodeService that come later, in the order of the proto."""
    methods = SERVICES["NodeService"].methods_by_name
    return [name for name in methods if getattr(NodeServicer, name).__qualname__.startswith("later.")]


def served(service: str, method: str) -> bool:
    """Whether the method does something."""
    if service == "NodeService":
        return method not in missing_in_node_service()
    return service.removesuffix("Service") not in LATER
