"""A qcow2 image above a blkdebug node above a file, and a guest's life on it whose every step may fail.

The life makes qcow2 do everything that has an event: tables are loaded, made, shared, moved and dropped. What a
failed step touched is unknown afterwards; all else must be as the model says.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from blockyard.base.errors import BlockError
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.blkdebug import BlkdebugDriver
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.graph.user import User
from blockyard.node.interface.debugging import BreakpointState
from blockyard.node.interface.flags import COMPRESSED, MAY_UNMAP
from tests.support import peers
from tests.support.graphs import GraphGround, content

SIZE = 4 * MIB
CLUSTER = 512
"""Small, so that a refcount block covers 32 KiB and the refcount table's cluster 2 MiB: all of them grow."""


def make_image(root: Path) -> bytes:
    """`top.qcow2` over `base.raw`, with some data and an internal snapshot; what it reads as."""
    (root / "base.raw").write_bytes(b"\xbb" * SIZE)
    top = root / "top.qcow2"
    options = f"cluster_size={CLUSTER},refcount_bits=64"
    peers.run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", "base.raw", "-F", "raw", top, str(SIZE)
    )  # fmt: skip
    peers.run("qemu-io", "-f", "qcow2", "-c", "write -P 0x11 0 64k", "-c", "write -P 0x12 1M 16k", top)
    peers.run("qemu-img", "snapshot", "-c", "first", top)
    model = bytearray(b"\xbb" * SIZE)
    model[: 64 * KIB] = b"\x11" * (64 * KIB)
    model[MIB : MIB + 16 * KIB] = b"\x12" * (16 * KIB)
    return bytes(model)


async def opened(ground: GraphGround, bug: dict[str, Any] | None = None, **options: Any) -> tuple[Node, Node]:
    """The qcow2 node and the blkdebug node below it."""
    file = NodeDefinition("file", options={"filename": "top.qcow2"})
    below = NodeDefinition("blkdebug", "bug", bug or {}, {"image": file})
    base = NodeDefinition("file", options={"filename": "base.raw"}, read_only=True)
    backing = NodeDefinition("raw", children={"file": base}, read_only=True)
    top = await ground.graph.open(NodeDefinition("qcow2", "top", options, {"file": below, "backing": backing}))
    return top, ground.graph.get("bug")


def debugger(node: Node) -> BlkdebugDriver:
    assert isinstance(node.driver, BlkdebugDriver)
    return node.driver


def listen(node: Node, events: tuple[str, ...]) -> list[str]:
    """Events as they come: each goes through a breakpoint that lets it on at once."""
    driver, heard = debugger(node), list[str]()

    def tell(state: BreakpointState, gone: bool) -> None:
        if state.suspended:
            heard.append(state.event)
            driver.resume(state.tag)

    for event in events:
        driver.set_breakpoint(event, event, tell)
    return heard


class Guest:
    """Writes to a node and to a model; knows what a failure left unknown."""

    def __init__(self, user: User, model: bytes) -> None:
        self.user = user
        self.model = bytearray(model)
        self.unknown = bytearray(len(model))
        self.errors: list[BlockError] = []

    async def write(self, offset: int, data: bytes, flags: int = 0) -> None:
        await self._change(offset, data, lambda: self.user.write(offset, data, flags))

    async def zero(self, offset: int, length: int, flags: int = 0) -> None:
        await self._change(offset, bytes(length), lambda: self.user.zero(offset, length, flags))

    async def discard(self, offset: int, length: int) -> None:
        """Of whole clusters of an image of version 3: they read as zeroes."""
        await self._change(offset, bytes(length), lambda: self.user.discard(offset, length))

    async def _change(self, offset: int, data: bytes, request: Callable[[], Awaitable[None]]) -> None:
        end = offset + len(data)
        self.unknown[offset:end] = b"\1" * len(data)  # which stays so if it fails or is cancelled
        if await self.tried(request):
            self.model[offset:end] = data
            self.unknown[offset:end] = bytes(len(data))

    async def tried(self, request: Callable[[], Awaitable[Any]]) -> bool:
        """Whether it succeeded."""
        try:
            await request()
        except BlockError as error:
            self.errors.append(error)
            return False
        return True

    def check(self, found: bytes) -> None:
        """Compare what is known."""
        length = min(len(found), len(self.model))
        wrong = [at for at in range(length) if found[at] != self.model[at] and not self.unknown[at]]
        assert not wrong, f"{len(wrong)} bytes, the first at {wrong[0]:#x}"

    async def live(self) -> None:
        """Do everything once."""
        user = self.user
        await self.write(256 * KIB + 100, b"\x21" * 1000)  # new clusters, old content around
        await self.write(100, b"\x22" * 3000)  # shared with the snapshot
        await self.tried(user.flush)
        await self.write(256 * KIB, b"\x23" * 4096)
        for offset in range(2 * MIB, 4 * MIB, 512 * KIB):
            await self.write(offset, bytes([offset // KIB % 251]) * (512 * KIB))
        await self.tried(user.flush)
        await self.write(1536 * KIB, (b"squeezed" * 64) * 32, COMPRESSED)
        await self.tried(lambda: content(user, 1536 * KIB, 16 * KIB))
        await self.write(1536 * KIB, (b"squashed" * 64) * 16, COMPRESSED)
        await self.tried(lambda: content(user, 0, 2 * MIB))
        await self.zero(2 * MIB, 128 * KIB, MAY_UNMAP)
        await self.discard(3 * MIB, 256 * KIB)
        await self.tried(user.flush)
        await self.write(2 * MIB, b"\x24" * (64 * KIB))
        await self.tried(user.flush)
        await self.tried(lambda: user.truncate(12 * MIB))
        await self.tried(user.flush)
        await self.tried(lambda: user.truncate(SIZE))
        await self.tried(user.flush)
