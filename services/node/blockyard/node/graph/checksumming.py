"""The checksum of a disk or of a snapshot, kept in a file if that is wanted; and the scrub that finds where content
is no longer what it was.

Theory. A checksum names content, so nobody may write meanwhile: a disk in use is summed up through a snapshot of
it. The file holds one hash for each chunk that is not zero (`formats.checksums`); a scrub reads image and file side
by side, front to back, in bounded memory. A chunk that cannot be read, or is another, is told with its extent and
with the layer that holds it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from blockyard.base.errors import BlockError, InvalidArgument
from blockyard.base.units import MIB
from blockyard.node.formats import checksums
from blockyard.node.formats.checksums import HASH_BYTES, Reader, Shape, Tree, Writer
from blockyard.node.graph import images
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.hashing import Hasher, Stretch, check_chunk, still
from blockyard.node.graph.status import status_at
from blockyard.node.graph.temporary import temporary
from blockyard.node.graph.user import User
from blockyard.node.interface.flags import Role
from blockyard.node.interface.operations import Progress

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

MAX_EXTENTS: Final = 10_000
"""Damaged extents that a scrub tells; their bytes are counted in any case."""
_WRITE: Final = 1 * MIB
_FILE: Final = "file"
CHANGED, UNREADABLE = "changed", "unreadable"


@dataclass(frozen=True, slots=True)
class Checksum:
    """What names a content."""

    root: bytes
    shape: Shape
    zero_chunks: int
    """Chunks that read as zeroes."""
    hashed_bytes: int
    """Bytes that were read."""
    file_bytes: int
    """Of the file that keeps the hashes; 0 without one."""


class Damage(NamedTuple):
    """An extent that is not what it was."""

    offset: int
    length: int
    kind: str
    """changed or unreadable."""
    layer: str
    """The node that holds its begin; empty if nobody does."""
    host_offset: int
    """Where in that layer's file; -1 without a single place."""
    why: str
    """What reading said."""


@dataclass(slots=True)
class Scrub:
    """What was found."""

    expected: bytes = b""
    found: bytes = b""
    checked: int = 0
    damaged: int = 0
    """Bytes of damaged chunks."""
    damages: list[Damage] = field(default_factory=list)
    truncated: bool = False
    """There are more extents than are told."""


async def checksum(
    graph: "Graph",
    node: "Node",
    progress: Progress,
    *,
    snapshot: str = "",
    chunk: int = 0,
    filename: str = "",
    overwrite: bool = False,
) -> Checksum:
    """Sum up a disk, or one of its snapshots. With a file name the hashes are kept there, durably or not at all.

    Raises PermissionConflict with who writes, InvalidArgument, FileExists, and what reading raises.
    """
    chunk = check_chunk(chunk)
    async with still(graph, node, snapshot, "ChecksumImage") as user:
        shape = Shape(user.size, chunk)
        if not filename:
            return await _sum_up(graph, user, shape, progress, None)
        await images.create(graph, images.ImageOrder(filename, _FILE, overwrite=overwrite))
        try:
            async with _file(graph, filename, read_only=False) as edge:
                keeper = _Keeper(edge, shape)
                result = await _sum_up(graph, user, shape, progress, keeper)
                await keeper.end(result.root)
            return replace(result, file_bytes=keeper.position)
        except BaseException:
            if not overwrite:
                with suppress(BlockError):
                    graph.environment.storage.unlink(filename)
            raise


@asynccontextmanager
async def _file(graph: "Graph", filename: str, *, read_only: bool) -> AsyncIterator[Edge]:
    definition = NodeDefinition(_FILE, options={"filename": filename}, read_only=read_only)
    async with temporary(graph, definition) as below:
        edge = Edge(None, _FILE, Role.FILE, below)
        try:
            yield edge
        finally:
            edge.detach()


class _Keeper:
    """Writes the file of hashes, front to back, in pieces of some size."""

    def __init__(self, edge: Edge, shape: Shape) -> None:
        self._edge = edge
        self._writer = Writer(shape)
        self._waiting = bytearray(self._writer.header())
        self.position = 0

    async def add(self, stretch: Stretch) -> None:
        for run in checksums.split(stretch.first, stretch.hashes):
            self._waiting += self._writer.run(run)
        if len(self._waiting) >= _WRITE:
            await self._write()

    async def end(self, root: bytes) -> None:
        self._waiting += self._writer.trailer(root)
        await self._write()
        await self._edge.flush()

    async def _write(self) -> None:
        await self._edge.write(self.position, bytes(self._waiting))
        self.position += len(self._waiting)
        self._waiting.clear()


