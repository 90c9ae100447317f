"""Throttle groups on virtual time: turns, order, live changes, giving up, draining; nobody waits for ever."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    EtagMismatch,
    InvalidArgument,
    LimitReached,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.core.accounting import DISCARD, READ, WRITE, WRITE_ZEROES
from blockyard.node.core.throttle import READ_SIDE, SECOND_NS, SIDES, WRITE_SIDE, Rate, ThrottleLimits
from blockyard.node.graph import throttling
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.drain import drained
from blockyard.node.graph.leases import DrainLeases
from blockyard.node.graph.node import Node
from blockyard.node.graph.surgery import remove_filter
from blockyard.node.graph.throttling import Member, ThrottleGroup, ThrottleGroups
from blockyard.node.interface import tracing
from tests.support.graphs import GraphGround
from tests.support.leaky import LeakyModel
from tests.support.spans import Spans

SLOW = ThrottleLimits(iops_total=Rate(10))
"""One at once and then one every 100 ms; the burst of 100 ms is one request."""


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def groups(clock: VirtualClock) -> ThrottleGroups:
    return ThrottleGroups(clock)


@pytest.fixture
async def ground(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path, clock)
    yield ground
    assert await ground.leave() == []


class Crowd:
    """Requests of members, with when each was let pass."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.passed: list[tuple[str, int, float]] = []
        """Name, number, seconds since the start."""
        self._start_ns = clock.monotonic_ns()
        self.tasks: list[asyncio.Task[None]] = []

    async def request(self, member: Member, number: int = 0, operation: int = READ, length: int = 4096) -> None:
        await member.wait(operation, length)
        self.passed.append((member.node_name, number, (self.clock.monotonic_ns() - self._start_ns) / SECOND_NS))

    def come(
        self, member: Member, count: int, operation: int = READ, length: int = 4096
    ) -> list[asyncio.Task[None]]:
        """So many requests of a member at once."""
        made = [asyncio.ensure_future(self.request(member, at, operation, length)) for at in range(count)]
        self.tasks += made
        return made

    async def settle(self) -> None:
        await self.clock.advance(0)

    @property
    def times(self) -> list[float]:
        return [time for _, _, time in self.passed]

    def shares(self) -> Counter[str]:
        return Counter(name for name, _, _ in self.passed)


@pytest.fixture
async def crowd(clock: VirtualClock) -> AsyncIterator[Crowd]:
    crowd = Crowd(clock)
    yield crowd
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def forward(clock: VirtualClock, seconds: float) -> None:
    """Let everyone come to where they wait, then move the time on."""
    await clock.advance(0)
    await clock.advance(seconds)


def nothing_waits(group: ThrottleGroup) -> bool:
    return not any(group.rings) and not group.queued and group._tasks == [None, None]


# --- rates -------------------------------------------------------------------------------------------------


async def test_requests_above_the_rate_pass_at_the_times_of_qemus_arithmetic(groups, crowd, clock):
    limits = ThrottleLimits(iops_total=Rate(20, 50, 2 * SECOND_NS), bps_total=Rate(100_000))
    groups.create("g", limits)
    member = groups.join("g", "a")
    model, now_ns = LeakyModel(limits, clock.monotonic_ns()), clock.monotonic_ns()
    expected = []
    numbers = Random(1)
    lengths = [numbers.randrange(1, 20_000) for _ in range(200)]
    for length in lengths:
        now_ns += round(model.wait_ns(READ_SIDE, now_ns))
        model.wait_ns(READ_SIDE, now_ns)
        model.account(READ_SIDE, length)
        expected.append(now_ns / 1e9 - 1)
    for number, length in enumerate(lengths):
        crowd.tasks.append(asyncio.ensure_future(crowd.request(member, number, READ, length)))
    await forward(clock, expected[-1] + 1)
    assert crowd.times == pytest.approx(expected, abs=1e-6)
    assert [number for _, number, _ in crowd.passed] == list(range(200)), "in the order they came"


async def test_reads_do_not_wait_for_writes_with_limits_of_their_own(groups, crowd, clock):
    groups.create("g", ThrottleLimits(iops_read=Rate(1000), iops_write=Rate(10)))
    member = groups.join("g", "a")
    crowd.come(member, 5, WRITE)
    crowd.come(member, 5, READ)
    await crowd.settle()
    assert member.queued == (0, 3)
    await forward(clock, 1)
    assert len(crowd.passed) == 10


