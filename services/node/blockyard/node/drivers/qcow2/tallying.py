"""Adding up references to host clusters: densely near the file's begin, as a list where they are few. Pure.

Theory. A file may be 16 TiB of holes with one cluster behind them, so neither counters nor time may go by its
length. The first window of clusters is counted in an array. References past it are kept as a list while they are
few; then only blocks of refcounts that they touch are looked at. If they are many, the file holds many tables that
were read, and the rest is counted window by window, one pass over the tables each.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from blockyard.node.drivers.qcow2.ordering import Clusters

WINDOW_BITS: Final = 24
WINDOW: Final = 1 << WINDOW_BITS
"""Clusters counted at a time: 64 MiB of counters, 1 TiB of file at 64 KiB clusters."""
FEW: Final = 1 << 21
"""References past the first window that are kept as a list: 24 MiB."""

MOST: Final = (1 << 32) - 1
_SMALL: Final = 1 << 12
"""So often a table may count in the fast way: it would take a million such tables to wrap a counter around."""

Counts = NDArray[np.uint32]
Weights = NDArray[np.uint32]


def add(counts: Counts, first: int, clusters: Clusters, times: int) -> None:
    """Count references inside one window of counters that begins at cluster `first`."""
    local = clusters - first
    local = local[(local >= 0) & (local < len(counts))]
    if not len(local):
        return
    if times <= _SMALL and (len(local) == 1 or bool((local[1:] > local[:-1]).all())):
        counts[local] += np.uint32(times)
        return
    numbers, repeats = np.unique(local, return_counts=True)
    counts[numbers] = _capped(counts[numbers], repeats.astype(np.uint64) * np.uint64(times))


def add_run(counts: Counts, first: int, run: tuple[int, int], times: int) -> None:
    """The same for all clusters `[begin, end)`."""
    low, high = max(run[0] - first, 0), min(run[1] - first, len(counts))
    if low < high:
        counts[low:high] = _capped(counts[low:high], np.uint64(times))


def _capped(counts: Counts, amounts: NDArray[np.uint64] | np.uint64) -> Counts:
    """The sum, or the largest count there is: it never wraps around to a small one."""
    result: Counts = np.minimum(counts.astype(np.uint64) + amounts, np.uint64(MOST)).astype(np.uint32)
    return result


class Few:
    """References to clusters past the first window."""

    def __init__(self) -> None:
        self.is_complete = True
        """False: there were too many to keep them."""
        self.windows: set[int] = set()
        """Numbers of the windows that have any."""
        self._clusters: list[Clusters] = []
        self._weights: list[Weights] = []
        self._count = 0

    def add(self, clusters: Clusters, times: int) -> None:
        beyond = clusters[clusters >= WINDOW]
        if len(beyond):
            self.windows.update(np.unique(beyond >> WINDOW_BITS).tolist())
            self._keep(beyond, times)

    def add_run(self, run: tuple[int, int], times: int) -> None:
        begin, end = max(run[0], WINDOW), run[1]
        if begin >= end:
            return
        self.windows.update(range(begin >> WINDOW_BITS, ((end - 1) >> WINDOW_BITS) + 1))
        if end - begin > FEW:
            self._overflow()
        else:
            self._keep(np.arange(begin, end, dtype=np.int64), times)

    def _keep(self, clusters: Clusters, times: int) -> None:
        if not self.is_complete:
            return
        self._clusters.append(clusters)
        self._weights.append(np.full(len(clusters), min(times, MOST), np.uint32))
        self._count += len(clusters)
        if self._count > FEW:
            self.total()
            if self._count > FEW // 2:
                self._overflow()

    def _overflow(self) -> None:
        self.is_complete = False
        self._clusters, self._weights, self._count = [], [], 0

    def total(self) -> tuple[Clusters, Counts]:
        """The clusters in order, each once, and how often each is referred to."""
        if not self._clusters:
            return np.zeros(0, np.int64), np.zeros(0, np.uint32)
        clusters, weights = np.concatenate(self._clusters), np.concatenate(self._weights)
        order = np.argsort(clusters, kind="stable")
        clusters, weights = clusters[order], weights[order]
        firsts = np.flatnonzero(np.concatenate(([True], clusters[1:] != clusters[:-1])))
        sums = np.add.reduceat(weights.astype(np.uint64), firsts)
        clusters, weights = clusters[firsts], np.minimum(sums, np.uint64(MOST)).astype(np.uint32)
        self._clusters, self._weights, self._count = [clusters], [weights], len(clusters)
        return clusters, weights
