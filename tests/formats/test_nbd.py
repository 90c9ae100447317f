"""The NBD codec: what one side builds the other parses, and no length of a stranger is believed."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base.errors import ProtocolViolation
from blockyard.node.formats import nbd

names = st.text(max_size=40)


@given(names, st.lists(st.integers(0, 65535), max_size=8))
def test_an_info_query_comes_back_as_it_was(name, wanted):
    query = nbd.InfoQuery(name, tuple(wanted))
    assert nbd.parse_info_query(nbd.info_query(query)) == query


@given(names, st.lists(names, max_size=8))
def test_a_meta_query_comes_back_as_it_was(name, queries):
    query = nbd.MetaQuery(name, tuple(queries))
    assert nbd.parse_meta_query(nbd.meta_query(query)) == query


@given(st.binary(max_size=64))
def test_option_data_is_parsed_or_refused_but_never_read_past_its_end(data):
    for parse in (nbd.parse_info_query, nbd.parse_meta_query, nbd.parse_server_entry, nbd.parse_meta_context):
        with contextlib.suppress(ProtocolViolation):
            parse(data)


@given(st.binary(max_size=64))
def test_chunk_payloads_are_parsed_or_refused(payload):
    for parse in (nbd.parse_data, nbd.parse_hole, nbd.parse_error, nbd.parse_block_status):
        with contextlib.suppress(ProtocolViolation):
            parse(payload)


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_request_comes_back_as_it_was(flags, kind, cookie, offset):
    data = nbd.request(kind, cookie, offset, 4096, flags)
    assert len(data) == 28
    assert nbd.parse_request(data) == (flags, kind, cookie, offset, 4096)


def test_a_greeting_tells_its_handshake_flags():
    assert nbd.greeting(3) == b"NBDMAGICIHAVEOPT\x00\x03"
    assert nbd.parse_greeting(nbd.greeting(3)) == 3


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (nbd.parse_greeting, b"NBDMAGIC" + bytes.fromhex("00420281861253") + bytes(3)),
        (nbd.parse_option_reply, bytes(20)),
        (nbd.parse_request, bytes(28)),
        (nbd.parse_simple_reply, bytes(16)),
        (nbd.parse_chunk, bytes(20)),
    ],
)
def test_a_wrong_magic_is_a_violation(parse, data):
    with pytest.raises(ProtocolViolation, match="magic"):
        parse(data)


def test_a_name_whose_inner_length_leaves_the_option_is_a_violation():
    with pytest.raises(ProtocolViolation, match="string length"):
        nbd.parse_info_query(b"\xff\xff\xff\xff" + b"name" + b"\0\0")


def test_a_name_of_4096_bytes_passes_and_one_more_does_not():
    assert nbd.parse_string(b"x" * 4096) == "x" * 4096
    with pytest.raises(ProtocolViolation, match="at most 4096"):
        nbd.parse_string(b"x" * 4097)


def test_a_name_that_is_not_utf8_is_a_violation():
    with pytest.raises(ProtocolViolation, match="UTF-8"):
        nbd.parse_string(b"ok\xff")


def test_a_query_count_beyond_the_data_is_refused_before_any_loop():
    with pytest.raises(ProtocolViolation, match="number of queries"):
        nbd.parse_meta_query(b"\0\0\0\0" + b"\xff\xff\xff\xff")


def test_a_hundred_thousand_bytes_of_error_text_are_cut_between_characters():
    text = nbd.cut_text("\u20ac" * 100_000)
    assert len(text) <= 1024
    assert set(text.decode()) == {"\u20ac"}


def test_an_error_chunk_tells_its_error_and_text():
    data = nbd.error_chunk(7, nbd.EIO, "disk on fire")
    chunk = nbd.parse_chunk(data[:20])
    assert (chunk.kind, chunk.cookie, chunk.length) == (nbd.REPLY_TYPE_ERROR, 7, len(data) - 20)
    assert nbd.parse_error(data[20:]) == (nbd.EIO, "disk on fire")


def test_a_block_status_chunk_lists_its_extents():
    extents = [(4096, nbd.STATE_HOLE | nbd.STATE_ZERO), (65536, 0)]
    data = nbd.block_status_chunk(7, 3, extents, done=False)
    assert nbd.parse_chunk(data[:20]).flags == 0
    assert nbd.parse_block_status(data[20:]) == (3, extents)


def test_an_export_entry_tells_name_and_description():
    assert nbd.parse_server_entry(nbd.server_entry("disk0", "the first")) == ("disk0", "the first")


def test_information_tells_size_flags_and_block_sizes():
    assert nbd.parse_info_export(nbd.info_export(1 << 40, 0x1ED)) == (1 << 40, 0x1ED)
    sizes = nbd.BlockSize(1, 4096, 1 << 25)
    assert nbd.parse_info_block_size(nbd.info_block_size(sizes)) == sizes


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_a_simple_reply_comes_back_as_it_was(cookie, error):
    assert nbd.parse_simple_reply(nbd.simple_reply(cookie, error)) == (cookie, error)
