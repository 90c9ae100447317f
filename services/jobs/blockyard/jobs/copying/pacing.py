"""The rate limit of a job: how long to wait before the next order, and how large it may be.

What lives here: arithmetic on an injected clock's time. What must not: sleeping, orders, streams.

Theory (that of QEMU's ratelimit.h): time is cut into slices of 100 ms, each with a quota. What is copied counts
against the present slice; once its quota is used up the slice is stretched until the average fits the limit,
and only then does a new one begin. An excess is paid back in full, an unused rest is not saved: the rate never
bursts above limit + one slice.
"""

from typing import Final

SLICE_NS: Final = 100_000_000
"""QEMU's BLOCK_JOB_SLICE_TIME (blockjob_int.h)."""

_NS: Final = 1_000_000_000


class Pacer:
    """A limit in bytes per second that may change at any time. 0 is no limit."""

    def __init__(self, speed_bytes_per_second: int = 0) -> None:
        self._speed = speed_bytes_per_second
        self._slice_start_ns = 0
        self._slice_end_ns = 0
        self._used = 0

    @property
    def speed_bytes_per_second(self) -> int:
        return self._speed

    def set_speed(self, speed_bytes_per_second: int) -> None:
        """A new limit counts from now: what is owed to the old one is forgiven, so that raising it acts at once."""
        assert speed_bytes_per_second >= 0
        self._speed = speed_bytes_per_second
        self._slice_start_ns = self._slice_end_ns = self._used = 0

    def account(self, copied_bytes: int, now_ns: int) -> None:
        """Count what was copied. Zeroes and passed-over ranges are free, as they cost the disks next to nothing."""
        if not self._speed:
            return
        if now_ns > self._slice_end_ns:
            self._slice_start_ns = now_ns
            self._slice_end_ns = now_ns + SLICE_NS
            self._used = 0
        self._used += copied_bytes
        if self._used * _NS >= self._speed * SLICE_NS:
            self._slice_end_ns = self._slice_start_ns + self._used * _NS // self._speed

    def delay_ns(self, now_ns: int) -> int:
        """How long the next order must wait; 0 if it may go now."""
        if not self._speed or self._used * _NS < self._speed * SLICE_NS:
            return 0
        return max(0, self._slice_end_ns - now_ns)

    def allowance(self, unlimited_bytes: int, granule_bytes: int) -> int:
        """How many bytes may be in flight: a slice's quota, at least one granule, at most `unlimited_bytes`."""
        if not self._speed:
            return unlimited_bytes
        quota = self._speed * SLICE_NS // _NS
        return min(unlimited_bytes, max(quota, granule_bytes))
