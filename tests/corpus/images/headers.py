"""Fields of the header: lengths, bounds, versions, extensions, features."""

import struct

from tests.corpus.entry import Entry, blob, image, refused
from tests.corpus.writer import (
    BACKING_FORMAT,
    FEATURE_NAMES,
    GIB,
    MIB,
    V3_LENGTH,
    Image,
    extension,
    feature_name,
    plain,
)

FIELDS = "header fields"
EXTENSIONS = "header extensions"
FEATURES = "unknown features"


def _with(**fields: int) -> Image:
    return plain(fields=fields)


def _cut(length: int) -> Image:
    made = plain()
    return Image(made.data[:length])


def _field(name: str, source: str, word: str, reason: str = "IMAGE_CORRUPT", **fields: int) -> Entry:
    answers = refused(reason, word)
    if name == "magic-of-nothing":
        del answers["guess"]
    return Entry(name, FIELDS, source, image(lambda: _with(**fields)), answers)


_HEADER = [
    _field("cluster-bits-8", "limit: cluster_bits 9..21", "cluster_bits", cluster_bits=8),
    _field("cluster-bits-22", "limit: cluster_bits 9..21", "cluster_bits", cluster_bits=22),
    _field("cluster-bits-2-to-32", "CVE-2014-0144", "cluster_bits", cluster_bits=0xFFFFFFFF),
    _field("version-1", "CVE-2014-0222: qcow1 has its own driver", "", "FORMAT_MISMATCH", version=1),
    _field("version-4", "spec: versions 2 and 3", "", "FORMAT_MISMATCH", version=4),
    _field("magic-of-nothing", "spec: magic", "begins with", "FORMAT_MISMATCH", magic=0),
    _field("header-length-0", "CVE-2014-0144", "header_length", header_length=0),
    _field("header-length-past-the-cluster", "CVE-2014-0144", "header_length", header_length=1 << 17),
    _field("header-length-odd", "spec: multiple of 8", "header_length", header_length=109),
    _field("refcount-order-7", "limit: refcount_order <= 6", "refcount_order", refcount_order=7),
    _field("refcount-order-2-to-32", "CVE-2014-0143", "refcount_order", refcount_order=0xFFFFFFFF),
    _field("size-2-to-64", "CVE-2014-0223", "size in the header", "SIZE_TOO_LARGE", size=(1 << 64) - 512),
    _field("size-past-its-l1", "CVE-2014-0143", "l1_size", size=GIB << 10),
    _field("l1-of-32-gib", "CVE-2014-0143; limit: L1 <= 32 MiB", "L1 table", l1_size=0xFFFFFFFF),
    _field("l1-unaligned", "spec: tables are aligned", "L1 table", l1_table_offset=(3 << 16) + 8),
    _field("l1-at-2-to-63", "CVE-2014-0143", "L1 table", l1_table_offset=1 << 63),
    _field("l1-past-the-end", "spec: inside the file", "L1 table", l1_table_offset=GIB),
    _field("l1-at-the-header", "overlap: header", "overlap", l1_table_offset=0),
    _field(
        "refcount-table-empty", "QEMU: at least one cluster", "refcount_table_clusters", refcount_table_clusters=0
    ),
    _field(
        "refcount-table-of-256-tib",
        "CVE-2014-0144; limit: <= 8 MiB",
        "refcount table",
        refcount_table_clusters=0xFFFFFFFF,
    ),
    _field("refcount-table-unaligned", "spec: tables are aligned", "refcount table", refcount_table_offset=65540),
    _field("refcount-table-past-the-end", "spec: inside the file", "refcount table", refcount_table_offset=GIB),
    Entry(
        "only-the-magic",
        FIELDS,
        "CVE-2014-0144",
        blob(b"QFI\xfb"),
        {**refused("FORMAT_MISMATCH", "bytes long"), **refused("FORMAT_MISMATCH", "qcow", "guess")},
    ),
    Entry(
        "cut-inside-the-header",
        FIELDS,
        "CVE-2014-0144",
        image(lambda: _cut(80)),
        refused("IMAGE_CORRUPT", "length"),
    ),
    Entry(
        "cut-behind-the-header",
        FIELDS,
        "spec: inside the file",
        image(lambda: _cut(1 << 16)),
        refused("IMAGE_CORRUPT", "L1 table"),
    ),
    Entry(
        "a-size-that-is-no-sector",
        FIELDS,
        "QEMU rounds such a size down",
        image(lambda: _with(size=MIB - 100)),
        {},
    ),
]


def _extended(*extensions: bytes, **options: bool) -> Image:
    return plain(extensions=extensions, **options)  # type: ignore[arg-type]