async def _sum_up(graph: "Graph", user: User, shape: Shape, progress: Progress, keeper: _Keeper | None) -> Checksum:
    tree, zero, read = Tree(shape.chunk), 0, 0
    hasher = Hasher(user, shape, graph.environment.pool.share("checksum"))
    async for stretch in hasher.stretches():
        progress("hashing", min(shape.size, stretch.first * shape.chunk), shape.size)
        if not stretch.hashes:
            tree.add_zeroes(stretch.chunks)
            zero += stretch.chunks
            continue
        tree.add(stretch.hashes)
        read += stretch.chunks * shape.chunk
        for part in _without_zeroes(stretch, shape.chunk):
            zero -= part.chunks
            if keeper is not None:
                await keeper.add(part)
        zero += stretch.chunks
    root = checksums.root_hash(shape.size, shape.chunk, tree.top())
    return Checksum(root, shape, zero, min(read, shape.size), 0)


def _without_zeroes(stretch: Stretch, chunk: int) -> list[Stretch]:
    """The runs of chunks that are not zero; what was read and found to be zero is not kept."""
    zero = checksums.zero_hash(chunk)
    if zero not in stretch.hashes:
        return [stretch]
    found: list[Stretch] = []
    begun = -1
    hashes = [stretch.hashes[at : at + HASH_BYTES] for at in range(0, len(stretch.hashes), HASH_BYTES)]
    for number, each in enumerate([*hashes, zero]):
        if each != zero and begun < 0:
            begun = number
        elif each == zero and begun >= 0:
            found.append(Stretch(stretch.first + begun, number - begun, b"".join(hashes[begun:number])))
            begun = -1
    return found


# --- scrub -----------------------------------------------------------------------------------------------


async def scrub(graph: "Graph", node: "Node", filename: str, progress: Progress, *, snapshot: str = "") -> Scrub:
    """Compare a disk, or a snapshot, with a file of hashes.

    Raises FormatMismatch or ImageCorrupt for a file that is none or is damaged itself, InvalidArgument for one of a
    disk of another size, PermissionConflict with who writes.
    """
    async with still(graph, node, snapshot, "ScrubImage") as user, _file(graph, filename, read_only=True) as edge:
        expected = await _Expected.open(
            edge, filename, lambda done: progress("reading the hashes", done, edge.size)
        )
        shape = expected.shape
        if shape.size != user.size:
            raise InvalidArgument("filename", f"the hashes of {user.size} bytes", f"those of {shape.size} bytes")
        work = _Scrubbing(user, shape, expected)
        hasher = Hasher(user, shape, graph.environment.pool.share("scrub"))
        async for stretch in hasher.stretches(tolerant=True):
            progress("comparing hashes", min(shape.size, stretch.first * shape.chunk), shape.size)
            if stretch.problem and stretch.chunks > 1:
                await work.one_by_one(Hasher(user, shape, graph.environment.pool.share("scrub")), stretch)
            else:
                await work.judge(stretch)
        return await work.end()


