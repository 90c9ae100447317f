"""Attachments as the wire shows them, and definitions as it asks for them. Reads only."""

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph.attached import Attachment
from blockyard.node.graph.attachment import (
    DEFAULT_ON_READ,
    DEFAULT_ON_WRITE,
    MIN_BLOCK,
    AttachmentDefinition,
    OnError,
)
from blockyard.node.graph.attachment_user import AttachmentUser
from blockyard.node.graph.node import Node
from blockyard.node.rpc.definitions import checked_labels
from blockyard.node.rpc.words import number_of, word_of
from blockyard.v1 import types_pb2


def check_one(request: Any) -> None:
    """Raises InvalidArgument unless the request names a node or an attachment, and not both."""
    if request.node_name and request.attachment:
        raise InvalidArgument("attachment", "one of node_name and attachment", "both")


def attachment_message(attachment: Attachment) -> types_pb2.Attachment:
    """An attachment as it is now."""
    definition, user, tray = attachment.definition, attachment.user, attachment.tray
    created = Timestamp()
    created.FromNanoseconds(attachment.created_ns)
    return types_pb2.Attachment(
        name=attachment.name,
        node_name=attachment.node_name,
        logical_block_size_bytes=definition.logical_block_size,
        physical_block_size_bytes=definition.physical_block_size,
        write_cache=definition.write_cache,
        on_read_error=number_of(types_pb2.OnError, definition.on_read_error),  # type: ignore[arg-type]
        on_write_error=number_of(types_pb2.OnError, definition.on_write_error),  # type: ignore[arg-type]
        io_status=number_of(types_pb2.IoStatus, attachment.io_status or ""),  # type: ignore[arg-type]
        removable=definition.removable,
        trayless=definition.trayless,
        tray_open=tray.is_open,
        locked=tray.locked,
        eject_requested=tray.eject_requested,
        writable=definition.writable,
        stopped=user.stopped,
        waiting_requests=user.waiting,
        labels=dict(definition.labels),
        users=sorted(attachment.users),
        etag=attachment.etag,
        create_time=created,
    )


def attachments_of(node: Node) -> list[types_pb2.Attachment]:
    """The attachments that use a node."""
    return [
        attachment_message(edge.attachment)
        for edge in node.parents
        if isinstance(edge, AttachmentUser) and edge.attachment is not None
    ]


def definition_of(message: types_pb2.Attachment) -> AttachmentDefinition:
    """Raises InvalidArgument for what no attachment may be."""
    return AttachmentDefinition(
        name=message.name,
        node_name=message.node_name,
        writable=message.writable,
        removable=message.removable,
        trayless=message.trayless,
        tray_open=message.tray_open,
        locked=message.locked,
        **changes_of(message, MUTABLE),
    )


def changes_of(message: types_pb2.Attachment, paths: frozenset[str]) -> dict[str, Any]:
    """Fields of the definition that the message changes."""
    logical = message.logical_block_size_bytes or MIN_BLOCK
    on_read = word_of(types_pb2.OnError, message.on_read_error, "on_read_error") or DEFAULT_ON_READ
    on_write = word_of(types_pb2.OnError, message.on_write_error, "on_write_error") or DEFAULT_ON_WRITE
    changes: dict[str, Any] = {
        "logical_block_size_bytes": ("logical_block_size", logical),
        "physical_block_size_bytes": ("physical_block_size", message.physical_block_size_bytes),
        "write_cache": ("write_cache", message.write_cache or not message.HasField("write_cache")),
        "on_read_error": ("on_read_error", OnError(on_read)),
        "on_write_error": ("on_write_error", OnError(on_write)),
        "labels": ("labels", checked_labels(message.labels)),
    }
    return dict(changes[path] for path in paths)


MUTABLE = frozenset(
    {
        "logical_block_size_bytes",
        "physical_block_size_bytes",
        "write_cache",
        "on_read_error",
        "on_write_error",
        "labels",
    }
)
"""What UpdateAttachment may change."""
