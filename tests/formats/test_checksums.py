"""The tree of hashes, against a plain reading of its definition; the file of hashes, whole and damaged."""

import random
import struct

import pytest
from blake3 import blake3

from blockyard.base.errors import BlockError, FormatMismatch, ImageCorrupt
from blockyard.node.formats import checksums
from blockyard.node.formats.checksums import HASH_BYTES, Reader, Run, Shape, Tree, Writer

CHUNK = 4096


def plainly(hashes: list[bytes]) -> bytes:
    """As docs/formats/checksums.md says it."""
    node = "blockyard 2026 content checksum node"
    if not hashes:
        return blake3(b"", derive_key_context=node).digest()
    while len(hashes) > 1:
        groups = [hashes[at : at + 256] for at in range(0, len(hashes), 256)]
        hashes = [blake3(b"".join(group), derive_key_context=node).digest() for group in groups]
    return hashes[0]


def leaf(number: int) -> bytes:
    return blake3(struct.pack("<Q", number)).digest()


@pytest.mark.parametrize("count", (0, 1, 2, 255, 256, 257, 512, 65_535, 65_536, 65_537, 66_000))
def test_the_tree_is_what_its_definition_says(count: int):
    tree = Tree(CHUNK)
    hashes = [leaf(number) for number in range(count)]
    for at in range(0, count, 1000):
        tree.add(b"".join(hashes[at : at + 1000]))
    assert tree.top() == plainly(hashes)


@pytest.mark.parametrize("seed", range(8))
def test_runs_of_zeroes_are_what_their_chunks_would_be(seed: int):
    numbers = random.Random(seed)
    tree, hashes = Tree(CHUNK), []
    zero = checksums.hash_chunk(bytes(CHUNK))
    for _ in range(12):
        count = numbers.choice((1, 3, 200, 256, 1000, 70_000))
        if numbers.random() < 0.5:
            tree.add_zeroes(count)
            hashes += [zero] * count
        else:
            some = [leaf(number) for number in range(min(count, 700))]
            tree.add(b"".join(some))
            hashes += some
    assert tree.top() == plainly(hashes)


def test_an_exabyte_of_zeroes_takes_no_time():
    tree = Tree(CHUNK)
    tree.add_zeroes((1 << 60) // CHUNK)
    assert len(tree.top()) == HASH_BYTES


def kept(shape: Shape, runs: list[Run]) -> bytes:
    """A file of hashes."""
    writer, tree, position = Writer(shape), Tree(shape.chunk), 0
    data = writer.header()
    for run in runs:
        data += writer.run(run)
        tree.add_zeroes(run.first - position)
        tree.add(run.hashes)
        position = run.first + run.chunks
    tree.add_zeroes(shape.chunks - position)
    return data + writer.trailer(checksums.root_hash(shape.size, shape.chunk, tree.top()))


def read(data: bytes) -> tuple[list[Run], bytes]:
    reader, position, runs = Reader(data, "sums"), checksums.HEADER_BYTES, []
    while True:
        first, count = reader.run_head(data[position : position + checksums.RUN_BYTES])
        position += checksums.RUN_BYTES
        if not count:
            return runs, reader.trailer(data[position : position + 2 * HASH_BYTES])
        runs.append(reader.run(first, count, data[position : position + count * HASH_BYTES]))
        position += count * HASH_BYTES


SHAPE = Shape(1000 * CHUNK - 512, CHUNK)
RUNS = [Run(3, leaf(1) + leaf(2)), Run(500, leaf(3)), Run(998, leaf(4) + leaf(5))]


def test_what_was_kept_is_read_again():
    runs, root = read(kept(SHAPE, RUNS))
    assert runs == RUNS
    assert len(root) == HASH_BYTES
    assert read(kept(SHAPE, []))[0] == []


@pytest.mark.parametrize("seed", range(3))
def test_a_file_with_any_byte_changed_is_refused_by_name(seed: int):
    data, numbers = kept(SHAPE, RUNS), random.Random(seed)
    for at in {*range(48), *(numbers.randrange(len(data)) for _ in range(60))}:
        broken = bytearray(data)
        broken[at] ^= 1 << numbers.randrange(8)
        with pytest.raises(BlockError):
            read(bytes(broken))


def test_a_file_that_was_cut_off_is_refused():
    data = kept(SHAPE, RUNS)
    for length in range(0, len(data), 7):
        with pytest.raises((ImageCorrupt, FormatMismatch)):
            read(data[:length])


@pytest.mark.parametrize("bits", (0, 11, 25, 63, 64, 1 << 31))
def test_a_chunk_size_that_cannot_be_is_refused(bits: int):
    header = struct.pack("<8sIIQQ", b"BYCHKSUM", 1, bits, 4096, 1)
    with pytest.raises(ImageCorrupt, match="chunk size"):
        Reader(header, "sums")
