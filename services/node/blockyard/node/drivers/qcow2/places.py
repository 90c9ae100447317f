"""Which host clusters an image's tables occupy."""

from collections.abc import Sequence

import numpy as np

from blockyard.base.ranges import ByteRange
from blockyard.node.drivers.qcow2.ordering import Clusters
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import tables, validate
from blockyard.node.formats.qcow2.snapshots import Snapshot


def metadata_clusters(
    header: hdr.Header, snapshots: Sequence[Snapshot], refcount_table: tables.Table, l1: tables.Table
) -> list[Clusters]:
    """Cluster numbers of all metadata except bitmaps and the L2 tables of snapshots."""
    bits = header.cluster_bits
    places = [place for _, place in validate.header_places(header)]
    places += [ByteRange(item.l1_offset, item.l1_size * 8) for item in snapshots if item.l1_size]
    groups: list[Clusters] = [
        np.arange(place.offset >> bits, (place.end + header.cluster_size - 1) >> bits, dtype=np.int64)
        for place in places
    ]
    for entries, mask in ((refcount_table, tables.REFCOUNT_TABLE_OFFSET), (l1, tables.OFFSET)):
        offsets = (entries & np.uint64(mask)) >> np.uint64(bits)
        groups.append(offsets[offsets != 0].astype(np.int64))
    return groups