async def test_neither_side_starves_under_a_common_limit(groups, crowd, clock):
    groups.create("g", ThrottleLimits(iops_total=Rate(100)))
    member = groups.join("g", "a")
    crowd.come(member, 500, READ)
    crowd.come(member, 500, WRITE)
    await forward(clock, 4)
    reads, writes = member.queued
    assert 500 - reads == pytest.approx(205, abs=10)
    assert abs(reads - writes) <= 15
    assert 1000 - reads - writes <= 100 * 4 + 10 + 2, "and together they keep to it"


@pytest.mark.parametrize("operation", [WRITE, WRITE_ZEROES, DISCARD])
async def test_zeroes_and_discards_are_on_the_side_of_writes(groups, crowd, operation: int):
    groups.create("g", SLOW)
    member = groups.join("g", "a")
    crowd.come(member, 4, operation)
    await crowd.settle()
    assert member.queued == (0, 2)


# --- turns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 7])
async def test_members_that_ask_for_more_than_there_is_get_equal_shares(groups, crowd, clock, count: int):
    groups.create("g", ThrottleLimits(iops_total=Rate(100)))
    members = [groups.join("g", f"m{at}") for at in range(count)]
    for member in members:
        crowd.come(member, 400)
    await forward(clock, 0)
    crowd.passed.clear()
    await forward(clock, 3)
    shares = crowd.shares()
    assert len(shares) == count
    assert max(shares.values()) - min(shares.values()) <= 1


async def test_a_deep_queue_does_not_outdo_a_client_that_asks_one_by_one(groups, crowd, clock):
    groups.create("g", ThrottleLimits(iops_total=Rate(50)))
    deep, shallow = groups.join("g", "deep"), groups.join("g", "shallow")
    crowd.come(deep, 1000)
    await crowd.settle()

    async def one_by_one() -> None:
        for number in range(1000):
            await crowd.request(shallow, number)

    crowd.tasks.append(asyncio.ensure_future(one_by_one()))
    await crowd.settle()
    crowd.passed.clear()
    await forward(clock, 4)
    assert abs(crowd.shares()["deep"] - crowd.shares()["shallow"]) <= 1


async def test_nobody_overtakes_who_waits(groups, crowd, clock):
    groups.create("g", SLOW)
    member, other = groups.join("g", "a"), groups.join("g", "b")
    crowd.come(member, 3)
    await crowd.settle()
    now_ns = clock.monotonic_ns() + SECOND_NS
    assert not member.charge_now(READ_SIDE, 1, now_ns) and not other.charge_now(READ_SIDE, 1, now_ns)
    await forward(clock, 1)
    assert other.charge_now(READ_SIDE, 1, clock.monotonic_ns())


# --- live changes ------------------------------------------------------------------------------------------


async def test_new_limits_count_at_once_for_who_waits(groups, crowd, clock):
    group = groups.create("g", ThrottleLimits(bps_total=Rate(1)))
    member = groups.join("g", "a")
    crowd.come(member, 10, READ, 10**6)
    await forward(clock, 10)
    assert len(crowd.passed) == 1, "the next one would pass after eleven days"
    groups.update("g", ThrottleLimits(bps_total=Rate(10**6)))
    await crowd.settle()
    assert len(crowd.passed) == 2, "the new bucket begins empty"
    await forward(clock, 2)
    assert len(crowd.passed) == 4
    groups.update("g", ThrottleLimits(bps_total=Rate(1)))
    await forward(clock, 1000)
    assert len(crowd.passed) == 5
    groups.update("g", ThrottleLimits())
    await crowd.settle()
    assert len(crowd.passed) == 10 and nothing_waits(group)


async def test_setting_the_limits_that_are_gives_nobody_a_burst(groups, crowd, clock):
    groups.create("g", ThrottleLimits(iops_total=Rate(10, 100)))
    member = groups.join("g", "a")
    crowd.come(member, 300)
    await crowd.settle()
    etag, at_first = groups.get("g").etag, len(crowd.passed)
    for _ in range(20):
        groups.update("g", ThrottleLimits(iops_total=Rate(10, 100)))
        await forward(clock, 0.05)
    assert len(crowd.passed) == at_first + 10
    assert groups.get("g").etag == etag


async def test_limits_that_cannot_be_change_nothing(groups, clock):
    group = groups.create("g", SLOW)
    etag = group.etag
    with pytest.raises(InvalidArgument):
        groups.update("g", ThrottleLimits(iops_total=Rate(1), iops_read=Rate(1)))
    with pytest.raises(EtagMismatch):
        groups.update("g", ThrottleLimits(), "another")
    assert (group.limits, group.etag) == (SLOW, etag)
    assert groups.update("g", ThrottleLimits(), etag).etag != etag


