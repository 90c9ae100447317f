"""From a file to an open image: read, judge, and put the parts together.

Everything is bounded before it is read: the header cluster (2 MiB at most), L1 (32 MiB), refcount table
(8 MiB), snapshot table (64 MiB), as `formats.qcow2.limits` says.
"""

import numpy as np

from blockyard.base.errors import FormatMismatch, ImageCorrupt, ImageMarkedCorrupt
from blockyard.base.ranges import ByteRange
from blockyard.node.drivers.qcow2.allocation import Space
from blockyard.node.drivers.qcow2.allocator import Allocator
from blockyard.node.drivers.qcow2.compressed import Compressed
from blockyard.node.drivers.qcow2.guard import Guard
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l1 import L1
from blockyard.node.drivers.qcow2.l2 import L2
from blockyard.node.drivers.qcow2.mapping import Mapper
from blockyard.node.drivers.qcow2.options import Qcow2Options
from blockyard.node.drivers.qcow2.ordering import Clusters
from blockyard.node.drivers.qcow2.refcounts import Refcounts
from blockyard.node.drivers.qcow2.writeback import Writeback
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import snapshots, tables, validate
from blockyard.node.formats.qcow2.limits import MAX_SNAPSHOT_TABLE_BYTES, SECTOR
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import DriverContext

_END_BLOCKS = 16
"""Refcount blocks looked at to find the last cluster in use; then the end of what they cover will do."""


async def read_header(context: DriverContext) -> hdr.HeaderCluster:
    """The header cluster, decoded and judged."""
    file = context.children["file"]
    name = file.filename or context.node_name
    if file.size < hdr.V2_LENGTH:
        raise FormatMismatch(name, "qcow2", f"only {file.size} bytes long")
    fixed = hdr.decode_fixed(await _read(file, 0, min(file.size, SECTOR)), name)
    cluster = hdr.decode(await _read(file, 0, min(file.size, fixed.cluster_size)), name)
    validate.check_features(cluster, name)
    validate.check_header(cluster.header, name)
    return cluster


async def open_image(context: DriverContext, options: Qcow2Options) -> Image:
    cluster = await read_header(context)
    header = cluster.header
    options.check(header.cluster_size)
    image = Image(context, options, cluster)
    if header.incompatible & hdr.CORRUPT and not context.read_only and not options.repair:
        raise ImageMarkedCorrupt(image.name)
    for what, place in validate.header_places(header):
        exact = place._replace(length=header.l1_size * 8) if what == "L1 table" else place
        if what in ("L1 table", "refcount table"):
            validate.check_inside(image.name, what, exact._replace(length=max(0, exact.length)), _whole(image))
    l1_bytes = await image.read(header.l1_table_offset, header.l1_size * 8) if header.l1_size else b""
    table_bytes = await image.read(
        header.refcount_table_offset, header.refcount_table_clusters * header.cluster_size
    )
    image.snapshots = await _read_snapshots(image)
    image.l1 = L1(tables.decode(l1_bytes), image.ledger)
    image.writeback = Writeback(image)
    image.refcounts = Refcounts(image, tables.decode(table_bytes))
    image.l2 = L2(image)
    image.mapper = Mapper(image)
    image.space = Space(image, image.mapper)
    image.compressed = Compressed(image, image.space)
    image.guard = Guard.build([]) if context.read_only else Guard.build(metadata_clusters(image))
    end = image.guard.end if context.read_only else max(image.guard.end, await _end_of_use(image))
    image.allocator = Allocator(image, end, max(image.file.size, end << header.cluster_bits))
    return image


def _whole(image: Image) -> int:
    """The file's size, its last cluster taken as whole (tables at the end need not fill theirs)."""
    return image.geometry.clusters(image.file.size) << image.geometry.cluster_bits


async def _read(file: Child, offset: int, length: int) -> bytearray:
    data = bytearray(length)
    if not file.read_now(offset, memoryview(data)):
        await file.read(offset, memoryview(data))
    return data


async def _read_snapshots(image: Image) -> list[snapshots.Snapshot]:
    header = image.header
    if not header.nb_snapshots:
        return []
    available = min(MAX_SNAPSHOT_TABLE_BYTES, max(0, image.file.size - header.snapshots_offset))
    length = min(available, 64 * 1024)
    while True:
        data = await image.read(header.snapshots_offset, length)
        try:
            found, _ = snapshots.decode(data, header.nb_snapshots, header.cluster_size, image.name)
            return found
        except ImageCorrupt:
            if length >= available:
                raise
            length = min(available, length * 8)


def metadata_clusters(image: Image) -> list[Clusters]:
    """Cluster numbers of all metadata except bitmaps and the L2 tables of snapshots."""
    header, bits = image.header, image.geometry.cluster_bits
    places = [place for _, place in validate.header_places(header)]
    places += [ByteRange(item.l1_offset, item.l1_size * 8) for item in image.snapshots if item.l1_size]
    groups: list[Clusters] = [
        np.arange(place.offset >> bits, (place.end + header.cluster_size - 1) >> bits, dtype=np.int64)
        for place in places
    ]
    for entries, mask in ((image.refcounts.table, tables.REFCOUNT_TABLE_OFFSET), (image.l1.entries, tables.OFFSET)):
        offsets = (entries & np.uint64(mask)) >> np.uint64(bits)
        groups.append(offsets[offsets != 0].astype(np.int64))
    return groups


async def _end_of_use(image: Image) -> int:
    """First cluster after all with a refcount, or a little later."""
    refcounts = image.refcounts
    present = np.flatnonzero(refcounts.table)
    for index in present[::-1][:_END_BLOCKS].tolist():
        values = (await refcounts.blocks.get(index)).values
        used = np.flatnonzero(values)
        if len(used):
            return int(index * refcounts.block_entries + used[-1] + 1)
    rest = len(present) - _END_BLOCKS
    return int(present[rest - 1] + 1) * refcounts.block_entries if rest > 0 else 0
