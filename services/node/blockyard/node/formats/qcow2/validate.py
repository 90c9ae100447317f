"""What a header may say, judged before anything is allocated for it.

Order matters: features first (a feature may change the meaning of everything else), then sizes against
limits, then places against each other.
"""

import itertools
from collections.abc import Iterator

from blockyard.base.errors import ImageCorrupt, SizeTooLarge, UnsupportedFeature
from blockyard.base.ranges import ByteRange, align_up
from blockyard.base.units import MAX_SIZE
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2.geometry import Geometry
from blockyard.node.formats.qcow2.limits import (
    MAX_BACKING_NAME,
    MAX_HOST_OFFSET,
    MAX_L1_BYTES,
    MAX_REFCOUNT_ORDER,
    MAX_REFCOUNT_TABLE_BYTES,
    MAX_SNAPSHOTS,
    MIN_EXTENDED_CLUSTER_BITS,
)

_SUPPORTED_INCOMPATIBLE = hdr.DIRTY | hdr.CORRUPT | hdr.COMPRESSION | hdr.EXTENDED_L2 | hdr.DATA_FILE


def check_features(cluster: hdr.HeaderCluster, image: str) -> None:
    """Raise UnsupportedFeature naming every incompatible feature that we do not have."""
    header = cluster.header
    names = dict(hdr.FEATURE_NAMES)
    table = ext.find(cluster.extensions, ext.FEATURE_NAMES)
    if table is not None:
        names.update(ext.decode_feature_names(table))
    unknown = header.incompatible & ~_SUPPORTED_INCOMPATIBLE
    missing = [
        names.get((ext.FeatureKind.INCOMPATIBLE, bit)) or f"incompatible feature bit {bit}"
        for bit in range(64)
        if unknown >> bit & 1
    ]
    if header.crypt_method not in (0, hdr.CRYPT_AES, hdr.CRYPT_LUKS):
        missing.append(f"encryption method {header.crypt_method}")
    if header.compression_type not in hdr.COMPRESSION_NAMES:
        missing.append(f"compression type {header.compression_type}")
    if missing:
        raise UnsupportedFeature(image, ", ".join(missing))
    if bool(header.incompatible & hdr.COMPRESSION) != (header.compression_type != hdr.ZLIB):
        found = f"type {header.compression_type}, bit {bool(header.incompatible & hdr.COMPRESSION)}"
        raise ImageCorrupt(image, "compression type", "its feature bit set exactly if it is not zlib", found)


def check_header(header: hdr.Header, image: str) -> None:
    """Sizes and places of the fixed fields against the limits and each other."""
    geometry = Geometry.of(header)
    if geometry.extended and header.cluster_bits < MIN_EXTENDED_CLUSTER_BITS:
        expected = f"at least {MIN_EXTENDED_CLUSTER_BITS} with extended L2 entries"
        raise ImageCorrupt(image, "cluster_bits", expected, str(header.cluster_bits))
    _bound(image, "refcount_order", header.refcount_order, MAX_REFCOUNT_ORDER)
    _bound(image, "backing_file_size", header.backing_file_size, MAX_BACKING_NAME)
    _bound(image, "size of the L1 table in bytes", header.l1_size * 8, MAX_L1_BYTES)
    table_bytes = header.refcount_table_clusters << header.cluster_bits
    _bound(image, "size of the refcount table in bytes", table_bytes, MAX_REFCOUNT_TABLE_BYTES)
    _bound(image, "nb_snapshots", header.nb_snapshots, MAX_SNAPSHOTS)
    if header.size > MAX_SIZE:
        raise SizeTooLarge("size in the header", header.size, MAX_SIZE)
    needed = geometry.l1_entries(header.size)
    if header.l1_size < needed:
        raise ImageCorrupt(image, "l1_size", f"at least {needed} for {header.size} bytes", str(header.l1_size))
    if header.refcount_table_clusters == 0:
        raise ImageCorrupt(image, "refcount_table_clusters", "at least 1", "0")
    places = list(header_places(header))
    for what, place in places:
        _check_place(image, what, place, geometry.cluster_size)
    ordered = sorted(places, key=lambda item: item[1])
    for (one, first), (other, second) in itertools.pairwise(ordered):
        if first.overlaps(second):
            raise ImageCorrupt(image, "places of metadata", "no overlap", f"{one} over {other}")


def header_places(header: hdr.Header) -> Iterator[tuple[str, ByteRange]]:
    """The tables that the header points at, in whole clusters, the header's own first."""
    size = header.cluster_size
    yield "header", ByteRange(0, size)
    if header.l1_size:
        yield "L1 table", ByteRange(header.l1_table_offset, align_up(header.l1_size * 8, size))
    yield (
        "refcount table",
        ByteRange(header.refcount_table_offset, header.refcount_table_clusters * size),
    )
    if header.nb_snapshots:
        yield "snapshot table", ByteRange(header.snapshots_offset, size)


def check_inside(image: str, what: str, place: ByteRange, file_size: int) -> None:
    """A table that reaches past the end of the file was cut off."""
    if place.end > file_size:
        raise ImageCorrupt(image, what, f"inside the file of {file_size} bytes", f"an end at {place.end}")


def _check_place(image: str, what: str, place: ByteRange, cluster_size: int) -> None:
    if place.offset % cluster_size or place.end > MAX_HOST_OFFSET:
        expected = f"a multiple of {cluster_size} below {MAX_HOST_OFFSET:#x}"
        raise ImageCorrupt(image, f"offset of the {what}", expected, f"{place.offset:#x}")


def _bound(image: str, what: str, found: int, limit: int) -> None:
    if found > limit:
        raise ImageCorrupt(image, what, f"at most {limit}", str(found))
