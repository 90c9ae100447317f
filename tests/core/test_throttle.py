"""Leaky buckets: the answers of QEMU's arithmetic, rates that hold, bursts that last, limits that make sense."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.base.errors import InvalidArgument
from blockyard.node.core.throttle import (
    READ_SIDE,
    SECOND_NS,
    SIDES,
    VALUE_MAX,
    WRITE_SIDE,
    Rate,
    Throttle,
    ThrottleLimits,
)
from tests.support.leaky import LeakyModel

START_NS = 5_000 * SECOND_NS


@st.composite
def rates(draw: st.DrawFn, largest: int = 10**9) -> Rate:
    avg = draw(st.integers(0, largest))
    if not avg or draw(st.booleans()):
        return Rate(avg)
    top = draw(st.integers(avg, 10 * avg))
    return Rate(avg, top, draw(st.one_of(st.just(SECOND_NS), st.integers(SECOND_NS, 20 * SECOND_NS))))


@st.composite
def valid_limits(draw: st.DrawFn) -> ThrottleLimits:
    chosen: dict[str, Rate] = {}
    for kind, largest in (("iops", 10**5), ("bps", 10**9)):
        names = draw(st.sampled_from(((f"{kind}_total",), (f"{kind}_read", f"{kind}_write"))))
        chosen |= {name: draw(rates(largest)) for name in names}
    has_iops = any(rate.avg for name, rate in chosen.items() if name.startswith("iops"))
    return ThrottleLimits(**chosen, iops_size=draw(st.integers(0, 1 << 20)) if has_iops else 0).check()


steps = st.lists(
    st.tuples(
        st.one_of(st.just(0), st.integers(0, 3 * SECOND_NS), st.integers(0, 10**7)),
        st.sampled_from(SIDES),
        st.integers(0, 1 << 21),
        st.booleans(),
    ),
    max_size=60,
)


@given(valid_limits(), steps)
def test_every_wait_is_what_qemus_arithmetic_says(limits: ThrottleLimits, steps):
    now_ns = START_NS
    throttle, model = Throttle(limits), LeakyModel(limits, now_ns)
    for elapsed_ns, side, length, waits in steps:
        now_ns += elapsed_ns
        wait_ns, expected = throttle.wait_ns(side, now_ns), model.wait_ns(side, now_ns)
        assert wait_ns == pytest.approx(expected, rel=1e-9, abs=4)
        if waits:
            now_ns += wait_ns
            model.wait_ns(side, now_ns)
        throttle.charge(side, length, now_ns)
        model.account(side, length)


@given(valid_limits(), steps)
def test_trying_is_asking_and_counting_in_one(limits: ThrottleLimits, steps):
    one, other = Throttle(limits), Throttle(limits)
    now_ns = START_NS
    for elapsed_ns, side, length, _ in steps:
        now_ns += elapsed_ns
        may_pass = not other.wait_ns(side, now_ns)
        assert one.try_charge(side, length, now_ns) is may_pass
        if may_pass:
            other.charge(side, length, now_ns)
        assert [one.wait_ns(each, now_ns) for each in SIDES] == [other.wait_ns(each, now_ns) for each in SIDES]


@given(valid_limits(), steps, st.sampled_from(SIDES), st.integers(0, 1 << 21))
def test_a_request_that_is_taken_back_was_never_there(limits: ThrottleLimits, steps, side: int, length: int):
    one, other = Throttle(limits), Throttle(limits)
    now_ns = START_NS
    for elapsed_ns, each, size, _ in steps:
        now_ns += elapsed_ns
        one.charge(each, size, now_ns)
        other.charge(each, size, now_ns)
    one.charge(side, length, now_ns)
    one.refund(side, length)
    for each in SIDES:
        assert one.wait_ns(each, now_ns) == pytest.approx(other.wait_ns(each, now_ns), abs=4)


def greedy(
    throttle: Throttle, seconds: float, length: int = 1, side: int = READ_SIDE, now_ns: int = START_NS
) -> int:
    """How many requests pass in so long a time, each as soon as it may."""
    end_ns, passed = now_ns + round(seconds * SECOND_NS), 0
    while (now_ns := now_ns + throttle.wait_ns(side, now_ns)) < end_ns:
        throttle.charge(side, length, now_ns)
        passed += 1
    return passed


@settings(deadline=None)
@given(rates(500).filter(lambda rate: rate.avg), st.floats(0.1, 30))
def test_over_any_time_no_more_passes_than_a_full_bucket_and_the_rate(rate: Rate, seconds: float):
    passed = greedy(Throttle(ThrottleLimits(iops_read=rate)), seconds)
    size = rate.max * rate.burst_ns / SECOND_NS if rate.max else rate.avg / 10
    assert passed <= size + rate.avg * seconds + 2
    assert passed >= rate.avg * (seconds - 1 / rate.avg) - 1, "nor less than the rate"


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 100), st.integers(2, 10), st.integers(2, 20))
def test_a_burst_lasts_as_long_as_said_at_its_rate_and_the_mean_rate_comes_after(
    avg: int, times: int, seconds: int
):
    rate = Rate(avg, avg * times, seconds * SECOND_NS)
    throttle = Throttle(ThrottleLimits(iops_total=rate))
    inside = greedy(throttle, seconds)
    assert rate.max * seconds - 1 <= inside <= rate.max * (seconds + 0.1) + 2, "all of the burst is at max"
    leaked = seconds * rate.max / (rate.max - avg) + 1
    passed = greedy(throttle, leaked, now_ns=START_NS + seconds * SECOND_NS)
    assert passed <= rate.avg * (seconds + leaked) + rate.max * 0.1 + 2, "then the bucket is full"
    later = START_NS + round((seconds + leaked) * SECOND_NS)
    assert greedy(throttle, 10, now_ns=later) == pytest.approx(avg * 10, abs=2)


def test_a_short_burst_passes_without_a_limit_of_its_own():
    throttle = Throttle(ThrottleLimits(iops_total=Rate(200)))
    assert greedy(throttle, 1e-9) == 21, "a tenth of a second, and the one that overflows"
    assert throttle.wait_ns(READ_SIDE, START_NS) == SECOND_NS // 200


def test_a_long_request_counts_as_several_from_iops_size_on():
    throttle = Throttle(ThrottleLimits(iops_total=Rate(10), iops_size=4096))
    for length, operations in ((1, 1), (4096, 1), (6144, 1.5), (8192, 2)):
        now_ns = START_NS + length * 1000 * SECOND_NS
        throttle.charge(WRITE_SIDE, length, now_ns)
        throttle.charge(WRITE_SIDE, 0, now_ns)
        assert throttle.wait_ns(WRITE_SIDE, now_ns) == pytest.approx(operations * SECOND_NS / 10, abs=1)


def test_reads_and_writes_share_a_total_and_nothing_else():
    now_ns = START_NS
    apart = Throttle(ThrottleLimits(iops_read=Rate(1), bps_write=Rate(1)))
    apart.charge(READ_SIDE, 10**6, now_ns)
    assert apart.wait_ns(READ_SIDE, now_ns) and not apart.wait_ns(WRITE_SIDE, now_ns)
    apart.charge(WRITE_SIDE, 3, now_ns)
    assert apart.wait_ns(WRITE_SIDE, now_ns) == 2.9 * SECOND_NS
    together = Throttle(ThrottleLimits(bps_total=Rate(10)))
    together.charge(READ_SIDE, 11, now_ns)
    assert together.wait_ns(WRITE_SIDE, now_ns) == SECOND_NS


def test_idle_time_is_not_saved_up():
    throttle = Throttle(ThrottleLimits(iops_total=Rate(10)))
    assert greedy(throttle, 1) == greedy(throttle, 1, now_ns=START_NS + 10**6 * SECOND_NS)


def test_a_limit_that_changes_starts_without_debt_and_the_others_keep_theirs():
    throttle = Throttle(ThrottleLimits(iops_total=Rate(1000), bps_total=Rate(1)))
    throttle.charge(READ_SIDE, 5, START_NS)
    owed = throttle.wait_ns(READ_SIDE, START_NS)
    throttle.configure(ThrottleLimits(iops_total=Rate(1), bps_total=Rate(1)))
    assert throttle.wait_ns(READ_SIDE, START_NS) == owed == 4.9 * SECOND_NS
    throttle.configure(ThrottleLimits(bps_total=Rate(2)))
    assert throttle.wait_ns(READ_SIDE, START_NS) == 0


def test_without_limits_nothing_is_counted():
    throttle = Throttle(ThrottleLimits())
    assert throttle.active == ((), ())
    assert all(throttle.try_charge(side, 1 << 40, START_NS) for side in SIDES for _ in range(100))


# --- limits ------------------------------------------------------------------------------------------------

S = SECOND_NS


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"iops_total": Rate(1), "iops_read": Rate(1)}, "iops_total.avg"),
        ({"bps_total": Rate(1), "bps_write": Rate(1)}, "bps_total.avg"),
        ({"bps_total": Rate(1, 5), "bps_read": Rate(0, 5)}, "bps_total.max"),
        ({"iops_read": Rate(-1)}, "iops_read.avg"),
        ({"iops_read": Rate(VALUE_MAX + 1)}, "iops_read.avg"),
        ({"bps_read": Rate(1, VALUE_MAX + 1)}, "bps_read.max"),
        ({"bps_read": Rate(0, 1)}, "bps_read.max"),
        ({"bps_read": Rate(10, 9)}, "bps_read.max"),
        ({"bps_read": Rate(10, 20, S - 1)}, "bps_read.burst_length"),
        ({"bps_read": Rate(10, 20, 0)}, "bps_read.burst_length"),
        ({"bps_read": Rate(10, 0, 2 * S)}, "bps_read.burst_length"),
        ({"bps_read": Rate(10, VALUE_MAX, 2 * S)}, "bps_read.burst_length"),
        ({"iops_size": 4096}, "iops_size_bytes"),
        ({"iops_size": 4096, "bps_total": Rate(1)}, "iops_size_bytes"),
        ({"iops_size": -1, "iops_total": Rate(1)}, "iops_size_bytes"),
    ],
)
def test_limits_that_contradict_each_other_are_refused_by_name(limits, field: str):
    with pytest.raises(InvalidArgument) as refusal:
        ThrottleLimits(**limits).check()
    assert refusal.value.name == field


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"iops_total": Rate(VALUE_MAX, VALUE_MAX), "bps_read": Rate(1), "bps_write": Rate(1, 1, VALUE_MAX * S)},
        {"iops_write": Rate(1), "iops_size": 1},
        {"iops_read": Rate(1, 1), "iops_write": Rate(2, 10, S + 1)},
    ],
)
def test_limits_that_qemu_takes_are_taken(limits):
    ThrottleLimits(**limits).check()


@given(valid_limits())
def test_limits_come_back_from_json_as_they_went(limits: ThrottleLimits):
    assert ThrottleLimits.from_dict(json.loads(json.dumps(limits.as_dict()))) == limits


def test_limits_are_written_under_qemus_names():
    limits = ThrottleLimits(
        iops_total=Rate(1, 2, 3 * S), bps_read=Rate(4), bps_write=Rate(5, 6, 3 * S // 2), iops_size=7
    )
    assert limits.as_dict() == {
        "iops-total": 1,
        "iops-total-max": 2,
        "iops-total-max-length": 3,
        "bps-read": 4,
        "bps-write": 5,
        "bps-write-max": 6,
        "bps-write-max-length": 1.5,
        "iops-size": 7,
    }


@pytest.mark.parametrize(
    "told", [{"iops": 1}, {"iops-total-max-size": 1}, {"iops-total": "1"}, {"bps-read": True}, {"bps-read": 1.5}]
)
def test_what_are_no_limits_is_refused(told):
    with pytest.raises(InvalidArgument):
        ThrottleLimits.from_dict(told)
