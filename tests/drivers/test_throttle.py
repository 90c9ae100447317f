"""Driver `throttle`: passes requests on when its group lets it, and counts them there."""

import pytest

from blockyard.base.errors import MissingOption, ResourceNotFound
from blockyard.node.core.throttle import READ_SIDE, WRITE_SIDE, Rate, ThrottleLimits
from blockyard.node.drivers.throttle import ThrottleDriver
from blockyard.node.interface.child import Child
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground


class TestThrottle(DriverContract):
    driver = "throttle"
    survives_close = False
    discard_zeroes = True

    async def prepare(self, ground: Ground) -> None:
        high = Rate(10**9)
        ground.throttling.create("g", ThrottleLimits(iops_total=high, bps_read=high, bps_write=high))

    def options(self) -> dict[str, object]:
        return {"throttle_group": "g"}

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"file": await ground.open("memory", {"size": self.size}, read_only=read_only)}

    async def test_a_group_that_does_not_exist_is_refused(self, ground: Ground):
        with pytest.raises(ResourceNotFound) as refusal:
            await self.node(ground, throttle_group="other")
        assert (refusal.value.kind, refusal.value.name) == ("throttle group", "other")

    async def test_a_group_must_be_named(self, ground: Ground):
        with pytest.raises(MissingOption):
            await ground.open("throttle", {}, await self.children(ground, False))

    async def test_an_open_node_is_a_member_and_a_closed_one_is_not(self, ground: Ground):
        group = ground.throttling.get("g")
        node = await self.node(ground)
        assert [member.node_name for member in group.members] == [node.node_name]
        await ground.close_all()
        assert not group.members

    async def test_each_request_is_counted_once_however_it_is_served(self, ground: Ground):
        node = await self.counted(ground)
        buffer = memoryview(bytearray(1000))
        assert node.read_now(0, buffer)
        await node.read(0, buffer)
        assert self.owed(ground) == (2000, 0)
        assert node.write_now(0, buffer)
        await node.write(0, buffer)
        await node.driver.zero(0, 1000, 0)
        await node.driver.discard(0, 1000)
        assert self.owed(ground) == (2000, 4000)

    async def test_flushes_status_and_sizes_are_not_counted(self, ground: Ground):
        node = await self.counted(ground)
        await node.flush()
        await node.map(0, 1000)
        await node.truncate(2 * self.size)
        assert self.owed(ground) == (0, 0)

    async def test_what_the_child_does_not_do_inline_is_not_counted_until_it_is_awaited(self, ground: Ground):
        slow = await ground.open("null", {"latency_ns": 1000})
        node = await self.counted(ground, slow)
        assert not node.read_now(0, memoryview(bytearray(1000))) and not node.write_now(0, bytes(1000))
        assert self.owed(ground) == (0, 0)

    async def counted(self, ground: Ground, child: Child | None = None) -> DriverChild:
        """A node in a group whose buckets hardly leak."""
        one = Rate(1, 10**6)
        ground.throttling.create("counting", ThrottleLimits(bps_read=one, bps_write=one))
        children = {"file": child} if child else await self.children(ground, False)
        node = await ground.open("throttle", {"throttle_group": "counting"}, children)
        assert isinstance(node.driver, ThrottleDriver)
        return node

    def owed(self, ground: Ground) -> tuple[int, int]:
        """Bytes in the buckets of reads and writes."""
        throttle = ground.throttling.get("counting").throttle
        now_ns = ground.clock.monotonic_ns()
        found = [
            max(0.0, bucket.empty_ns - now_ns) / bucket.unit_ns
            for side in (READ_SIDE, WRITE_SIDE)
            for bucket in throttle.active[side]
        ]
        return round(found[0]), round(found[1])
