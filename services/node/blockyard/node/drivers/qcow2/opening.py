"""From a file to an open image: read, judge, and put the parts together.

Everything is bounded before it is read: the header cluster (2 MiB at most), L1 (32 MiB), refcount table
(8 MiB), snapshot table (64 MiB), as `formats.qcow2.limits` says.
"""

from dataclasses import replace

import numpy as np

from blockyard.base.errors import (
    DataFileDenied,
    FormatMismatch,
    ImageCorrupt,
    ImageMarkedCorrupt,
    InvalidArgument,
    ResourceNotFound,
)
from blockyard.base.ranges import ByteRange
from blockyard.node.drivers.qcow2 import checking, encryption
from blockyard.node.drivers.qcow2.allocation import Space
from blockyard.node.drivers.qcow2.allocator import Allocator
from blockyard.node.drivers.qcow2.bitmaps import Bitmaps
from blockyard.node.drivers.qcow2.compressed import Compressed
from blockyard.node.drivers.qcow2.guard import Groups, Guard
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l1 import L1
from blockyard.node.drivers.qcow2.l2 import L2
from blockyard.node.drivers.qcow2.mapping import Mapper
from blockyard.node.drivers.qcow2.options import Qcow2Options
from blockyard.node.drivers.qcow2.ordering import Ledger
from blockyard.node.drivers.qcow2.overlap import Structure
from blockyard.node.drivers.qcow2.places import inactive_l2, metadata_clusters
from blockyard.node.drivers.qcow2.refcounts import Refcounts
from blockyard.node.drivers.qcow2.snapshots import disk_size_of, l1_of
from blockyard.node.drivers.qcow2.subcluster_allocation import SubclusterSpace
from blockyard.node.drivers.qcow2.subcluster_mapping import SubclusterMapper
from blockyard.node.drivers.qcow2.writeback import Writeback
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import snapshots, tables, validate
from blockyard.node.formats.qcow2.limits import MAX_SNAPSHOT_TABLE_BYTES, SECTOR
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import DriverContext


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
    options.check(header.cluster_size, header.version)
    image = Image(context, options, cluster)
    _check_data_file(image)
    await encryption.unlock(image)
    if header.incompatible & hdr.CORRUPT and not context.read_only and not options.repair:
        raise ImageMarkedCorrupt(image.name)
    l1_place = ByteRange(header.l1_table_offset, header.l1_size * 8)
    table_place = ByteRange(header.refcount_table_offset, header.refcount_table_clusters * header.cluster_size)
    if header.l1_size:
        validate.check_inside(image.name, "L1 table", l1_place, image.file.size)
    validate.check_inside(image.name, "refcount table", table_place, _whole(image))
    if header.l1_size:
        image.l1 = L1(tables.decode(await image.read(header.l1_table_offset, header.l1_size * 8)), image.ledger)
    else:
        image.l1 = L1(np.zeros(0, np.uint64), image.ledger)
    image.snapshots, image.snapshot_table_bytes = await _read_snapshots(image)
    if options.snapshot:
        await _show(image, _found(image, options.snapshot))
    image.bitmaps = Bitmaps(image)
    await assemble(image)
    if image.shown is None:
        await _load_bitmaps(image)
    if header.incompatible & hdr.DIRTY and not context.read_only and not options.repair:
        await _recover(image)
    image.is_open = True
    return image


def _mapper(image: Image) -> Mapper:
    if image.header.crypt_method == hdr.CRYPT_AES:
        return encryption.LegacyMapper(image)
    return SubclusterMapper(image) if image.geometry.extended else Mapper(image)


def guard_directory(image: Image) -> None:
    """The directory of bitmaps is metadata too, once it is known."""
    is_looked_at = Structure.BITMAP_DIRECTORY in image.looked_at and not image.context.read_only
    if is_looked_at and image.bitmaps.found:
        image.guard = image.guard.plus(Structure.BITMAP_DIRECTORY, image.bitmaps.directory_clusters())


async def _load_bitmaps(image: Image) -> None:
    try:
        await image.bitmaps.load()
        guard_directory(image)
    except ImageCorrupt as problem:
        if not image.options.repair:
            raise
        # They cannot be had; a repair must go on, and the first write declares them void.
        image.bitmaps = Bitmaps(image)
        image.context.report("bitmap-unusable", {"name": "", "problem": str(problem)})


def data_file_named_in(cluster: hdr.HeaderCluster) -> str:
    """The external data file, as the header names it; empty if there is none, or no name."""
    if not cluster.header.incompatible & hdr.DATA_FILE:
        return ""
    return (ext.find(cluster.extensions, ext.DATA_FILE) or b"").decode("utf-8", "surrogateescape")


def _check_data_file(image: Image) -> None:
    """Raises DataFileDenied or InvalidArgument if the child and the header do not go together."""
    if not image.has_data_file:
        if image.context.children.get("data-file") is not None:
            raise InvalidArgument("data_file", "none: the image keeps its data in itself", "a node")
    elif image.data is None:
        if not image.options.no_io:
            raise DataFileDenied(image.name, image.data_file_name)
    elif image.data.node_name == image.file.node_name or image.data.filename == image.file.filename != "":
        # Guest data would be written over the tables that say where it is.
        raise InvalidArgument("data_file", "another file than the image's own", image.data_file_name)


