"""Leaky buckets: how long a request must wait so that rates stay within limits (QEMU's util/throttle.c).

What must not live here: queues, groups, timers, asyncio. Time is handed in as nanoseconds of a monotonic clock.

Theory. Each limit is a bucket. A request pours its units in (1 for an operation, its length for bytes), and the
bucket leaks `avg` units a second. While the level is above the bucket's size, requests wait for as long as the
excess takes to leak. The one that makes it overflow still passes: what is waited for is the debt of those before.

- Without `max` the size is a tenth of a second of `avg`: short bursts pass, or every other request would wait.
- With `max` the size is what `max` gives in `burst_ns`: a burst at that rate may last so long.
- With a burst of more than a second a second level, which leaks `max` a second, holds the rate of the burst itself.

Invariants
1. Over any time t no more than `size + avg * t` units pass, and one request (of each side, see `Throttle.wait_ns`).
2. A bucket is never emptier than empty: idle time is not saved up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from blockyard.base.errors import InvalidArgument

SECOND_NS: Final = 1_000_000_000
TENTH_NS: Final = SECOND_NS // 10
"""How long a burst lasts that nobody asked for (throttle_compute_wait)."""
VALUE_MAX: Final = 10**15
"""Largest rate, and largest burst in units (THROTTLE_VALUE_MAX, include/qemu/throttle.h): exact in a double, with
room to add."""

READ_SIDE: Final = 0
WRITE_SIDE: Final = 1
SIDES: Final = (READ_SIDE, WRITE_SIDE)
"""Directions of requests. Zeroes and discards are on the side of writes."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One limit, in units a second. All zero is none."""

    avg: int = 0
    """Mean rate; 0 is no limit."""
    max: int = 0
    """Rate of bursts; 0 allows a tenth of a second of `avg` at once and no more."""
    burst_ns: int = SECOND_NS
    """How long a burst at `max` may last; a second or more."""


_NONE: Final = Rate()


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """The 18 limits of a group, and the size from which a request counts as several."""

    iops_total: Rate = _NONE
    iops_read: Rate = _NONE
    iops_write: Rate = _NONE
    bps_total: Rate = _NONE
    bps_read: Rate = _NONE
    bps_write: Rate = _NONE
    iops_size: int = 0
    """Bytes: a longer request counts as length / iops_size operations; 0 counts every request as one."""

    def check(self) -> Self:
        """Itself. Raises InvalidArgument for limits that contradict each other (throttle_is_valid)."""
        for kind in ("iops", "bps"):
            self._check_exclusive(kind)
        for name in RATES:
            _check_rate(name, getattr(self, name))
        if not 0 <= self.iops_size <= VALUE_MAX:
            raise InvalidArgument("iops_size_bytes", f"0 to {VALUE_MAX}", str(self.iops_size))
        if self.iops_size and not any(getattr(self, name).avg for name in RATES if name.startswith("iops")):
            raise InvalidArgument("iops_size_bytes", "0 without a limit of iops", str(self.iops_size))
        return self

    def _check_exclusive(self, kind: str) -> None:
        total: Rate = getattr(self, f"{kind}_total")
        for side in ("read", "write"):
            other: Rate = getattr(self, f"{kind}_{side}")
            for part in ("avg", "max"):
                if getattr(total, part) and getattr(other, part):
                    raise InvalidArgument(
                        f"{kind}_total.{part}",
                        f"0 beside {kind}_{side}: a total, or reads and writes each",
                        str(getattr(total, part)),
                    )

    def as_dict(self) -> dict[str, int | float]:
        """Under QEMU's names (ThrottleLimits of qapi/block-core.json), zeroes left out; for JSON."""
        told: dict[str, int | float] = {}
        for name in RATES:
            rate: Rate = getattr(self, name)
            key = name.replace("_", "-")
            told |= {key: rate.avg} if rate.avg else {}
            told |= {f"{key}-max": rate.max} if rate.max else {}
            if rate.burst_ns != SECOND_NS:
                seconds, rest = divmod(rate.burst_ns, SECOND_NS)
                told[f"{key}-max-length"] = rate.burst_ns / SECOND_NS if rest else seconds
        return told | ({"iops-size": self.iops_size} if self.iops_size else {})

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Self:
        """The reverse of `as_dict`. Raises InvalidArgument."""
        rates: dict[str, dict[str, int]] = {name: {} for name in RATES}
        iops_size = 0
        for key, value in told.items():
            rate, _, part = key.replace("-", "_").partition("_max")
            if type(value) not in (int, float) or not (key == "iops-size" or (rate in RATES and part in _PARTS)):
                raise InvalidArgument("limits", "limits under QEMU's names, as numbers", f"{key}: {value!r}")
            if key == "iops-size":
                iops_size = value
            elif part:
                rates[rate]["burst_ns"] = round(value * SECOND_NS)
            else:
                rates[rate]["max" if key.endswith("max") else "avg"] = value
        made: dict[str, Any] = {name: Rate(**rates[name]) for name in RATES}
        return cls(**made, iops_size=iops_size).check()


