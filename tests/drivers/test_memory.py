"""Driver `memory`: sparse bytes, served inline, lost at close."""

import pytest

from blockyard.base.errors import InvalidArgument, NoSpace
from blockyard.base.units import KIB, MAX_SIZE, MIB, TIB
from blockyard.node.drivers import memory
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.mapping import MapKind
from tests.support.contract import DriverContract
from tests.support.ground import Ground


class TestMemory(DriverContract):
    driver = "memory"
    survives_close = False
    discard_zeroes = True

    def options(self) -> dict[str, object]:
        return {"size": self.size}

    async def test_every_request_is_served_inline(self, ground: Ground):
        node = await self.node(ground)
        assert node.write_now(0, bytes(MIB))
        assert node.read_now(0, memoryview(bytearray(MIB)))

    async def test_a_terabyte_costs_nothing_until_it_is_written(self, ground: Ground):
        node = await self.node(ground, size=TIB)
        await node.write(TIB - 1, b"x")
        assert (await node.driver.info()).allocated_bytes == memory.CHUNK
        mapping = await node.map(0, TIB)
        assert mapping.kind is MapKind.ZERO
        assert mapping.length >= 1 << 30

    async def test_zeroing_whole_chunks_gives_their_memory_back(self, ground: Ground):
        node = await self.node(ground)
        await node.write(0, b"x" * MIB)
        await node.zero(1, MIB - 1)
        assert (await node.driver.info()).allocated_bytes == memory.CHUNK
        await node.write(0, b"x" * MIB)
        await node.discard(0, MIB)
        assert (await node.driver.info()).allocated_bytes == 0

    async def test_memory_beyond_the_limit_is_no_space(self, ground: Ground, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(memory, "MEMORY_LIMIT", 2 * memory.CHUNK)
        node = await self.node(ground)
        await node.write(0, b"x" * (128 * KIB))
        with pytest.raises(NoSpace):
            await node.write(512 * KIB, b"x")
        await node.write(0, b"y" * (128 * KIB))

    async def test_preallocation_makes_no_sense(self, ground: Ground):
        node = await self.node(ground)
        with pytest.raises(InvalidArgument):
            await node.truncate(2 * MIB, Preallocation.FULL)

    @pytest.mark.parametrize("size", [-1, MAX_SIZE + 1])
    async def test_a_size_outside_the_offset_space_is_refused(self, ground: Ground, size: int):
        with pytest.raises(Exception, match="size"):
            await self.node(ground, size=size)
