"""A graph with a file `disk` whose requests can fail, and its attachments."""

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    BlockError,
    ImageCorrupt,
    IoError,
    NoSpace,
)
from blockyard.node.graph.attachment import AttachmentDefinition
from blockyard.node.graph.attachment_user import AttachmentUser
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.graph import NodeReport
from blockyard.node.graph.tray import Action
from tests.support.gated import Gates
from tests.support.graphs import GraphGround

MIB = 1 << 20
EIO = IoError("disk", "pwrite", errno.EIO, "Input/output error")
FULL = NoSpace("disk", "write")
QUOTA = IoError("disk", "pwrite", errno.EDQUOT, "Disk quota exceeded")
CORRUPT = ImageCorrupt("disk", "an L2 entry", "inside the file", "0x7")


@asynccontextmanager
async def attachment_ground(folder: Path) -> AsyncIterator["Ground"]:
    """With a node `disk`; its time stands still."""
    gates = Gates()
    with gates.registered():
        made = Ground(GraphGround(folder, VirtualClock()), gates)
        await made.disk()
        yield made
        made.attachments.close()
        assert await made.ground.leave() == []


class Ground:
    """A graph with a file `disk` whose requests can fail, and its attachments."""

    def __init__(self, ground: GraphGround, gates: Gates) -> None:
        self.ground = ground
        self.graph = ground.graph
        self.gates = gates
        self.attachments = Attachments(ground.graph)
        self.told: list[tuple[str, str]] = []
        self.events: list[NodeReport] = []
        publish = self.graph.hub.publish

        def noted(kind, name, resource):
            if kind == "event":
                self.events.append(resource)
            elif name.startswith("attachment/"):
                self.told.append((kind, name))
            return publish(kind, name, resource)

        self.graph.hub.publish = noted

    async def disk(self, name: str = "disk", size: int = MIB, **settings) -> str:
        filename = f"{name}.raw"
        self.ground.file(filename, size)
        await self.graph.open(NodeDefinition("gated", name, {"filename": filename}, **settings))
        return name

    async def attach(self, name: str = "vda", node_name: str = "disk", **fields) -> AttachmentUser:
        fields = {"writable": True, **fields}
        return (await self.attachments.create(AttachmentDefinition(name, node_name, **fields))).user

    async def drive(self, node_name: str = "", **fields) -> AttachmentUser:
        return await self.attach("cd", node_name, removable=True, **fields)

    async def act(self, action: Action, node_name: str = "", *, force: bool = False, name: str = "cd"):
        return await self.attachments.change_medium(name, action, node_name, force=force)

    def note_begun(self) -> list[int | str]:
        """From now on: offsets of writes, and "read", in the order in which they reach the file."""
        driver, begun = self.graph.get("disk").driver, []
        read, write = driver.read, driver.write

        async def noted_write(offset, data, flags):
            begun.append(offset)
            await write(offset, data, flags)

        async def noted_read(offset, into):
            begun.append("read")
            await read(offset, into)

        driver.read, driver.write = noted_read, noted_write
        return begun

    def fail(self, operation: str, error: BlockError):
        return self.gates.fail("disk.raw", operation, error)


OPERATIONS: dict[str, tuple[str, Callable[[AttachmentUser], Awaitable[object]]]] = {
    "read": ("read", lambda user: user.read(0, memoryview(bytearray(b"x" * 4096)))),
    "write": ("write", lambda user: user.write(0, b"w" * 4096)),
    "write-zeroes": ("zero", lambda user: user.zero(0, 65536)),
    "discard": ("discard", lambda user: user.discard(0, 65536)),
    "flush": ("flush", lambda user: user.flush()),
}
