"""The header cluster: fixed fields, extensions, backing file name.

`decode_fixed` needs the first 512 bytes, `decode` the whole header cluster. A decoded header encodes to the
same bytes. What a value may be in relation to the file is `validate`'s business (module `validate`).
"""

import struct
from dataclasses import dataclass, replace
from typing import Final

from blockyard.base.errors import FormatMismatch, ImageCorrupt
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2.limits import MAX_CLUSTER_BITS, MIN_CLUSTER_BITS

MAGIC: Final = 0x514649FB
"""'QFI' 0xfb."""

_COMMON: Final = struct.Struct(">IIQIIQIIQQIIQ")
_V3: Final = struct.Struct(">QQQII")
V2_LENGTH: Final = _COMMON.size
V3_LENGTH: Final = _COMMON.size + _V3.size
LONG_LENGTH: Final = V3_LENGTH + 8
"""With compression_type and its padding (spec, additional fields)."""

DIRTY: Final = 1 << 0
CORRUPT: Final = 1 << 1
DATA_FILE: Final = 1 << 2
COMPRESSION: Final = 1 << 3
EXTENDED_L2: Final = 1 << 4
CRYPT_AES: Final = 1
CRYPT_LUKS: Final = 2
LAZY_REFCOUNTS: Final = 1 << 0
"""Of the compatible bits."""
AUTOCLEAR_BITMAPS: Final = 1 << 0
AUTOCLEAR_DATA_FILE_RAW: Final = 1 << 1

ZLIB: Final = 0
ZSTD: Final = 1
COMPRESSION_NAMES: Final = {ZLIB: "zlib", ZSTD: "zstd"}

FEATURE_NAMES: Final[dict[tuple[int, int], str]] = {
    (ext.FeatureKind.INCOMPATIBLE, 0): "dirty bit",
    (ext.FeatureKind.INCOMPATIBLE, 1): "corrupt bit",
    (ext.FeatureKind.INCOMPATIBLE, 2): "external data file",
    (ext.FeatureKind.INCOMPATIBLE, 3): "compression type",
    (ext.FeatureKind.INCOMPATIBLE, 4): "extended L2 entries",
    (ext.FeatureKind.COMPATIBLE, 0): "lazy refcounts",
    (ext.FeatureKind.AUTOCLEAR, 0): "bitmaps",
    (ext.FeatureKind.AUTOCLEAR, 1): "raw external data",
}
"""Names as QEMU writes them (block/qcow2.c:qcow2_update_header)."""

SIZE_AT: Final = 24
L1_AT: Final = 36
REFCOUNT_TABLE_AT: Final = 48
FEATURES_AT: Final = 72
"""Byte positions of the groups of fields that are rewritten alone. Each group lies inside one sector."""


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed fields under the spec's names."""

    version: int
    cluster_bits: int
    size: int
    l1_size: int
    """Entries."""
    l1_table_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    backing_file_offset: int = 0
    backing_file_size: int = 0
    crypt_method: int = 0
    nb_snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_length: int = LONG_LENGTH
    compression_type: int = ZLIB
    unknown_fields: bytes = b""
    """Header bytes after those we know, kept."""

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits


@dataclass(frozen=True, slots=True)
class HeaderCluster:
    """Everything the header cluster holds."""

    header: Header
    extensions: tuple[ext.Extension, ...] = ()
    backing_name: bytes = b""

    @property
    def extensions_end(self) -> int:
        return self.header.header_length + len(ext.encode(self.extensions))

    @property
    def end(self) -> int:
        """First byte after the last that means something."""
        if not self.backing_name:
            return self.extensions_end
        return max(self.extensions_end, self.header.backing_file_offset + len(self.backing_name))

    def with_header(self, **changes: int) -> "HeaderCluster":
        return HeaderCluster(replace(self.header, **changes), self.extensions, self.backing_name)  # type: ignore[arg-type]


def decode_fixed(data: bytes | bytearray | memoryview, image: str) -> Header:
    """The fixed fields out of the first bytes of a file (512 or more, or all there are)."""
    if len(data) < V2_LENGTH:
        raise FormatMismatch(image, "qcow2", f"only {len(data)} bytes long")
    (magic, version, backing_offset, backing_size, cluster_bits, size, crypt, l1_size, l1_offset) = (
        _COMMON.unpack_from(data)[:9]
    )
    table_offset, table_clusters, snapshots, snapshots_offset = _COMMON.unpack_from(data)[9:]
    if magic != MAGIC:
        raise FormatMismatch(image, "qcow2", f"it begins with {bytes(data[:4])!r}")
    if version not in (2, 3):
        raise FormatMismatch(image, "qcow2", f"qcow version {version}; versions 2 and 3 are supported")
    if not MIN_CLUSTER_BITS <= cluster_bits <= MAX_CLUSTER_BITS:
        raise ImageCorrupt(image, "cluster_bits", f"{MIN_CLUSTER_BITS} to {MAX_CLUSTER_BITS}", str(cluster_bits))
    base = Header(
        version, cluster_bits, size, l1_size, l1_offset, table_offset, table_clusters, backing_offset,
        backing_size, crypt, snapshots, snapshots_offset, header_length=V2_LENGTH,
    )  # fmt: skip
    return base if version == 2 else _with_v3_fields(base, data, image)


