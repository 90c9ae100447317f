"""Changing the backing reference in the header so that no crash shows half of it.

A disk writes one sector whole or not at all. The new name goes to a place in the header cluster that the old
header does not use; then the first sector, with the fixed fields and the extensions, is switched. If the
extensions do not fit into it, the feature name table (an aid for people, which may be absent) steps aside
for the moment of the switch.
"""

from collections.abc import Callable
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
    """Invariant 8 of `ordering`. Raises InvalidArgument where the data file alone shows the disk."""
    if reference is not None and image.is_raw_apart:
        raise InvalidArgument(
            "backing_file", "none: the data file is raw and shows all there is", reference.filename
        )
    await image.before_write()
    rewritten(image.cluster, reference)  # raises before anything is changed
    await unbroken(_change(image, lambda: rewritten(image.cluster, reference)))


async def change_data_file(image: Image, name: str) -> None:
    """Name another external data file in the header, of an image that has one (qcow2_amend_options). Its content is
    the caller's to bring along. Raises InvalidArgument."""
    if not image.has_data_file:
        raise InvalidArgument("data_file", "none: the image keeps its data in itself", name)
    await image.before_write()
    with_data_file(image.cluster, name)  # raises before anything is changed
    await unbroken(_change(image, lambda: with_data_file(image.cluster, name)))


def with_data_file(old: hdr.HeaderCluster, name: str) -> hdr.HeaderCluster:
    """The header cluster with another name of the data file. Raises InvalidArgument if it does not fit."""
    data = name.encode("utf-8", "surrogateescape")
    if not 0 < len(data) <= MAX_BACKING_NAME:
        raise InvalidArgument("data_file", f"1 to {MAX_BACKING_NAME} bytes", str(len(data)))
    return laid_out(old, old.header, ext.replaced(old.extensions, ext.DATA_FILE, data), old.backing_name)


async def give_up_raw(image: Image) -> None:
    """From now on the data file need not show the disk by itself (data_file_raw=off); not the other way round."""
    await image.before_write()
    image.update_header(autoclear=image.header.autoclear & ~hdr.AUTOCLEAR_DATA_FILE_RAW)
    await unbroken(image.switch(hdr.FEATURES_AT, hdr.encode_features(image.header)))


async def _change(image: Image, changed: Callable[[], hdr.HeaderCluster]) -> None:
    """`changed` is asked when everything else is written: that may change the header too."""
    await image.writeback.settle()
    await replace_header(image, changed())


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
