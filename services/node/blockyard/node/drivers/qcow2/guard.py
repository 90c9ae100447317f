"""Which host clusters hold metadata, so that no allocation, guest write or table lands on one.

Theory. A consistent image never offers metadata for writing: its refcounts say it is used and no L2 entry
points to it. An inconsistent or hostile one may. So the check is made where an image's word is first taken:
when a cluster below the end the file had at opening is allocated, when an L2 table is loaded, when a table is
first written. Clusters past that end are ours alone. The hot path carries no check.
"""

from dataclasses import dataclass, field

import numpy as np

from blockyard.node.drivers.qcow2.ordering import Clusters


@dataclass(slots=True)
class Guard:
    """Cluster numbers: `known` at opening (sorted), and what changed since."""

    known: Clusters
    doubled: frozenset[int] = frozenset()
    """Clusters that hold two different pieces of metadata; never written."""
    added: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)

    @classmethod
    def build(cls, groups: list[Clusters]) -> "Guard":
        """`groups`: cluster numbers of each kind of metadata, an item twice if it is claimed twice."""
        everything = np.sort(np.concatenate(groups)) if groups else np.zeros(0, np.int64)
        same = everything[1:] == everything[:-1] if len(everything) > 1 else np.zeros(0, bool)
        # Bounded: an image with very many doubled tables needs repair, whichever of them we remember.
        doubled = frozenset(np.unique(everything[1:][same])[:65536].tolist()) if same.any() else frozenset()
        return cls(everything, doubled)

    @property
    def end(self) -> int:
        """First cluster after all metadata known at opening."""
        return int(self.known[-1]) + 1 if len(self.known) else 0

    def add(self, first: int, count: int = 1) -> None:
        self.removed.difference_update(range(first, first + count))
        self.added.update(range(first, first + count))

    def remove(self, first: int, count: int = 1) -> None:
        self.added.difference_update(range(first, first + count))
        self.removed.update(range(first, first + count))

    def first_hit(self, first: int, count: int) -> int:
        """The first metadata cluster in the range, or -1."""
        low, high = np.searchsorted(self.known, (first, first + count))
        for cluster in self.known[low:high].tolist():
            if cluster not in self.removed:
                return int(cluster)
        if self.added:
            for cluster in self.added if count > len(self.added) else range(first, first + count):
                if cluster in self.added and first <= cluster < first + count:
                    return cluster
        return -1

    def hits(self, clusters: Clusters) -> bool:
        """Whether any of the clusters holds metadata (of the time of opening)."""
        return self.hit_of(clusters) >= 0

    def hit_of(self, clusters: Clusters) -> int:
        """The first of the clusters that holds metadata (of the time of opening), or -1."""
        if not len(self.known) or not len(clusters):
            return -1
        places = np.searchsorted(self.known, clusters)
        found = clusters[self.known[np.minimum(places, len(self.known) - 1)] == clusters]
        return next((cluster for cluster in found.tolist() if cluster not in self.removed), -1)
