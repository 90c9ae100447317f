"""Which host clusters hold metadata, so that no allocation, guest write or table lands on one.

Theory. A consistent image never offers metadata for writing: its refcounts say it is used and no L2 entry
points to it. An inconsistent or hostile one may. So the check is made where an image's word is first taken:
when a cluster below the end the file had at opening is allocated, when an L2 table is loaded, when a table is
first written. Clusters past that end are ours alone. The hot path carries no check.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blockyard.node.drivers.qcow2.ordering import Clusters
from blockyard.node.drivers.qcow2.overlap import ALL, Structure

Groups = list[tuple[Structure, Clusters]]
"""Cluster numbers of each kind of metadata, an item twice if it is claimed twice."""


@dataclass(slots=True)
class Guard:
    """Cluster numbers: `known` at opening (sorted), and what changed since."""

    known: Clusters
    kinds: NDArray[np.uint8]
    """For each of `known` what it holds."""
    end: int = 0
    """First cluster after all metadata known at opening, looked at or not."""
    doubled: frozenset[int] = frozenset()
    """Clusters that hold two different pieces of metadata; never written."""
    added: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)

    @classmethod
    def build(cls, groups: Groups, looked_at: Collection[Structure] = ALL) -> "Guard":
        end = max((int(clusters.max()) + 1 for _, clusters in groups if len(clusters)), default=0)
        groups = [(kind, clusters) for kind, clusters in groups if kind in looked_at and len(clusters)]
        if not groups:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.uint8), end)
        everything = np.concatenate([clusters for _, clusters in groups])
        kinds = np.concatenate([np.full(len(clusters), kind, np.uint8) for kind, clusters in groups])
        order = np.argsort(everything, kind="stable")
        everything, kinds = everything[order], kinds[order]
        # A snapshot's L2 tables are the disk's too until one of them changes: that is no claim of another.
        owned = everything[kinds != Structure.INACTIVE_L2]
        same = owned[1:] == owned[:-1]
        # Bounded: an image with very many doubled tables needs repair, whichever of them we remember.
        doubled = frozenset(np.unique(owned[1:][same])[:65536].tolist()) if same.any() else frozenset()
        return cls(everything, kinds, end, doubled)

    def only(self, looked_at: Collection[Structure]) -> "Guard":
        """The same, of some structures."""
        kept = np.isin(self.kinds, np.array(sorted(looked_at), np.uint8))
        return Guard(self.known[kept], self.kinds[kept], self.end, self.doubled)

    def plus(self, kind: Structure, clusters: Clusters) -> "Guard":
        """The same with more metadata."""
        everything = np.concatenate((self.known, clusters))
        kinds = np.concatenate((self.kinds, np.full(len(clusters), kind, np.uint8)))
        order = np.argsort(everything, kind="stable")
        doubled = self.doubled | set(np.intersect1d(self.known, clusters)[:65536].tolist())
        end = max(self.end, int(clusters.max()) + 1) if len(clusters) else self.end
        return Guard(everything[order], kinds[order], end, doubled, self.added, self.removed)

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

    def name_of(self, cluster: int) -> str:
        """What a cluster holds that was hit, for people."""
        at = int(np.searchsorted(self.known, cluster))
        if at < len(self.known) and self.known[at] == cluster:
            return Structure(int(self.kinds[at])).words
        return "metadata of this session"

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