def _with_v3_fields(base: Header, data: bytes | bytearray | memoryview, image: str) -> Header:
    if len(data) < V3_LENGTH:
        raise ImageCorrupt(image, "file length", f"at least the v3 header's {V3_LENGTH}", str(len(data)))
    incompatible, compatible, autoclear, order, length = _V3.unpack_from(data, V2_LENGTH)
    if not V3_LENGTH <= length <= base.cluster_size or length % 8:
        raise ImageCorrupt(
            image, "header_length", f"a multiple of 8 from {V3_LENGTH} to {base.cluster_size}", str(length)
        )
    has_type = length > V3_LENGTH and len(data) >= LONG_LENGTH
    return replace(
        base,
        incompatible=incompatible,
        compatible=compatible,
        autoclear=autoclear,
        refcount_order=order,
        header_length=length,
        compression_type=data[V3_LENGTH] if has_type else ZLIB,
        unknown_fields=bytes(data[V3_LENGTH + 1 : min(length, len(data))]) if has_type else b"",
    )


def decode(data: bytes | bytearray | memoryview, image: str) -> HeaderCluster:
    """The header cluster. `data` is the cluster, or as much of it as the file has."""
    header = decode_fixed(data, image)
    name_at, name_size = header.backing_file_offset, header.backing_file_size
    end = len(data)
    name = b""
    if name_at:
        if name_at < header.header_length or name_at + name_size > len(data):
            raise ImageCorrupt(
                image,
                "place of the backing file name",
                f"inside the header cluster, after byte {header.header_length}",
                f"[{name_at}, +{name_size})",
            )
        name = bytes(data[name_at : name_at + name_size])
        # An end mark is not needed before the name, and early images had none (qcow2_read_extensions).
        end = name_at
    extensions = ext.decode(memoryview(data)[header.header_length : end], image)
    return HeaderCluster(header, extensions, name)


def encode_fixed(header: Header) -> bytes:
    """Exactly `header_length` bytes."""
    common = _COMMON.pack(
        MAGIC, header.version, header.backing_file_offset, header.backing_file_size, header.cluster_bits,
        header.size, header.crypt_method, header.l1_size, header.l1_table_offset,
        header.refcount_table_offset, header.refcount_table_clusters, header.nb_snapshots,
        header.snapshots_offset,
    )  # fmt: skip
    if header.version == 2:
        return common
    fixed = common + encode_features(header) + struct.pack(">II", header.refcount_order, header.header_length)
    if header.header_length > V3_LENGTH:
        fixed += bytes([header.compression_type]) + header.unknown_fields
    return fixed.ljust(header.header_length, b"\0")


def encode(cluster: HeaderCluster) -> bytes:
    """The header cluster up to its end (not padded to the cluster size)."""
    data = bytearray(cluster.end)
    fixed = encode_fixed(cluster.header)
    data[: len(fixed)] = fixed
    tail = ext.encode(cluster.extensions)
    data[len(fixed) : len(fixed) + len(tail)] = tail
    if cluster.backing_name:
        at = cluster.header.backing_file_offset
        data[at : at + len(cluster.backing_name)] = cluster.backing_name
    return bytes(data)


def encode_features(header: Header) -> bytes:
    """What stands at FEATURES_AT."""
    return struct.pack(">QQQ", header.incompatible, header.compatible, header.autoclear)


def encode_size(header: Header) -> bytes:
    """What stands at SIZE_AT."""
    return struct.pack(">Q", header.size)


def encode_l1(header: Header) -> bytes:
    """What stands at L1_AT: count of entries and place, in one piece."""
    return struct.pack(">IQ", header.l1_size, header.l1_table_offset)


def encode_refcount_table(header: Header) -> bytes:
    """What stands at REFCOUNT_TABLE_AT."""
    return struct.pack(">QI", header.refcount_table_offset, header.refcount_table_clusters)


def encode_refcounts(header: Header) -> bytes:
    """What stands at REFCOUNT_TABLE_AT up to the width of refcounts, in one piece of one sector; version 3."""
    assert header.version >= 3
    return encode_fixed(header)[REFCOUNT_TABLE_AT : V3_LENGTH - 4]


def encode_roots(header: Header) -> bytes:
    """What stands at SIZE_AT up to the features: size and the places of all tables, in one piece of one sector."""
    return encode_fixed(header)[SIZE_AT:V2_LENGTH]
