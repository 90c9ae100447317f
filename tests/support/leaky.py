"""QEMU's throttling arithmetic, written down plainly from its published rules (docs/throttle.txt, util/throttle.c).

Levels in doubles that leak at every look; no tricks. It is what `blockyard.node.core.throttle` is compared with.
"""

from blockyard.node.core.throttle import RATES, SECOND_NS, WRITE_SIDE, ThrottleLimits


class Bucket:
    """avg and max in units a second, length in seconds."""

    def __init__(self, avg: int, max_: int, length: float) -> None:
        self.avg, self.max, self.length = avg, max_, length
        self.level = 0.0
        self.burst_level = 0.0

    def leak(self, elapsed_ns: int) -> None:
        self.level = max(self.level - self.avg * elapsed_ns / SECOND_NS, 0)
        if self.length > 1:
            self.burst_level = max(self.burst_level - self.max * elapsed_ns / SECOND_NS, 0)

    def wait_ns(self) -> float:
        if not self.avg:
            return 0
        size = self.max * self.length if self.max else self.avg / 10
        if self.level > size:
            return (self.level - size) * SECOND_NS / self.avg
        if self.length > 1 and self.burst_level > self.max / 10:
            return (self.burst_level - self.max / 10) * SECOND_NS / self.max
        return 0

    def pour(self, units: float) -> None:
        self.level += units
        if self.length > 1:
            self.burst_level += units


class LeakyModel:
    """One ThrottleState."""

    def __init__(self, limits: ThrottleLimits, now_ns: int) -> None:
        rates = {name: getattr(limits, name) for name in RATES}
        self.buckets = {name: Bucket(rate.avg, rate.max, rate.burst_ns / SECOND_NS) for name, rate in rates.items()}
        self.iops_size = limits.iops_size
        self.now_ns = now_ns

    def wait_ns(self, side: int, now_ns: int) -> float:
        for bucket in self.buckets.values():
            bucket.leak(now_ns - self.now_ns)
        self.now_ns = now_ns
        return max(self.buckets[name].wait_ns() for name in self._of(side))

    def account(self, side: int, length: int) -> None:
        operations = length / self.iops_size if self.iops_size and length > self.iops_size else 1.0
        for name in self._of(side):
            self.buckets[name].pour(length if name.startswith("bps") else operations)

    def _of(self, side: int) -> tuple[str, ...]:
        own = "write" if side == WRITE_SIDE else "read"
        return ("bps_total", f"bps_{own}", "iops_total", f"iops_{own}")