class _Expected:
    """The hashes in a file, which was looked through once before: from here on it is believed."""

    def __init__(self, edge: Edge, reader: Reader, root: bytes) -> None:
        self._edge = edge
        self.shape = reader.shape
        self.root = root
        self._position = checksums.HEADER_BYTES
        self._first = 0
        self._hashes = b""

    @classmethod
    async def open(cls, edge: Edge, filename: str, told: Callable[[int], None]) -> "_Expected":
        """Read all of it, and judge it. Raises FormatMismatch or ImageCorrupt."""
        position = checksums.HEADER_BYTES
        reader = Reader(bytes(await _bytes(edge, 0, position)), filename)
        while True:
            told(position)
            first, count = reader.run_head(bytes(await _bytes(edge, position, checksums.RUN_BYTES)))
            position += checksums.RUN_BYTES
            if not count:
                return cls(edge, reader, reader.trailer(bytes(await _bytes(edge, position, 2 * HASH_BYTES))))
            reader.run(first, count, bytes(await _bytes(edge, position, count * HASH_BYTES)))
            position += count * HASH_BYTES

    async def next(self, first: int, count: int) -> tuple[int, bytes]:
        """How many chunks from `first` on are alike, and their hashes (empty: zeroes). Ascending only."""
        while first >= self._first + len(self._hashes) // HASH_BYTES and self._first < self.shape.chunks:
            head = await _bytes(self._edge, self._position, checksums.RUN_BYTES)
            self._first = int.from_bytes(head[:8], "little")
            length = int.from_bytes(head[8:16], "little") * HASH_BYTES
            self._hashes = bytes(await _bytes(self._edge, self._position + len(head), length))
            self._position += len(head) + length
        if first < self._first:
            return min(count, self._first - first), b""
        at = (first - self._first) * HASH_BYTES
        found = self._hashes[at : at + count * HASH_BYTES]
        return (len(found) // HASH_BYTES, found) if found else (count, b"")


async def _bytes(edge: Edge, offset: int, length: int) -> bytearray:
    """As many as there are."""
    data = bytearray(max(0, min(length, edge.size - offset)))
    if data and not edge.read_now(offset, memoryview(data)):
        await edge.read(offset, memoryview(data))
    return data


class _Scrubbing:
    """Judges stretches and joins what is damaged."""

    def __init__(self, user: User, shape: Shape, expected: _Expected) -> None:
        self._user = user
        self._shape = shape
        self._expected = expected
        self._zero = checksums.zero_hash(shape.chunk)
        self._tree = Tree(shape.chunk)
        self._unread = False
        self.result = Scrub(expected.root)

    async def judge(self, stretch: Stretch) -> None:
        self.result.checked = min(self._shape.size, (stretch.first + stretch.chunks) * self._shape.chunk)
        if stretch.problem:
            self._unread = True
            await self._expected.next(stretch.first, stretch.chunks)
            await self._damaged(stretch.first, stretch.chunks, UNREADABLE, stretch.problem)
            return
        if stretch.hashes:
            self._tree.add(stretch.hashes)
        else:
            self._tree.add_zeroes(stretch.chunks)
        first, end = stretch.first, stretch.first + stretch.chunks
        while first < end:
            count, wanted = await self._expected.next(first, end - first)
            at = (first - stretch.first) * HASH_BYTES
            await self._compare(first, count, stretch.hashes[at : at + count * HASH_BYTES], wanted)
            first += count

    async def one_by_one(self, hasher: Hasher, stretch: Stretch) -> None:
        """Some chunk of these cannot be read: which?"""
        for number in range(stretch.first, stretch.first + stretch.chunks):
            await self.judge(await hasher.hashed(number, 1, tolerant=True))

    async def _compare(self, first: int, count: int, found: bytes, wanted: bytes) -> None:
        if found == wanted:
            return
        for number in range(count):
            at = slice(number * HASH_BYTES, (number + 1) * HASH_BYTES)
            if (found[at] or self._zero) != (wanted[at] or self._zero):
                await self._damaged(first + number, 1, CHANGED, "")

    async def _damaged(self, first: int, count: int, kind: str, why: str) -> None:
        chunk, size = self._shape.chunk, self._shape.size
        offset = first * chunk
        length = min(count * chunk, size - offset)
        result = self.result
        result.damaged += length
        last = result.damages[-1] if result.damages else None
        if last is not None and last.offset + last.length == offset and (last.kind, last.why) == (kind, why):
            result.damages[-1] = last._replace(length=last.length + length)
        elif len(result.damages) == MAX_EXTENTS:
            result.truncated = True
        else:
            layer, host_offset = await self._place(offset, length)
            result.damages.append(Damage(offset, length, kind, layer, host_offset, why))

    async def _place(self, offset: int, length: int) -> tuple[str, int]:
        try:
            extent = await status_at(self._user.node, offset, length)
        except BlockError:
            return "", -1
        return (extent.node_name, extent.host_offset) if extent.allocated else ("", -1)

    async def end(self) -> Scrub:
        if not self._unread:
            shape = self._shape
            self.result.found = checksums.root_hash(shape.size, shape.chunk, self._tree.top())
        return self.result
