"""How people see attachments: columns of their table, facts of one. As in `describe`, no calls and no printing."""

from collections.abc import Sequence
from typing import Final

from blockyard.cli.describe import Facts, moment
from blockyard.cli.output import Column, first
from blockyard.client.words import to_word
from blockyard.v1 import types_pb2
from blockyard.v1.types_pb2 import Attachment

ATTACHMENTS: Final[Sequence[Column]] = (
    Column("ATTACHMENT", lambda attachment: attachment.name),
    Column("NODE", lambda attachment: attachment.node_name),
    Column("MODE", lambda attachment: "rw" if attachment.writable else "ro"),
    Column("MEDIUM", lambda attachment: medium_state(attachment)),
    Column("STATE", lambda attachment: attachment_state(attachment)),
    Column("USED BY", lambda attachment: first(attachment.users, 3)),
)


def medium_state(attachment: Attachment) -> str:
    """Tray and medium in words."""
    if not attachment.removable:
        return "fixed"
    words = [] if attachment.trayless else ["tray open" if attachment.tray_open else "tray closed"]
    words += ["locked"] if attachment.locked else []
    return ", ".join([*words, *(["eject requested"] if attachment.eject_requested else [])]) or "removable"


def attachment_state(attachment: Attachment) -> str:
    """Whether requests go on, and why not."""
    if not attachment.stopped:
        return "ok"
    return f"stopped ({to_word(types_pb2.IoStatus, attachment.io_status)}), {attachment.waiting_requests} waiting"


def attachment_facts(attachment: Attachment) -> Facts:
    """One attachment."""
    yield "attachment", attachment.name
    yield "node", attachment.node_name or "none"
    yield "mode", "read-write" if attachment.writable else "read-only"
    yield "medium", medium_state(attachment)
    yield "state", attachment_state(attachment)
    yield (
        "block size",
        f"{attachment.logical_block_size_bytes} logical, {attachment.physical_block_size_bytes} physical",
    )
    yield "write cache", "on" if attachment.write_cache else "off"
    yield "on read error", to_word(types_pb2.OnError, attachment.on_read_error)
    yield "on write error", to_word(types_pb2.OnError, attachment.on_write_error)
    yield "used by", ", ".join(attachment.users)
    yield "made", moment(attachment.create_time)
    yield "labels", ", ".join(f"{key}={value}" for key, value in sorted(attachment.labels.items()))