RATES: Final = tuple(item.name for item in fields(ThrottleLimits) if item.name != "iops_size")
_PARTS: Final = ("", "_length")
"""What may follow the name of a burst."""


def _check_rate(name: str, rate: Rate) -> None:
    for part, value in (("avg", rate.avg), ("max", rate.max)):
        if type(value) is not int or not 0 <= value <= VALUE_MAX:
            raise InvalidArgument(f"{name}.{part}", f"0 to {VALUE_MAX}", str(value))
    if rate.max and rate.max < rate.avg:
        raise InvalidArgument(f"{name}.max", f"0, or {rate.avg} (avg) or more", str(rate.max))
    if rate.max and not rate.avg:
        raise InvalidArgument(f"{name}.max", "0 without avg", str(rate.max))
    if rate.burst_ns < SECOND_NS:
        raise InvalidArgument(f"{name}.burst_length", "1 s or longer", f"{rate.burst_ns / SECOND_NS:g} s")
    if rate.burst_ns > SECOND_NS and not rate.max:
        raise InvalidArgument(f"{name}.burst_length", "none without max", f"{rate.burst_ns / SECOND_NS:g} s")
    if rate.max * rate.burst_ns > VALUE_MAX * SECOND_NS:
        longest = VALUE_MAX / rate.max
        raise InvalidArgument(
            f"{name}.burst_length", f"at most {longest:g} s at this max", f"{rate.burst_ns / SECOND_NS:g} s"
        )


class LeakyBucket:
    """One limit at work, kept as the instant at which it would be empty: its level is `(empty_ns - now) * avg`.

    So leaking costs nothing, and pouring moves the instant. Floats, as QEMU's doubles: rates divide times.
    """

    __slots__ = (
        *("burst_empty_ns", "burst_unit_ns", "empty_ns", "full_ns", "in_bytes", "passes_ns", "rate", "unit_ns"),
    )

    def __init__(self, rate: Rate, in_bytes: bool) -> None:
        assert rate.avg > 0, rate
        self.rate = rate
        self.in_bytes = in_bytes
        self.unit_ns = SECOND_NS / rate.avg
        """What one unit takes to leak."""
        self.full_ns = rate.max * rate.burst_ns / rate.avg if rate.max else TENTH_NS
        """What a full bucket takes to become empty."""
        self.burst_unit_ns = SECOND_NS / rate.max if rate.burst_ns > SECOND_NS else 0.0
        """The same of the second level, which holds a tenth of a second of `max`; 0 if there is none."""
        self.empty_ns = self.burst_empty_ns = 0.0
        self.passes_ns = 0.0
        """From when on a request need not wait (throttle_compute_wait): both levels are at most full then.

        Less than a nanosecond of waiting is nothing, so that rounding does not hold back what just fits."""

    def wait_ns(self, now_ns: int) -> int:
        """How long the next request must wait, 0 if not at all. The first level goes before the second."""
        if now_ns > self.passes_ns:
            return 0
        if (excess_ns := self.empty_ns - now_ns - self.full_ns) >= 1:
            return int(excess_ns)
        return max(0, int(self.burst_empty_ns - now_ns - TENTH_NS))

    def pour(self, units: float, now_ns: int) -> None:
        """Count a request."""
        self.empty_ns = max(self.empty_ns, now_ns) + units * self.unit_ns
        if self.burst_unit_ns:
            self.burst_empty_ns = max(self.burst_empty_ns, now_ns) + units * self.burst_unit_ns
        self._look()

    def take_back(self, units: float) -> None:
        """One that had passed is not made."""
        self.empty_ns -= units * self.unit_ns
        self.burst_empty_ns -= units * self.burst_unit_ns
        self._look()

    def _look(self) -> None:
        self.passes_ns = max(self.empty_ns - self.full_ns, self.burst_empty_ns - TENTH_NS) - 1


TryCharge = Callable[[int, int], bool]