async def test_a_member_that_moves_takes_who_waits_along(groups, crowd, clock):
    group, fast = groups.create("g", SLOW), groups.create("fast", ThrottleLimits(iops_total=Rate(1000)))
    member, other = groups.join("g", "a"), groups.join("g", "b")
    crowd.come(member, 50)
    crowd.come(other, 3)
    await crowd.settle()
    with pytest.raises(ResourceNotFound):
        member.move("nothing")
    member.move("fast")
    await crowd.settle()
    assert crowd.shares()["a"] == 50 and member.group_name == "fast"
    assert [number for name, number, _ in crowd.passed if name == "a"] == list(range(50))
    assert list(group.members) == [other] and list(fast.members) == [member]
    await forward(clock, 1)
    assert crowd.shares()["b"] == 3, "who stays goes on"


async def test_who_waits_for_a_member_that_leaves_passes(groups, crowd, clock):
    group = groups.create("g", SLOW)
    member, other = groups.join("g", "a"), groups.join("g", "b")
    crowd.come(member, 5)
    crowd.come(other, 2)
    await crowd.settle()
    member.leave()
    await crowd.settle()
    assert crowd.shares()["a"] == 5 and list(group.members) == [other]
    await forward(clock, 10)
    assert nothing_waits(group) and crowd.shares()["b"] == 2


# --- giving up ---------------------------------------------------------------------------------------------


async def test_a_request_that_gives_up_leaves_nothing(groups, crowd, clock):
    group = groups.create("g", SLOW)
    member = groups.join("g", "a")
    tasks = crowd.come(member, 5)
    await crowd.settle()
    for task in tasks:
        task.cancel()
    await crowd.settle()
    assert nothing_waits(group) and member.queued == (0, 0)
    await forward(clock, 0.1)
    assert member.charge_now(READ_SIDE, 1, clock.monotonic_ns()), "only the two that passed were counted"


async def test_one_that_gives_up_in_the_middle_is_skipped(groups, crowd, clock):
    groups.create("g", SLOW)
    member = groups.join("g", "a")
    tasks = crowd.come(member, 6)
    await crowd.settle()
    tasks[2].cancel()
    tasks[4].cancel()
    await forward(clock, 0.25)
    assert [number for _, number, _ in crowd.passed] == [0, 1, 3, 5]


async def test_one_that_gives_up_in_the_instant_it_may_pass_is_counted_out(groups, crowd, clock):
    group = groups.create("g", ThrottleLimits(bps_total=Rate(100)))
    member = groups.join("g", "a")
    tasks = crowd.come(member, 2, READ, 1000)
    await crowd.settle()
    owed = group.throttle.wait_ns(READ_SIDE, clock.monotonic_ns())
    member.begin_passing()  # the future has its result, the task has not run
    tasks[1].cancel()
    member.end_passing()
    await crowd.settle()
    assert tasks[1].cancelled()
    assert group.throttle.wait_ns(READ_SIDE, clock.monotonic_ns()) == owed


async def test_one_more_than_may_wait_is_refused(groups, crowd, clock, monkeypatch):
    monkeypatch.setattr(throttling, "MAX_WAITING", 3)
    groups.create("g", SLOW)
    member = groups.join("g", "a")
    crowd.come(member, 5)
    await crowd.settle()
    with pytest.raises(LimitReached):
        await member.wait(READ, 1)
    assert member.queued == (3, 0)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(20))
