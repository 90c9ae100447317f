"""Changing the backing reference in the header so that no crash shows half of it.

A disk writes one sector whole or not at all. The new name goes to a place in the header cluster that the old
header does not use; then the first sector, with the fixed fields and the extensions, is switched. If the
extensions do not fit into it, the feature name table (an aid for people, which may be absent) steps aside
for the moment of the switch.
"""

from dataclasses import replace

from blockyard.base.errors import InvalidArgument
from blockyard.base.ranges import ByteRange
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.unbroken import unbroken
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2.limits import MAX_BACKING_NAME, SECTOR
from blockyard.node.interface.driver import BackingReference


async def change_backing(image: Image, reference: BackingReference | None) -> None:
    """Invariant 8 of `ordering`."""
    await image.before_write()
    rewritten(image.cluster, reference)  # raises before anything is changed
    await unbroken(_change(image, reference))


async def _change(image: Image, reference: BackingReference | None) -> None:
    await image.writeback.settle()
    await replace_header(image, rewritten(image.cluster, reference))


async def replace_header(image: Image, changed: hdr.HeaderCluster) -> None:
    """Write another header cluster; not to be broken off. What it stands for is durable already."""
    async with image.writeback.lock:
        for offset, data in steps(image.cluster, changed):
            await image.switch(offset, data)
        image.cluster = changed


def rewritten(old: hdr.HeaderCluster, reference: BackingReference | None) -> hdr.HeaderCluster:
    """The header cluster with another backing reference. Raises InvalidArgument if it does not fit."""
    name = reference.filename.encode("utf-8", "surrogateescape") if reference else b""
    form = reference.format.encode() if reference else b""
    if len(name) > MAX_BACKING_NAME:
        raise InvalidArgument("backing_file", f"at most {MAX_BACKING_NAME} bytes", str(len(name)))
    return laid_out(old, old.header, ext.replaced(old.extensions, ext.BACKING_FORMAT, form or None), name)


def laid_out(
    old: hdr.HeaderCluster, header: hdr.Header, records: tuple[ext.Extension, ...], name: bytes
) -> hdr.HeaderCluster:
    """A header cluster of these parts, its name where `old` has nothing. Raises InvalidArgument."""
    size = old.header.cluster_size
    bare = hdr.HeaderCluster(replace(header, backing_file_offset=0, backing_file_size=0), records)
    if bare.extensions_end + len(name) > size:
        records = ext.replaced(records, ext.FEATURE_NAMES, None)
        bare = hdr.HeaderCluster(bare.header, records)
    if bare.extensions_end + len(name) > size:
        raise InvalidArgument(
            "backing_file", f"a name that fits into the header cluster of {size} bytes", f"{len(name)} bytes"
        )
    if not name:
        return bare
    place = _place_for_name(old, bare, len(name))
    header = replace(bare.header, backing_file_offset=place, backing_file_size=len(name))
    return hdr.HeaderCluster(header, records, name)


def _place_for_name(old: hdr.HeaderCluster, bare: hdr.HeaderCluster, length: int) -> int:
    """Where nothing of the old header is, if there is such a place; else right after the extensions."""
    if bare.extensions_end + length <= SECTOR:
        return bare.extensions_end
    place = max(bare.extensions_end, old.extensions_end)
    if old.backing_name:
        used = ByteRange(old.header.backing_file_offset, len(old.backing_name))
        if used.overlaps(ByteRange(place, length)):
            place = used.end
    return place if place + length <= old.header.cluster_size else bare.extensions_end


def steps(old: hdr.HeaderCluster, new: hdr.HeaderCluster) -> list[tuple[int, bytes]]:
    """Writes with a flush after each. Every state between them is an image with the old or the new reference."""
    whole = hdr.encode(new)
    if max(new.end, old.end) <= SECTOR:
        return [(0, whole.ljust(max(new.end, old.end), b"\0"))]
    front = whole[: new.extensions_end]
    name = [(new.header.backing_file_offset, new.backing_name)] if new.end > SECTOR and new.backing_name else []
    if not name and new.backing_name:
        front = whole[: new.end]
    if len(front) <= SECTOR:
        return [*name, (0, front)]
    same_extensions = old.header.header_length == new.header.header_length and old.extensions == new.extensions
    if same_extensions:
        return [*name, (0, front[:SECTOR])]
    slim = hdr.HeaderCluster(new.header, ext.replaced(new.extensions, ext.FEATURE_NAMES, None), new.backing_name)
    if slim.extensions_end <= SECTOR:
        return [
            *name,
            (0, hdr.encode(slim)[: slim.extensions_end]),
            (SECTOR, front[SECTOR:]),
            (0, front[:SECTOR]),
        ]
    return [*name, (0, front)]
