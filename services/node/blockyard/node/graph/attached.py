"""One attachment: what it is, its edge, its tray, who uses it, and which of its errors are told of."""

import asyncio
import uuid
from dataclasses import replace
from typing import Final

from blockyard.node.graph.attachment import (
    DEFAULT_ON_READ,
    DEFAULT_ON_WRITE,
    AttachmentDefinition,
    IoStatus,
    effective,
    may_stop,
)
from blockyard.node.graph.attachment_user import AttachmentUser, Failure
from blockyard.node.graph.present import beneath_jobs
from blockyard.node.interface.flags import FUA

EVENT_PAUSE_NS: Final = 1_000_000_000
"""Between two events of errors that had the same outcome (BLOCK_IO_ERROR, monitor/monitor.c)."""


class Attachment:
    """One attachment: what it is, its edge, its tray, who uses it."""

    def __init__(self, definition: AttachmentDefinition, user: AttachmentUser, created_ns: int) -> None:
        self.uid = uuid.uuid4().hex
        self.revision = 0
        self.created_ns = created_ns
        self.user = user
        user.attachment = self
        self.tray = definition.tray
        self.told_node = user.node
        """The node that watchers know of."""
        self.users: dict[str, int] = {}
        """Holders, and how often each uses it."""
        self.moving = asyncio.Lock()
        """Actions on tray and medium come one after the other."""
        self._definition = definition
        self._told: dict[tuple[bool, str], tuple[int, int]] = {}
        """By kind and outcome of an error: when an event was sent, and how many were not since."""
        self.adopt(definition)

    @property
    def name(self) -> str:
        return self.user.name

    @property
    def node_name(self) -> str:
        """The node that its guest sees now; empty without a medium."""
        return self.user.node.name

    @property
    def etag(self) -> str:
        return f"{self.uid[:8]}-{self.revision}"

    @property
    def definition(self) -> AttachmentDefinition:
        """What would make it again as it is now. The medium is the node below the filters of jobs."""
        medium = beneath_jobs(self.user.node).name
        return replace(self._definition, node_name=medium, tray_open=self.tray.is_open, locked=self.tray.locked)

    @property
    def io_status(self) -> IoStatus | None:
        """The latched state; None if no policy can stop it."""
        user = self.user
        return user.io_status if user.stopped or may_stop(user.on_read_error, user.on_write_error) else None

    def adopt(self, definition: AttachmentDefinition) -> None:
        """Let block sizes, cache and policies be those of the definition."""
        self._definition, user = definition, self.user
        user.block_mask = definition.logical_block_size - 1
        user.physical_block_size = definition.physical_block_size
        user.write_flags = 0 if definition.write_cache else FUA
        user.on_read_error = effective(definition.on_read_error, DEFAULT_ON_READ)
        user.on_write_error = effective(definition.on_write_error, DEFAULT_ON_WRITE)
        self.show()

    def show(self) -> None:
        """Let the guest have what the tray says."""
        self.user.show(self.tray.has_medium and not self.tray.is_open)

    def suppressed(self, failure: Failure, now_ns: int) -> int | None:
        """How many events like this one were not sent before it; None if it should not be sent either."""
        key = (failure.operation == "read", failure.outcome)
        sent_ns, left_out = self._told.get(key, (now_ns - EVENT_PAUSE_NS, 0))
        if not failure.latched and now_ns - sent_ns < EVENT_PAUSE_NS:
            self._told[key] = (sent_ns, left_out + 1)
            return None
        self._told[key] = (now_ns, 0)
        return left_out
