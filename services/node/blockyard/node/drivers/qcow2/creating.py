"""A new image: tables first, the header last, so that an unfinished one is no qcow2 at all.

Layout: header cluster, refcount table, refcount blocks, L1 table, all in order and counted. Preallocation is
done on the open image by the same code that serves writes, so it is crash-safe like them.
"""

from dataclasses import dataclass

import numpy as np

from blockyard.base.errors import InvalidArgument, SizeTooLarge
from blockyard.base.ranges import ByteRange, align_up, is_power_of_two
from blockyard.base.units import MAX_SIZE, MIB
from blockyard.node.drivers._luks import creating as luks
from blockyard.node.drivers._luks.header import Place
from blockyard.node.drivers.qcow2 import opening
from blockyard.node.drivers.qcow2.options import VERSIONS, Qcow2CreateOptions, Qcow2Encryption, Qcow2Options
from blockyard.node.drivers.qcow2.preallocating import preallocate
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import refcounts, tables
from blockyard.node.formats.qcow2.geometry import Geometry
from blockyard.node.formats.qcow2.limits import (
    MAX_BACKING_NAME,
    MAX_CLUSTER_BITS,
    MAX_L1_BYTES,
    MIN_CLUSTER_BITS,
    MIN_EXTENDED_CLUSTER_BITS,
    SECTOR,
)
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import DriverContext
from blockyard.node.interface.flags import Preallocation

