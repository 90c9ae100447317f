"""When a buffered write may run in the event loop: until one is seen to sleep. Pure policy, no system calls.

Theory (design, section 3, rule 3). A small write into the page cache takes a microsecond, unless the kernel
throttles writers (balance_dirty_pages), which sleeps up to 200 ms. `RWF_NOWAIT` does not work for buffered writes
on ext4, so the sleep is seen afterwards. But on a busy machine a write takes as long because the processor was
given to another process, and then the pool would only be slower (with six runnable threads on two cores 92 of 100
writes went to the pool for nothing). The two are told apart by the thread's voluntary context switches; reading
them costs 1 us, so that is done only after a first slow write raised the suspicion.
"""

from typing import Final

SLOW_NS: Final = 5_000_000
PAUSE_NS: Final = 100_000_000
"""Half of what the kernel's dirty throttling sleeps at most in one go (MAX_PAUSE, mm/page-writeback.c)."""
SUSPICION_NS: Final = 5_000_000_000
NEVER_NS: Final = 1 << 63


class InlineWrites:
    """The state of one file."""

    __slots__ = ("_suspicious_until_ns", "from_ns")

    def __init__(self, allowed: bool) -> None:
        self.from_ns = 0 if allowed else NEVER_NS
        """Writes go inline from this time on."""
        self._suspicious_until_ns = 0

    def watching(self, now_ns: int) -> bool:
        """Whether to count the thread's sleeps around writes."""
        return now_ns < self._suspicious_until_ns

    def was_slow(self, now_ns: int, sleeps: int | None) -> None:
        """A write took longer than `SLOW_NS`; `sleeps` are those during it, None if they were not counted."""
        self._suspicious_until_ns = now_ns + SUSPICION_NS
        if sleeps:
            self.from_ns = now_ns + PAUSE_NS
