"""What is read of an upload's messages by hand is what protobuf reads."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from blockyard.node.rpc.pieces import Piece, piece_of
from blockyard.v1.data_pb2 import WriteRequest

OFFSETS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300)


def by_protobuf(wire: bytes) -> Piece:
    message = WriteRequest.FromString(wire)
    zeroes = message.WhichOneof("content") == "zero_length_bytes"
    return Piece(
        message.offset_bytes,
        None if zeroes else message.data,
        message.zero_length_bytes,
        message.node_name,
        message.fua,
        message.compressed,
    )


def by_hand(wire: bytes) -> Piece:
    piece = piece_of(wire)
    return piece._replace(data=None if piece.data is None else bytes(piece.data))


@given(st.text(max_size=20), OFFSETS, st.binary(max_size=300), st.none() | OFFSETS, st.booleans(), st.booleans())
def test_every_message_is_read_alike(name, offset, content, zeroes, fua, compressed):
    message = WriteRequest(node_name=name, offset_bytes=offset, fua=fua, compressed=compressed, data=content)
    if zeroes is not None:
        message.zero_length_bytes = zeroes
    assert by_hand(message.SerializeToString()) == by_protobuf(message.SerializeToString())


@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda rest: b"\x10\x05\x1a" + rest))
def test_hostile_bytes_are_read_or_refused_alike(wire: bytes):
    try:
        wanted = by_protobuf(wire)
    except DecodeError:
        with pytest.raises(DecodeError):
            by_hand(wire)
    else:
        assert by_hand(wire) == wanted


def test_the_usual_piece_is_not_copied():
    wire = WriteRequest(offset_bytes=123456, data=b"x" * 5000).SerializeToString()
    piece = piece_of(wire)
    assert isinstance(piece.data, memoryview) and piece.data.obj is wire