_COMPRESSIONS = {name: number for number, name in hdr.COMPRESSION_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a new image are, in clusters."""

    table_clusters: int
    blocks: int
    l1_clusters: int
    crypto_clusters: int = 0

    @property
    def block_first(self) -> int:
        return 1 + self.table_clusters

    @property
    def l1_first(self) -> int:
        return self.block_first + self.blocks

    @property
    def crypto_first(self) -> int:
        return self.l1_first + self.l1_clusters

    @property
    def end(self) -> int:
        return self.crypto_first + self.crypto_clusters


async def create(options: Qcow2CreateOptions, context: DriverContext) -> None:
    header = _header(options)
    geometry = Geometry.of(header)
    wish = options.encrypt.wish() if options.encrypt is not None else None
    crypto_bytes = luks.header_bytes(wish) if wish is not None else 0
    layout = _layout(geometry, header.l1_size, geometry.clusters(crypto_bytes))
    crypto = ByteRange(layout.crypto_first * geometry.cluster_size, crypto_bytes)
    cluster = _cluster(options, header, layout, crypto)
    file = context.children["file"]
    if file.size:
        await file.truncate(0)
    await _write_tables(file, geometry, layout)
    if wish is not None:
        place = Place(file, crypto.offset, crypto.length, file.filename or context.node_name, inside=True)
        await luks.create(place, wish, context)
    await file.flush()
    image = hdr.encode(cluster)
    if len(image) > geometry.cluster_size:
        raise InvalidArgument("backing_file", "a name that fits into the header cluster", options.backing_file)
    await file.write(0, image)
    await file.flush()
    mode = options.preallocation
    if options.data_file:
        data = context.children["data-file"]
        await data.truncate(options.size, Preallocation.OFF if mode == Preallocation.METADATA else mode, True)
        await data.flush()
    if mode == Preallocation.OFF and options.data_file_raw:
        # Without a mapping the image would not show what the data file holds (qcow2_co_create).
        mode = Preallocation.METADATA
    if mode != Preallocation.OFF:
        encrypt = Qcow2Encryption("luks", wish.key_secret) if wish is not None else None
        opened = await opening.open_image(context, Qcow2Options(encrypt=encrypt))
        await opened.before_write()
        await preallocate(opened, 0, options.size, mode)
        await opened.writeback.retire()


def crypto_bytes(options: Qcow2CreateOptions) -> int:
    """Whole clusters that the encryption header takes."""
    if options.encrypt is None:
        return 0
    return align_up(luks.header_bytes(options.encrypt.wish()), options.cluster_size)


def _header(options: Qcow2CreateOptions) -> hdr.Header:
    """The header without places."""
    check(options)
    version = VERSIONS[options.version]
    kind = _COMPRESSIONS[options.compression_type]
    bits = options.cluster_size.bit_length() - 1
    order = options.refcount_bits.bit_length() - 1
    geometry = Geometry(bits, order, options.extended_l2)
    entries = geometry.l1_entries(options.size)
    if entries * 8 > MAX_L1_BYTES:
        limit = MAX_L1_BYTES // 8 << geometry.table_bits
        raise SizeTooLarge("size", options.size, min(limit, MAX_SIZE))
    return hdr.Header(
        version=version,
        cluster_bits=bits,
        size=options.size,
        l1_size=entries,
        l1_table_offset=0,
        refcount_table_offset=0,
        refcount_table_clusters=0,
        incompatible=_features(options, kind),
        crypt_method=hdr.CRYPT_LUKS if options.encrypt is not None else 0,
        compatible=hdr.LAZY_REFCOUNTS if options.lazy_refcounts else 0,
        autoclear=hdr.AUTOCLEAR_DATA_FILE_RAW if options.data_file_raw else 0,
        refcount_order=order,
        header_length=hdr.LONG_LENGTH if version == 3 else hdr.V2_LENGTH,
        compression_type=kind,
        unknown_fields=bytes(7) if version == 3 else b"",
    )


def _features(options: Qcow2CreateOptions, compression: int) -> int:
    bits = hdr.COMPRESSION if compression != hdr.ZLIB else 0
    bits |= hdr.EXTENDED_L2 if options.extended_l2 else 0
    return bits | (hdr.DATA_FILE if options.data_file else 0)


def check(options: Qcow2CreateOptions) -> None:
    """Raise InvalidArgument for a value that cannot be."""
    sizes = (1 << MIN_CLUSTER_BITS, 1 << MAX_CLUSTER_BITS)
    is_v3 = VERSIONS.get(options.version) == 3
    rules = (
        ("version", options.version in VERSIONS, "v2 or v3", options.version),
        ("size", 0 <= options.size <= MAX_SIZE and options.size % SECTOR == 0,
         f"a multiple of {SECTOR} up to {MAX_SIZE}", options.size),
        ("cluster_size", is_power_of_two(options.cluster_size) and sizes[0] <= options.cluster_size <= sizes[1],
         f"a power of two from {sizes[0]} to {sizes[1]}", options.cluster_size),
        ("refcount_bits", is_power_of_two(options.refcount_bits) and options.refcount_bits <= 64,
         "a power of two from 1 to 64", options.refcount_bits),
        ("refcount_bits", is_v3 or options.refcount_bits == 16, "16 in a v2 image", options.refcount_bits),
        ("lazy_refcounts", is_v3 or not options.lazy_refcounts, "false in a v2 image", options.lazy_refcounts),
        ("compression_type", options.compression_type in _COMPRESSIONS, " or ".join(_COMPRESSIONS),
         options.compression_type),
        ("compression_type", is_v3 or options.compression_type == "zlib", "zlib in a v2 image",
         options.compression_type),
        ("backing_file", len(options.backing_file.encode()) <= MAX_BACKING_NAME,
         f"at most {MAX_BACKING_NAME} bytes", options.backing_file),
        ("backing_fmt", bool(options.backing_file) or not options.backing_fmt, "a backing_file with it",
         options.backing_fmt),
        ("backing_fmt", bool(options.backing_fmt) or not options.backing_file, "the format of backing_file", ""),
        ("preallocation", options.preallocation == Preallocation.OFF or not options.backing_file,
         "off where there is a backing file", options.preallocation),
        ("extended_l2", is_v3 or not options.extended_l2, "false in a v2 image", options.extended_l2),
        ("cluster_size", not options.extended_l2 or options.cluster_size >= 1 << MIN_EXTENDED_CLUSTER_BITS,
         f"at least {1 << MIN_EXTENDED_CLUSTER_BITS} with extended_l2", options.cluster_size),
        ("data_file", is_v3 or not options.data_file, "none in a v2 image", options.data_file),
        ("data_file", len(options.data_file.encode()) <= MAX_BACKING_NAME, f"at most {MAX_BACKING_NAME} bytes",
         options.data_file),
        ("data_file_raw", not options.data_file_raw or bool(options.data_file), "a data_file with it", True),
        ("data_file_raw", not options.data_file_raw or options.encrypt is None, "false in an encrypted image",
        True), ("data_file_raw", not options.data_file_raw or not options.backing_file,
         "false where there is a backing file", True),
    )  # fmt: skip
    for name, holds, expected, found in rules:
        if not holds:
            raise InvalidArgument(name, expected, str(found))


def _layout(geometry: Geometry, l1_entries: int, crypto_clusters: int) -> Layout:
    l1_clusters = geometry.clusters(l1_entries * 8)
    blocks = table_clusters = 1
    while True:
        total = 1 + table_clusters + blocks + l1_clusters + crypto_clusters
        need = -(-total // geometry.block_entries)
        need_table = geometry.clusters(need * 8)
        if need <= blocks and need_table <= table_clusters:
            return Layout(table_clusters, blocks, l1_clusters, crypto_clusters)
        blocks, table_clusters = max(blocks, need), max(table_clusters, need_table)


def _cluster(
    options: Qcow2CreateOptions, header: hdr.Header, layout: Layout, crypto: ByteRange
) -> hdr.HeaderCluster:
    size = header.cluster_size
    records: list[ext.Extension] = []
    if crypto.length:
        records.append(ext.Extension(ext.ENCRYPTION, ext.encode_encryption(crypto)))
    if options.backing_fmt:
        records.append(ext.Extension(ext.BACKING_FORMAT, options.backing_fmt.encode()))
    if options.data_file:
        records.append(ext.Extension(ext.DATA_FILE, options.data_file.encode()))
    name = options.backing_file.encode()
    placed = hdr.HeaderCluster(header, tuple(records)).with_header(
        refcount_table_offset=size,
        refcount_table_clusters=layout.table_clusters,
        l1_table_offset=layout.l1_first * size if layout.l1_clusters else 0,
    )
    names = ext.Extension(ext.FEATURE_NAMES, ext.encode_feature_names(hdr.FEATURE_NAMES))
    if header.version >= 3 and placed.extensions_end + 8 + len(names.data) + len(name) <= size:
        placed = hdr.HeaderCluster(placed.header, (*placed.extensions, names))
    if not name:
        return placed
    return hdr.HeaderCluster(
        placed.with_header(backing_file_offset=placed.extensions_end, backing_file_size=len(name)).header,
        placed.extensions,
        name,
    )


async def _write_tables(file: Child, geometry: Geometry, layout: Layout) -> None:
    """Everything but the header cluster, in one stream of bounded writes."""
    size = geometry.cluster_size
    table = np.zeros(layout.table_clusters * size // 8, np.uint64)
    table[: layout.blocks] = (
        np.arange(layout.blocks, dtype=np.uint64) + np.uint64(layout.block_first)
    ) * np.uint64(size)
    await file.write(size, tables.encode(table))
    for block in range(layout.blocks):
        counters = np.zeros(geometry.block_entries, refcounts.dtype_of(geometry.refcount_order))
        counters[: max(0, layout.end - block * geometry.block_entries)] = 1
        await file.write((layout.block_first + block) * size, refcounts.encode(counters, geometry.refcount_order))
    start, end = layout.l1_first * size, layout.end * size
    for at in range(start, end, MIB):
        await file.write(at, bytes(min(MIB, end - at)))
