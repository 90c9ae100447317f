"""Driver `null`: forgets everything, as slowly as asked."""

import asyncio

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import BlockError
from blockyard.base.units import GIB
from blockyard.node.interface.mapping import MapKind
from tests.support.contract import DriverContract
from tests.support.ground import Ground


class TestNull(DriverContract):
    driver = "null"
    keeps_data = False
    survives_close = False
    grows_by_writing = False

    def options(self) -> dict[str, object]:
        return {"size": self.size}

    async def test_the_default_size_is_a_gibibyte(self, ground: Ground):
        assert (await ground.open("null")).size == GIB

    async def test_a_read_never_shows_what_was_in_the_buffer(self, ground: Ground):
        for read_zeroes in (True, False):
            node = await self.node(ground, read_zeroes=read_zeroes)
            buffer = memoryview(bytearray(b"secret"))
            assert node.read_now(0, buffer)
            assert bytes(buffer) == bytes(6)

    async def test_block_status_says_data_where_zeroes_are_not_promised(self, ground: Ground):
        assert (await (await self.node(ground)).map(0, 10)).kind is MapKind.ZERO
        assert (await (await self.node(ground, read_zeroes=False)).map(0, 10)).kind is MapKind.DATA

    async def test_a_latency_is_waited_for_on_the_clock_of_the_node(self, ground: Ground):
        ground.clock = clock = VirtualClock()
        node = await self.node(ground, latency_ns=2_000_000_000)
        assert not node.read_now(0, memoryview(bytearray(1)))
        assert not node.write_now(0, b"x")
        request = asyncio.ensure_future(node.write(0, b"x"))
        await clock.advance(0)
        await clock.advance(1.9)
        assert not request.done()
        await clock.advance(0.2)
        assert request.done()

    @pytest.mark.parametrize("wrong", [{"size": -1}, {"size": 1 << 63}, {"latency_ns": -1}, {"latency_ns": 10**12}])
    async def test_numbers_that_cannot_be_are_refused(self, ground: Ground, wrong: dict[str, object]):
        with pytest.raises(BlockError):
            await self.node(ground, **wrong)
