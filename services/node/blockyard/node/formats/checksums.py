"""The checksum of a disk's content: a tree of BLAKE3 hashes over its chunks, and the file that keeps those hashes.

Pure. The definition stands in docs/formats/checksums.md; what matters here:

- Content alone decides. Size, chunk size and bytes are hashed, not where or how an image holds them.
- A run of zero chunks costs the logarithm of its length: of a whole subtree of zeroes the hash is known.
- Nothing grows with the disk: hashes come in order, and each level keeps at most one node's children.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from blake3 import blake3

from blockyard.base.errors import FormatMismatch, ImageCorrupt
from blockyard.base.units import KIB, MAX_SIZE, MIB

HASH_BYTES: Final = 32
FANOUT: Final = 256
"""Children of a node: 8 KiB of hashes, long enough for BLAKE3 to use wide registers."""
DEFAULT_CHUNK: Final = 64 * KIB
MIN_CHUNK: Final = 4 * KIB
MAX_CHUNK: Final = 16 * MIB

_LEAF: Final = "blockyard 2026 content checksum chunk"
_NODE: Final = "blockyard 2026 content checksum node"
_ROOT: Final = "blockyard 2026 content checksum root"
"""Contexts of BLAKE3's key derivation, so that a hash of one kind never is one of another."""


def hash_chunk(data: bytes | bytearray | memoryview) -> bytes:
    """Of one whole chunk; the last of a disk is filled up with zeroes."""
    return blake3(data, derive_key_context=_LEAF).digest()


def _hash_node(children: bytes | bytearray) -> bytes:
    return blake3(children, derive_key_context=_NODE).digest()


@cache
def zero_hash(chunk: int, level: int = 0) -> bytes:
    """Of a whole subtree of zeroes; level 0 is a chunk."""
    return hash_chunk(bytes(chunk)) if level == 0 else _hash_node(zero_hash(chunk, level - 1) * FANOUT)


def root_hash(size: int, chunk: int, top: bytes) -> bytes:
    """What names the content of a disk."""
    return blake3(struct.pack("<QQ", size, chunk) + top, derive_key_context=_ROOT).digest()