def _trying_one(bucket: LeakyBucket) -> TryCharge:
    """One plain limit, the usual case."""
    unit_ns, full_ns, in_bytes = bucket.unit_ns, bucket.full_ns + 1, bucket.in_bytes

    def try_charge(length: int, now_ns: int) -> bool:
        if now_ns <= bucket.passes_ns:
            return False
        empty_ns = bucket.empty_ns
        if empty_ns < now_ns:
            empty_ns = now_ns
        bucket.empty_ns = empty_ns = empty_ns + (length * unit_ns if in_bytes else unit_ns)
        bucket.passes_ns = empty_ns - full_ns
        return True

    return try_charge


def _trying_plain(buckets: Sequence[LeakyBucket]) -> TryCharge:
    """As `LeakyBucket.pour` of each, without the calls: no second level, every request counts as one operation."""

    def try_charge(length: int, now_ns: int) -> bool:
        for bucket in buckets:
            if now_ns <= bucket.passes_ns:
                return False
        for bucket in buckets:
            empty_ns = bucket.empty_ns
            if empty_ns < now_ns:
                empty_ns = now_ns
            bucket.empty_ns = empty_ns = empty_ns + (length if bucket.in_bytes else 1) * bucket.unit_ns
            bucket.passes_ns = empty_ns - bucket.full_ns - 1
        return True

    return try_charge


class Throttle:
    """The buckets of one group (QEMU's ThrottleState)."""

    __slots__ = ("_buckets", "_one_operation", "active", "limits", "trying")

    def __init__(self, limits: ThrottleLimits) -> None:
        self._buckets: dict[str, LeakyBucket] = {}
        self.active: tuple[tuple[LeakyBucket, ...], ...] = ((), ())
        """By side: the buckets that have a limit. Empty: nothing waits there, and nothing is counted."""
        self.configure(limits)

    def configure(self, limits: ThrottleLimits) -> None:
        """New limits, all at once.

        A bucket whose limit changed starts empty, as all do in QEMU's throttle_config: a debt at the old rate is
        none at the new one. The others keep their level: setting a limit to what it is gives nobody a burst.
        """
        old, self._buckets = self._buckets, {}
        for name in RATES:
            rate: Rate = getattr(limits, name)
            if rate.avg:
                same = name in old and old[name].rate == rate
                self._buckets[name] = old[name] if same else LeakyBucket(rate, name.startswith("bps"))
        self.active = (self._of_side("read"), self._of_side("write"))
        self.limits = limits
        self._one_operation = limits.iops_size or VALUE_MAX
        """The longest request that counts as one operation."""
        self.trying = tuple(map(self._trying, SIDES))
        """`try_charge` by side, without its call."""

    def _of_side(self, side: str) -> tuple[LeakyBucket, ...]:
        return tuple(bucket for name, bucket in self._buckets.items() if name.endswith(("total", side)))

    def wait_ns(self, side: int, now_ns: int) -> int:
        """How long the next request of a side must wait: the longest of what its buckets say.

        Who waits so long may pass then, whatever the other side took from a common bucket meanwhile; that one waits
        the longer afterwards. So reads and writes cannot keep each other waiting for ever.
        """
        return max((bucket.wait_ns(now_ns) for bucket in self.active[side]), default=0)

    def try_charge(self, side: int, length: int, now_ns: int) -> bool:
        """Count a request if it need not wait; False leaves nothing."""
        return self.trying[side](length, now_ns)

    def _trying(self, side: int) -> TryCharge:
        """It is on the way of every inline request, so the usual cases have forms of their own."""
        buckets = self.active[side]
        if not self.limits.iops_size and not any(bucket.burst_unit_ns for bucket in buckets):
            return _trying_one(buckets[0]) if len(buckets) == 1 else _trying_plain(buckets)

        def try_charge(length: int, now_ns: int) -> bool:
            for bucket in buckets:
                if now_ns <= bucket.passes_ns:
                    return False
            self.charge(side, length, now_ns)
            return True

        return try_charge

    def charge(self, side: int, length: int, now_ns: int) -> None:
        """Count a request that passes in any case (throttle_account)."""
        operations = self._operations(length)
        for bucket in self.active[side]:
            bucket.pour(length if bucket.in_bytes else operations, now_ns)

    def _operations(self, length: int) -> float:
        return 1.0 if length <= self._one_operation else length / self._one_operation

    def refund(self, side: int, length: int) -> None:
        """A request that was counted is not made."""
        operations = self._operations(length)
        for bucket in self.active[side]:
            bucket.take_back(length if bucket.in_bytes else operations)
