"""Which host clusters an image's tables occupy."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from blockyard.base.errors import LimitReached
from blockyard.base.ranges import ByteRange
from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2.guard import Groups
from blockyard.node.drivers.qcow2.ordering import Clusters
from blockyard.node.drivers.qcow2.overlap import Structure
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import tables, validate
from blockyard.node.formats.qcow2.snapshots import Snapshot

if TYPE_CHECKING:
    from blockyard.node.drivers.qcow2.image import Image

MAX_INACTIVE_L1_BYTES: Final = 64 * MIB
"""L1 tables of snapshots read to find their L2 tables: two of the largest there can be."""

MAX_INACTIVE_L1_CLUSTERS: Final = 1 << 21
"""Clusters of the L1 tables of snapshots that are kept off: 128 GiB of tables at 64 KiB. A table may be a hole."""

_OF_HEADER: Final = {
    "header": Structure.MAIN_HEADER,
    "L1 table": Structure.ACTIVE_L1,
    "refcount table": Structure.REFCOUNT_TABLE,
    "snapshot table": Structure.SNAPSHOT_TABLE,
}


def metadata_clusters(
    header: hdr.Header,
    snapshots: Sequence[Snapshot],
    refcount_table: tables.Table,
    l1: tables.Table,
    crypto: ByteRange | None,
) -> Groups:
    """Cluster numbers of all metadata except bitmaps and the L2 tables of snapshots. `crypto`: the LUKS header.

    Raises LimitReached.
    """
    bits = header.cluster_bits
    groups: Groups = [
        (_OF_HEADER[what], _clusters(place, header)) for what, place in validate.header_places(header)
    ]
    if crypto is not None:
        groups.append((Structure.MAIN_HEADER, _clusters(crypto, header)))
    groups += [(Structure.INACTIVE_L1, _clusters(place, header)) for place in _inactive_l1(header, snapshots)]
    groups.append((Structure.REFCOUNT_BLOCK, _of_table(refcount_table, tables.REFCOUNT_TABLE_OFFSET, bits)))
    groups.append((Structure.ACTIVE_L2, _of_table(l1, tables.OFFSET, bits)))
    return groups


def _inactive_l1(header: hdr.Header, snapshots: Sequence[Snapshot]) -> list[ByteRange]:
    """The L1 tables of snapshots; one that several claim twice, which is as bad as 65,536 times."""
    claims = Counter(ByteRange(item.l1_offset, item.l1_size * 8) for item in snapshots if item.l1_size)
    places = [place for place, times in claims.items() for _ in range(min(times, 2))]
    if sum(place.length for place in places) > MAX_INACTIVE_L1_CLUSTERS << header.cluster_bits:
        raise LimitReached("clusters of snapshots' L1 tables", MAX_INACTIVE_L1_CLUSTERS)
    return places


async def inactive_l2(image: "Image", snapshots: Sequence[Snapshot]) -> Groups:
    """Cluster numbers of the L2 tables of snapshots, as far as they lie in the file. Raises LimitReached."""
    distinct = {(item.l1_offset, item.l1_size * 8) for item in snapshots if item.l1_size}
    if sum(length for _, length in distinct) > MAX_INACTIVE_L1_BYTES:
        raise LimitReached("bytes of snapshots' L1 tables, for overlap_check all", MAX_INACTIVE_L1_BYTES)
    limit = image.geometry.clusters(image.file.size)
    found = [np.zeros(0, np.int64)]
    for offset, length in sorted(distinct):
        l1 = tables.decode(await image.read(offset, length))
        clusters = _of_table(l1, tables.OFFSET, image.geometry.cluster_bits)
        found.append(clusters[clusters < limit])
    return [(Structure.INACTIVE_L2, np.unique(np.concatenate(found)))]


def _clusters(place: ByteRange, header: hdr.Header) -> Clusters:
    bits = header.cluster_bits
    return np.arange(place.offset >> bits, (place.end + header.cluster_size - 1) >> bits, dtype=np.int64)


def _of_table(entries: tables.Table, mask: int, bits: int) -> Clusters:
    offsets = (entries[entries != 0] & np.uint64(mask)) >> np.uint64(bits)
    clusters: Clusters = offsets[offsets != 0].astype(np.int64)
    return clusters
