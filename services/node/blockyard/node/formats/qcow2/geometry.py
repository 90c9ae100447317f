"""The arithmetic of one image: how clusters, tables and refcount blocks divide guest and host space.

Theory. A guest offset splits into (L1 index, L2 index, byte in cluster); a host cluster number splits into
(refcount block index, entry). All divisors are powers of two.
"""

from dataclasses import dataclass
from functools import cached_property

from blockyard.node.formats.qcow2.header import EXTENDED_L2, Header


@dataclass(frozen=True)
class Geometry:
    """Derived sizes; immutable for the life of an image."""

    cluster_bits: int
    refcount_order: int
    extended: bool = False
    """L2 entries are 16 bytes: a descriptor and the states of 32 subclusters (spec, Extended L2 Entries)."""

    @classmethod
    def of(cls, header: Header) -> "Geometry":
        return cls(header.cluster_bits, header.refcount_order, bool(header.incompatible & EXTENDED_L2))

    @cached_property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @cached_property
    def entry_words(self) -> int:
        """64-bit words of an L2 entry."""
        return 2 if self.extended else 1

    @cached_property
    def subcluster_bits(self) -> int:
        """Of the unit that is allocated and zeroed by itself: a cluster, or 1/32 of it."""
        return self.cluster_bits - 5 if self.extended else self.cluster_bits

    @cached_property
    def subcluster_size(self) -> int:
        return 1 << self.subcluster_bits

    @cached_property
    def entries_per_table(self) -> int:
        """L2 entries in a cluster."""
        return self.cluster_size // 8 // self.entry_words

    @cached_property
    def table_bits(self) -> int:
        """Guest bytes under one L2 table are 1 << table_bits."""
        return self.cluster_bits + self.cluster_bits - 2 - self.entry_words

    @cached_property
    def refcount_bits(self) -> int:
        return 1 << self.refcount_order

    @cached_property
    def max_refcount(self) -> int:
        return (1 << self.refcount_bits) - 1

    @cached_property
    def block_entries(self) -> int:
        """Refcounts in one refcount block."""
        return self.cluster_size * 8 // self.refcount_bits

    def clusters(self, length: int) -> int:
        """Clusters that `length` bytes fill, the last perhaps in part."""
        return (length + self.cluster_size - 1) >> self.cluster_bits

    def l1_entries(self, size: int) -> int:
        """L1 entries that a guest size needs."""
        return (size + (1 << self.table_bits) - 1) >> self.table_bits
