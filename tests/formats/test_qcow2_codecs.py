"""The qcow2 codecs: what is decoded encodes to the same bytes, and bad fields are refused by name."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base.errors import FormatMismatch, ImageCorrupt, SizeTooLarge, UnsupportedFeature
from blockyard.node.formats.qcow2 import compression, extensions, header, refcounts, snapshots, tables, validate
from blockyard.node.formats.qcow2.geometry import Geometry
from tests.support import peers

GOOD = header.Header(
    version=3,
    cluster_bits=16,
    size=1 << 30,
    l1_size=2,
    l1_table_offset=0x30000,
    refcount_table_offset=0x10000,
    refcount_table_clusters=1,
)


def headers() -> st.SearchStrategy[header.Header]:
    word, long = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
    return st.builds(
        header.Header,
        version=st.just(3),
        cluster_bits=st.integers(9, 21),
        size=long,
        l1_size=word,
        l1_table_offset=long,
        refcount_table_offset=long,
        refcount_table_clusters=word,
        crypt_method=word,
        nb_snapshots=word,
        snapshots_offset=long,
        incompatible=long,
        compatible=long,
        autoclear=long,
        refcount_order=word,
        header_length=st.just(120),
        compression_type=st.integers(0, 255),
        unknown_fields=st.binary(min_size=15, max_size=15),
    )


@given(headers())
def test_a_header_comes_back_as_it_went(fields: header.Header):
    data = header.encode_fixed(fields)
    assert len(data) == 120
    assert header.decode_fixed(data, "x") == fields


@given(headers())
def test_groups_of_fields_stand_where_they_are_rewritten(fields: header.Header):
    data = header.encode_fixed(fields)
    for at, part in (
        (header.SIZE_AT, header.encode_size(fields)),
        (header.L1_AT, header.encode_l1(fields)),
        (header.REFCOUNT_TABLE_AT, header.encode_refcount_table(fields)),
        (header.FEATURES_AT, header.encode_features(fields)),
    ):
        assert data[at : at + len(part)] == part


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1), st.binary(max_size=40)), max_size=8))
def test_extensions_are_kept_byte_for_byte(records: list[tuple[int, bytes]]):
    given_records = tuple(extensions.Extension(*record) for record in records)
    assert extensions.decode(extensions.encode(given_records), "x") == given_records


@given(st.binary(max_size=200))
def test_any_bytes_are_extensions_or_corrupt(data: bytes):
    try:
        found = extensions.decode(data, "x")
    except ImageCorrupt:
        return
    assert sum(len(item.data) for item in found) <= len(data)


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize(
    "options",
    ["compat=0.10", "compat=1.1", "compression_type=zstd", "lazy_refcounts=on,refcount_bits=64,cluster_size=1024"],
)
def test_a_header_that_qemu_wrote_encodes_to_the_same_bytes(options: str, tmp_path: Path):
    base, path = tmp_path / "base", tmp_path / "disk"
    peers.run("qemu-img", "create", "-q", "-f", "raw", base, "1M")
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", base, "-F", "raw", path, "1M")
    data = path.read_bytes()[:1024]
    cluster = header.decode(data, "x")
    assert header.encode(cluster).ljust(len(data), b"\0") == data
    assert cluster.backing_name.decode() == str(base)
    assert extensions.find(cluster.extensions, extensions.BACKING_FORMAT) == b"raw"


@given(st.integers(0, 6), st.integers(0, 2**32))
def test_refcounts_come_back_as_they_went(order: int, seed: int):
    width = 1 << order
    counters = (
        np.random.default_rng(seed)
        .integers(0, min((1 << width) - 1, 2**63), 512, dtype=np.uint64, endpoint=True)
        .astype(refcounts.dtype_of(order))
    )
    data = refcounts.encode(counters, order)
    assert len(data) == 512 * width // 8
    assert (refcounts.decode(data, order) == counters).all()


def test_narrow_refcounts_are_packed_from_the_least_significant_bit():
    assert refcounts.decode(b"\x21", 2).tolist() == [1, 2]
    assert refcounts.decode(b"\xe4", 1).tolist() == [0, 1, 2, 3]
    assert refcounts.decode(b"\x01", 0).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


@given(st.integers(9, 21), st.integers(0, 2**40), st.data())
def test_a_compressed_entry_covers_its_bytes(bits: int, offset: int, data: st.DataObject):
    length = data.draw(st.integers(1, 1 << bits))
    entry = tables.encode_compressed(offset, length, bits)
    place = tables.decode_compressed(entry, bits)
    assert entry >> 62 == 1
    assert place.offset == offset
    assert offset + length <= place.end < offset + length + 512
    first, last = tables.compressed_clusters(np.array([entry], np.uint64), bits)
    assert first[0] == offset >> bits
    assert last[0] == (place.end - 1) >> bits


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_tables_come_back_as_they_went(entries: list[int]):
    table = np.array(entries, np.uint64)
    decoded = tables.decode(tables.encode(table))
    assert (decoded == table).all()
    assert tables.scalars(decoded).tolist() == entries


@pytest.mark.parametrize("kind", [header.ZLIB, header.ZSTD])
@given(st.binary(max_size=5000), st.binary(max_size=600))
def test_compressed_bytes_come_back_whatever_follows_them(kind: int, data: bytes, garbage: bytes):
    blob = compression.compressor(kind)(data)
    assert compression.decompressor(kind)(blob + garbage, max(1, len(data))) == data


@pytest.mark.parametrize("kind", [header.ZLIB, header.ZSTD])
@given(data=st.binary(max_size=2000))
def test_no_input_expands_past_the_cluster(kind: int, data: bytes):
    result = compression.decompressor(kind)(data, 4096)
    assert result is None or len(result) <= 4096


@pytest.mark.parametrize("kind", [header.ZLIB, header.ZSTD])
def test_a_bomb_gives_no_more_than_was_asked(kind: int):
    bomb = compression.compressor(kind)(bytes(1 << 24))
    assert compression.decompressor(kind)(bomb, 65536) == bytes(65536)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"QFI\xfb", b"\0" * 512, b"conectix" * 64])
def test_what_is_no_qcow2_is_refused(data: bytes):
    with pytest.raises(FormatMismatch):
        header.decode_fixed(data, "x")


@pytest.mark.parametrize("version", [0, 1, 4, 2**32 - 1])
def test_other_versions_are_refused(version: int):
    data = bytearray(header.encode_fixed(GOOD))
    data[4:8] = struct.pack(">I", version)
    with pytest.raises(FormatMismatch, match="version"):
        header.decode_fixed(data, "x")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"l1_size": 2**32 - 1}, "L1"),
        ({"l1_size": 1}, "l1_size"),
        ({"l1_table_offset": 0x30001}, "L1 table"),
        ({"l1_table_offset": 1 << 60}, "L1 table"),
        ({"l1_table_offset": 0}, "no overlap"),
        ({"l1_table_offset": 0x10000}, "no overlap"),
        ({"refcount_table_clusters": 0}, "refcount_table_clusters"),
        ({"refcount_table_clusters": 2**31}, "refcount table"),
        ({"refcount_table_offset": 17}, "refcount table"),
        ({"refcount_order": 7}, "refcount_order"),
        ({"nb_snapshots": 65537}, "nb_snapshots"),
        ({"nb_snapshots": 1, "snapshots_offset": 3}, "snapshot table"),
        ({"backing_file_size": 1024}, "backing_file_size"),
    ],
)
def test_fields_out_of_bounds_are_named(changes: dict[str, int], word: str):
    with pytest.raises(ImageCorrupt, match=word):
        validate.check_header(replace(GOOD, **changes), "x")


def test_a_size_past_the_largest_offset_is_refused():
    with pytest.raises(SizeTooLarge):
        validate.check_header(replace(GOOD, size=1 << 63), "x")


def test_a_feature_that_we_lack_is_named_by_its_bit():
    with pytest.raises(UnsupportedFeature, match="incompatible feature bit 40"):
        validate.check_features(header.HeaderCluster(replace(GOOD, incompatible=1 << 40)), "x")


def test_the_images_own_table_names_features_from_the_future():
    names = extensions.encode_feature_names({(0, 40): "time travel"})
    cluster = header.HeaderCluster(
        replace(GOOD, incompatible=1 << 40), (extensions.Extension(extensions.FEATURE_NAMES, names),)
    )
    with pytest.raises(UnsupportedFeature, match="time travel"):
        validate.check_features(cluster, "x")


def test_a_snapshot_table_that_ends_too_early_is_corrupt():
    with pytest.raises(ImageCorrupt, match="snapshot table"):
        snapshots.decode(bytes(30), 1, 65536, "x")


@given(st.binary(max_size=300), st.integers(0, 5))
def test_any_bytes_are_a_snapshot_table_or_corrupt(data: bytes, count: int):
    try:
        found, length = snapshots.decode(data, count, 512, "x")
    except ImageCorrupt:
        return
    assert len(found) == count
    assert length <= len(data) + 7


def test_geometry_divides_space_as_the_spec_says():
    geometry = Geometry(16, 4)
    assert (geometry.cluster_size, geometry.entries_per_table, geometry.table_bits) == (65536, 8192, 29)
    assert (geometry.block_entries, geometry.max_refcount) == (32768, 65535)
    assert [geometry.l1_entries(size) for size in (0, 1, 1 << 29, (1 << 29) + 1)] == [0, 1, 1, 2]
