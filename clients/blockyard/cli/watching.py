"""How people see the changes that a watch tells of: one line each. As in `describe`, no calls and no printing."""

from blockyard.cli import units
from blockyard.cli.attachments import attachment_state, medium_state
from blockyard.cli.describe import access, users
from blockyard.client.words import to_word
from blockyard.v1 import types_pb2
from blockyard.v1.node_pb2 import WatchNodesResponse
from blockyard.v1.types_pb2 import Attachment, BlockDriverState


def change_line(change: WatchNodesResponse) -> str:
    """`412 modified node disk: qcow2, 1 GiB, rw, used by export disk`."""
    begin = f"{change.revision}"
    if change.HasField("event"):
        event = change.event
        about = f"node {event.node_name}" if event.node_name else "no node"
        details = ", ".join(f"{name}={value}" for name, value in sorted(event.details.items()))
        return f"{begin} event {event.kind} of {about}: {details}"
    word = to_word(types_pb2.ChangeType, change.change)
    if change.HasField("attachment"):
        return f"{begin} {word} attachment {change.attachment.name}: {_attachment(change.attachment)}"
    if change.HasField("node"):
        return f"{begin} {word} node {change.node.node_name}: {_node(change.node)}"
    return f"{begin} {word}"


def _node(node: BlockDriverState) -> str:
    words = [node.driver, units.size(node.size_bytes), access(node)]
    words += [f"drained {node.quiesce_counter} times"] if node.quiesce_counter else []
    return ", ".join([*words, *([f"used by {users(node)}"] if node.holders else [])])


def _attachment(attachment: Attachment) -> str:
    return ", ".join(
        (f"node {attachment.node_name or 'none'}", medium_state(attachment), attachment_state(attachment))
    )
