"""Compressed writes over the API: by the filter, by the flag of a write, by the flag of a session."""

import pytest

from blockyard.base.errors import OperationUnsupported
from blockyard.client.definitions import compress, file, memory, qcow2
from tests.support.node_calls import NodeHouse

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
async def image(house: NodeHouse) -> NodeHouse:
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    return house


async def compressed(house: NodeHouse) -> int:
    return sum([each.length_bytes async for each in house.client.data.block_status("a") if each.compressed])


async def test_every_write_through_the_filter_is_compressed(image: NodeHouse):
    state = await image.client.nodes.open(compress("a", node_name="c"))
    assert state.limits.request_alignment_bytes == 64 * KIB
    await image.client.data.write("c", 100, b"x" * 10)
    assert await compressed(image) == 64 * KIB
    assert await image.client.data.read("c", 99, 12) == b"\0" + b"x" * 10 + b"\0"


async def test_a_write_and_a_session_can_ask_for_it_themselves(image: NodeHouse):
    await image.client.data.write("a", 0, b"x" * 64 * KIB, compressed=True)
    async with image.client.data.session("a") as session:
        await session.write(128 * KIB, b"y" * 64 * KIB, compressed=True)
        await session.write(256 * KIB, b"z" * 64 * KIB)
    assert await compressed(image) == 128 * KIB
    assert await image.client.data.read("a", 128 * KIB, 64 * KIB) == b"y" * 64 * KIB


async def test_a_session_s_zeroes_may_refuse_to_be_written(image: NodeHouse):
    async with image.client.data.session("a") as session:
        await session.write(0, b"x" * 128 * KIB)
        await session.write_zeroes(0, 64 * KIB, no_fallback=True)
        with pytest.raises(OperationUnsupported):
            await session.write_zeroes(64 * KIB, 100, no_fallback=True)
        assert (await session.read(0, 64 * KIB), await session.read(64 * KIB, 4)) == (b"\0" * 64 * KIB, b"xxxx")


async def test_a_node_that_stores_nothing_compressed_cannot_be_below(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="m"))
    with pytest.raises(OperationUnsupported):
        await house.client.nodes.open(compress("m", node_name="c"))


async def test_the_ability_is_told(house: NodeHouse):
    abilities = {driver.name: list(driver.abilities) for driver in await house.client.server.drivers()}
    assert "compresses" in abilities["qcow2"]
    assert "compresses" not in abilities["raw"]