async def test_in_any_mix_of_comings_goings_and_changes_nobody_waits_for_ever(groups, crowd, clock, seed: int):
    numbers = Random(seed)
    names = ("x", "y")
    for name in names:
        groups.create(name, SLOW)
    members = [groups.join(numbers.choice(names), f"m{at}") for at in range(4)]
    tasks: list[asyncio.Task[None]] = []

    def change() -> None:
        rate = Rate(numbers.randrange(1, 50))
        size = numbers.choice((0, 4096))
        groups.update(
            numbers.choice(names),
            numbers.choice(
                (
                    ThrottleLimits(iops_total=rate, iops_size=size),
                    ThrottleLimits(bps_read=Rate(100_000, 500_000, 3 * SECOND_NS)),
                    ThrottleLimits(iops_read=rate, iops_write=Rate(7), bps_total=Rate(10**6)),
                    ThrottleLimits(),
                )
            ),
        )

    def passing() -> None:
        member = numbers.choice(members)
        member.begin_passing()
        member.end_passing()

    deeds = (
        *[lambda: tasks.extend(crowd.come(numbers.choice(members), 3, numbers.choice((READ, WRITE))))] * 6,
        *[lambda: numbers.choice(tasks or [asyncio.ensure_future(asyncio.sleep(0))]).cancel()] * 3,
        change,
        lambda: numbers.choice(members).move(numbers.choice(names)),
        passing,
    )
    for _ in range(150):
        numbers.choice(deeds)()
        await forward(clock, numbers.choice((0, 0.01, 0.3)))
        for group in groups.all():
            for side in SIDES:
                waiting = {member for member in group.members if member.queues[side]}
                assert set(group.rings[side]) == waiting, "invariant 1"
                assert bool(waiting) is (group._tasks[side] is not None), "invariant 2"
    await forward(clock, 1000)
    assert all(task.done() for task in tasks)
    assert all(nothing_waits(group) for group in groups.all())
    assert len(crowd.passed) == sum(not task.cancelled() for task in tasks)


# --- groups ------------------------------------------------------------------------------------------------


async def test_a_group_in_use_is_not_deleted_and_names_its_nodes(groups):
    groups.create("g", SLOW)
    members = [groups.join("g", name) for name in ("a", "b")]
    with pytest.raises(ResourceBusy, match="node/a, node/b"):
        groups.delete("g")
    for member in members:
        member.leave()
    groups.delete("g")
    with pytest.raises(ResourceNotFound):
        groups.get("g")


async def test_names_are_given_once_and_groups_are_bounded(groups, monkeypatch):
    groups.create("g", SLOW)
    with pytest.raises(ResourceExists):
        groups.create("g", SLOW)
    monkeypatch.setattr(throttling, "MAX_GROUPS", 1)
    with pytest.raises(LimitReached):
        groups.create("h", SLOW)


async def test_definitions_make_the_same_groups_again(groups, clock):
    groups.create("b", ThrottleLimits())
    groups.create("a", SLOW)
    again = ThrottleGroups(clock)
    for name, limits in groups.definitions().items():
        again.create(name, limits)
    assert again.definitions() == groups.definitions() == {"a": SLOW, "b": ThrottleLimits()}


# --- in the graph ------------------------------------------------------------------------------------------


async def limited(
    ground: GraphGround, name: str, file: NodeDefinition | str, limits: ThrottleLimits = SLOW
) -> Node:
    """A node of a group of its own name."""
    ground.graph.environment.throttling.create(name, limits)
    return await ground.graph.open(NodeDefinition("throttle", name, {"throttle_group": name}, {"file": file}))


async def test_a_node_serves_inline_what_may_pass_and_lets_the_rest_wait(ground, clock):
    await ground.memory("m", MIB)
    node = await limited(ground, "t", "m")
    user, buffer = ground.use(node), memoryview(bytearray(4096))
    assert user.write_now(0, b"x" * 4096) and user.read_now(0, buffer) and bytes(buffer) == b"x" * 4096
    assert not user.read_now(0, buffer) and not user.write_now(0, b"y" * 4096)
    writing = asyncio.ensure_future(user.write(0, b"y" * 4096))
    await forward(clock, 0.099)
    assert not writing.done() and node.throttle.queued == (0, 1)
    await forward(clock, 0.001)
    await writing
    assert [node.account.operations[each].operations for each in (READ, WRITE)] == [1, 2]
    assert [ground.graph.get("m").account.operations[each].operations for each in (READ, WRITE)] == [1, 2]


async def test_the_wait_is_in_the_account_of_the_node_and_of_the_group(ground, clock):
    await ground.memory("m", MIB)
    node = await limited(ground, "t", "m")
    user = ground.use(node)
    requests = [asyncio.ensure_future(user.write(0, b"x")) for _ in range(4)]
    requests.append(asyncio.ensure_future(user.zero(0, 512)))
    await forward(clock, 1)
    await asyncio.gather(*requests)
    written, zeroed = (node.account.operations[each] for each in (WRITE, WRITE_ZEROES))
    assert (written.throttled, written.throttle_wait_ns) == (2, 300_000_000)
    assert (zeroed.throttled, zeroed.throttle_wait_ns) == (1, 300_000_000)
    assert written.total_time_ns >= written.throttle_wait_ns
    group = ground.graph.environment.throttling.get("t")
    for told in (node.throttle, group):
        assert (told.throttled_operations, told.waited_ns) == (3, 600_000_000)
    below = ground.graph.get("m").account.operations[WRITE]
    assert below.throttled == 0