def _endless() -> Image:
    """Empty records to the end of a 2 MiB cluster: a quarter of a million of them."""
    made = plain(cluster_bits=21, written=())
    record = extension(0x12345678, b"")
    room = (1 << 21) - V3_LENGTH
    made.data[V3_LENGTH : V3_LENGTH + room] = record * (room // len(record))
    return made


def _two_formats() -> Image:
    """The backing format twice: which one counts?"""
    return plain(
        backing=b"base", extensions=[extension(BACKING_FORMAT, b"raw"), extension(BACKING_FORMAT, b"qcow2")]
    )


_EXTENSIONS = [
    Entry(
        "extension-of-4-gib",
        EXTENSIONS,
        "CVE-2014-0144",
        image(lambda: _extended(extension(0x12345678, b"", 0xFFFFFFF8))),
        refused("IMAGE_CORRUPT", "0x12345678"),
    ),
    Entry(
        "extension-length-wraps",
        EXTENSIONS,
        "CVE-2014-0144",
        image(lambda: _extended(extension(0x12345678, b"", 0xFFFFFFFF))),
        refused("IMAGE_CORRUPT", "0x12345678"),
    ),
    Entry("extensions-without-end", EXTENSIONS, "exhaustion: 262,130 empty records", image(_endless), {}),
    Entry(
        "feature-table-cut",
        EXTENSIONS,
        "spec: records of 48 bytes",
        image(lambda: _extended(extension(FEATURE_NAMES, feature_name(0, 5, b"cut")[:20]))),
        {},
    ),
    Entry(
        "backing-format-twice",
        EXTENSIONS,
        "spec: one of each",
        image(_two_formats),
        refused("BACKING_MISSING", "base", "chain", "open", "write"),
    ),
    Entry(
        "backing-format-not-text",
        EXTENSIONS,
        "names are opaque",
        image(lambda: plain(backing=b"base", extensions=[extension(BACKING_FORMAT, b"\xff\xfe\0\n")])),
        refused("BACKING_MISSING", "base", "chain", "open", "write"),
    ),
    Entry(
        "bitmaps-extension-short",
        EXTENSIONS,
        "spec: 24 bytes",
        image(lambda: _extended(extension(0x23852875, b"1234")).header(autoclear_features=1)),
        {
            operation: answer
            for operation, answer in refused("IMAGE_CORRUPT", "bitmaps extension").items()
            if operation != "repair"
        },
    ),
]


def _bit(number: int, name: bytes = b"") -> Image:
    extensions = [extension(FEATURE_NAMES, feature_name(0, number, name))] if name else []
    return plain(extensions=extensions, fields={"incompatible_features": 1 << number})


def _all_bits() -> Image:
    names = b"".join(feature_name(0, bit, b"N" * 46) for bit in range(64))
    return plain(extensions=[extension(FEATURE_NAMES, names)], fields={"incompatible_features": (1 << 64) - 1})


_FEATURES = [
    Entry(
        "feature-5",
        FEATURES,
        "spec: bit 5 is reserved",
        image(lambda: _bit(5)),
        refused("UNSUPPORTED_FEATURE", "bit 5"),
    ),
    Entry(
        "feature-63-by-name",
        FEATURES,
        "spec: names come from the image",
        image(lambda: _bit(63, b"time travel")),
        refused("UNSUPPORTED_FEATURE", "time travel"),
    ),
    Entry(
        "feature-name-of-control-characters",
        FEATURES,
        "a terminal reads our messages",
        image(lambda: _bit(40, b"\x1b[2J\n")),
        refused("UNSUPPORTED_FEATURE", "\ufffd[2J\ufffd"),
    ),
    Entry(
        "all-features", FEATURES, "spec: incompatible bits", image(_all_bits), refused("UNSUPPORTED_FEATURE", "NNN")
    ),
    Entry(
        "compression-type-9",
        FEATURES,
        "spec: 0 and 1",
        image(lambda: _with(compression_type=9, incompatible_features=8)),
        refused("UNSUPPORTED_FEATURE", "compression type 9"),
    ),
    Entry(
        "compression-type-without-its-bit",
        FEATURES,
        "spec: the bit is set exactly if it is not 0",
        image(lambda: _with(compression_type=1)),
        refused("IMAGE_CORRUPT", "compression type"),
    ),
    Entry(
        "unknown-compatible-and-autoclear",
        FEATURES,
        "spec: those may be ignored",
        image(lambda: _with(compatible_features=1 << 40, autoclear_features=1 << 40)),
        {},
    ),
    Entry(
        "unknown-fields",
        FEATURES,
        "spec: additional fields are kept",
        image(lambda: _unknown_fields()),
        {},
    ),
]


def _unknown_fields() -> Image:
    made = plain(end_mark=False)
    made.data[V3_LENGTH : V3_LENGTH + 64] = struct.pack(">8Q", *[0xDEADBEEF] * 7, 0)
    return made.header(header_length=V3_LENGTH + 56)


ENTRIES = (*_HEADER, *_EXTENSIONS, *_FEATURES)
