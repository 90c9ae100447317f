"""Memory for L2 tables and refcount blocks: how much, from what the options say, and giving back what is idle.

The rules are QEMU's (read_cache_sizes, block/qcow2.c). But refcount blocks get 8 MiB where QEMU takes 4 clusters,
for here everything that changed waits in them for the next flush; and what L2 tables may take is not cut to what
the disk needs today, for it may grow.
"""

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from blockyard.base.errors import InvalidArgument
from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2.options import Qcow2Options
from blockyard.node.formats.qcow2.geometry import Geometry

if TYPE_CHECKING:
    from blockyard.node.drivers.qcow2.image import Image

DEFAULT_L2_CACHE: Final = 32 * MIB
"""QEMU's default (DEFAULT_L2_CACHE_MAX_SIZE): the whole L2 of a 256 GiB image with 64 KiB clusters."""
DEFAULT_REFCOUNT_CACHE: Final = 8 * MIB
"""A quarter of it; a block of 64 KiB counts 2 GiB of the file."""
MIN_REFCOUNT_CLUSTERS: Final = 4
"""MIN_REFCOUNT_CACHE_SIZE."""
DEFAULT_CLEAN_INTERVAL_S: Final = 600
"""DEFAULT_CACHE_CLEAN_INTERVAL."""


class CacheSizes(NamedTuple):
    """Bytes."""

    l2: int
    refcounts: int


def sizes(options: Qcow2Options, geometry: Geometry, disk_size: int) -> CacheSizes:
    """Raises InvalidArgument for sizes that contradict each other."""
    whole, l2, refcounts = options.cache_size, options.l2_cache_size, options.refcount_cache_size
    all_l2 = max(1, geometry.l1_entries(disk_size)) * geometry.cluster_size
    if whole is None:
        default = CacheSizes(DEFAULT_L2_CACHE, DEFAULT_REFCOUNT_CACHE)
        return CacheSizes(default.l2 if l2 is None else l2, default.refcounts if refcounts is None else refcounts)
    if l2 is not None and refcounts is not None:
        raise InvalidArgument(
            "cache_size", "nothing, or else not both of the two that it is the sum of", str(whole)
        )
    for name, value in (("l2_cache_size", l2), ("refcount_cache_size", refcounts)):
        if value is not None and value > whole:
            raise InvalidArgument(name, f"at most cache_size, {whole}", str(value))
    if l2 is not None:
        return CacheSizes(l2, whole - l2)
    if refcounts is not None:
        return CacheSizes(whole - refcounts, refcounts)
    least = MIN_REFCOUNT_CLUSTERS * geometry.cluster_size
    if whole >= all_l2 + least:
        return CacheSizes(all_l2, whole - all_l2)
    return CacheSizes(whole - min(whole, least), min(whole, least))


class Cleaner:
    """Gives back, at every interval, what nobody has used since the one before (cache-clean-interval)."""

    def __init__(self, image: "Image") -> None:
        self._image = image
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        interval = self._image.options.cache_clean_interval
        interval = DEFAULT_CLEAN_INTERVAL_S if interval is None else interval
        if interval:
            self._task = asyncio.ensure_future(self._run(interval))

    async def stop(self) -> None:
        """Nothing runs any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, interval_s: int) -> None:
        while True:
            await self._image.context.clock.sleep(interval_s)
            # The parts are others after a repair.
            self._image.l2.tables.clean()
            self._image.refcounts.blocks.clean()


def statistics(image: "Image") -> dict[str, str | int | bool]:
    """What the caches hold and did since the node was opened, for `format_specific`."""
    found: dict[str, str | int | bool] = {}
    size = image.geometry.cluster_size
    for name, cache in (("l2-cache", image.l2.tables), ("refcount-cache", image.refcounts.blocks)):
        counts = {
            "size": cache.limit * size,
            "used": len(cache.items) * size,
            "loads": cache.loads,
            "evictions": cache.evictions,
            "cleaned": cache.cleaned,
        }
        found |= {f"{name}-{what}": number for what, number in counts.items()}
    return found