async def test_a_sampled_request_shows_its_wait(ground, clock):
    await ground.memory("m", MIB)
    user = ground.use(await limited(ground, "t", "m"))
    assert user.write_now(0, b"x") and user.write_now(0, b"x")
    spans = Spans()
    token = tracing.active.set(spans)
    try:
        writing = asyncio.ensure_future(user.write(0, b"y"))
    finally:
        tracing.active.reset(token)
    await forward(clock, 1)
    await writing
    assert spans.seen == ["blk.write throttle", "  blk.throttle_wait", "  blk.write memory"]


async def test_a_drain_lets_what_waits_pass_at_once(ground, clock):
    await ground.memory("m", MIB)
    node = await limited(ground, "t", "m", ThrottleLimits(bps_total=Rate(1)))
    user = ground.use(node)
    writing = [asyncio.ensure_future(user.write(at * KIB, b"x" * KIB)) for at in range(20)]
    await forward(clock, 1)
    assert sum(task.done() for task in writing) == 1
    async with drained(node):
        assert all(task.done() for task in writing)
    assert not user.write_now(0, b"x"), "and they were counted"
    last = asyncio.ensure_future(user.write(0, b"x"))
    await forward(clock, 1)
    assert not last.done(), "after the drain the limits are back"
    last.cancel()


async def test_a_drain_of_a_format_does_not_wait_for_the_throttle_below(ground, clock):
    node = await limited(ground, "t", ground.file("a.raw", 0), ThrottleLimits(iops_total=Rate(1)))
    cow = await ground.toycow(node, size=64 * KIB)
    user = ground.use(cow)
    writing = [asyncio.ensure_future(user.write(at * 4096, b"x" * 4096)) for at in range(8)]
    await forward(clock, 0.5)
    async with drained(cow):
        assert all(task.done() for task in writing)
    leases = DrainLeases(ground.graph)
    writing = [asyncio.ensure_future(user.write(at * 4096, b"y" * 4096)) for at in range(8)]
    await forward(clock, 0.5)
    leases.end(await leases.begin(cow.name))
    await asyncio.gather(*writing)
    leases.close()


async def test_a_filter_is_taken_out_while_requests_wait(ground, clock):
    below = await ground.memory("m", MIB)
    node = await limited(ground, "t", "m", ThrottleLimits(bps_total=Rate(1)))
    user = ground.use(node)
    writing = [asyncio.ensure_future(user.write(0, b"x" * KIB)) for _ in range(5)]
    await forward(clock, 0)
    await remove_filter(ground.graph, node)
    await asyncio.gather(*writing)
    await ground.graph.close("t")
    assert user.node is below and user.write_now(0, b"x" * KIB)
    ground.graph.environment.throttling.delete("t")


async def test_a_node_opened_only_to_validate_is_no_member(ground):
    await ground.memory("m", MIB)
    group = ground.graph.environment.throttling.create("g", SLOW)
    definition = NodeDefinition("throttle", "t", {"throttle_group": "g"}, {"file": "m"})
    await ground.graph.open(definition, validate_only=True)
    assert not group.members


async def test_groups_are_shared_across_nodes_and_sides_keep_their_order(ground, clock):
    groups = ground.graph.environment.throttling
    groups.create("g", ThrottleLimits(iops_total=Rate(100)))
    users = []
    for name in ("a", "b"):
        await ground.memory(f"{name}-disk", MIB)
        definition = NodeDefinition("throttle", name, {"throttle_group": "g"}, {"file": f"{name}-disk"})
        users.append(ground.use(await ground.graph.open(definition)))
    order: dict[str, list[int]] = {"a": [], "b": []}

    async def read(at: int, number: int) -> None:
        await users[at].read(0, memoryview(bytearray(1)))
        order["ab"[at]].append(number)

    tasks = [asyncio.ensure_future(read(at, number)) for at in (0, 1) for number in range(100)]
    await forward(clock, 1)
    assert abs(len(order["a"]) - len(order["b"])) <= 11, "the first ten pass inline"
    assert all(numbers == list(range(len(numbers))) for numbers in order.values())
    assert len(order["a"]) + len(order["b"]) == 111
    await forward(clock, 2)
    await asyncio.gather(*tasks)
    assert groups.get("g").queued == 0
    assert users[0].node.throttle.queued == (0, 0) and WRITE_SIDE == 1