class Tree:
    """Takes the hashes of chunks in order."""

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk
        self._levels: list[bytearray] = [bytearray()]

    def add(self, hashes: bytes) -> None:
        """Those of the next chunks, one behind another."""
        self._append(0, hashes)

    def add_zeroes(self, count: int) -> None:
        """So many chunks of zeroes."""
        self._append_zeroes(0, count)

    def _append(self, level: int, hashes: bytes) -> None:
        kept = self._kept(level)
        position = 0
        while position < len(hashes):
            room = FANOUT * HASH_BYTES - len(kept)
            kept += hashes[position : position + room]
            position += room
            if len(kept) == FANOUT * HASH_BYTES:
                self._append(level + 1, _hash_node(kept))
                kept.clear()

    def _append_zeroes(self, level: int, count: int) -> None:
        if count <= 0:
            return
        first = min(count, -(len(self._kept(level)) // HASH_BYTES) % FANOUT)
        self._append(level, zero_hash(self._chunk, level) * first)
        whole, rest = divmod(count - first, FANOUT)
        self._append_zeroes(level + 1, whole)
        self._append(level, zero_hash(self._chunk, level) * rest)

    def _kept(self, level: int) -> bytearray:
        while len(self._levels) <= level:
            self._levels.append(bytearray())
        return self._levels[level]

    def top(self) -> bytes:
        """The one hash above all; of no chunk at all that of a node without children. Call it once."""
        level = 0
        while True:
            kept = bytes(self._levels[level])
            is_highest = not any(self._levels[level + 1 :])
            if is_highest and len(kept) == HASH_BYTES:
                return kept
            if is_highest and not kept:
                return _hash_node(b"")
            if kept:
                self._levels[level].clear()
                self._append(level + 1, _hash_node(kept))
            level += 1


# --- the file that keeps the hashes ----------------------------------------------------------------------

MAGIC: Final = b"BYCHKSUM"
VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sIIQQ")
_RUN: Final = struct.Struct("<QQ")
HEADER_BYTES: Final = _HEADER.size
RUN_BYTES: Final = _RUN.size
TRAILER_BYTES: Final = RUN_BYTES + 2 * HASH_BYTES
MAX_RUN: Final = 1 << 15
"""Chunks of one run: 1 MiB of hashes are read at a time."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is hashed, and in which pieces."""

    size: int
    """Bytes of the disk."""
    chunk: int
    """Bytes of a chunk, a power of two."""

    @property
    def chunks(self) -> int:
        return -(-self.size // self.chunk)


class Run(NamedTuple):
    """Chunks that are not zero, one behind another."""

    first: int
    hashes: bytes

    @property
    def chunks(self) -> int:
        return len(self.hashes) // HASH_BYTES


class Writer:
    """Makes the bytes of the file, from front to back."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._digest = blake3()

    def header(self) -> bytes:
        shape = self._shape
        return self._counted(_HEADER.pack(MAGIC, VERSION, shape.chunk.bit_length() - 1, shape.size, shape.chunks))

    def run(self, run: Run) -> bytes:
        return self._counted(_RUN.pack(run.first, run.chunks) + run.hashes)

    def trailer(self, root: bytes) -> bytes:
        """The end: an empty run past the last chunk, the root, and the digest of all that is before."""
        body = self._counted(_RUN.pack(self._shape.chunks, 0) + root)
        return body + self._digest.digest()

    def _counted(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data


class Reader:
    """Judges the bytes of the file, from front to back. They are hostile."""

    def __init__(self, header: bytes, name: str) -> None:
        self._name = name
        if len(header) < HEADER_BYTES or header[:8] != MAGIC:
            raise FormatMismatch(name, "checksum", f"it begins with {header[:8]!r}")
        _, version, bits, size, chunks = _HEADER.unpack(header[:HEADER_BYTES])
        if version != VERSION:
            raise FormatMismatch(name, "checksum", f"version {version}; version {VERSION} is known")
        if not MIN_CHUNK <= 1 << min(bits, 64) <= MAX_CHUNK:
            raise self._corrupt("chunk size", f"{MIN_CHUNK} to {MAX_CHUNK}", f"1 << {bits}")
        self.shape = Shape(size, 1 << bits)
        if size > MAX_SIZE or chunks != self.shape.chunks:
            raise self._corrupt("size", f"{self.shape.chunks} chunks", f"{size} bytes in {chunks} chunks")
        self._digest = blake3(header[:HEADER_BYTES])
        self._next = 0
        self._tree = Tree(self.shape.chunk)

    def run_head(self, data: bytes) -> tuple[int, int]:
        """(First chunk, count) of what comes next; a count of 0 is the end."""
        if len(data) != RUN_BYTES:
            raise self._corrupt("length", "a trailer at the end", f"an end after chunk {self._next}")
        first, count = _RUN.unpack(data)
        end = self.shape.chunks
        if not self._next <= first <= end or count > min(MAX_RUN, end - first) or (count == 0 and first != end):
            raise self._corrupt(
                "a run", f"at most {MAX_RUN} chunks from {self._next} to {end}", f"{first} +{count}"
            )
        self._digest.update(data)
        return first, count

    def run(self, first: int, count: int, hashes: bytes) -> Run:
        if len(hashes) != count * HASH_BYTES:
            raise self._corrupt("a run", f"{count} hashes", f"{len(hashes)} bytes")
        self._digest.update(hashes)
        self._tree.add_zeroes(first - self._next)
        self._tree.add(hashes)
        self._next = first + count
        return Run(first, hashes)

    def trailer(self, data: bytes) -> bytes:
        """The root. Raises ImageCorrupt unless it and the digest are those of what was read."""
        root, digest = data[:HASH_BYTES], data[HASH_BYTES:]
        self._digest.update(root)
        self._tree.add_zeroes(self.shape.chunks - self._next)
        found = root_hash(self.shape.size, self.shape.chunk, self._tree.top())
        if digest != self._digest.digest() or root != found:
            raise self._corrupt("its own digest", "that of its bytes", "another: the file is damaged or cut off")
        return root

    def _corrupt(self, what: str, expected: str, found: str) -> ImageCorrupt:
        return ImageCorrupt(self._name, what, expected, found)


def split(first: int, hashes: bytes) -> Iterator[Run]:
    """Runs that the file may have."""
    for at in range(0, len(hashes), MAX_RUN * HASH_BYTES):
        yield Run(first + at // HASH_BYTES, hashes[at : at + MAX_RUN * HASH_BYTES])
