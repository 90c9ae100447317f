"""How large an image is: arithmetic on its geometry, and what its first bytes look like. Pure.

The layout counted is QEMU's (qcow2_calc_prealloc_size, block/qcow2.c): header, L2 tables, L1 table, refcount table
and blocks, each in whole clusters, then the data.
"""

from typing import Final

from blockyard.base.ranges import align_up
from blockyard.node.formats.qcow2.header import MAGIC

_ENTRY: Final = 8
"""Bytes of an entry of an L1, L2 or refcount table."""


def file_bytes(
    size: int, cluster_size: int, refcount_bits: int, data_bytes: int, entry_words: int = 1
) -> tuple[int, int]:
    """Bytes of an image of `size`: with `data_bytes` of it allocated and all tables, and with all of it."""
    data = align_up(size, cluster_size)
    per_cluster = cluster_size // _ENTRY
    l2_entries = align_up(data // cluster_size * entry_words, per_cluster)
    l1_entries = align_up(l2_entries // per_cluster, per_cluster)
    tables = cluster_size + (l2_entries + l1_entries) * _ENTRY
    tables += _refcount_bytes((tables + data) // cluster_size, cluster_size, refcount_bits)
    return tables + data_bytes, tables + data


def _refcount_bytes(clusters: int, cluster_size: int, refcount_bits: int) -> int:
    """Table and blocks that count `clusters` and themselves: the smallest fixed point."""
    per_block = cluster_size * 8 // refcount_bits
    table = blocks = 0
    while True:
        more_blocks = -(-(clusters + table + blocks) // per_block)
        more_table = -(-more_blocks // (cluster_size // _ENTRY))
        if (more_blocks, more_table) == (blocks, table):
            return (blocks + table) * cluster_size
        blocks, table = more_blocks, more_table


def looks_like(head: bytes) -> int:
    """0 to 100: the magic and a version that exists are certain."""
    if len(head) < 8 or int.from_bytes(head[:4], "big") != MAGIC:
        return 0
    return 100 if int.from_bytes(head[4:8], "big") in (2, 3) else 0
