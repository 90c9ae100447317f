"""Bytes on their way: chunks, holes and zeroes."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from blockyard.client import pieces
from blockyard.client.pieces import CHUNK, Piece, cut, from_file, from_stream, to_file, to_stream


def joined(items: list[Piece], origin: int = 0) -> bytes:
    content = bytearray(max((piece.offset + piece.length - origin for piece in items), default=0))
    for piece in items:
        if piece.data is not None:
            assert len(piece.data) == piece.length
            content[piece.offset - origin : piece.offset - origin + piece.length] = piece.data
    return bytes(content)


async def collected(source) -> list[Piece]:
    return [piece async for piece in source]


@given(some.binary(max_size=64), some.integers(0, 2**40), some.booleans(), some.sampled_from([1, 4096, CHUNK]))
def test_pieces_of_a_buffer_are_the_buffer(data, offset, sparse, repeat):
    content = data * repeat
    if len(content) > 3 * CHUNK:
        content = content[: 3 * CHUNK - 1]
    items = list(cut(content, offset, sparse))
    assert joined(items, offset) == content
    assert all(piece.length <= CHUNK for piece in items)
    assert sparse or all(piece.data is not None for piece in items)


def test_a_chunk_of_zeroes_carries_no_data_if_sparse():
    assert [piece.data for piece in cut(bytes(2 * CHUNK), 0, sparse=True)] == [None, None]


async def test_holes_of_a_file_are_passed_on_in_one_piece_unread(tmp_path: Path):
    path = tmp_path / "sparse"
    with path.open("wb") as sink:
        sink.write(b"a" * 4096)
        sink.seek(1 << 40)
        sink.write(b"b" * 4096)
        sink.truncate(2 << 40)
    items = await collected(from_file(path, 512))
    assert [(piece.offset, piece.data is None) for piece in items] == [
        (512, False),
        (512 + 4096, True),
        (512 + (1 << 40), False),
        (512 + (1 << 40) + 4096, True),
    ]
    assert sum(piece.length for piece in items) == 2 << 40


async def test_a_dense_file_is_read_whole(tmp_path: Path):
    path = tmp_path / "dense"
    content = os.urandom(3 * CHUNK + 17)
    path.write_bytes(content)
    items = await collected(from_file(path, 0, sparse=False))
    assert joined(items) == content


async def test_a_pipe_given_by_name_is_read_to_its_end(tmp_path: Path):
    read_end, write_end = os.pipe()
    os.write(write_end, b"through a pipe")
    os.close(write_end)
    items = await collected(from_file(Path(f"/dev/fd/{read_end}"), 10))
    os.close(read_end)
    assert joined(items, 10) == b"through a pipe"


class Dripping(io.RawIOBase):
    """Gives a few bytes at a time, as pipes do."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, size: int = -1) -> bytes:
        part, self.content = self.content[: min(size, 1000)], self.content[1000:]
        return part


async def test_a_stream_that_drips_is_still_sent_in_whole_chunks():
    content = os.urandom(2 * CHUNK + 5)
    items = await collected(from_stream(Dripping(content), 0))
    assert [piece.length for piece in items] == [CHUNK, CHUNK, 5]
    assert joined(items) == content


async def test_a_stream_is_read_no_further_than_its_limit():
    source = io.BytesIO(b"x" * 100)
    items = await collected(from_stream(source, 0, limit=10))
    assert joined(items) == b"x" * 10
    assert source.tell() == 10


@settings(max_examples=20, deadline=None)
@given(some.lists(some.tuples(some.integers(1, 5), some.booleans()), max_size=8))
async def test_a_file_written_from_pieces_reads_back_and_keeps_its_holes(tmp_path_factory, shape):
    path = tmp_path_factory.mktemp("pieces") / "out"
    items, offset = [], 1 << 20
    for pages, is_data in shape:
        length = pages * 65536
        items.append(Piece(offset, length, os.urandom(length) if is_data else None))
        offset += length

    async def source():
        for item in items:
            yield item

    assert await to_file(source(), path, 1 << 20) == offset - (1 << 20)
    assert path.read_bytes() == joined(items, 1 << 20)
    data = sum(piece.length for piece in items if piece.data is not None)
    assert path.stat().st_blocks * 512 <= data + 65536


async def test_zeroes_go_into_a_pipe_as_bytes():
    sink = io.BytesIO()

    async def source():
        yield Piece(0, 3, b"abc")
        yield Piece(3, CHUNK + 1, None)

    assert await to_stream(source(), sink) == CHUNK + 4
    assert sink.getvalue() == b"abc" + bytes(CHUNK + 1)


async def test_a_file_that_shrinks_while_it_is_read_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "shrinking"
    path.write_bytes(b"a" * 100)
    monkeypatch.setattr(pieces, "BLOCK", 40)
    items = []
    async for piece in from_file(path, 0, sparse=False):
        items.append(piece)
        os.truncate(path, 40)
    assert joined(items) == b"a" * 40
