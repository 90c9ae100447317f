"""Overlay snapshots on the wire."""

from typing import Final

from blockyard.base.errors import InvalidArgument, MissingOption
from blockyard.node.graph.overlays import BackingNaming, OverlayWish
from blockyard.node.rpc.definitions import image_order
from blockyard.v1 import control_pb2, node_pb2

_NAMINGS: Final = {
    control_pb2.Overlay.BACKING_NAMING_UNSPECIFIED: BackingNaming.RELATIVE,
    control_pb2.Overlay.BACKING_NAMING_RELATIVE: BackingNaming.RELATIVE,
    control_pb2.Overlay.BACKING_NAMING_ABSOLUTE: BackingNaming.ABSOLUTE,
}
_OURS: Final = ("backing_file", "backing_format")
"""Options of a new image that follow from the node."""


def overlay_wish(message: control_pb2.Overlay) -> OverlayWish:
    """Raises MissingOption or InvalidArgument."""
    for name in ("node_name", "filename"):
        if not getattr(message, name):
            raise MissingOption("an overlay", name)
    for name in _OURS:
        if getattr(message.qcow2, name):
            raise InvalidArgument(f"qcow2.{name}", "unset: the node says it", "set")
    if message.backing_naming not in _NAMINGS:
        raise InvalidArgument("backing_naming", "a BackingNaming", str(message.backing_naming))
    if message.existing and (message.backing_file or message.backing_naming or message.HasField("qcow2")):
        raise InvalidArgument("existing", "no backing_file, backing_naming or options: the image is there", "one")
    order = image_order(node_pb2.CreateImageRequest(filename=message.filename, qcow2=message.qcow2))
    return OverlayWish(
        message.node_name,
        message.filename,
        message.overlay_node_name,
        order.driver,
        message.existing,
        _NAMINGS[message.backing_naming],
        message.backing_file,
        order.options,
    )