async def view_of(image: Image, snapshot: snapshots.Snapshot) -> Image:
    """The same image as one of its snapshots has it: another reader of the same file."""
    context = replace(image.context, read_only=True)
    view = Image(context, replace(image.options, snapshot=snapshot.identifier), image.cluster)
    view.snapshots, view.snapshot_table_bytes = image.snapshots, image.snapshot_table_bytes
    view.data, view.encryption, view.crypto_place = image.data, image.encryption, image.crypto_place
    await _show(view, snapshot)
    await assemble(view)
    return view


async def confirm(image: Image) -> None:
    """Look whether the snapshot that is shown is in the file as it is now. Raises ResourceNotFound."""
    assert image.shown is not None
    now = Image(image.context, image.options, await read_header(image.context))
    now.snapshots, _ = await _read_snapshots(now)
    found = _found(now, image.shown.identifier)
    if found.l1_offset != image.shown.l1_offset:
        raise ResourceNotFound("snapshot", image.options.snapshot)


def _found(image: Image, wanted: str) -> snapshots.Snapshot:
    found = snapshots.find(image.snapshots, wanted)
    if found is None:
        raise ResourceNotFound("snapshot", wanted)
    return found


async def _show(image: Image, snapshot: snapshots.Snapshot) -> None:
    """In memory the disk becomes the snapshot's: nothing of it is ever written."""
    if not image.context.read_only:
        raise InvalidArgument("snapshot", "a read-only node (read_only = true)", "a node for writing")
    if image.options.repair:
        raise InvalidArgument("snapshot", "repair = false", "repair = true")
    size = disk_size_of(image, snapshot)
    l1 = await l1_of(image, snapshot)
    shown = np.zeros(max(len(l1), image.geometry.l1_entries(size)), np.uint64)
    shown[: len(l1)] = l1
    image.l1 = L1(shown, image.ledger)
    image.update_header(size=size, l1_size=len(shown))
    image.shown = snapshot


async def assemble(image: Image) -> None:
    """The parts that stand on L1 and the refcount table; again after a repair changed those on disk."""
    header = image.header
    length = header.refcount_table_clusters * header.cluster_size
    await image.event("reftable_load")
    table = tables.decode(await image.read(header.refcount_table_offset, length))
    image.ledger = image.l1.ledger = Ledger()
    image.writeback = Writeback(image)
    image.refcounts = Refcounts(image, table)
    image.l2 = L2(image)
    extended = image.geometry.extended
    image.mapper = _mapper(image)
    image.space = (SubclusterSpace if extended else Space)(image, image.mapper)
    image.compressed = Compressed(image, image.space)
    read_only = image.context.read_only
    groups = [] if read_only else _inside(image, _metadata_of(image))
    if not read_only and Structure.INACTIVE_L2 in image.looked_at:
        groups += await inactive_l2(image, image.snapshots)
    image.guard = Guard.build(groups, image.looked_at)
    guard_directory(image)
    end = image.guard.end
    if not read_only:
        marked = header.incompatible & (hdr.CORRUPT | hdr.DIRTY)
        image.needs_repair = image.options.repair and (bool(marked) or not image.refcounts.is_plausible)
        end = end if image.needs_repair else max(end, await image.refcounts.end_of_use())
    image.allocator = Allocator(image, end, max(image.file.size, end << header.cluster_bits))


def _inside(image: Image, groups: Groups) -> Groups:
    """Metadata past the end of the file would put everything new behind it, at any distance: not believed."""
    limit = image.geometry.clusters(image.file.size)
    for _, clusters in groups:
        outside = clusters[clusters >= limit]
        if len(outside) and not image.options.repair:
            offset = int(outside[0]) << image.geometry.cluster_bits
            raise ImageCorrupt(
                image.name, "a metadata table", f"in the file of {image.file.size} bytes", hex(offset)
            )
    return [(kind, clusters[clusters < limit]) for kind, clusters in groups]


async def _recover(image: Image) -> None:
    """Refcounts of an image with lazy refcounts that was not closed: count them anew."""
    report = await checking.check(image, True, True, lambda: assemble(image))
    if report.corruptions or report.check_errors:
        raise ImageCorrupt(image.name, "metadata", "what recovery can repair", "; ".join(report.findings[:3]))
    image.context.report("dirty-repaired", {"leaks_fixed": str(report.leaks_fixed)})


def _whole(image: Image) -> int:
    """The file's size, its last cluster taken as whole (tables at the end need not fill theirs)."""
    return image.geometry.clusters(image.file.size) << image.geometry.cluster_bits


async def _read(file: Child, offset: int, length: int) -> bytearray:
    data = bytearray(length)
    if not file.read_now(offset, memoryview(data)):
        await file.read(offset, memoryview(data))
    return data


async def _read_snapshots(image: Image) -> tuple[list[snapshots.Snapshot], int]:
    """Records, and how many bytes they fill."""
    header = image.header
    if not header.nb_snapshots:
        return [], 0
    available = min(MAX_SNAPSHOT_TABLE_BYTES, max(0, image.file.size - header.snapshots_offset))
    length = min(available, 64 * 1024)
    while True:
        data = await image.read(header.snapshots_offset, length)
        try:
            return snapshots.decode(data, header.nb_snapshots, header.cluster_size, image.name)
        except ImageCorrupt:
            if length >= available:
                raise
            length = min(available, length * 8)


def _metadata_of(image: Image) -> Groups:
    table, l1 = image.refcounts.table, image.l1.entries
    return metadata_clusters(image.header, image.snapshots, table, l1, image.crypto_place)
